//! Made-up ledgers and messages for the tests of this module.

use super::listing::{Collector, Listed};
use ed25519_dalek::SigningKey;
use postkeep_shared::{
    mail::{Digest, MailboxId, Uidl},
    receipt::{Entry, EntryBody, Event, Evidence, Flags, NodeKey, write_receipt_field},
};

/// The mailbox of every sample.
pub(crate) const MAILBOX: MailboxId = MailboxId([0xab; 16]);

const SALT: [u8; 32] = [5; 32];

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

/// The node of every sample.
pub(crate) fn node() -> NodeKey {
    NodeKey(key().verifying_key().to_bytes())
}

/// SHA-256 behind the salt of every sample.
pub(crate) fn salted_digest(content: &[u8]) -> Digest {
    Digest::of(&[SALT.as_slice(), content].concat())
}

/// A ledger of `count` acceptances.
pub(crate) fn ledger(count: u64) -> Vec<Entry> {
    ledger_salted(count, 0)
}

/// Another ledger of the same node.
pub(crate) fn ledger_salted(count: u64, salt: u8) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for seq in 1..=count {
        let prev = entries.last().map_or(Digest([salt; 32]), Entry::hash);
        let mut name = [salt; 16];
        name[0] = seq as u8;
        entries.push(accepted(seq, Uidl(name), b"content", 100, prev));
    }
    entries
}

/// A signed acceptance.
pub(crate) fn accepted(seq: u64, uidl: Uidl, content: &[u8], sealed_content: u64, prev: Digest) -> Entry {
    let flags = if content.ends_with(b"\r\n") { Flags::ENDS_WITH_CRLF } else { Flags::default() };
    EntryBody {
        event: Event::Accepted,
        flags,
        seq,
        time_ms: 1_787_044_443_123,
        mailbox: MAILBOX,
        uidl,
        size: content.len() as u64,
        sealed_content,
        refers_to: 0,
        sealed_sha256: Digest([1; 32]),
        digest: salted_digest(content),
        prev,
    }
    .sign(&key())
}

/// A signed removal.
pub(crate) fn removed(seq: u64, uidl: Uidl, refers_to: u64, prev: Digest) -> Entry {
    let mut body = accepted(seq, uidl, b"", 0, prev).body;
    body.event = Event::Removed;
    body.refers_to = refers_to;
    body.sign(&key())
}

/// A message as XRETR gives it, with its receipt.
pub(crate) fn message(seq: u64, uidl: Uidl, content: &[u8]) -> (Vec<u8>, Entry) {
    message_after(seq, uidl, content, Digest([0; 32]))
}

/// A message that the gateway found without an entry and adopted: nobody measured it.
pub(crate) fn adopted(seq: u64, uidl: Uidl, content: &[u8]) -> (Vec<u8>, Entry) {
    let (octets, measured) = message(seq, uidl, content);
    let flags = Flags::RECOVERED;
    let body = EntryBody { flags, size: 0, digest: Digest([0; 32]), ..measured.body.clone() };
    let entry = body.sign(&key());
    let head = octets.len() - content.len() - write_receipt_field(&measured).len();
    let trace = octets.get(..head).unwrap_or_default();
    ([trace, write_receipt_field(&entry).as_bytes(), content].concat(), entry)
}

/// As [`message`], continuing a ledger.
pub(crate) fn message_after(seq: u64, uidl: Uidl, content: &[u8], prev: Digest) -> (Vec<u8>, Entry) {
    let evidence = Evidence {
        mailbox: MAILBOX,
        uidl,
        salt: SALT,
        ip: "192.0.2.1".into(),
        reverse_name: None,
        helo: "mail.aurora.example".into(),
        mail_from: String::new(),
        rcpt_to: format!("{MAILBOX}@msgw.example"),
        tls: None,
        certificate: None,
        verified: None,
    };
    let trace = format!("Return-Path: <>\r\nReceived: from x by y; date\r\n{}", evidence.to_field());
    let sealed = trace.len() as u64 + content.len() as u64;
    let entry = accepted(seq, uidl, content, sealed, prev);
    let octets = [trace.as_bytes(), write_receipt_field(&entry).as_bytes(), content].concat();
    (octets, entry)
}

/// One waiting message.
pub(crate) fn listed(number: u32, size: u64, uidl: &str) -> Listed {
    let mut collector = Collector::default();
    collector.counted = Some(1);
    collector.size(number, size);
    collector.name(number, uidl.as_bytes().to_vec());
    collector.finish(true).messages.remove(0)
}
