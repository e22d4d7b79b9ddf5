//! The envelope text of a report: [MS-XJRNL] 2.1, and the older form of Exchange 2003.
//!
//! One field per line, names in any case. `To`, `Cc`, `Bcc` and `Recipient` name one address each, with the group it was
//! expanded from or the user it was redirected from behind a comma; `Recipients:` (Exchange 2003) is followed by one
//! indented line per address. Text of a field is never a field. The first empty line behind a recipient ends it: relays
//! append disclaimers. More than the grammar is read, with a warning: nothing that may be a recipient is lost.

use super::{Recipient, RecipientKind, address};

/// An envelope as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Envelope {
    /// Empty for the null sender.
    pub sender: Option<String>,
    pub on_behalf_of: Option<String>,
    pub subject: Option<String>,
    pub message_id: Option<String>,
    pub recipients: Vec<Recipient>,
    pub warnings: Vec<String>,
}

/// A field before its value is understood.
struct Line {
    name: String,
    value: String,
    /// The indented lines behind it.
    folded: Vec<String>,
}

impl Envelope {
    /// Reads the decoded text.
    pub(super) fn parse(text: &str) -> Self {
        let mut envelope = Self::default();
        envelope.read(text);
        envelope
    }

    /// Sender and at least one recipient: without them nobody knows whose message it is.
    pub(super) fn is_valid(&self) -> bool {
        self.sender.is_some() && !self.recipients.is_empty()
    }

    fn warn(&mut self, text: &str) {
        if !self.warnings.iter().any(|known| known == text) {
            self.warnings.push(text.to_owned());
        }
    }

    /// Takes field after field; only the one at hand is held.
    fn read(&mut self, text: &str) {
        // A lone CR ends lines only where nothing else does: in other texts it is content, such as of a subject.
        let separator = if text.trim_end().contains('\n') { '\n' } else { '\r' };
        let (mut open, mut begun, mut recipient_seen, mut ended) = (None::<Line>, false, false, false);
        for raw in text.split(separator) {
            let raw = raw.strip_suffix('\r').unwrap_or(raw);
            if raw.trim().is_empty() {
                ended |= recipient_seen;
                continue;
            }
            if ended {
                self.warn("text after the envelope");
                break;
            }
            if raw.starts_with([' ', '\t']) && begun {
                // Behind a line that is no field, this is none either.
                open.iter_mut().for_each(|line| line.folded.push(raw.trim().to_owned()));
                continue;
            }
            begun = true;
            open.take().into_iter().for_each(|line| self.field(line));
            match raw.split_once(':') {
                Some((name, value)) => {
                    let name = name.trim().to_ascii_lowercase();
                    recipient_seen |= recipient_kind(&name).is_some();
                    open = Some(Line { name, value: value.trim().to_owned(), folded: Vec::new() });
                }
                None => self.warn("a line that is no field"),
            }
        }
        open.into_iter().for_each(|line| self.field(line));
    }

    fn field(&mut self, line: Line) {
        if line.name == "recipients" {
            for value in std::iter::once(&line.value).chain(&line.folded) {
                self.recipients_of(value, RecipientKind::Unspecified, true);
            }
            return;
        }
        if !line.folded.is_empty() {
            self.warn("folded lines");
        }
        let mut value = line.value;
        for more in &line.folded {
            value.push_str(if value.is_empty() { "" } else { " " });
            value.push_str(more);
        }
        if let Some(kind) = recipient_kind(&line.name) {
            return self.recipients_of(&value, kind, false);
        }
        match line.name.as_str() {
            "sender" => self.once(|e| &mut e.sender, address::single(&value)),
            "on-behalf-of" => {
                let address = address::single(&value);
                if !address.is_empty() {
                    self.once(|e| &mut e.on_behalf_of, address);
                }
            }
            "subject" => self.once(|e| &mut e.subject, value),
            "message-id" => self.once(|e| &mut e.message_id, value),
            // Optional fields of the grammar; nothing here depends on them.
            "label" | "mailbox" | "sentutc" | "receivedutc" => {}
            _ => self.warn("unknown field"),
        }
    }

