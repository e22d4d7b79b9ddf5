//! Where the MIME parts of a message lie (RFC 2045, RFC 2046), found line by line with bounded memory.
//!
//! Any octets are taken: what cannot be split is one part. The result only says which ranges are worth storing on
//! their own; a wrong guess costs space, never an octet, since everything between the ranges is kept as it stands.
//! Limits (depth, parts, header size) end the splitting, not the message. Nothing is decoded here.

use crate::octets::Octets;
use memchr::{memchr, memmem, memrchr};
use std::{io, ops::Range};

/// Nested multiparts and embedded messages that are followed.
const MAX_DEPTH: usize = 32;
/// Parts of one message that are stored on their own.
const MAX_PARTS: usize = 10_000;
/// Octets of one header block; a longer one is content.
const MAX_HEADER: u64 = 1024 * 1024;
/// Octets of a line that are looked at: a boundary has at most 70 characters (RFC 2046 §5.1.1), some are longer.
const MAX_LINE: usize = 16 * 1024;

/// The body of a part that is no multipart and no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its octets, without the line end that belongs to the delimiter behind it.
    pub body: Range<u64>,
    /// Whether its header says base64.
    pub base64: bool,
}

/// The leaves of `message`, in order, not overlapping.
///
/// # Errors
/// Only what reading gives.
pub fn leaves(message: &dyn Octets) -> io::Result<Vec<Leaf>> {
    leaves_within_limits(message).map(|(leaves, _)| leaves)
}

/// As [`leaves`], and whether a limit ended the splitting: what is deeper, or behind the last part, was not taken apart.
///
/// # Errors
/// Only what reading gives.
pub fn leaves_within_limits(message: &dyn Octets) -> io::Result<(Vec<Leaf>, bool)> {
    leaves_around(message, &[])
}

/// As [`leaves_within_limits`], without looking into these ranges, which are sorted and apart from each other: none of the
/// leaves that are found has anything of them.
///
/// # Errors
/// Only what reading gives.
pub(crate) fn leaves_around(message: &dyn Octets, without: &[Range<u64>]) -> io::Result<(Vec<Leaf>, bool)> {
    let mut splitter = Splitter::default();
    let mut line = Line::default();
    let delimiter = memmem::Finder::new(b"\n--");
    let scan = |range: Range<u64>, splitter: &mut Splitter, line: &mut Line| {
        message.for_each_block(range, &mut |block| {
            let mut rest = block;
            loop {
                if line.len == 0 && splitter.wants_delimiters() {
                    let passed = lines_before_delimiter(rest, &delimiter);
                    let (lines, tail) = rest.split_at(passed);
                    if let Some(line_end) = line.pass(lines) {
                        splitter.last_line_end = line_end;
                    }
                    rest = tail;
                }
                let Some(lf) = memchr(b'\n', rest) else { break };
                let (head, tail) = rest.split_at(lf + 1);
                line.push(head);
                splitter.line(line);
                line.next();
                rest = tail;
            }
            line.push(rest);
            Ok(())
        })
    };
    let mut at = 0;
    for range in without {
        scan(at..range.start, &mut splitter, &mut line)?;
        at = range.end;
        // Until the next delimiter, nothing is worth keeping on its own.
        splitter.state = State::Between;
        splitter.last_line_end = 0;
        line = Line { start: at, ..Line::default() };
    }
    scan(at..message.len(), &mut splitter, &mut line)?;
    if line.len > 0 {
        splitter.line(&line);
    }
    Ok(splitter.finish(message.len()))
}

/// Octets of whole lines of which none begins like a delimiter.
fn lines_before_delimiter(lines: &[u8], delimiter: &memmem::Finder<'_>) -> usize {
    if lines.starts_with(b"-") {
        // Perhaps the rest of it comes with the next block.
        return 0;
    }
    match delimiter.find(lines) {
        Some(line_end) => line_end + 1,
        None => memrchr(b'\n', lines).map_or(0, |line_end| line_end + 1),
    }
}

/// One line with its line end; only its beginning is kept.
#[derive(Default)]
struct Line {
    start: u64,
    len: u64,
    head: Vec<u8>,
    /// The last two octets.
    tail: [u8; 2],
}

