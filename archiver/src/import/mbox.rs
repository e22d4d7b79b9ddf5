//! Messages in an mbox file, in all four dialects of quoting.
//!
//! A message begins with a line `From ` (the separator, no part of it) behind an empty line or at the start of the file,
//! and ends before the next one; one empty line before a separator belongs to it. The dialects differ in how a line
//! `From ` of a body is kept from being one:
//!
//! | dialect | `From ` in a body | where a message ends |
//! |---|---|---|
//! | mboxo | `>From `; `>From ` stays, so it cannot be undone for certain | separator |
//! | mboxrd | one more `>` before any number of them | separator |
//! | mboxcl | as mboxo | `Content-Length` |
//! | mboxcl2 | stays | `Content-Length` |
//!
//! A `Content-Length` is believed only where a separator or the end of the file follows. Nothing in a file tells mboxo
//! from mboxrd: they differ only in lines with two or more `>`. Pure, but for reading; memory is bounded.

use crate::{export::NO_EOL, octets::Octets};
use memchr::memchr;
use std::{io, ops::Range};

/// Octets of a header in which `Content-Length` is looked for.
const MAX_HEADER: u64 = 1024 * 1024;
/// Octets of a line that are looked at.
const HEAD: usize = 512;
const BLOCK: usize = 64 * 1024;

/// How lines `From ` of a body are quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `>From ` once.
    Mboxo,
    /// One more `>`.
    Mboxrd,
    /// As [`Self::Mboxo`], with `Content-Length`.
    Mboxcl,
    /// Not at all, with `Content-Length`.
    Mboxcl2,
}

impl Dialect {
    fn counts(self) -> bool {
        matches!(self, Self::Mboxcl | Self::Mboxcl2)
    }
}

/// One message of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its octets, still quoted.
    pub content: Range<u64>,
    /// Where `Content-Length` says that it ends.
    counted: bool,
}

/// A separator of our own export says that its message got a line end that is not its own.
fn is_open(separator: &[u8]) -> bool {
    separator.trim_ascii_end().ends_with(format!(" {NO_EOL}").as_bytes())
}

/// Whether a file that begins like this is an mbox.
#[must_use]
pub fn is_mbox(head: &[u8]) -> bool {
    head.starts_with(b"From ")
}

/// The dialect of a whole file: `Content-Length` that holds makes it mboxcl, a line `From ` inside such a body mboxcl2;
/// every other file is read as mboxrd.
///
/// # Errors
/// Only what reading gives.
pub fn detect(octets: &dyn Octets) -> io::Result<Dialect> {
    let (mut reader, mut counted) = (Reader::new(octets, Dialect::Mboxcl), false);
    while let Some(found) = reader.next_message()? {
        if !found.counted {
            continue;
        }
        counted = true;
        let mut lines = Lines::new(octets, found.content);
        while let Some(line) = lines.next_line()? {
            if line.head.starts_with(b"From ") {
                return Ok(Dialect::Mboxcl2);
            }
        }
    }
    Ok(if counted { Dialect::Mboxcl } else { Dialect::Mboxrd })
}

/// Finds message after message.
pub struct Reader<'a> {
    octets: &'a dyn Octets,
    dialect: Dialect,
    at: u64,
}

impl<'a> Reader<'a> {
    /// Begins at the start of the file.
    #[must_use]
    pub fn new(octets: &'a dyn Octets, dialect: Dialect) -> Self {
        Self { octets, dialect, at: 0 }
    }

    /// The next message; `None` at the end. What stands before the first separator is a message too: nothing is dropped.
    ///
    /// # Errors
    /// Only what reading gives.
    pub fn next_message(&mut self) -> io::Result<Option<Found>> {
        let len = self.octets.len();
        let mut lines = Lines::new(self.octets, self.at..len);
        let mut first = lines.next_line()?;
        while first.as_ref().is_some_and(Line::is_empty) {
            first = lines.next_line()?;
        }
        let Some(first) = first else { return Ok(None) };
        let start = if is_mbox(&first.head) { first.end } else { first.start };
        if self.dialect.counts()
            && let Some(end) = self.counted_end(start)?
        {
            self.at = end;
            return Ok(Some(Found { content: start..end, counted: true }));
        }
        let end = self.separator_behind(start)?;
        self.at = end.unwrap_or(len);
        let mut end = self.without_empty_line(start, end.unwrap_or(len))?;
        if start == first.end && is_open(&first.head) && end > start {
            end -= 1;
        }
        Ok(Some(Found { content: start..end, counted: false }))
    }

