//! The trace header: the fields the gateway puts before a message, and how to find where the message begins.
//!
//! Sealed with the message, in this order: `Return-Path`, `Received` (RFC 5321 §4.4), `X-Postkeep-Source`. Added when
//! the message is handed out: `X-Postkeep-Receipt`, always last. The first `X-Postkeep-Receipt` field therefore ends
//! the trace header, whatever the message itself holds; what a sender put into his message comes after it.

use super::entry::{ENTRY_LEN, Entry};
use crate::mail::{Digest, MailboxId, Uidl};
use data_encoding::{BASE64, HEXLOWER};

/// Name of the last sealed field.
pub const SOURCE_FIELD: &str = "X-Postkeep-Source";
/// Name of the field that ends the trace header.
pub const RECEIPT_FIELD: &str = "X-Postkeep-Receipt";

/// A trace header longer than this was not written by us.
const MAX_TRACE: usize = 64 * 1024;

/// Octets of names on one line of the source field.
const NAMES_LINE: usize = 900;

/// Base64 digits on one line of the receipt field.
const ENTRY_LINE: usize = 72;

/// What the gateway saw of the sender (product.md: source evidence). Strings are as received, without control
/// characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Mailbox the message was accepted for.
    pub mailbox: MailboxId,
    /// Name of the message.
    pub uidl: Uidl,
    /// 32 random octets; with the message they give the receipt's digest.
    pub salt: [u8; 32],
    /// Client address.
    pub ip: String,
    /// Reverse name of the client, where it was looked up.
    pub reverse_name: Option<String>,
    /// HELO or EHLO argument.
    pub helo: String,
    /// Reverse-path, empty for `<>`.
    pub mail_from: String,
    /// Forward-path as given.
    pub rcpt_to: String,
    /// TLS version and cipher suite, `None` in clear.
    pub tls: Option<String>,
    /// DNS names in a verified client certificate, with commas.
    pub certificate: Option<String>,
    /// Whether the source rules fitted; `None` where no rules are configured.
    pub verified: Option<bool>,
}

/// A trace header that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Octets up to the end of the receipt field: the message starts here.
    pub len: usize,
    /// What the gateway saw.
    pub evidence: Evidence,
    /// The receipt; its signature is not checked here.
    pub receipt: Entry,
}

/// Why there is no trace header of ours at the start of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The message does not start with our fields in our order.
    #[error("no trace header")]
    Missing,
    /// More octets are needed to tell.
    #[error("trace header incomplete")]
    Incomplete,
    /// Our field, but its value cannot be read.
    #[error("trace header damaged")]
    Damaged,
}

impl Evidence {
    /// The `X-Postkeep-Source` field with its CRLF, folded.
    #[must_use]
    pub fn to_field(&self) -> String {
        let verified = match self.verified {
            None => "no-rules",
            Some(true) => "verified",
            Some(false) => "unverified",
        };
        let mut pairs = vec![
            ("v", "1".to_owned()),
            ("mailbox", self.mailbox.to_string()),
            ("uidl", self.uidl.to_string()),
            ("salt", HEXLOWER.encode(&self.salt)),
            ("source", verified.to_owned()),
            ("ip", escape(&self.ip)),
            ("helo", escape(&self.helo)),
            ("mail-from", escape(&self.mail_from)),
            ("rcpt-to", escape(&self.rcpt_to)),
        ];
        let optional = [("rdns", &self.reverse_name), ("tls", &self.tls)];
        pairs.extend(optional.into_iter().filter_map(|(k, v)| v.as_ref().map(|v| (k, escape(v)))));
        pairs.extend(lines_of_names(self.certificate.as_deref()).into_iter().map(|names| ("cert", names)));
        field(SOURCE_FIELD, &pairs)
    }

    fn from_pairs(pairs: &[(String, String)]) -> Option<Self> {
        let get = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let text = |key: &str| get(key).and_then(unescape);
        if get("v") != Some("1") {
            return None;
        }
        Some(Self {
            mailbox: get("mailbox")?.parse().ok()?,
            uidl: get("uidl")?.parse().ok()?,
            salt: HEXLOWER.decode(get("salt")?.as_bytes()).ok()?.try_into().ok()?,
            ip: text("ip")?,
            reverse_name: text("rdns"),
            helo: text("helo")?,
            mail_from: text("mail-from")?,
            rcpt_to: text("rcpt-to")?,
            tls: text("tls"),
            certificate: {
                let names = pairs.iter().filter(|(k, _)| k == "cert").map(|(_, v)| unescape(v));
                names.collect::<Option<Vec<_>>>().filter(|lines| !lines.is_empty()).map(|lines| lines.join(","))
            },
            verified: match get("source")? {
                "verified" => Some(true),
                "unverified" => Some(false),
                _ => None,
            },
        })
    }
}