impl Line {
    fn push(&mut self, octets: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.head.len()).min(octets.len());
        self.head.extend_from_slice(octets.get(..room).unwrap_or_default());
        self.len += octets.len() as u64;
        match octets {
            [.., a, b] => self.tail = [*a, *b],
            [b] => self.tail = [self.tail[1], *b],
            [] => {}
        }
    }

    /// Passes over whole lines; the octets of the last line end, where there is one.
    fn pass(&mut self, lines: &[u8]) -> Option<u64> {
        self.start += lines.len() as u64;
        match lines {
            [] => None,
            [.., b'\r', b'\n'] => Some(2),
            _ => Some(1),
        }
    }

    fn next(&mut self) {
        self.start += self.len;
        self.len = 0;
        self.head.clear();
        self.tail = [0; 2];
    }

    fn line_end(&self) -> u64 {
        match self.tail {
            [b'\r', b'\n'] => 2,
            [_, b'\n'] => 1,
            _ => 0,
        }
    }

    /// Without its line end.
    fn text(&self) -> &[u8] {
        let text = self.head.strip_suffix(b"\n").unwrap_or(&self.head);
        text.strip_suffix(b"\r").unwrap_or(text)
    }
}

enum State {
    /// In the header block that began here.
    Header { start: u64 },
    /// In a body that is worth keeping on its own.
    Leaf { start: u64, base64: bool },
    /// Before the first or behind the last part of a multipart.
    Between,
}

struct Splitter {
    state: State,
    /// Boundaries around the current place, each with the embedded messages around it.
    boundaries: Vec<(Vec<u8>, usize)>,
    /// Embedded messages around the current one: they count as depth.
    embedded: usize,
    fields: Fields,
    leaves: Vec<Leaf>,
    limited: bool,
    last_line_end: u64,
}

impl Default for Splitter {
    fn default() -> Self {
        Self {
            state: State::Header { start: 0 },
            boundaries: Vec::new(),
            embedded: 0,
            fields: Fields::default(),
            leaves: Vec::new(),
            limited: false,
            last_line_end: 0,
        }
    }
}

impl Splitter {
    /// Whether other lines than delimiters change nothing.
    fn wants_delimiters(&self) -> bool {
        !matches!(self.state, State::Header { .. })
    }

    fn line(&mut self, line: &Line) {
        if let Some((level, last)) = self.delimiter(line) {
            self.close(line.start.saturating_sub(self.last_line_end));
            self.embedded = self.boundaries.get(level).map_or(0, |(_, embedded)| *embedded);
            self.boundaries.truncate(if last { level } else { level + 1 });
            self.fields = Fields::default();
            self.state = if last { State::Between } else { State::Header { start: line.start + line.len } };
        } else if let State::Header { start } = self.state {
            let end = line.start + line.len;
            if line.text().is_empty() {
                self.header_ends(end);
            } else if end - start > MAX_HEADER {
                self.state = State::Leaf { start, base64: false };
            } else {
                self.fields.line(line.text());
            }
        }
        self.last_line_end = line.line_end();
    }

    /// The level of the multipart that this line delimits, and whether it ends it (RFC 2046 §5.1.1).
    fn delimiter(&self, line: &Line) -> Option<(usize, bool)> {
        let text = line.head.strip_prefix(b"--")?;
        if line.len > line.head.len() as u64 {
            return None;
        }
        let text = text.trim_ascii_end();
        for (level, (boundary, _)) in self.boundaries.iter().enumerate().rev() {
            match text.strip_prefix(boundary.as_slice()) {
                Some(b"") => return Some((level, false)),
                Some(b"--") => return Some((level, true)),
                _ => {}
            }
        }
        None
    }

    fn header_ends(&mut self, at: u64) {
        let fields = std::mem::take(&mut self.fields).finish();
        let depth = self.boundaries.len() + self.embedded;
        self.limited |= depth >= MAX_DEPTH && (fields.multipart() || fields.message());
        self.state = if depth < MAX_DEPTH && fields.multipart() {
            match fields.boundary() {
                Some(boundary) => {
                    self.boundaries.push((boundary, self.embedded));
                    State::Between
                }
                None => State::Leaf { start: at, base64: false },
            }
        } else if depth < MAX_DEPTH && fields.message() {
            self.embedded += 1;
            State::Header { start: at }
        } else {
            State::Leaf { start: at, base64: fields.base64() }
        };
    }

