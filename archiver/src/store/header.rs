//! What a listing shows of a message, and its identity: both from its header block.
//!
//! Identity: messages that differ only in fields that are added on the way (Received, Authentication-Results, …) are
//! one message to an owner. Fields that the author wrote and every octet of the body must be the same; a message
//! without Message-ID is the same only octet for octet.

use super::{entry::Summary, keyring::Keyring, recipe::Hex};
use crate::octets::Octets;
use mail_parser::{Address, HeaderName, MessageParser};
use postkeep_shared::mail::Hasher;
use std::{collections::BTreeMap, io};

/// Octets of a header block that are looked at.
const MAX_HEADER: u64 = 1024 * 1024;
/// Fields an author writes; and every `Content-…`.
const STABLE: [&str; 9] = ["from", "sender", "to", "cc", "bcc", "subject", "date", "message-id", "mime-version"];

/// Reads all octets once: digest, identity, and what a listing shows.
pub(crate) fn summarise(keys: &Keyring, message: &dyn Octets) -> io::Result<Summary> {
    let head = message.view(0..message.len().min(MAX_HEADER))?;
    let body = header_end(&head);
    let header = head.get(..body).unwrap_or_default();
    let fields = fields(header);
    let mut digest = Hasher::default();
    let mut identity = keys.chunk_hasher();
    identity.update(b"postkeep identity v1\0");
    for (name, values) in &fields {
        for value in values {
            let octets = [name.as_bytes(), b":", value].concat();
            identity.update(&(octets.len() as u64).to_be_bytes());
            identity.update(&octets);
        }
    }
    identity.update(&u64::MAX.to_be_bytes());
    let (mut at, body) = (0, body as u64);
    message.for_each_block(0..message.len(), &mut |block| {
        digest.update(block);
        let skip = usize::try_from(body.saturating_sub(at)).unwrap_or(usize::MAX).min(block.len());
        identity.update(block.get(skip..).unwrap_or_default());
        at += block.len() as u64;
        Ok(())
    })?;
    let sha256 = digest.finish().0;
    let id = first16(&keys.name("message id", &[&sha256]));
    let named = fields.contains_key("message-id");
    let identity = if named { first16(identity.finalize().as_bytes()) } else { id };
    Ok(shown(
        header,
        Summary {
            id: Hex(id),
            sha256: Hex(sha256),
            size: message.len(),
            identity: Hex(identity),
            date: None,
            from: None,
            to: Vec::new(),
            subject: None,
        },
    ))
}

fn first16(octets: &[u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(octets) {
        *to = *from;
    }
    out
}

/// Where the body begins.
fn header_end(head: &[u8]) -> usize {
    let mut at = 0;
    while let Some(lf) = memchr::memchr(b'\n', head.get(at..).unwrap_or_default()) {
        let line = head.get(at..at + lf).unwrap_or_default();
        at += lf + 1;
        if matches!(line, b"" | b"\r") {
            return at;
        }
    }
    head.len()
}

/// The stable fields by name, values with white space made uniform: relays fold anew.
fn fields(header: &[u8]) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut found: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let mut current: Option<(String, Vec<u8>)> = None;
    let mut close = |field: Option<(String, Vec<u8>)>| {
        if let Some((name, value)) = field {
            found.entry(name).or_default().push(uniform(&value));
        }
    };
    let ends = memchr::memchr_iter(b'\n', header).chain([header.len()]);
    let mut start = 0;
    for end in ends {
        let line = header.get(start..end).unwrap_or_default();
        start = end + 1;
        if matches!(line.first(), Some(b' ' | b'\t')) {
            if let Some((_, value)) = &mut current {
                value.extend_from_slice(line);
            }
            continue;
        }
        close(current.take());
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = line.split_at(colon);
        let name = String::from_utf8_lossy(name);
        let name = name.trim();
        let content = name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("content-"));
        if content || STABLE.iter().any(|stable| name.eq_ignore_ascii_case(stable)) {
            let name = name.to_ascii_lowercase();
            current = Some((name, value.get(1..).unwrap_or_default().to_vec()));
        }
    }
    close(current);
    found
}

fn uniform(value: &[u8]) -> Vec<u8> {
    let words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(&b' ')
}

fn shown(header: &[u8], mut summary: Summary) -> Summary {
    // Of most fields nothing is shown, and reading all the others that are known takes longer than these four.
    let parser = MessageParser::new()
        .header_address(HeaderName::From)
        .header_address(HeaderName::To)
        .header_date(HeaderName::Date)
        .header_text(HeaderName::Subject)
        .default_header_ignore();
    let Some(parsed) = parser.parse_headers(header) else { return summary };
    let address = |address: &mail_parser::Addr<'_>| address.address().map(str::to_owned);
    let all = |list: Option<&Address<'_>>| -> Vec<String> {
        list.map(|list| list.iter().filter_map(address).collect()).unwrap_or_default()
    };
    summary.date = parsed.date().map(mail_parser::DateTime::to_timestamp);
    summary.from = all(parsed.from()).into_iter().next();
    summary.to = all(parsed.to());
    summary.subject = parsed.subject().map(str::to_owned);
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(text: &str) -> Summary {
        summarise(&Keyring::derive([1; 16], &[2; 32]), &text.as_bytes().to_vec()).expect("memory reads")
    }

    #[test]
    fn forks_are_one_and_same_ids_with_other_content_are_not() {
        let base = "Received: a\r\nMessage-ID: <1@x>\r\nSubject: long\r\n subject\r\nFrom: A <a@x>\r\nTo: b@x, c@x\r\n\
            Date: Tue, 18 Aug 2026 10:00:00 +0200\r\n\r\nbody\r\n";
        let fork = base.replace("Received: a", "Received: b\r\nX-New: y").replace("long\r\n subject", "long subject");
        let (one, two) = (summary(base), summary(&fork));
        assert_eq!(one.identity, two.identity);
        assert_ne!(one.id, two.id);
        assert_eq!((one.from.as_deref(), one.to.len()), (Some("a@x"), 2));
        assert_eq!((one.subject.as_deref(), one.date), (Some("long subject"), Some(1_787_040_000)));
        for change in [("body", "Body"), ("c@x", "d@x"), ("<1@x>", "<2@x>")] {
            assert_ne!(one.identity, summary(&base.replace(change.0, change.1)).identity, "{change:?}");
        }
        let bare = base.replace("Message-ID: <1@x>\r\n", "");
        assert_ne!(summary(&bare).identity, summary(&bare.replace("Received: a", "Received: b")).identity);
    }

    #[test]
    fn any_octets_have_a_summary() {
        for text in ["", "\n", "no header", "Subject: x", "Date: nonsense\n\n", ": :\n :\n\n\u{0}"] {
            assert_eq!(summary(text).size, text.len() as u64);
        }
    }
}