    /// Where the message ends by its `Content-Length`, where that can be believed.
    fn counted_end(&self, start: u64) -> io::Result<Option<u64>> {
        let limit = self.octets.len().min(start.saturating_add(MAX_HEADER));
        let mut lines = Lines::new(self.octets, start..limit);
        let mut length = None;
        while let Some(line) = lines.next_line()? {
            if line.is_empty() {
                let end = length.and_then(|length: u64| line.end.checked_add(length));
                let Some(end) = end.filter(|end| *end <= self.octets.len()) else { return Ok(None) };
                return Ok(self.ends_at(end)?.then_some(end));
            }
            let text = String::from_utf8_lossy(&line.head);
            if let Some((name, value)) = text.split_once(':')
                && name.trim_end().eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok();
            }
        }
        Ok(None)
    }

    /// Whether empty lines and then a separator or the end of the file follow.
    fn ends_at(&self, end: u64) -> io::Result<bool> {
        let mut lines = Lines::new(self.octets, end..self.octets.len());
        let mut empty = 0;
        while let Some(line) = lines.next_line()? {
            match line.is_empty() {
                true if empty < 2 => empty += 1,
                true => return Ok(false),
                false => return Ok(is_mbox(&line.head)),
            }
        }
        Ok(true)
    }

    /// The next line that begins a message: behind an empty line, and with a date or a header behind it.
    fn separator_behind(&self, start: u64) -> io::Result<Option<u64>> {
        let mut lines = Lines::new(self.octets, start..self.octets.len());
        let mut after_empty = false;
        let mut maybe: Option<u64> = None;
        while let Some(line) = lines.next_line()? {
            if let Some(at) = maybe.take()
                && is_field(&line.head)
            {
                return Ok(Some(at));
            }
            if after_empty && is_mbox(&line.head) {
                if has_date(&line.head) {
                    return Ok(Some(line.start));
                }
                maybe = Some(line.start);
            }
            after_empty = line.is_empty();
        }
        Ok(None)
    }

    fn without_empty_line(&self, start: u64, end: u64) -> io::Result<u64> {
        let tail = self.octets.copy(end.saturating_sub(4).max(start)..end)?;
        let cut = match tail.as_slice() {
            [.., b'\n', b'\r', b'\n'] => 2,
            [.., b'\n', b'\n'] => 1,
            // A message of an empty line alone.
            [b'\n'] => 1,
            [b'\r', b'\n'] => 2,
            _ => 0,
        };
        Ok(end - cut)
    }
}

/// Hands the octets of a message to `out`, the quoting undone.
///
/// # Errors
/// What reading or `out` gives.
pub fn unquoted(
    octets: &dyn Octets,
    found: &Found,
    dialect: Dialect,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    // A message of a file with lengths that has none, or a wrong one, was found by its separator: it had to be quoted.
    let any = match dialect {
        Dialect::Mboxcl2 if found.counted => {
            return octets.for_each_block(found.content.clone(), out);
        }
        Dialect::Mboxrd => true,
        Dialect::Mboxo | Dialect::Mboxcl | Dialect::Mboxcl2 => false,
    };
    let mut copied = found.content.start;
    let mut lines = Lines::new(octets, found.content.clone());
    while let Some(line) = lines.next_line()? {
        if line.letters == FROM.len() && (line.quotes == 1 || any && line.quotes > 1) {
            octets.for_each_block(copied..line.start, out)?;
            copied = line.start + 1;
        }
    }
    octets.for_each_block(copied..found.content.end, out)
}

/// `From ann@a.example Tue Aug 18 10:00:00 2026`: a time of day and a year.
fn has_date(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    let words: Vec<&str> = text.split_whitespace().collect();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_time = |word: &&str| {
        let parts: Vec<&str> = word.split(':').collect();
        (2..=3).contains(&parts.len()) && parts.iter().all(|part| part.len() <= 2 && digits(part))
    };
    let is_year = |word: &&str| word.len() == 4 && digits(word);
    words.iter().any(is_time) && words.iter().any(is_year)
}