/// Names with commas, escaped, cut between names so that each piece fits on a line (RFC 5322 §2.1.1: 998 octets).
fn lines_of_names(names: Option<&str>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for name in names.into_iter().flat_map(|names| names.split(',')).map(escape) {
        match lines.last_mut() {
            Some(line) if line.len() + name.len() < NAMES_LINE => {
                line.push(',');
                line.push_str(&name);
            }
            _ => lines.push(name),
        }
    }
    lines
}

/// The `X-Postkeep-Receipt` field with its CRLF, folded. Its length is the same for equal entries, so LIST can be
/// exact without opening a message.
#[must_use]
pub fn write_receipt_field(entry: &Entry) -> String {
    let body = &entry.body;
    let mut pairs = vec![
        ("v", "1".to_owned()),
        ("node", entry.node.id()),
        ("seq", body.seq.to_string()),
        ("time", body.time_ms.to_string()),
        ("size", body.size.to_string()),
        ("digest", body.digest.to_string()),
    ];
    let encoded = BASE64.encode(&entry.encode());
    let lines: Vec<&str> = encoded.as_bytes().chunks(ENTRY_LINE).filter_map(|l| std::str::from_utf8(l).ok()).collect();
    pairs.push(("entry", lines.join("\r\n ")));
    field(RECEIPT_FIELD, &pairs)
}

fn field(name: &str, pairs: &[(&str, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
    format!("{name}: {}\r\n", pairs.join(";\r\n "))
}

/// Keeps what is readable and cannot end a value; the rest becomes `%XX` per octet.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_:@/+=[]<>,!#$&'*?^`{|}~()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let (hex, tail) = tail.split_first_chunk::<2>()?;
            out.extend(data_encoding::HEXUPPER_PERMISSIVE.decode(hex).ok()?);
            rest = tail;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

/// Finds and reads the trace header at the start of `message`.
///
/// # Errors
/// [`TraceError::Incomplete`] asks for more octets (never beyond 64 KiB); the others are final.
pub fn parse_trace(message: &[u8]) -> Result<Trace, TraceError> {
    let (at, evidence) = parse_sealed_trace(message)?;
    let (value, end) = named_field(message, at, RECEIPT_FIELD, receipt_end)?;
    let receipt = pairs(value).as_deref().and_then(receipt_entry).ok_or(TraceError::Damaged)?;
    Ok(Trace { len: end, evidence, receipt })
}

/// Finds and reads the sealed part of the trace header, which ends behind [`SOURCE_FIELD`]: its length and what it
/// says.
///
/// # Errors
/// As [`parse_trace`].
pub fn parse_sealed_trace(message: &[u8]) -> Result<(usize, Evidence), TraceError> {
    let (_, at) = named_field(message, 0, "Return-Path", field_end)?;
    let (_, at) = named_field(message, at, "Received", field_end)?;
    let (value, end) = named_field(message, at, SOURCE_FIELD, source_end)?;
    let evidence = pairs(value).as_deref().and_then(Evidence::from_pairs).ok_or(TraceError::Damaged)?;
    Ok((end, evidence))
}

/// The value of the field that stands at `at`, and where the field ends.
fn named_field<'a>(
    message: &'a [u8],
    at: usize,
    name: &str,
    end_of: fn(&[u8]) -> Option<usize>,
) -> Result<(&'a [u8], usize), TraceError> {
    let rest = message.get(at..).unwrap_or_default();
    let name = format!("{name}:");
    let known = rest.len().min(name.len());
    if rest.get(..known) != name.as_bytes().get(..known) {
        return Err(TraceError::Missing);
    }
    let end = match end_of(rest) {
        Some(end) if end <= MAX_TRACE => end,
        None if rest.len() <= MAX_TRACE => return Err(TraceError::Incomplete),
        _ => return Err(TraceError::Missing),
    };
    let value = rest.get(name.len()..end).ok_or(TraceError::Damaged)?;
    Ok((value, at + end))
}

/// Where a field ends that another field of ours follows: behind the first CRLF without a blank behind it.
fn field_end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let lf = from + memchr::memmem::find(bytes.get(from..)?, b"\r\n")?;
        match bytes.get(lf + 2) {
            Some(b' ' | b'\t') => from = lf + 2,
            _ => return Some(lf + 2),
        }
    }
}

/// Where the source field ends: behind the first CRLF without `;` before it. In the sealed file the message follows,
/// which may itself begin with a blank; that must not count as a fold.
fn source_end(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find_iter(bytes, b"\r\n")
        .find(|at| at.checked_sub(1).and_then(|b| bytes.get(b)) != Some(&b';'))
        .map(|at| at + 2)
}

