//! Many messages in one file: mboxrd, exactly reversible.
//!
//! Each message stands between a separator line `From MAILER-DAEMON <date>` and an empty line; a line that begins with
//! any number of `>` and `From ` gets one more `>`. Line ends stay what they are. A message that does not end with a line
//! end gets one, and its separator says ` no-eol`: the one thing that mboxrd itself cannot say.

use super::{
    Exported, How,
    files::{Output, safe, write_whole},
    header,
    manifest::Lines,
    write_message,
};
use crate::{
    archive::Archive,
    store::{Listed, StoreError, StoreResult},
};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A file is followed by the next when it has this many octets: what an interrupted export writes again is no more.
const FULL: u64 = 1024 * 1024 * 1024;
/// Word of a separator behind whose message one line end was added.
pub(crate) const NO_EOL: &str = "no-eol";

/// Writes one owner's folders.
pub(super) fn write(
    archive: &Archive,
    owner: &str,
    how: How,
    output: &Output<'_>,
    lines: &mut Lines<'_>,
    done: &mut Exported,
    progress: &mut dyn FnMut(u64),
) -> StoreResult<()> {
    // Dates order them; a folder's file holds its own.
    let mut folders: BTreeMap<String, Vec<Vec<Listed>>> = BTreeMap::new();
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    archive.list(owner, None, &mut |listed| {
        let files = folders.entry(listed.folder.clone()).or_default();
        let size = sizes.entry(listed.folder.clone()).or_insert(FULL);
        if *size >= FULL {
            files.push(Vec::new());
            *size = 0;
        }
        *size += listed.size;
        if let Some(file) = files.last_mut() {
            file.push(listed);
        }
        Ok(())
    })?;
    for (folder, files) in folders {
        for (number, messages) in (1..).zip(files) {
            let relative: PathBuf = [safe(owner), format!("{}.{number:04}.mbox", safe(&folder))].iter().collect();
            one_file(archive, owner, how, output, &relative, messages, (lines, done), progress)?;
        }
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "what a file is made of")]
fn one_file(
    archive: &Archive,
    owner: &str,
    how: How,
    output: &Output<'_>,
    relative: &std::path::Path,
    messages: Vec<Listed>,
    (lines, done): (&mut Lines<'_>, &mut Exported),
    progress: &mut dyn FnMut(u64),
) -> StoreResult<()> {
    let (mut whole, mut problems) = (Vec::new(), Vec::new());
    for listed in messages {
        // Looked at before: half a message in the middle of a file could not be taken back.
        match archive.read_message(&listed.id, &mut Ending::default()) {
            Err(error @ (StoreError::Disk(_) | StoreError::Output(_))) => return Err(error),
            Err(error) => problems.push((listed.id, error)),
            Ok(()) => whole.push(listed),
        }
    }
    let prefix = |listed: &Listed| if how.mailstore_headers { header(owner, listed) } else { String::new() };
    let written = write_whole(output, relative, &mut |out| {
        for listed in &whole {
            let mut ending = Ending::default();
            archive.read_message(&listed.id, &mut ending)?;
            separator(listed, ending.is_open(), out).map_err(StoreError::Output)?;
            let mut quoting = Quoting { out, line: Line::Start(0) };
            write_message(archive, listed, &prefix(listed), &mut quoting)?;
            quoting.finish().map_err(StoreError::Output)?;
            out.write_all(if ending.is_open() { b"\n\n" } else { b"\n" }).map_err(StoreError::Output)?;
        }
        Ok(())
    })?;
    lines.file(&written.sha256, relative);
    for (number, listed) in whole.iter().enumerate() {
        done.messages += 1;
        done.bytes += listed.size;
        done.before += u64::from(written.before);
        lines.message(archive, owner, listed, relative, Some(number), prefix(listed).len())?;
        progress(done.messages + done.problems.len() as u64);
    }
    done.problems.extend(problems);
    Ok(())
}

/// `From MAILER-DAEMON Tue Aug 18 10:00:00 2026`.
fn separator(listed: &Listed, open: bool, out: &mut dyn Write) -> io::Result<()> {
    let date = listed.date.as_deref().unwrap_or(&listed.archived_at);
    let date = OffsetDateTime::parse(date, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (weekday, month) = (date.weekday().to_string(), date.month().to_string());
    let short = |word: &str| word.chars().take(3).collect::<String>();
    let open = if open { format!(" {NO_EOL}") } else { String::new() };
    let (hour, minute, second) = date.to_hms();
    writeln!(
        out,
        "From MAILER-DAEMON {} {} {:>2} {hour:02}:{minute:02}:{second:02} {:04}{open}",
        short(&weekday),
        short(&month),
        date.day(),
        date.year()
    )
}

/// Looks whether octets end with a line end.
#[derive(Default)]
struct Ending {
    last: Option<u8>,
}

impl Ending {
    fn is_open(&self) -> bool {
        self.last != Some(b'\n')
    }
}

impl Write for Ending {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.last = octets.last().copied().or(self.last);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where in a line.
enum Line {
    /// Nothing but so many `>` so far.
    Start(u64),
    /// So many `>`, and then the beginning of `From ` of this length.
    From(u64, usize),
    /// It needs no quoting.
    Plain,
}

/// Puts `>` before lines that need it; the beginning of a line is held back until that is known.
struct Quoting<'a> {
    out: &'a mut dyn Write,
    line: Line,
}

const FROM: &[u8] = b"From ";

impl Quoting<'_> {
    /// Lets out what was held back.
    fn let_out(&mut self, quote: bool) -> io::Result<()> {
        let (quotes, letters) = match std::mem::replace(&mut self.line, Line::Plain) {
            Line::Start(quotes) => (quotes, 0),
            Line::From(quotes, letters) => (quotes, letters),
            Line::Plain => return Ok(()),
        };
        let mut left = quotes + u64::from(quote);
        while left > 0 {
            let count = left.min(4096);
            self.out.write_all(&vec![b'>'; usize::try_from(count).unwrap_or(4096)])?;
            left -= count;
        }
        self.out.write_all(FROM.get(..letters).unwrap_or_default())
    }

    fn finish(mut self) -> io::Result<()> {
        self.let_out(false)
    }
}

impl Write for Quoting<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while let Some(octet) = octets.get(at) {
            match self.line {
                Line::Plain => {
                    let rest = octets.get(at..).unwrap_or_default();
                    let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
                    self.out.write_all(rest.get(..end).unwrap_or_default())?;
                    if rest.get(end.wrapping_sub(1)) == Some(&b'\n') {
                        self.line = Line::Start(0);
                    }
                    at += end;
                }
                Line::Start(quotes) if *octet == b'>' => {
                    self.line = Line::Start(quotes + 1);
                    at += 1;
                }
                Line::Start(quotes) if *octet == b'F' => {
                    self.line = Line::From(quotes, 1);
                    at += 1;
                }
                Line::From(quotes, letters) if FROM.get(letters) == Some(octet) => {
                    at += 1;
                    self.line = Line::From(quotes, letters + 1);
                    if letters + 1 == FROM.len() {
                        self.let_out(true)?;
                    }
                }
                Line::Start(_) | Line::From(..) => self.let_out(false)?,
            }
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::mbox::{Dialect, Reader, unquoted};
    use proptest::prelude::*;

    fn written(messages: &[Vec<u8>], cut: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages {
            let listed = Listed { date: Some("2026-08-18T10:00:00Z".to_owned()), ..Listed::default() };
            let mut ending = Ending::default();
            ending.write_all(message).expect("memory");
            separator(&listed, ending.is_open(), &mut out).expect("memory");
            let mut quoting = Quoting { out: &mut out, line: Line::Start(0) };
            for piece in message.chunks(cut) {
                quoting.write_all(piece).expect("memory");
            }
            quoting.finish().expect("memory");
            out.extend_from_slice(if ending.is_open() { b"\n\n" } else { b"\n" });
        }
        out
    }

    fn read(file: &[u8]) -> Vec<Vec<u8>> {
        let file = file.to_vec();
        let (mut reader, mut found) = (Reader::new(&file, Dialect::Mboxrd), Vec::new());
        while let Some(one) = reader.next_message().expect("reads") {
            let mut message = Vec::new();
            unquoted(&file, &one, Dialect::Mboxrd, &mut |block| {
                message.extend_from_slice(block);
                Ok(())
            })
            .expect("reads");
            found.push(message);
        }
        found
    }

    #[test]
    fn what_is_hard_for_an_mbox_comes_back() {
        let many = [vec![b'>'; 507], b"From x\n".to_vec()].concat();
        let messages: Vec<Vec<u8>> = [
            "",
            "\n",
            "\r\n",
            "x",
            "x\n",
            "x\r\n",
            "x\n\n",
            "\n\nFrom a\n",
            "A: 1\n\nFrom me 10:00:00 2026\nB: 2\n",
            ">From \n>>From x\n>",
            "From ",
            "Fro",
            "Content-Length: 3\n\nabc\n",
            "A: 1\r\n\r\nFrom x\r\n\r\n",
            "\n\n\n",
        ]
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .chain([many, vec![b'>'; 2000], vec![0, 255, b'\r']])
        .collect();
        for cut in [1, 2, 3, 7, 100_000] {
            assert_eq!(read(&written(&messages, cut)), messages);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
        #[test]
        fn any_messages_come_back(
            messages in prop::collection::vec("(\n|\r\n|>|From |From|F|x|A: 1| |10:00 2026){0,12}", 0..6),
            cut in 1..9_usize,
        ) {
            let messages: Vec<Vec<u8>> = messages.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(read(&written(&messages, cut)), messages);
        }
    }
}