    fn close(&mut self, end: u64) {
        if let State::Leaf { start, base64 } = self.state
            && end > start
        {
            if self.leaves.len() < MAX_PARTS {
                self.leaves.push(Leaf { body: start..end, base64 });
            } else {
                self.limited = true;
            }
        }
    }

    fn finish(mut self, end: u64) -> (Vec<Leaf>, bool) {
        self.close(end);
        (self.leaves, self.limited)
    }
}

/// The two header fields that matter, unfolded.
#[derive(Default)]
struct Fields {
    current: Vec<u8>,
    content_type: Option<String>,
    encoding: Option<String>,
}

impl Fields {
    fn line(&mut self, text: &[u8]) {
        if matches!(text.first(), Some(b' ' | b'\t')) {
            if !self.current.is_empty() && self.current.len() < MAX_LINE {
                self.current.extend_from_slice(text);
            }
            return;
        }
        self.take();
        if text.first().is_some_and(|c| matches!(c, b'c' | b'C')) {
            self.current.extend_from_slice(text);
        }
    }

    fn take(&mut self) {
        let field = std::mem::take(&mut self.current);
        let Some(colon) = memchr(b':', &field) else { return };
        let (name, value) = field.split_at(colon);
        let value = || String::from_utf8_lossy(value.get(1..).unwrap_or_default()).trim().to_owned();
        let name = name.trim_ascii();
        // The first field counts where there are two.
        if name.eq_ignore_ascii_case(b"content-type") {
            self.content_type.get_or_insert_with(value);
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            self.encoding.get_or_insert_with(value);
        }
    }

    fn finish(mut self) -> Self {
        self.take();
        self
    }

    fn starts(&self, prefix: &str) -> bool {
        let start = self.content_type.as_deref().and_then(|value| value.get(..prefix.len()));
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    }

    fn multipart(&self) -> bool {
        self.starts("multipart/")
    }

    /// An embedded message whose header can be read: an encoded one is a leaf.
    fn message(&self) -> bool {
        let plain = self
            .encoding
            .as_deref()
            .is_none_or(|encoding| ["7bit", "8bit", "binary"].iter().any(|known| encoding.eq_ignore_ascii_case(known)));
        plain && (self.starts("message/rfc822") || self.starts("message/global"))
    }

    fn base64(&self) -> bool {
        self.encoding.as_deref().is_some_and(|encoding| encoding.eq_ignore_ascii_case("base64"))
    }

    fn boundary(&self) -> Option<Vec<u8>> {
        let mut rest = self.content_type.as_deref()?;
        loop {
            rest = rest.get(rest.find(';')? + 1..)?.trim_start();
            let Some((name, value)) = rest.split_once('=') else { continue };
            if name.trim().eq_ignore_ascii_case("boundary") {
                return Some(parameter(value.trim_start())).filter(|boundary| !boundary.is_empty());
            }
        }
    }
}