/// A line that a header may begin with.
fn is_field(line: &[u8]) -> bool {
    let Some(colon) = memchr(b':', line) else { return false };
    let name = line.get(..colon).unwrap_or_default().trim_ascii_end();
    !name.is_empty() && name.iter().all(|b| b.is_ascii_graphic())
}

/// A line: only its beginning is kept.
struct Line {
    start: u64,
    /// Behind its line end.
    end: u64,
    head: Vec<u8>,
    /// How many `>` it begins with.
    quotes: u64,
    /// How much of `From ` stands behind them.
    letters: usize,
    /// Whether neither can grow any more.
    begun: bool,
}

const FROM: &[u8] = b"From ";

impl Line {
    /// Looks at its next octets for the quoting.
    fn look(&mut self, piece: &[u8]) {
        for octet in piece {
            match (self.begun, *octet) {
                (true, _) => return,
                (false, b'>') if self.letters == 0 => self.quotes += 1,
                (false, octet) if FROM.get(self.letters) == Some(&octet) => self.letters += 1,
                (false, _) => self.begun = true,
            }
            self.begun |= self.letters == FROM.len();
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self.head.as_slice(), b"\n" | b"\r\n")
    }
}

/// Reads lines with bounded memory.
struct Lines<'a> {
    octets: &'a dyn Octets,
    range: Range<u64>,
    block: Vec<u8>,
    at: usize,
}

impl<'a> Lines<'a> {
    fn new(octets: &'a dyn Octets, range: Range<u64>) -> Self {
        Self { octets, range, block: Vec::new(), at: 0 }
    }

