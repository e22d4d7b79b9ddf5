//! Base64 bodies that can be kept decoded: those that encoding again gives octet for octet (RFC 2045 §6.8).
//!
//! [`measure`] finds the longest beginning of a body with lines of one length and one line end; [`DecodedReader`] gives its
//! content, [`LineEncoder`] makes the same octets again. All three stream. [`decode`] does both for small bodies at once.

use crate::octets::Octets;
use data_encoding::BASE64;
use memchr::memchr;
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Read, Write},
    ops::Range,
};

/// Longer lines are left as they are.
const MAX_LINE: usize = 4096;
/// Characters after which full lines are decoded: together that takes less time than one by one.
const TOGETHER: usize = 32 * 1024;

/// How a body was encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lines {
    /// Characters of a full line, a multiple of 4.
    pub line: u32,
    /// Whether lines end with LF alone, not CRLF.
    pub lf: bool,
    /// Whether the last line has a line end too.
    pub end: bool,
}

/// A beginning of a body that can be kept decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// How it was encoded.
    pub lines: Lines,
    /// Octets it takes encoded.
    pub encoded: u64,
    /// Octets of its content.
    pub decoded: u64,
}

/// The longest beginning of `body` that encodes again to the same octets; `None` when there is none.
///
/// # Errors
/// Only what reading gives.
pub fn measure(octets: &dyn Octets, body: Range<u64>) -> io::Result<Option<Measured>> {
    Ok(decode(octets, body, 0)?.map(|(measured, _)| measured))
}

/// As [`measure`], with the content where it has no more than `most` octets.
///
/// # Errors
/// Only what reading gives.
pub fn decode(octets: &dyn Octets, body: Range<u64>, most: usize) -> io::Result<Option<(Measured, Option<Vec<u8>>)>> {
    // Line ends and all: what is asked for at once is not copied as it grows. Nothing where it may be more than is kept.
    let about = usize::try_from((body.end - body.start) / 4 * 3).unwrap_or(usize::MAX);
    let plain = Vec::with_capacity(if about <= most { about } else { 0 });
    let mut scan = Scan { most, plain, ..Scan::default() };
    let mut carry: Vec<u8> = Vec::new();
    octets.for_each_block(body, &mut |block| {
        let mut rest = block;
        while !scan.done {
            let Some(lf) = memchr(b'\n', rest) else { break };
            let (head, tail) = rest.split_at(lf + 1);
            if carry.is_empty() {
                scan.line(head);
            } else {
                carry.extend_from_slice(head);
                scan.line(&carry);
                carry.clear();
            }
            rest = tail;
        }
        if !scan.done {
            carry.extend_from_slice(rest);
            scan.done = carry.len() > MAX_LINE + 2;
        }
        Ok(())
    })?;
    if !scan.done && !carry.is_empty() {
        scan.line(&carry);
    }
    scan.settle();
    Ok(scan.found())
}

#[derive(Default)]
struct Scan {
    lines: Option<Lines>,
    encoded: u64,
    decoded: u64,
    done: bool,
    /// Full lines without their line ends, to be decoded together.
    full: Vec<u8>,
    /// The content, up to `most` octets; of a larger one only what was decoded last.
    plain: Vec<u8>,
    most: usize,
}

impl Scan {
    /// A line with its line end, if it has one.
    fn line(&mut self, line: &[u8]) {
        let (text, lf, end) = match line {
            [text @ .., b'\r', b'\n'] => (text, false, true),
            [text @ .., b'\n'] => (text, true, true),
            text => (text, self.lines.is_some_and(|l| l.lf), false),
        };
        let full = self.lines.map_or(text.len(), |lines| lines.line as usize);
        let same_end = self.lines.is_none_or(|lines| lines.lf == lf);
        let fits = !text.is_empty() && text.len().is_multiple_of(4) && text.len() <= full && full <= MAX_LINE;
        // Only the last line may be shorter or padded.
        let last = text.len() < full || text.ends_with(b"=") || !end;
        if fits && same_end && !last && self.lines.is_some() {
            self.full.extend_from_slice(text);
            if self.full.len() >= TOGETHER {
                self.settle();
            }
            return;
        }
        self.settle();
        if self.done || !(fits && same_end && self.decode(text)) {
            self.done = true;
            return;
        }
        let line = u32::try_from(full).unwrap_or(u32::MAX);
        self.lines = Some(Lines { line, lf, end });
        self.encoded += line_len(text, lf, end);
        self.done = last;
    }

    /// Decodes the full lines that wait: together, or where that fails up to the line that is at fault.
    fn settle(&mut self) {
        let mut full = std::mem::take(&mut self.full);
        let Some(lines) = self.lines.filter(|_| !full.is_empty()) else { return };
        let len = lines.line as usize;
        let encoded = |text: &[u8]| line_len(text, lines.lf, true);
        if self.decode(&full) {
            self.encoded += full.chunks(len).map(encoded).sum::<u64>();
        } else {
            for text in full.chunks(len) {
                if !self.decode(text) {
                    self.done = true;
                    break;
                }
                self.encoded += encoded(text);
            }
        }
        full.clear();
        self.full = full;
    }

