//! Copies of messages: recipients from the header fields that a trusted mail server added, and from the message itself
//! (journal-formats §4 to §6). What marks a journal report means nothing here.
//!
//! A sender can put any field into his message; it stands below the `Received` of the first server he gave it to. So an
//! added field counts only above that one:
//! * with a trusted host given, above the first `Received` it wrote;
//! * without one, above the first `Received` that the host of the topmost one did not write; or, where it wrote
//!   them all, above the topmost.
//!
//! MDaemon and Google add theirs below their `Received`; those count by rules of their own.

use super::{Content, Context, Handling, Kind, Recipient, RecipientKind, Verdict, address, header::Header};
use crate::{filing::normalise, octets::Octets};
use std::collections::HashSet;

/// Fields that name envelope recipients, added above the `Received` of the server that adds them.
const ADDED: [&str; 10] = [
    "x-envelope-to",
    "envelope-to",
    "x-real-rcptto",
    "x-rcptto",
    "x-original-to",
    "delivered-to",
    "x-delivered-to",
    "x-rcpt-to",
    "x-gm-original-to",
    "x-piler-envelope-to",
];
/// What MDaemon writes below its `Received`. `X-MDaemon-Deliver-To` names the archive's mailbox.
const MDAEMON: [&str; 2] = ["x-mdrcpt-to", "x-rcpt-to"];

/// The verdict on a message that is archived as it is.
pub(super) fn examine(octets: &dyn Octets, header: &Header, context: &Context) -> Verdict {
    let mut recipients = Recipients::new(context);
    let kinds = [("to", RecipientKind::To), ("cc", RecipientKind::Cc), ("bcc", RecipientKind::Bcc)];
    for (name, kind) in kinds {
        header.all(name).for_each(|value| recipients.add(value, kind));
    }
    for value in added(header, context) {
        recipients.add(value, RecipientKind::Unspecified);
    }
    let mut senders = ["from", "sender", "return-path"].into_iter().filter_map(|name| header.first(name));
    Verdict {
        kind: Kind::PlainMessage,
        handling: Handling::Archive,
        reason: "an ordinary message".to_owned(),
        warnings: header.too_long.then(|| "a header beyond the limit".to_owned()).into_iter().collect(),
        sender: senders.find_map(|v| Some(address::single(v)).filter(|a| !a.is_empty())),
        on_behalf_of: None,
        recipients: recipients.list,
        subject: header.subject(),
        message_id: header.message_id(),
        content: Some(Content::Range(0..octets.len())),
        alternates: Vec::new(),
        embedded_size: None,
        date: None,
    }
}

/// Every address once, without those of the archive itself.
struct Recipients {
    list: Vec<Recipient>,
    known: HashSet<String>,
}

impl Recipients {
    fn new(context: &Context) -> Self {
        let known = context.rcpt.iter().chain(&context.ignore).map(|a| normalise(a)).collect();
        Self { list: Vec::new(), known }
    }

    fn add(&mut self, value: &str, kind: RecipientKind) {
        for entry in address::list(value) {
            if !entry.address.is_empty() && self.known.insert(normalise(&entry.address)) {
                let address = entry.address;
                self.list.push(Recipient { address, kind, expanded_from: None, forwarded_from: None });
            }
        }
    }
}

/// The values of the fields that a trusted server added.
fn added<'a>(header: &'a Header, context: &'a Context) -> Vec<&'a str> {
    let configured = context.envelope_headers.as_slice();
    let trusted_host = context.trusted_host.as_deref();
    let fields = header.fields();
    let received: Vec<(usize, &str, String)> = fields
        .iter()
        .enumerate()
        .filter(|(_, f)| f.name == "received")
        .map(|(at, f)| (at, f.value.as_str(), host_after(&f.value, "by")))
        .collect();
    let host = trusted_host.map(host_name).or_else(|| received.first().map(|r| r.2.clone())).unwrap_or_default();
    let mut own = received.iter().skip_while(|r| r.2 != host || host.is_empty());
    let Some((at, value, _)) = own.next() else { return Vec::new() };
    let next = own.find(|r| r.2 != host).map(|r| r.0);
    let limit = match trusted_host {
        Some(_) => *at,
        None => next.unwrap_or(*at),
    };
    let above = fields.iter().take(limit);
    if !configured.is_empty() {
        // In the order of the names, not of the fields: the first name is the one that is believed most.
        let of = |name: &'a String| above.clone().filter(move |f| f.name == *name);
        return configured.iter().flat_map(of).map(|f| f.value.as_str()).collect();
    }
    let above = above.filter(|f| ADDED.contains(&f.name.as_str()));
    let mut values: Vec<&str> = above.map(|f| f.value.as_str()).collect();
    let below = fields.iter().skip(at + 1);
    if value.contains("MDaemon") {
        // Its fields follow at once; the first of each name is its own.
        let block: Vec<_> = below.clone().take_while(|f| f.name.starts_with("x-")).collect();
        let first = |name: &&str| block.iter().find(|f| f.name == **name).map(|f| f.value.as_str());
        values.extend(MDAEMON.iter().filter_map(first));
    }
    if host_after(value, "from").ends_with(".google.com") {
        let until_next = below.take(next.unwrap_or(fields.len()).saturating_sub(at + 1));
        values.extend(until_next.filter(|f| f.name == "x-gm-original-to").map(|f| f.value.as_str()));
    }
    values
}