    fn next_line(&mut self) -> io::Result<Option<Line>> {
        let mut line: Option<Line> = None;
        loop {
            if self.at == self.block.len() {
                let count = (self.range.end - self.range.start).min(BLOCK as u64);
                if count == 0 {
                    return Ok(line);
                }
                self.block = self.octets.copy(self.range.start..self.range.start + count)?;
                self.range.start += count;
                self.at = 0;
            }
            let rest = self.block.get(self.at..).unwrap_or_default();
            let position = self.range.start - rest.len() as u64;
            let line_feed = memchr(b'\n', rest);
            let piece = rest.get(..line_feed.map_or(rest.len(), |at| at + 1)).unwrap_or_default();
            self.at += piece.len();
            let open = line.get_or_insert_with(|| Line {
                start: position,
                end: position,
                head: Vec::new(),
                quotes: 0,
                letters: 0,
                begun: false,
            });
            open.look(piece);
            let room = (HEAD - open.head.len()).min(piece.len());
            open.head.extend_from_slice(piece.get(..room).unwrap_or_default());
            open.end += piece.len() as u64;
            if line_feed.is_some() {
                return Ok(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, dialect: Option<Dialect>) -> (Dialect, Vec<String>) {
        let octets = text.as_bytes().to_vec();
        let dialect = dialect.unwrap_or_else(|| detect(&octets).expect("reads"));
        let (mut reader, mut messages) = (Reader::new(&octets, dialect), Vec::new());
        while let Some(found) = reader.next_message().expect("reads") {
            let mut message = Vec::new();
            unquoted(&octets, &found, dialect, &mut |block| {
                message.extend_from_slice(block);
                Ok(())
            })
            .expect("reads");
            messages.push(String::from_utf8(message).expect("text"));
        }
        (dialect, messages)
    }

    /// Messages as a program of each dialect writes them.
    fn written(messages: &[&str], dialect: Dialect) -> String {
        let mut file = String::new();
        for message in messages {
            let mut message = (*message).to_owned();
            let quoted = |line: &str| match dialect {
                Dialect::Mboxrd => line.trim_start_matches('>').starts_with("From "),
                Dialect::Mboxo | Dialect::Mboxcl => line.starts_with("From "),
                Dialect::Mboxcl2 => false,
            };
            message =
                message.split_inclusive('\n').map(|l| if quoted(l) { format!(">{l}") } else { l.to_owned() }).collect();
            if dialect.counts() {
                let (header, body) = message.split_once("\n\n").expect("has a body");
                message = format!("{header}\nContent-Length: {}\n\n{body}", body.len());
            }
            file += &format!("From ann@a.example Tue Aug 18 10:00:00 2026\n{message}\n");
        }
        file
    }

    const PLAIN: &str = "Subject: 1\n\nHello\n\nFrom here on it is text\n>>From two\nend\n";
    const OTHER: &str = "Subject: 2\n\nx\n\nFrom: not a separator\n";

    #[test]
    fn every_dialect_gives_back_what_was_written() {
        for dialect in [Dialect::Mboxo, Dialect::Mboxrd, Dialect::Mboxcl, Dialect::Mboxcl2] {
            let (_, read) = read(&written(&[PLAIN, OTHER], dialect), Some(dialect));
            let counted = |message: &str| {
                let (header, body) = message.split_once("\n\n").expect("has a body");
                let stored = body.len() + usize::from(dialect == Dialect::Mboxcl && body.contains("\nFrom "));
                format!("{header}\nContent-Length: {stored}\n\n{body}")
            };
            let wanted = |message: &str| if dialect.counts() { counted(message) } else { message.to_owned() };
            assert_eq!(read, [wanted(PLAIN), wanted(OTHER)], "{dialect:?}");
        }
    }

    #[test]
    fn what_a_file_tells_of_its_dialect() {
        for (dialect, told) in [
            (Dialect::Mboxo, Dialect::Mboxrd),
            (Dialect::Mboxrd, Dialect::Mboxrd),
            (Dialect::Mboxcl, Dialect::Mboxcl),
            (Dialect::Mboxcl2, Dialect::Mboxcl2),
        ] {
            assert_eq!(read(&written(&[OTHER, PLAIN, OTHER], dialect), None).0, told, "{dialect:?}");
        }
    }

    #[test]
    fn separators_and_what_only_looks_like_one() {
        let cases: [(&str, &[&str]); 9] = [
            ("", &[]),
            ("\n\n\n", &[]),
            ("From a\nSubject: 1\n", &["Subject: 1\n"]),
            ("From a\n\n", &[""]),
            ("Subject: no separator\n\nx\n", &["Subject: no separator\n\nx\n"]),
            (
                "From a b\nA: 1\n\nx\nFrom a Tue Aug 18 10:00:00 2026\ny\n",
                &["A: 1\n\nx\nFrom a Tue Aug 18 10:00:00 2026\ny\n"],
            ),
            ("From a\nA: 1\n\nx\n\nFrom the start\nwe knew\n", &["A: 1\n\nx\n\nFrom the start\nwe knew\n"]),
            ("From a\nA: 1\n\nx\n\nFrom - \nB: 2\n\ny\n", &["A: 1\n\nx\n", "B: 2\n\ny\n"]),
            ("From a\r\nA: 1\r\n\r\nx\r\n\r\nFrom a 10:00 2026\r\nB: 2\r\n\r\n", &["A: 1\r\n\r\nx\r\n", "B: 2\r\n"]),
        ];
        for (text, wanted) in cases {
            assert_eq!(read(text, None).1, wanted, "{text:?}");
        }
    }

    #[test]
    fn a_wrong_length_is_not_believed() {
        for length in ["0", "3", "99999", "-1", "18446744073709551615", "x"] {
            let text = format!("From a\nContent-Length: {length}\n\nbody\n\nFrom b 10:00 2026\nA: 2\n\ny\n");
            let (_, messages) = read(&text, Some(Dialect::Mboxcl));
            assert_eq!(messages.len(), 2, "{length}");
            assert!(messages[0].ends_with("\n\nbody\n"), "{length}: {messages:?}");
        }
    }

    #[test]
    fn long_lines_and_block_borders_do_not_matter() {
        for shift in 0..20 {
            let long = "x".repeat(BLOCK - shift);
            let text = format!("From a\nA: 1\n\n{long}\n\nFrom b 10:00 2026\nB: {long}\n\n>From y\n");
            let (_, messages) = read(&text, None);
            assert_eq!(messages, [format!("A: 1\n\n{long}\n"), format!("B: {long}\n\nFrom y\n")], "{shift}");
        }
    }
}