/// Where the receipt field ends: its last value is the entry in base64, of known length. A message that begins with a
/// blank follows it directly.
fn receipt_end(bytes: &[u8]) -> Option<usize> {
    const DIGITS: usize = ENTRY_LEN.div_ceil(3) * 4;
    const FOLDS: usize = (DIGITS - 1) / ENTRY_LINE;
    let first = memchr::memmem::find(bytes, b"entry=")? + b"entry=".len();
    let end = first + DIGITS + FOLDS * b"\r\n ".len() + 2;
    (bytes.len() >= end).then_some(end)
}

fn pairs(value: &[u8]) -> Option<Vec<(String, String)>> {
    let text: String = std::str::from_utf8(value).ok()?.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    text.split(';').map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect()
}

fn receipt_entry(pairs: &[(String, String)]) -> Option<Entry> {
    let (_, encoded) = pairs.iter().find(|(k, _)| k == "entry")?;
    let octets = BASE64.decode(encoded.as_bytes()).ok().filter(|o| o.len() == ENTRY_LEN)?;
    let entry = Entry::decode(&octets).ok()?;
    let (_, digest) = pairs.iter().find(|(k, _)| k == "digest")?;
    (Digest::from_hex(digest) == Some(entry.body.digest)).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::{EntryBody, Event, Flags};

    fn header() -> (Evidence, Entry, Vec<u8>) {
        let evidence = Evidence {
            mailbox: MailboxId([1; 16]),
            uidl: Uidl([2; 16]),
            salt: [3; 32],
            ip: "2001:db8::7".into(),
            reverse_name: None,
            helo: "EUR05; x=\"y\"".into(),
            mail_from: "jörg@aurora.example".into(),
            rcpt_to: "mbx-01@msgw.example".into(),
            tls: Some("TLSv1.3 TLS_AES_256_GCM_SHA384".into()),
            certificate: None,
            verified: Some(false),
        };
        let entry = EntryBody {
            event: Event::Accepted,
            flags: Flags::default(),
            seq: 1,
            time_ms: 2,
            mailbox: evidence.mailbox,
            uidl: evidence.uidl,
            size: 5,
            sealed_content: 9,
            refers_to: 0,
            sealed_sha256: Digest([4; 32]),
            digest: Digest([5; 32]),
            prev: Digest([6; 32]),
        }
        .sign(&ed25519_dalek::SigningKey::from_bytes(&[7; 32]));
        let text = format!(
            "Return-Path: <>\r\nReceived: from x\r\n\tby y; date\r\n{}{}",
            evidence.to_field(),
            write_receipt_field(&entry)
        );
        (evidence, entry, text.into_bytes())
    }

    #[test]
    fn the_trace_header_ends_before_the_message() {
        let (evidence, receipt, header) = header();
        let forged = [header.as_slice(), b"X-Postkeep-Receipt: v=1\r\n\r\nbody"].concat();
        let blank = [&header, b" begins with a blank\r\n".as_slice()].concat();
        for message in [header.clone(), [&header, b"\r\nx".as_slice()].concat(), forged, blank] {
            let trace = parse_trace(&message).expect("ours");
            assert_eq!(trace, Trace { len: header.len(), evidence: evidence.clone(), receipt: receipt.clone() });
        }
        assert!(header.split(|b| *b == b'\n').all(|line| line.len() < 998));
        let sealed = header.len() - write_receipt_field(&receipt).len();
        let blank = [&header[..sealed], b" begins with a blank\r\n"].concat();
        assert_eq!(parse_sealed_trace(&blank), Ok((sealed, evidence)));
        for cut in 0..header.len() {
            assert_eq!(parse_trace(&header[..cut]), Err(TraceError::Incomplete), "cut at {cut}");
        }
    }

    #[test]
    fn the_names_of_a_certificate_take_the_lines_they_need() {
        let (evidence, ..) = header();
        for count in [1_usize, 2, 200] {
            let names: Vec<String> = (0..count).map(|n| format!("*.host-{n}.some.where.example")).collect();
            let evidence = Evidence { certificate: Some(names.join(",")), ..evidence.clone() };
            let field = format!("Return-Path: <>\r\nReceived: x\r\n{}", evidence.to_field());
            assert!(field.lines().all(|line| line.len() < 998));
            assert_eq!(field.matches(" cert=").count() > 1, count == 200);
            assert_eq!(parse_sealed_trace(field.as_bytes()), Ok((field.len(), evidence)));
        }
    }

    #[test]
    fn other_mail_has_no_trace_header() {
        assert_eq!(parse_trace(b"Return-Path: <>\r\nSubject: x\r\n\r\n"), Err(TraceError::Missing));
        assert_eq!(parse_trace(b"Subject: x\r\n\r\n"), Err(TraceError::Missing));
        assert_eq!(parse_trace(b"Return-Pa"), Err(TraceError::Incomplete));
    }
}
