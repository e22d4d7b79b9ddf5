//! One mail of ours: subject, text, maybe HTML beside it, maybe files.

use mail_send::mail_builder::{
    MessageBuilder,
    headers::{date::Date, raw::Raw},
};
use serde::{Deserialize, Serialize};

/// Longest subject: it must be whole on one line of a telephone.
const SUBJECT: usize = 120;

/// What is to be said. Kept in the queue as it is, so a mail that is sent again is the same mail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// One line.
    pub subject: String,
    /// Plain text; lines end with LF.
    pub text: String,
    /// The same for a browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// Files that go with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Attachment>,
    /// Seconds since 1970-01-01 UTC, for Date.
    pub written: i64,
    /// A letter that waits and has the same word here is replaced by this one: yesterday's status, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

/// A file that goes with a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name.
    pub name: String,
    /// Such as `text/plain`.
    pub media_type: String,
    /// Its content.
    #[serde(with = "base64")]
    pub octets: Vec<u8>,
}

impl Letter {
    /// The message as it is sent. `id`: the Message-ID without its brackets.
    #[must_use]
    pub fn message(&self, from: &str, to: &str, id: &str) -> Vec<u8> {
        let subject = one_line(&self.subject);
        let mut message = MessageBuilder::new()
            .from(("Postkeep", from))
            .to(to)
            .date(Date::new(self.written))
            .message_id(id)
            .header("Auto-Submitted", Raw::new("auto-generated"))
            .text_body(self.text.as_str());
        // Plain subjects stay plain: encoded ones are hard to filter by and to read in a log.
        message = if subject.is_ascii() {
            message.header("Subject", Raw::new(subject.as_str()))
        } else {
            message.subject(subject.as_str())
        };
        if let Some(html) = &self.html {
            message = message.html_body(html.as_str());
        }
        for file in &self.files {
            message = message.attachment(file.media_type.as_str(), file.name.as_str(), file.octets.as_slice());
        }
        let mut out = Vec::new();
        message.serialize(&mut out);
        out
    }
}

/// A subject on one line: control characters would begin a header field of somebody else's choice.
fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match clean.char_indices().nth(SUBJECT) {
        Some((end, _)) => format!("{}…", clean.get(..end).unwrap_or_default()),
        None => clean,
    }
}

mod base64 {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(octets: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&data_encoding::BASE64.encode(octets))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        data_encoding::BASE64.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_who_when_and_that_nobody_wrote_it() {
        let letter = Letter {
            subject: "two\r\nBcc: x@y.example".into(),
            text: "Line\n.\nÄnd\n".into(),
            html: Some("<p>Line</p>".into()),
            files: vec![Attachment { name: "a.txt".into(), media_type: "text/plain".into(), octets: vec![0, 255] }],
            written: 1_790_553_600,
            replaces: None,
        };
        let text =
            String::from_utf8(letter.message("pk@a.example", "admin@b.example", "abc@a.example")).expect("ASCII");
        for wanted in [
            "From: \"Postkeep\" <pk@a.example>\r\n",
            "To: <admin@b.example>\r\n",
            "Message-ID: <abc@a.example>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "Date: Mon, 28 Sep 2026 00:00:00 +0000\r\n",
            "multipart/alternative",
            "AP8=",
        ] {
            assert!(text.contains(wanted), "{wanted} in\n{text}");
        }
        assert!(text.contains("Subject: two  Bcc: x@y.example\r\n"), "{text}");
        assert!(!text.contains("\nBcc:"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 998));
        let kept = serde_json::to_string(&letter).expect("JSON");
        assert_eq!(serde_json::from_str::<Letter>(&kept).expect("reads"), letter);
    }

    #[test]
    fn subjects_are_short() {
        assert_eq!(one_line(&"ä".repeat(200)).chars().count(), SUBJECT + 1);
        assert_eq!(one_line("as it is"), "as it is");
    }
}
