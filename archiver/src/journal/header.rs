//! The header of a message or of a part (RFC 5322 §2.2), read out of octets that are not held.
//!
//! Lenient where mail is: LF alone ends a line, blanks may stand before the colon, lines without a colon are passed over.
//! At most 1 MiB is copied; a longer header is one that cannot be used. The body's place is exact to the octet.

use super::{media::MediaType, text};
use crate::octets::Octets;
use std::{borrow::Cow, io, ops::Range};

/// Octets of a message's header at most. Real ones of journaled messages have 20 to 69 KB.
const MAX_HEADER: u64 = 1024 * 1024;
/// Octets of a part's header at most; there may be many parts.
const MAX_PART_HEADER: u64 = 64 * 1024;
/// Fields that are kept of one header at most. Real ones have 111 to 142.
const MAX_FIELDS: usize = 10_000;

/// The fields of a header, and where the body begins.
#[derive(Debug, Clone, Default)]
pub(super) struct Header {
    fields: Vec<Field>,
    /// Offset of the first octet behind the empty line; the end of the part where there is no empty line.
    pub body: u64,
    /// Whether the header is longer than the limit: its fields are not all here.
    pub too_long: bool,
}

/// One field.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// In lower case.
    pub name: String,
    /// Unfolded, without the blanks around it.
    pub value: String,
}

impl Header {
    /// Reads a message's header that begins at the start of `range`.
    pub(super) fn read(octets: &dyn Octets, range: Range<u64>) -> io::Result<Self> {
        Self::read_limited(octets, range, MAX_HEADER)
    }

    /// Reads a part's header that begins at the start of `range`.
    pub(super) fn read_part(octets: &dyn Octets, range: Range<u64>) -> io::Result<Self> {
        Self::read_limited(octets, range, MAX_PART_HEADER)
    }

    fn read_limited(octets: &dyn Octets, range: Range<u64>, limit: u64) -> io::Result<Self> {
        let mut size = 8 * 1024;
        loop {
            let end = range.end.min(range.start.saturating_add(size));
            let bytes = octets.view(range.start..end)?;
            let found = end_of_header(&bytes);
            let cut = end < range.end;
            if let (None, true, true) = (found, cut, size < limit) {
                size = (size * 4).min(limit);
                continue;
            }
            let length = found.unwrap_or(bytes.len());
            let body = range.start + length as u64;
            let fields = fields(bytes.get(..length).unwrap_or_default());
            let too_long = found.is_none() && cut || fields.len() == MAX_FIELDS;
            return Ok(Self { fields, body, too_long });
        }
    }

    /// Every field, from top to bottom.
    pub(super) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The values of every field of this name (lower case).
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |f| f.name == name).map(|f| f.value.as_str())
    }

    /// The value of the first field of this name (lower case).
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|f| f.name == name).map(|f| f.value.as_str())
    }

    /// The media type; `text/plain` where there is none (RFC 2045 §5.2).
    pub(super) fn media_type(&self) -> MediaType {
        self.first("content-type").map(MediaType::parse).unwrap_or_default()
    }

    /// The Message-ID, in its brackets.
    pub(super) fn message_id(&self) -> Option<String> {
        self.first("message-id").map(str::to_owned)
    }

    /// The first Date, seconds since 1970-01-01 UTC.
    pub(super) fn date(&self) -> Option<i64> {
        let date = mail_parser::DateTime::parse_rfc822(self.first("date")?)?;
        Some(date.to_timestamp())
    }

    /// The Subject, its encoded words decoded (RFC 2047).
    pub(super) fn subject(&self) -> Option<String> {
        self.first("subject").map(text::decode_words)
    }
}

/// The octets up to and with the empty line.
fn end_of_header(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|r| !r.is_empty()) {
        if rest.starts_with(b"\n") {
            return Some(at + 1);
        }
        if rest.starts_with(b"\r\n") {
            return Some(at + 2);
        }
        at += memchr::memchr(b'\n', rest)? + 1;
    }
    None
}

fn fields(bytes: &[u8]) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    // A line that is no field may be folded too: its continuation must not be taken for the field before it.
    let mut open = false;
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]) {
        let line = bytes.get(start..end).unwrap_or_default();
        start = end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if matches!(line.first(), Some(b' ' | b'\t')) {
            if let (true, Some(field)) = (open, fields.last_mut()) {
                field.value.push(' ');
                field.value.push_str(lossless(line).trim());
            }
            continue;
        }
        let colon = memchr::memchr(b':', line);
        let name = colon.and_then(|at| line.get(..at)).map(|n| n.trim_ascii());
        open = name.is_some_and(|n| !n.is_empty() && n.iter().all(|b| (33..=126).contains(b)));
        if fields.len() == MAX_FIELDS {
            break;
        }
        if let (true, Some(name), Some(at)) = (open, name, colon) {
            let value = lossless(line.get(at + 1..).unwrap_or_default()).trim().to_owned();
            fields.push(Field { name: String::from_utf8_lossy(name).to_ascii_lowercase(), value });
        }
    }
    for field in &mut fields {
        let trimmed = field.value.trim();
        if trimmed.len() < field.value.len() {
            field.value = trimmed.to_owned();
        }
    }
    fields
}

/// UTF-8 (RFC 6532), else Windows-1252, in which every octet means something.
fn lossless(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Header {
        Header::read(&text.to_vec(), 0..text.len() as u64).expect("reads")
    }

    #[test]
    fn fields_and_body_are_found() {
        let header = read(b"A: 1\r\nB :\r\n  2\r\n\t3 \r\nnonsense\r\n folded\r\nb:x\r\n\r\nbody: no\r\n");
        let pairs: Vec<_> = header.fields().iter().map(|f| (f.name.as_str(), f.value.as_str())).collect();
        assert_eq!(pairs, [("a", "1"), ("b", "2 3"), ("b", "x")]);
        assert_eq!(header.body, 47);
        assert_eq!(read(b"A: 1\n\nx").body, 6);
        assert_eq!(read(b"\r\nx").body, 2);
        assert_eq!(read(b"A: 1\r\n").body, 6);
        assert_eq!(read(b"").body, 0);
    }

    #[test]
    fn long_headers_are_read_and_longer_ones_refused() {
        let mut text = b"A: 1\r\n".repeat(5_000);
        text.extend(b" and more".repeat(100_000));
        text.extend(b"\r\nZ: last\r\n\r\nbody");
        let header = read(&text);
        assert_eq!((header.first("z"), header.too_long), (Some("last"), false));
        assert_eq!(header.body, text.len() as u64 - 4);
        for endless in
            [b"A: 1\r\n".repeat(200_000), b"x".repeat(2_000_000), [b"A:\n".repeat(20_000), b"\n".to_vec()].concat()]
        {
            assert!(read(&endless).too_long);
        }
    }
}