/// The host behind `by` or `from` in a Received field (RFC 5321 §4.4), outside comments.
fn host_after(received: &str, word: &str) -> String {
    let mut depth = 0_u32;
    let outside: String = received
        .chars()
        .filter_map(|c| {
            match c {
                '(' => depth += 1,
                ')' => {
                    depth = depth.saturating_sub(1);
                    return Some(' ');
                }
                _ => {}
            }
            (depth == 0).then_some(c)
        })
        .collect();
    let mut words = outside.split([' ', '\t', ';']).filter(|w| !w.is_empty());
    words.find(|w| w.eq_ignore_ascii_case(word));
    words.next().map(host_name).unwrap_or_default()
}

fn host_name(name: &str) -> String {
    name.trim().trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, trusted_host: Option<&str>) -> Vec<String> {
        let bytes = text.as_bytes().to_vec();
        let header = Header::read(&bytes, 0..bytes.len() as u64).expect("reads");
        let context = Context {
            ignore: vec!["Archive@x.example".into()],
            trusted_host: trusted_host.map(str::to_owned),
            ..Context::default()
        };
        let verdict = examine(&bytes, &header, &context);
        verdict.recipients.into_iter().map(|r| format!("{:?} {}", r.kind, r.address)).collect()
    }

    const MX: &str = "Received: from client by mx1.example; now\r\n";
    const GATE: &str = "Received: from mx1.example (by whom) by gate.example (x) with ESMTP; now\r\n";
    const FORGED: &str =
        "X-Envelope-To: victim@x.example\r\nEnvelope-To: victim@x.example\r\nDelivered-To: victim@x.example\r\n";
    const BASE: &str =
        "From: a@x.example\r\nTo: b@x.example, archive@X.example\r\nCc: B@x.example\r\nBcc: c@x.example\r\n\r\n";

    #[test]
    fn fields_of_the_trusted_server_count() {
        let wanted = ["To b@x.example", "Bcc c@x.example", "Unspecified d@x.example"];
        let field = "X-Envelope-To: d@x.example\r\n";
        for text in [
            format!("{field}{MX}{BASE}"),
            format!("{GATE}{field}{MX}{BASE}"),
            format!("X-REAL-RCPTTO: <d@x.example>\r\n{MX}{BASE}"),
            format!("Delivered-To: archive@x.example\r\nX-Original-To: d@x.example\r\n{GATE}{MX}{BASE}"),
        ] {
            assert_eq!(read(&text, None), wanted, "{text}");
        }
        assert_eq!(read(&format!("{GATE}{field}{MX}{BASE}"), Some("MX1.example.")), wanted);
        assert_eq!(read(&format!("{GATE}{field}{MX}{BASE}"), Some("other.example")).len(), 2);
    }

    #[test]
    fn fields_of_the_sender_do_not() {
        for text in [
            format!("{GATE}{MX}{FORGED}{BASE}"),
            format!("{MX}{FORGED}{BASE}"),
            format!("{FORGED}{BASE}"),
            format!("{GATE}{MX}{FORGED}{MX}{BASE}"),
        ] {
            assert_eq!(read(&text, None), ["To b@x.example", "Bcc c@x.example"], "{text}");
            assert_eq!(read(&text, Some("mx1.example")), ["To b@x.example", "Bcc c@x.example"], "{text}");
        }
        let forged_below = format!("{GATE}{MX}{FORGED}Received: by evil.example\r\n{BASE}");
        assert_eq!(read(&forged_below, Some("mx1.example")).len(), 2);
        assert_eq!(read(&forged_below, None).len(), 2);
    }

    #[test]
    fn configured_headers_count_alone_and_in_their_order() {
        let text = format!(
            "X-First: d@x.example\r\nDelivered-To: e@x.example\r\nX-Second: f@x.example\r\n{MX}X-First: no@x.example\r\n{BASE}"
        );
        let bytes = text.into_bytes();
        let header = Header::read(&bytes, 0..bytes.len() as u64).expect("reads");
        let context = Context { envelope_headers: vec!["x-second".into(), "x-first".into()], ..Context::default() };
        let found: Vec<String> = examine(&bytes, &header, &context).recipients.into_iter().map(|r| r.address).collect();
        assert_eq!(found[found.len() - 2..], ["f@x.example", "d@x.example"]);
        assert!(!found.contains(&"e@x.example".to_owned()) && !found.contains(&"no@x.example".to_owned()));
    }

    #[test]
    fn fields_below_the_received_of_those_who_write_them_there() {
        let google = "Received: from mail-1.google.com ([192.0.2.1]) by gate.example; now\r\n";
        let original = "X-Gm-Original-To: d@x.example\r\n";
        assert!(read(&format!("{google}{original}{BASE}"), None).contains(&"Unspecified d@x.example".to_owned()));
        assert_eq!(read(&format!("{GATE}{MX}{original}{BASE}"), None).len(), 2);
        let mdaemon = "Received: from c by mail.example (MDaemon PRO) with ESMTP; now\r\n";
        let fields = "X-MDRcpt-To: d@x.example\r\nX-MDaemon-Deliver-To: archive@x.example\r\n";
        let forged = "X-MDRcpt-To: victim@x.example\r\n";
        let found = read(&format!("{mdaemon}{fields}{forged}{BASE}"), None);
        assert_eq!(found, ["To b@x.example", "Bcc c@x.example", "Unspecified d@x.example"]);
    }
}
