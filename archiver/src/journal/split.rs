//! The parts of a multipart as ranges of octets (RFC 2046 §5.1).
//!
//! A delimiter is a whole line: `--boundary` or `--boundary--`, and nothing but blanks behind it. The line end before it
//! belongs to it, be it CRLF or LF. A line that only holds or begins with the boundary is content: this is why no MIME
//! library is used here. Octets are read once, in blocks; nothing but the beginning of one line is kept.

use super::header::Header;
use crate::octets::Octets;
use memchr::memmem;
use std::{io, ops::Range};

/// More parts than any report has at its top level.
const MAX_PARTS: usize = 64;
/// Blanks behind a delimiter at most (transport padding).
const MAX_PADDING: usize = 1000;

/// A multipart taken apart.
#[derive(Debug, Default)]
pub(super) struct Multipart {
    /// Up to [`MAX_PARTS`] of them.
    pub parts: Vec<Part>,
    /// Whether the closing delimiter was there. Without it nobody can say that the last part is whole.
    pub closed: bool,
    /// Whether there were more parts.
    pub too_many: bool,
    /// Whether the boundary stands behind the closing delimiter too: a part inside uses the same one, so nobody can say
    /// where the parts end.
    pub reused: bool,
}

/// One part.
#[derive(Debug)]
pub(super) struct Part {
    /// Its header.
    pub header: Header,
    /// Its body, encoded as the header says.
    pub body: Range<u64>,
}

/// A line that delimits.
struct Delimiter {
    /// Where the line end before it begins: the end of the part before.
    before: u64,
    /// Where the next line begins: the start of the part behind.
    after: u64,
    closing: bool,
}

/// Takes the body of a multipart apart.
pub(super) fn split(octets: &dyn Octets, body: Range<u64>, boundary: &str) -> io::Result<Multipart> {
    let mut scanner = Scanner::new(body.start, boundary);
    octets.for_each_block(body.clone(), &mut |block| {
        scanner.feed(block);
        Ok(())
    })?;
    scanner.end();
    let mut multipart = Multipart { reused: scanner.reused, ..Multipart::default() };
    let mut delimiters = scanner.found.iter().peekable();
    while let Some(delimiter) = delimiters.next() {
        if delimiter.closing {
            multipart.closed = true;
            break;
        }
        if multipart.parts.len() == MAX_PARTS {
            multipart.too_many = true;
            break;
        }
        let end = delimiters.peek().map_or(body.end, |next| next.before).max(delimiter.after);
        let header = Header::read_part(octets, delimiter.after..end)?;
        let start = header.body.min(end);
        multipart.parts.push(Part { header, body: start..end });
    }
    Ok(multipart)
}

/// Finds the delimiters in octets that arrive in blocks.
struct Scanner {
    delimiter: Vec<u8>,
    /// The delimiter behind a line end.
    next_line: memmem::Finder<'static>,
    found: Vec<Delimiter>,
    /// The beginning of the line, while it can still be a delimiter.
    line: Vec<u8>,
    /// Whether the line cannot be a delimiter any more.
    passed: bool,
    /// Offset of the next octet.
    at: u64,
    line_start: u64,
    /// Octets of the line end before the line.
    line_end_before: u64,
    last: u8,
    /// Whether the closing delimiter was there: what follows is epilogue.
    closed: bool,
    reused: bool,
    /// Whether nothing more can matter.
    done: bool,
}

impl Scanner {
    fn new(start: u64, boundary: &str) -> Self {
        Self {
            delimiter: format!("--{boundary}").into_bytes(),
            next_line: memmem::Finder::new(&format!("\n--{boundary}")).into_owned(),
            found: Vec::new(),
            line: Vec::new(),
            passed: false,
            at: start,
            line_start: start,
            line_end_before: 0,
            last: 0,
            closed: false,
            reused: false,
            done: false,
        }
    }

    fn feed(&mut self, block: &[u8]) {
        let mut rest = block;
        while !rest.is_empty() && !self.done {
            if self.at == self.line_start {
                rest = self.pass(rest);
            }
            let line_feed = memchr::memchr(b'\n', rest);
            let (piece, tail) = rest.split_at(line_feed.map_or(rest.len(), |at| at + 1));
            self.piece(piece, line_feed.is_some());
            rest = tail;
        }
    }