    /// Takes the content of text that is padded at its end only.
    fn decode(&mut self, text: &[u8]) -> bool {
        let more = text.len() / 4 * 3;
        if self.plain.len() + more > self.most {
            self.plain.clear();
            self.most = 0;
        }
        let before = self.plain.len();
        self.plain.resize(before + more, 0);
        let decoded = BASE64.decode_mut(text, self.plain.get_mut(before..).unwrap_or_default());
        // Padded pieces behind each other can be decoded, and no encoder makes the same of their content.
        let padding = text.iter().rev().take_while(|octet| **octet == b'=').count();
        let decoded = decoded.ok().filter(|decoded| decoded + padding == more);
        self.plain.truncate(before + decoded.unwrap_or_default());
        self.decoded += decoded.unwrap_or_default() as u64;
        decoded.is_some()
    }

    fn found(self) -> Option<(Measured, Option<Vec<u8>>)> {
        let measured = Measured { lines: self.lines?, encoded: self.encoded, decoded: self.decoded };
        Some((measured, (self.most > 0).then_some(self.plain)))
    }
}

fn line_len(text: &[u8], lf: bool, end: bool) -> u64 {
    let line_end = match (end, lf) {
        (false, _) => 0,
        (true, true) => 1,
        (true, false) => 2,
    };
    text.len() as u64 + line_end
}

/// The decoded octets of a range that [`measure`] found.
pub struct DecodedReader<'a> {
    octets: &'a dyn Octets,
    rest: Range<u64>,
    text: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
}

impl<'a> DecodedReader<'a> {
    /// Decodes `range` of `octets`.
    #[must_use]
    pub fn new(octets: &'a dyn Octets, range: Range<u64>) -> Self {
        Self { octets, rest: range, text: Vec::new(), plain: Vec::new(), at: 0 }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.at = 0;
        self.plain.clear();
        while self.plain.is_empty() && !self.rest.is_empty() {
            let end = self.rest.end.min(self.rest.start + 64 * 1024);
            let (octets, text) = (self.octets, &mut self.text);
            octets.for_each_block(self.rest.start..end, &mut |block| {
                let mut rest = block;
                while let Some(lf) = memchr(b'\n', rest) {
                    let (line, after) = rest.split_at(lf);
                    text.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
                    rest = after.get(1..).unwrap_or_default();
                }
                // A block may end within a line end.
                text.extend_from_slice(rest.strip_suffix(b"\r").unwrap_or(rest));
                Ok(())
            })?;
            self.rest.start = end;
            let whole = self.text.len() / 4 * 4;
            let ready = self.text.get(..whole).unwrap_or_default();
            self.plain.resize(whole / 4 * 3, 0);
            let len = BASE64.decode_mut(ready, &mut self.plain).map_err(|_| changed())?;
            self.plain.truncate(len);
            self.text.drain(..whole);
        }
        if self.plain.is_empty() && !self.text.is_empty() { Err(changed()) } else { Ok(()) }
    }
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the message changed while it was read")
}

impl Read for DecodedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.plain.len() {
            self.fill()?;
        }
        let ready = self.plain.get(self.at..).unwrap_or_default();
        let count = ready.len().min(buffer.len());
        let (to, from) = (buffer.get_mut(..count).unwrap_or_default(), ready.get(..count).unwrap_or_default());
        to.copy_from_slice(from);
        self.at += count;
        Ok(count)
    }
}

/// Encodes what is written in lines.
pub struct LineEncoder<'a> {
    out: &'a mut dyn Write,
    lines: Lines,
    pending: Vec<u8>,
    /// What is written next.
    text: Vec<u8>,
    /// That without line ends.
    flat: Vec<u8>,
    first: bool,
}