    /// The first one counts: what stands behind it may have been added.
    fn once(&mut self, field: fn(&mut Self) -> &mut Option<String>, value: String) {
        match field(self) {
            Some(_) => self.warn("a field that is there twice"),
            empty => *empty = Some(value),
        }
    }

    fn recipients_of(&mut self, value: &str, kind: RecipientKind, names_are_usual: bool) {
        for specification in specifications(value) {
            let (paths, redirections) = redirections(&specification);
            let entries = address::list(&paths);
            if !names_are_usual && (entries.len() > 1 || entries.iter().any(|e| !e.bare)) {
                self.warn("recipients not written as one bare address");
            }
            let original = |wanted: Redirection| {
                let path = redirections.iter().find(|(r, _)| *r == wanted).map(|(_, path)| path);
                path.map(|p| address::single(p)).filter(|a| !a.is_empty())
            };
            let (expanded, forwarded) = (original(Redirection::Expanded), original(Redirection::Forwarded));
            for entry in entries.into_iter().filter(|e| !e.address.is_empty()) {
                self.recipients.push(Recipient {
                    address: entry.address,
                    kind,
                    expanded_from: expanded.clone(),
                    forwarded_from: forwarded.clone(),
                });
            }
            // A list behind the redirection: the grammar has one path there, the others can only be recipients.
            for (_, path) in &redirections {
                for entry in address::list(path).into_iter().skip(1).filter(|e| !e.address.is_empty()) {
                    self.warn("recipients not written as one bare address");
                    let address = entry.address;
                    self.recipients.push(Recipient { address, kind, expanded_from: None, forwarded_from: None });
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Redirection {
    Expanded,
    Forwarded,
}

fn recipient_kind(name: &str) -> Option<RecipientKind> {
    match name {
        "to" => Some(RecipientKind::To),
        "cc" => Some(RecipientKind::Cc),
        "bcc" => Some(RecipientKind::Bcc),
        "recipient" | "recipients" => Some(RecipientKind::Unspecified),
        _ => None,
    }
}

/// Entries of a `;` list, each with its own redirection. Groups keep together: their members have none.
fn specifications(value: &str) -> Vec<String> {
    match value.starts_with('/') || !value.contains(';') {
        true => vec![value.to_owned()],
        false => address::cut(value, &[';']),
    }
}

/// Cuts `, Expanded: path` and `, Forwarded: path` off.
fn redirections(value: &str) -> (String, Vec<(Redirection, String)>) {
    let (mut paths, mut found): (String, Vec<(Redirection, String)>) = (String::new(), Vec::new());
    for (index, piece) in address::cut(value, &[',']).into_iter().enumerate() {
        let named = piece.split_once(':').and_then(|(name, path)| {
            let name = name.trim();
            let redirection = match () {
                () if name.eq_ignore_ascii_case("expanded") => Redirection::Expanded,
                () if name.eq_ignore_ascii_case("forwarded") => Redirection::Forwarded,
                () => return None,
            };
            Some((redirection, path.trim().to_owned()))
        });
        match (named, found.last_mut()) {
            (Some(redirection), _) => found.push(redirection),
            (None, Some((_, path))) => {
                path.push(',');
                path.push_str(&piece);
            }
            (None, None) => {
                paths.push_str(if index == 0 { "" } else { "," });
                paths.push_str(&piece);
            }
        }
    }
    (paths, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn shown(recipient: &Recipient) -> String {
        let mut text = format!("{:?} {}", recipient.kind, recipient.address);
        if let Some(group) = &recipient.expanded_from {
            text += &format!(" expanded {group}");
        }
        if let Some(user) = &recipient.forwarded_from {
            text += &format!(" forwarded {user}");
        }
        text
    }

    fn recipients(text: &str) -> Vec<String> {
        Envelope::parse(text).recipients.iter().map(shown).collect()
    }

    #[test]
    fn every_field() {
        let envelope = Envelope::parse(
            "Sender: ann@a.example\r\nOn-Behalf-Of: chair@a.example\r\nSubject: To: evil@x.example\r\n\
             Message-Id: <1@a.example>\r\nLabel: x\r\nMailbox: m\r\nSentUtc: 1\r\nReceivedUtc: 2\r\n\
             To: bob@a.example, Expanded: all@a.example\r\nCc: carl@a.example, Forwarded: dora@a.example\r\n\
             Bcc: erik@a.example\r\nRecipient: fritz@a.example\r\n",
        );
        assert_eq!(envelope.sender.as_deref(), Some("ann@a.example"));
        assert_eq!(envelope.on_behalf_of.as_deref(), Some("chair@a.example"));
        assert_eq!(envelope.subject.as_deref(), Some("To: evil@x.example"));
        assert_eq!(envelope.message_id.as_deref(), Some("<1@a.example>"));
        let wanted = [
            "To bob@a.example expanded all@a.example",
            "Cc carl@a.example forwarded dora@a.example",
            "Bcc erik@a.example",
            "Unspecified fritz@a.example",
        ];
        assert_eq!(envelope.recipients.iter().map(shown).collect::<Vec<_>>(), wanted);
        assert_eq!(envelope.warnings, Vec::<String>::new());
        assert!(envelope.is_valid());
    }

    #[test]
    fn tolerated_spellings() {
        let cases: [(&str, &[&str]); 13] = [
            ("sENDER : <a@x>\nTO\t:<b@x>\n", &["To b@x"]),
            ("Sender: a@x\rTo: b@x\rBcc: c@x\r\n", &["To b@x", "Bcc c@x"]),
            ("Recipient: \"Stone, Bob\" <b@x>", &["Unspecified b@x"]),
            ("To: Stone, Bob <b@x>, EXPANDED : <all@x>", &["To b@x expanded all@x"]),
            ("To: b@x; c@x, Expanded: g@x; d@x", &["To b@x", "To c@x expanded g@x", "To d@x"]),
            ("To: Team: b@x, c@x;", &["To b@x", "To c@x"]),
            ("To: b@x, c@x, Forwarded: d@x", &["To b@x forwarded d@x", "To c@x forwarded d@x"]),
            ("To: b@x, Expanded: g@x, Forwarded: d@x", &["To b@x expanded g@x forwarded d@x"]),
            ("To: b@x, Expanded: g@x, c@x", &["To b@x expanded g@x", "To c@x"]),
            ("To: b@x,\r\n\tExpanded: g@x\r\nBcc:\r\n c@x", &["To b@x expanded g@x", "Bcc c@x"]),
            ("To: b@x\r\n\r\nTo: attacker@x\r\n", &["To b@x"]),
            ("To: b@x\r\nwords\r\n To: attacker@x\r\n", &["To b@x"]),
            ("\r\nSender: a@x\r\n\r\nTo: b@x\r\nRecipient:\r\n \t\r\nBcc: no@x", &["To b@x"]),
        ];
        for (text, wanted) in cases {
            assert_eq!(recipients(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_lone_cr_in_a_subject_makes_no_field() {
        let envelope = Envelope::parse("Sender: a@x\r\nSubject: hi\rBcc: evil@x\r\n\tTo: evil@x\r\nTo: b@x\r\n");
        assert_eq!(envelope.recipients.iter().map(shown).collect::<Vec<_>>(), ["To b@x"]);
    }

    #[test]
    fn older_form() {
        let text = "Sender:\r\n\t\"Ann Brook\" <a@x>\r\nMessage-ID: <1@x>\r\nRecipients:\r\n\t\"Stone, Bob\" <b@x>\r\n\tDora\r\n\tzoe <z@y>\r\n\r\nRecipients: no@x\r\n";
        let envelope = Envelope::parse(text);
        assert_eq!(envelope.sender.as_deref(), Some("a@x"));
        assert_eq!(recipients(text), ["Unspecified b@x", "Unspecified Dora", "Unspecified z@y"]);
    }

    #[test]
    fn what_is_not_valid() {
        assert_eq!(Envelope::parse("Sender: <>\r\nTo: b@x").sender.as_deref(), Some(""));
        assert_eq!(Envelope::parse("Sender:\r\nTo: b@x").sender.as_deref(), Some(""));
        for text in
            ["", "To: b@x", "Sender: a@x\r\nSubject: x", "Absender: a@x\r\nEmpfänger: b@x", "Sender: a@x\r\nTo: \r\n"]
        {
            assert!(!Envelope::parse(text).is_valid(), "{text}");
        }
    }

    fn address() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9.+_-]{1,12}@[a-z0-9-]{1,10}\\.example",
            "IMCEAEX-_o=[A-Z][a-z]{1,5}_cn=[a-z]{1,8}@a\\.example",
            "[a-zäöüé]{1,8}@münchen\\.example",
        ]
    }

    fn recipient() -> impl Strategy<Value = Recipient> {
        let kind = prop_oneof![
            Just(RecipientKind::To),
            Just(RecipientKind::Cc),
            Just(RecipientKind::Bcc),
            Just(RecipientKind::Unspecified)
        ];
        (address(), kind, proptest::option::of(address()), any::<bool>()).prop_map(
            |(address, kind, original, expanded)| {
                let (expanded_from, forwarded_from) = if expanded { (original, None) } else { (None, original) };
                Recipient { address, kind, expanded_from, forwarded_from }
            },
        )
    }

    fn envelope() -> impl Strategy<Value = Envelope> {
        let subject =
            prop_oneof!["(To|Bcc|Sender): [a-z]{1,8}@x\\.example", "[!-~]{1,3}[ -~]{0,30}[!-~]", "[a-zäöü€日本]{1,20}"];
        let sender = prop_oneof![Just(String::new()), address()];
        let id = proptest::option::of("<[a-z0-9.]{1,20}@a\\.example>");
        (sender, proptest::option::of(address()), proptest::option::of(subject), id, vec(recipient(), 1..40)).prop_map(
            |(sender, on_behalf_of, subject, message_id, recipients)| Envelope {
                sender: Some(sender),
                on_behalf_of,
                subject,
                message_id,
                recipients,
                warnings: Vec::new(),
            },
        )
    }

    /// By the grammar of [MS-XJRNL] 2.1, and as real servers spell it.
    fn printed(envelope: &Envelope, crlf: bool) -> String {
        let mut lines =
            vec![format!("Sender: {}", envelope.sender.clone().filter(|s| !s.is_empty()).unwrap_or("<>".into()))];
        lines.extend(envelope.on_behalf_of.iter().map(|a| format!("On-Behalf-Of: {a}")));
        lines.extend(envelope.subject.iter().map(|s| format!("Subject: {s}")));
        lines.extend(envelope.message_id.iter().map(|id| format!("Message-Id: {id}")));
        for recipient in &envelope.recipients {
            let name = match recipient.kind {
                RecipientKind::To => "To",
                RecipientKind::Cc => "Cc",
                RecipientKind::Bcc => "Bcc",
                RecipientKind::Unspecified => "Recipient",
            };
            let mut line = format!("{name}: {}", recipient.address);
            line.extend(recipient.expanded_from.iter().map(|a| format!(", Expanded: {a}")));
            line.extend(recipient.forwarded_from.iter().map(|a| format!(", Forwarded: {a}")));
            lines.push(line);
        }
        let end = if crlf { "\r\n" } else { "\n" };
        lines.iter().map(|line| format!("{line}{end}")).collect()
    }

    proptest! {
        #[test]
        fn any_envelope_is_printed_and_read_back(wanted in envelope(), crlf: bool) {
            let read = Envelope::parse(&printed(&wanted, crlf));
            prop_assert!(read.is_valid());
            prop_assert_eq!(read, wanted);
        }
    }
}