    /// Passes over whole lines that do not begin as the delimiter does; what is left begins a line.
    fn pass<'a>(&mut self, octets: &'a [u8]) -> &'a [u8] {
        let known = octets.len().min(self.delimiter.len());
        if octets.get(..known) == self.delimiter.get(..known) {
            return octets;
        }
        let found = self.next_line.find(octets).or_else(|| memchr::memrchr(b'\n', octets));
        let (lines, rest) = octets.split_at(found.map_or(0, |line_end| line_end + 1));
        if !lines.is_empty() {
            self.at += lines.len() as u64;
            self.line_start = self.at;
            self.line_end_before = if lines.ends_with(b"\r\n") { 2 } else { 1 };
        }
        rest
    }

    /// Takes a piece of a line; `whole` when it ends the line.
    fn piece(&mut self, piece: &[u8], whole: bool) {
        let content = piece.strip_suffix(b"\n").unwrap_or(piece);
        if !self.passed {
            let room = self.delimiter.len() + 2 + MAX_PADDING + 1;
            self.line.extend_from_slice(content.get(..=room).unwrap_or(content));
            let known = self.line.len().min(self.delimiter.len());
            self.passed = self.line.get(..known) != self.delimiter.get(..known) || self.line.len() > room;
        }
        let before = match content.last() {
            Some(octet) => *octet,
            None => self.last,
        };
        self.at += piece.len() as u64;
        if whole {
            self.line_done();
            self.line_end_before = if before == b'\r' { 2 } else { 1 };
            self.line_start = self.at;
            self.line.clear();
            self.passed = false;
            self.last = 0;
        } else {
            self.last = before;
        }
    }

    fn line_done(&mut self) {
        if self.passed {
            return;
        }
        let Some(rest) = self.line.strip_prefix(self.delimiter.as_slice()) else { return };
        // The padding first: of a boundary that ends in `--`, one delimiter is the closing form of the other.
        let rest = rest.trim_ascii_end();
        let closing = match rest {
            b"" => false,
            b"--" => true,
            _ => return,
        };
        if self.closed {
            (self.reused, self.done) = (true, true);
            return;
        }
        let before = self.line_start.saturating_sub(self.line_end_before);
        self.found.push(Delimiter { before, after: self.at, closing });
        self.closed = closing;
        self.done = self.found.len() > MAX_PARTS + 1;
    }

    fn end(&mut self) {
        if !self.done {
            self.line_done();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::octets::Slice;
    use proptest::{collection::vec, prelude::*};

    fn parts(text: &str, boundary: &str) -> (Vec<String>, bool) {
        let bytes = text.as_bytes().to_vec();
        let whole = bytes.len() as u64;
        let multipart = split(&bytes, 0..whole, boundary).expect("reads");
        let body = |p: &Part| {
            let slice = Slice::new(&bytes, p.body.clone());
            String::from_utf8(slice.copy(0..slice.len()).expect("reads")).expect("text")
        };
        (multipart.parts.iter().map(body).collect(), multipart.closed)
    }

    #[test]
    fn delimiters_are_whole_lines() {
        let text = "preamble\r\n--b\r\nA: 1\r\n\r\none\r\n --b\r\n> --b\r\n--bx\r\n--b --\r\n--b-\r\n--b- -\r\n--b-- x\r\n--b \t\r\n\r\ntwo\r\n\r\n--b--  \r\n\r\n--b\r\n\r\nepilogue";
        let (found, closed) = parts(text, "b");
        assert!(closed);
        assert_eq!(found, ["one\r\n --b\r\n> --b\r\n--bx\r\n--b --\r\n--b-\r\n--b- -\r\n--b-- x", "two\r\n"]);
    }

    #[test]
    fn the_line_end_before_belongs_to_the_delimiter() {
        assert_eq!(parts("--b\n\none\n\n--b\n\ntwo\n--b--", "b"), (vec!["one\n".into(), "two".into()], true));
        assert_eq!(parts("--b\r\n\r\none\r\r\n--b--", "b"), (vec!["one\r".into()], true));
        assert_eq!(parts("--b\r\n\r\n--b--", "b"), (vec![String::new()], true));
        assert_eq!(parts("--b\r\nA: 1\r\n--b--", "b"), (vec![String::new()], true));
        assert_eq!(parts("--b\r\n--b--", "b"), (vec![String::new()], true));
        assert_eq!(parts("--b\r\n\r\none\r\n", "b"), (vec!["one\r\n".into()], false));
        assert_eq!(parts("", "b"), (vec![], false));
        assert_eq!(parts("--x--\r\n\r\none\r\n--x----", "x--"), (vec!["one".into()], true));
    }

    #[test]
    fn block_borders_do_not_matter() {
        for shift in 0..40 {
            let mut text = "x".repeat(64 * 1024 - shift);
            text.push_str("\r\n--boundary\r\n\r\none\r\n--boundary--\r\n");
            assert_eq!(parts(&text, "boundary"), (vec!["one".into()], true), "{shift}");
        }
    }

    #[test]
    fn parts_are_limited() {
        let text = "--b\r\n\r\nx\r\n".repeat(1000);
        let bytes = text.into_bytes();
        let multipart = split(&bytes, 0..bytes.len() as u64, "b").expect("reads");
        assert!(multipart.too_many && multipart.parts.len() == MAX_PARTS);
    }

    /// A multipart in the making: preamble, parts with their headers, epilogue, and one kind of line end.
    fn generated() -> impl Strategy<Value = (String, String, Vec<(String, String)>, String, bool, String)> {
        let boundary = "[A-Za-z0-9'()+_,./:=?-]{1,40}";
        // Text with everything that looks like a delimiter and is none.
        let piece = prop_oneof![
            "[ -~]{0,30}",
            Just("--".to_owned()),
            Just("> --b".to_owned()),
            Just("\r".to_owned()),
            "\\PC{0,10}"
        ];
        let text = || vec(piece.clone(), 0..8);
        let part = ("([A-Z][a-z]{0,8}: [ -~]{0,20}){0,1}", text());
        (boundary, text(), vec(part, 1..6), text(), any::<bool>()).prop_map(
            |(boundary, preamble, parts, epilogue, crlf)| {
                let end = if crlf { "\r\n" } else { "\n" };
                let joined = |lines: &[String]| -> String {
                    // Before a lone LF a CR belongs to the delimiter: nobody could tell whose it was.
                    let whole = |line: &String| if crlf { line.clone() } else { line.replace('\r', "") };
                    let clean =
                        |line: String| if line.trim_end().starts_with("--") { format!(" {line}") } else { line };
                    lines.iter().map(whole).map(clean).collect::<Vec<_>>().join(end)
                };
                let parts = parts.iter().map(|(header, body)| (header.clone(), joined(body))).collect();
                (boundary, joined(&preamble), parts, joined(&epilogue), crlf, end.to_owned())
            },
        )
    }

    proptest! {
        #[test]
        fn any_multipart_is_split_and_joined_to_the_same_octets((boundary, preamble, wanted, epilogue, _, end) in generated()) {
            // A preamble needs its line end; a boundary that ends in blanks would be another one.
            let mut text = if preamble.is_empty() { String::new() } else { format!("{preamble}{end}") };
            for (header, body) in &wanted {
                let header = if header.is_empty() { String::new() } else { format!("{header}{end}") };
                text += &format!("--{boundary}{end}{header}{end}{body}{end}");
            }
            text += &format!("--{boundary}--{end}{epilogue}");
            let bytes = text.clone().into_bytes();
            let found = split(&bytes, 0..bytes.len() as u64, &boundary).expect("memory reads");
            prop_assert!(found.closed && !found.too_many);
            let at = |range: Range<u64>| text[range.start as usize..range.end as usize].to_owned();
            let bodies: Vec<String> = found.parts.iter().map(|part| at(part.body.clone())).collect();
            prop_assert_eq!(&bodies, &wanted.iter().map(|(_, body)| body.clone()).collect::<Vec<_>>());
            // Joined: what lies between the bodies, and the bodies.
            let (mut joined, mut last) = (String::new(), 0);
            for (part, body) in found.parts.iter().zip(&bodies) {
                prop_assert!(part.body.start >= last);
                joined += &at(last..part.body.start);
                joined += body;
                last = part.body.end;
            }
            joined += &at(last..bytes.len() as u64);
            prop_assert_eq!(joined, text);
        }
    }
}
