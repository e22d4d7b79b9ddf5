//! What is sealed before a message, and the geometry of an age file (`docs/formats/spool.md`). Pure.

use postkeep_shared::{
    mail::{MailboxId, Uidl},
    receipt::Evidence,
};
use std::net::IpAddr;
use time::{OffsetDateTime, macros::format_description};

/// Octets of plaintext in one age chunk.
const CHUNK: u64 = 64 * 1024;
/// Octets a chunk grows by.
const TAG: u64 = 16;
/// Octets between age header and first chunk.
const NONCE: u64 = 16;
/// More than an age header with one recipient ever takes.
pub const MAX_AGE_HEADER: usize = 16 * 1024;

/// What the gateway saw of the sender, for one recipient mailbox. Texts are as received.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Client address.
    pub ip: IpAddr,
    /// Reverse name, where it was looked up.
    pub reverse_name: Option<String>,
    /// HELO or EHLO argument.
    pub helo: String,
    /// Reverse-path without angle brackets, empty for `<>`.
    pub mail_from: String,
    /// Forward-path as given, without angle brackets.
    pub rcpt_to: String,
    /// TLS version and cipher suite, `None` in clear.
    pub tls: Option<String>,
    /// Name in a verified client certificate.
    pub certificate: Option<String>,
    /// Whether the source rules fitted; `None` where no rules are configured.
    pub verified: Option<bool>,
    /// `ESMTP`, `ESMTPS`, `UTF8SMTPS` … (RFC 3848, RFC 6531).
    pub protocol: &'static str,
}

impl Origin {
    /// The evidence sealed with the message.
    #[must_use]
    pub fn evidence(&self, mailbox: MailboxId, uidl: Uidl, salt: [u8; 32]) -> Evidence {
        Evidence {
            mailbox,
            uidl,
            salt,
            ip: self.ip.to_string(),
            reverse_name: self.reverse_name.clone(),
            helo: self.helo.clone(),
            mail_from: self.mail_from.clone(),
            rcpt_to: self.rcpt_to.clone(),
            tls: self.tls.clone(),
            certificate: self.certificate.clone(),
            verified: self.verified,
        }
    }
}

/// The trace header that is sealed in front of a message: `Return-Path` and `Received` (RFC 5321 §4.4), then the
/// evidence. `hostname` is this gateway's.
#[must_use]
pub fn sealed_trace(origin: &Origin, evidence: &Evidence, hostname: &str, now: OffsetDateTime) -> Vec<u8> {
    let date = format_description!(
        "[weekday repr:short], [day padding:none] [month repr:short] [year] [hour]:[minute]:[second] +0000"
    );
    let date = now.format(date).unwrap_or_default();
    let name = origin.reverse_name.as_deref().map(|name| format!("{} ", printable(name))).unwrap_or_default();
    let address = match origin.ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("IPv6:{ip}"),
    };
    format!(
        "Return-Path: <{}>\r\n\
         Received: from {}\r\n ({name}[{address}])\r\n by {} with {} id {}\r\n for <{}>;\r\n {date}\r\n{}",
        printable(&origin.mail_from),
        printable(&origin.helo),
        printable(hostname),
        origin.protocol,
        evidence.uidl,
        printable(&origin.rcpt_to),
        evidence.to_field(),
    )
    .into_bytes()
}

/// A peer's text must not end a header line or hide in it; the exact text stands in the evidence, escaped.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(512).collect()
}

/// Octets sealed in an age file of `file_len` octets that begins with `start` (its first 16 KiB, or all of it).
/// Exact, and found without any key; `None` when the file cannot be a whole age file.
#[must_use]
pub fn age_geometry(start: &[u8], file_len: u64) -> Option<u64> {
    let mac = memchr::memmem::find(start.strip_prefix(b"age-encryption.org/v1\n-> ")?, b"\n--- ")?;
    let mac_line = start.get(b"age-encryption.org/v1\n-> ".len() + mac + 1..)?;
    let header = start.len() - mac_line.len() + memchr::memchr(b'\n', mac_line)? + 1;
    let payload = file_len.checked_sub(header as u64 + NONCE)?;
    let chunks = payload.div_ceil(CHUNK + TAG);
    let last = payload.checked_sub(chunks.checked_sub(1)? * (CHUNK + TAG))?;
    // Only a file with no plaintext at all has an empty last chunk.
    let enough = if chunks == 1 { last >= TAG } else { last > TAG };
    enough.then(|| payload - chunks * TAG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn sealed(len: usize) -> Vec<u8> {
        let recipient = age::x25519::Identity::generate().to_public();
        let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as _)).expect("one recipient");
        let mut out = Vec::new();
        let mut stream = encryptor.wrap_output(&mut out).expect("memory");
        stream.write_all(&vec![b'x'; len]).expect("memory");
        stream.finish().expect("memory");
        out
    }

    #[test]
    fn the_length_sealed_is_seen_without_a_key() {
        for len in [0, 1, 100, 65_535, 65_536, 65_537, 131_072, 200_000] {
            let file = sealed(len);
            assert_eq!(age_geometry(&file, file.len() as u64), Some(len as u64));
            let start = &file[..file.len().min(MAX_AGE_HEADER)];
            assert_eq!(age_geometry(start, file.len() as u64), Some(len as u64));
        }
    }

    #[test]
    fn half_files_are_no_age_files() {
        let file = sealed(10);
        for cut in [0, 5, 30, 100, file.len() - 11] {
            assert_eq!(age_geometry(&file[..cut], cut as u64), None, "cut at {cut}");
        }
        let file = sealed(70_000);
        let border = file.len() - (70_000 - 65_536);
        assert_eq!(age_geometry(&file, border as u64 - 1), None);
        assert_eq!(age_geometry(b"From: x\n--- \n", 13), None);
    }

    #[test]
    fn a_peer_cannot_write_header_lines() {
        let origin = Origin {
            ip: "2001:db8::1".parse().expect("address"),
            reverse_name: Some("mail.example".into()),
            helo: "x\r\nX-Postkeep-Source: v=1".into(),
            mail_from: "a@b\r\nX: y".into(),
            rcpt_to: "mbx@example".into(),
            tls: None,
            certificate: None,
            verified: None,
            protocol: "ESMTP",
        };
        let evidence = origin.evidence(MailboxId([1; 16]), Uidl([2; 16]), [3; 32]);
        let trace = sealed_trace(&origin, &evidence, "gw.example", OffsetDateTime::UNIX_EPOCH);
        let text = String::from_utf8(trace).expect("text");
        let fields = text.split_inclusive("\r\n").filter(|line| !line.starts_with(' ')).count();
        assert_eq!(fields, 3, "{text}");
        assert!(text.contains("Thu, 1 Jan 1970 00:00:00 +0000\r\n"), "{text}");
    }
}