/// A parameter value, quoted or not (RFC 2045 §5.1).
fn parameter(value: &str) -> Vec<u8> {
    let Some(quoted) = value.strip_prefix('"') else {
        return value.split([';', ' ', '\t']).next().unwrap_or_default().trim().into();
    };
    let mut out = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => out.extend(chars.next()),
            other => out.push(other),
        }
    }
    out.trim_end().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    /// Octets that are handed on a few at a time.
    struct Pieces(Vec<u8>, usize);

    impl Octets for Pieces {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset, buffer)
        }

        fn for_each_block(&self, range: Range<u64>, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
            self.0.view(range)?.chunks(self.1).try_for_each(each)
        }
    }

    const LINES: [&str; 12] = [
        "Content-Type: multipart/mixed; boundary=a\r\n",
        "Content-Type: multipart/mixed; boundary=b\n",
        "Content-Type: message/rfc822\r\n",
        "\r\n",
        "\n",
        "--a\r\n",
        "--b\n",
        "--a--\r\n",
        "--b--\r\n",
        "text\r\n",
        "-\n",
        "--",
    ];

    proptest! {
        #[test]
        fn borders_of_blocks_do_not_matter(lines in vec(select(LINES.to_vec()), 0..40), size in 1usize..20) {
            let message = lines.concat().into_bytes();
            let whole = leaves_within_limits(&message).expect("memory reads");
            prop_assert_eq!(leaves_within_limits(&Pieces(message, size)).expect("memory reads"), whole);
        }

        /// A message within another one: what is found around it is what is found without it.
        #[test]
        fn an_embedded_message_is_passed_over(inner in vec(select(LINES[3..11].to_vec()), 1..20)) {
            let (head, inner) = (
                "Content-Type: multipart/mixed; boundary=outer\r\n\r\n--outer\r\n\r\none\r\n--outer\r\n\
                 Content-Type: message/rfc822\r\n\r\n",
                inner.concat(),
            );
            let message = format!("{head}{inner}\r\n--outer\r\n\r\ntwo\r\n--outer--\r\n").into_bytes();
            let range = head.len() as u64..(head.len() + inner.len()) as u64;
            let all = leaves_within_limits(&message).expect("memory reads").0.into_iter();
            let wanted: Vec<Leaf> =
                all.filter(|leaf| leaf.body.end <= range.start || range.end <= leaf.body.start).collect();
            let (found, _) = leaves_around(&message, std::slice::from_ref(&range)).expect("memory reads");
            prop_assert_eq!(found, wanted);
        }
    }

    fn bodies(message: &str) -> Vec<(String, bool)> {
        let found = leaves(&message.as_bytes().to_vec()).expect("memory reads");
        found
            .into_iter()
            .map(|leaf| (message[leaf.body.start as usize..leaf.body.end as usize].to_owned(), leaf.base64))
            .collect()
    }

    #[test]
    fn parts_of_nested_multiparts_and_messages_are_found() {
        let message = "Content-Type: multipart/mixed;\r\n boundary=\"a b\"\r\n\r\npreamble\r\n--a b\r\n\r\none\r\n--a b \r\n\
            content-type: MESSAGE/RFC822\r\n\r\nSubject: x\r\nContent-type: multipart/alternative; charset=x; \
            boundary=in\r\n\r\n--in\r\nContent-Transfer-Encoding: BASE64\r\n\r\nAAAA\r\n--in--\r\n\r\n--a b\r\n\r\n\r\n\
            --a b\r\n\r\ntwo\n--a b--\r\nepilogue\r\n";
        assert_eq!(bodies(message), [("one".into(), false), ("AAAA".into(), true), ("two".into(), false)]);
    }

    #[test]
    fn what_cannot_be_split_is_one_part() {
        assert_eq!(bodies("Subject: x\r\n\r\nbody\r\n"), [("body\r\n".into(), false)]);
        assert_eq!(bodies("Content-Type: multipart/mixed\r\n\r\nbody"), [("body".into(), false)]);
        assert_eq!(bodies("no header at all"), []);
        assert_eq!(bodies(""), []);
        assert_eq!(bodies("Content-Type: multipart/mixed; boundary=x\n\n--x\n\ncut off"), [("cut off".into(), false)]);
        let open = "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/mixed; boundary=y\n\n\
            --y\n\none\n--x\n\ntwo\n--x--\n";
        assert_eq!(bodies(open), [("one".into(), false), ("two".into(), false)]);
    }

    #[test]
    fn limits_are_told_and_only_when_they_are_passed() {
        let nested = |levels: usize| {
            let mut message = String::new();
            for level in 0..levels {
                message += &format!("Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n");
            }
            message + "\ntext\n"
        };
        let parts = |count: usize| {
            format!("Content-Type: multipart/mixed; boundary=b\n\n{}--b--\n", "--b\n\nx\n".repeat(count))
        };
        for (message, leaves, limited) in [
            (nested(MAX_DEPTH), 1, false),
            (nested(MAX_DEPTH + 1), 1, true),
            (parts(MAX_PARTS), MAX_PARTS, false),
            (parts(MAX_PARTS + 1), MAX_PARTS, true),
        ] {
            let found = leaves_within_limits(&message.into_bytes()).expect("memory reads");
            assert_eq!((found.0.len(), found.1), (leaves, limited));
        }
    }

    #[test]
    fn bombs_end_the_splitting_only() {
        let deep = "Content-Type: message/rfc822\n\n".repeat(100_000);
        assert_eq!(bodies(&deep).len(), 1);
        let wide = format!("Content-Type: multipart/mixed; boundary=x\n\n{}", "--x\n\nbody\n".repeat(50_000));
        assert_eq!(bodies(&wide).len(), MAX_PARTS);
        let header = format!("X: {}\n", "y".repeat(70)).repeat(20_000);
        assert_eq!(bodies(&header).len(), 1);
    }
}