impl<'a> LineEncoder<'a> {
    /// Writes to `out`.
    ///
    /// # Errors
    /// Lines that [`measure`] never finds.
    pub fn new(out: &'a mut dyn Write, lines: Lines) -> io::Result<Self> {
        let line = lines.line as usize;
        if line == 0 || !line.is_multiple_of(4) || line > MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a base64 line length that cannot be"));
        }
        Ok(Self { out, lines, pending: Vec::new(), text: Vec::new(), flat: Vec::new(), first: true })
    }

    /// Encodes more octets.
    ///
    /// # Errors
    /// What writing gives.
    pub fn push(&mut self, octets: &[u8]) -> io::Result<()> {
        let full = self.lines.line as usize / 4 * 3;
        let mut pending = std::mem::take(&mut self.pending);
        let missing = full.saturating_sub(pending.len()) % full;
        let (head, rest) = octets.split_at(missing.min(octets.len()));
        pending.extend_from_slice(head);
        // A full line stays until more comes: the last line is written by `finish`.
        if !rest.is_empty() {
            self.encode(&pending);
            pending.clear();
            let (lines, last) = rest.split_at((rest.len() - 1) / full * full);
            self.encode(lines);
            pending.extend_from_slice(last);
        }
        self.pending = pending;
        self.write()
    }

    /// Whole lines, but for the last of all. A line holds a multiple of three octets, so all may be encoded at once.
    fn encode(&mut self, octets: &[u8]) {
        let mut flat = std::mem::take(&mut self.flat);
        flat.resize(BASE64.encode_len(octets.len()), 0);
        BASE64.encode_mut(octets, &mut flat);
        self.text.reserve(flat.len() + flat.len().div_ceil(self.lines.line as usize) * 2);
        for line in flat.chunks(self.lines.line as usize) {
            if !self.first {
                self.line_end();
            }
            self.first = false;
            self.text.extend_from_slice(line);
        }
        self.flat = flat;
    }

    fn line_end(&mut self) {
        self.text.extend_from_slice(if self.lines.lf { b"\n" } else { b"\r\n" });
    }

    fn write(&mut self) -> io::Result<()> {
        self.out.write_all(&self.text)?;
        self.text.clear();
        Ok(())
    }

    /// Writes the last line.
    ///
    /// # Errors
    /// What writing gives.
    pub fn finish(mut self) -> io::Result<()> {
        let last = std::mem::take(&mut self.pending);
        if !last.is_empty() {
            self.encode(&last);
        }
        if self.lines.end {
            self.line_end();
        }
        self.write()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(octets: &[u8], lines: Lines, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = LineEncoder::new(&mut out, lines).expect("valid lines");
        octets.chunks(step).try_for_each(|piece| encoder.push(piece)).expect("memory");
        encoder.finish().expect("memory");
        out
    }

    fn measured(body: &[u8]) -> Option<Measured> {
        measure(&body.to_vec(), 0..body.len() as u64).expect("memory reads")
    }

    #[test]
    fn what_follows_the_content_is_left_out() {
        let found = measured(b"QUJD\r\nREVG\r\nRw==\r\n\r\n-- \r\nfooter").expect("base64");
        assert_eq!((found.encoded, found.decoded), (18, 7));
        assert_eq!(found.lines, Lines { line: 4, lf: false, end: true });
        let mixed = measured(b"QUJD\nREVG\r\nR").expect("base64");
        assert_eq!((mixed.encoded, mixed.lines.lf), (5, true));
        let joined = measured(b"QUJDREVG\r\nQQ==QUJD\r\n").expect("base64");
        assert_eq!((joined.encoded, joined.decoded), (10, 6), "padding within a line");
        for other in [&b""[..], b"QQ==QUJD\r\n", b"hello", b"QUJ=\r\n", b"Rx==\r\n", b"QUJDR\r\n", b"\r\nQUJD"] {
            assert_eq!(measured(other), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn decoding_and_encoding_give_the_same_octets(
            octets in prop::collection::vec(any::<u8>(), 1..5000),
            quads in 1u32..30, lf: bool, end: bool, step in 1usize..700,
        ) {
            let lines = Lines { line: quads * 4, lf, end };
            let body = encode(&octets, lines, step);
            let found = measured(&body).expect("base64");
            prop_assert_eq!(found.encoded, body.len() as u64);
            prop_assert_eq!(found.decoded, octets.len() as u64);
            let mut plain = Vec::new();
            DecodedReader::new(&body, 0..body.len() as u64).read_to_end(&mut plain).expect("decodes");
            prop_assert_eq!(&plain, &octets);
            prop_assert_eq!(encode(&plain, found.lines, 64), body);
        }

        #[test]
        fn an_octet_that_is_none_ends_it_wherever_it_stands(
            lines in 1usize..2_000, at in any::<prop::sample::Index>(), wrong in prop::sample::select(b"=\0-\r\n ".to_vec()),
        ) {
            let plain: Vec<u8> = (0..lines * 57).map(|n| (n * 7 / 3) as u8).collect();
            let mut body = encode(&plain, Lines { line: 76, lf: false, end: true }, 4096);
            let at = at.index(body.len());
            body[at] = wrong;
            let found = decode(&body, 0..body.len() as u64, 64 * 1024).expect("memory reads");
            let whole_lines = at / 78;
            if whole_lines > 0 {
                let (found, decoded) = found.expect("the lines before it");
                prop_assert!(found.encoded >= whole_lines as u64 * 78 && found.encoded <= body.len() as u64);
                let begin = body.get(..found.encoded as usize).expect("within it");
                let mut read = Vec::new();
                DecodedReader::new(&begin.to_vec(), 0..found.encoded).read_to_end(&mut read).expect("decodes");
                prop_assert_eq!(read.len() as u64, found.decoded);
                prop_assert!(decoded.is_none_or(|decoded| decoded == read));
                prop_assert_eq!(encode(&read, found.lines, 1000), begin);
            }
        }

        #[test]
        fn any_text_is_measured_rightly(body in "[QUJD=\r\n ]{0,200}") {
            if let Some(found) = measured(body.as_bytes()) {
                let begin = &body.as_bytes()[..usize::try_from(found.encoded).expect("small")];
                let mut plain = Vec::new();
                DecodedReader::new(&begin.to_vec(), 0..found.encoded).read_to_end(&mut plain).expect("decodes");
                prop_assert_eq!(plain.len() as u64, found.decoded);
                prop_assert_eq!(encode(&plain, found.lines, 64), begin);
            }
        }
    }
}
