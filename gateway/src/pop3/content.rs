//! A message on its way out: dot-stuffed or counted, whole or cut after some lines, and never longer or shorter than
//! announced.

use super::Item;
use postkeep_shared::wire::DotEncoder;

/// How a message is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// RETR: all of it, dot-stuffed.
    Whole,
    /// TOP: the header and this many lines of the body.
    Top(u32),
    /// XRETR: all of it, counted.
    Counted,
}

/// The octets given are not the octets announced: the connection can only be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrongLength;

/// A message being sent.
pub(super) struct Content {
    form: Form,
    given: u64,
    announced: u64,
}

enum Form {
    Whole(DotEncoder),
    Top(DotEncoder, TopCut),
    Counted,
}

impl Content {
    pub(super) fn new(fetch: Fetch, item: &Item) -> Self {
        let (form, announced) = match fetch {
            Fetch::Whole => (Form::Whole(DotEncoder::default()), item.retr_size),
            Fetch::Top(lines) => (Form::Top(DotEncoder::default(), TopCut::new(lines)), item.retr_size),
            Fetch::Counted => (Form::Counted, item.xretr_size),
        };
        Self { form, given: 0, announced }
    }

    /// The first line of the answer.
    pub(super) fn opening(fetch: Fetch, item: &Item) -> String {
        match fetch {
            Fetch::Whole => format!("{} octets", item.retr_size),
            Fetch::Top(_) => "top of message follows".into(),
            Fetch::Counted => format!("{} {}", item.xretr_size, item.digest),
        }
    }

    /// Appends what goes on the wire for `block`. `false`: no more is wanted ([`Content::finish`] is next).
    pub(super) fn push(&mut self, block: &[u8], out: &mut Vec<u8>) -> Result<bool, WrongLength> {
        self.given += block.len() as u64;
        if self.given > self.announced {
            return Err(WrongLength);
        }
        match &mut self.form {
            Form::Whole(encoder) => encoder.encode(block, out),
            Form::Counted => out.extend_from_slice(block),
            Form::Top(encoder, cut) => {
                let wanted = cut.take(block);
                encoder.encode(block.get(..wanted).unwrap_or(block), out);
                return Ok(!cut.done());
            }
        }
        Ok(true)
    }

    /// Appends the end. A whole message must have been as long as announced, the CRLF that the wire adds included;
    /// otherwise what was appended must not be sent.
    pub(super) fn finish(self, out: &mut Vec<u8>) -> Result<(), WrongLength> {
        match self.form {
            Form::Whole(encoder) => {
                let added = if encoder.finish(out) { 2 } else { 0 };
                if self.given + added == self.announced { Ok(()) } else { Err(WrongLength) }
            }
            Form::Counted if self.given == self.announced => Ok(()),
            Form::Counted => Err(WrongLength),
            Form::Top(encoder, _) => {
                encoder.finish(out);
                Ok(())
            }
        }
    }
}

/// Finds where TOP ends: behind the empty line, then behind the given number of lines. Here LF ends a line with or
/// without CR, so that a message with bare LF has a header too.
struct TopCut {
    in_header: bool,
    /// Octets of the current line, CR not counted.
    line: u64,
    left: u32,
}

impl TopCut {
    fn new(lines: u32) -> Self {
        Self { in_header: true, line: 0, left: lines }
    }

    fn done(&self) -> bool {
        !self.in_header && self.left == 0
    }

    /// How much of `block` still belongs to the answer.
    fn take(&mut self, block: &[u8]) -> usize {
        for (at, byte) in block.iter().enumerate() {
            if self.done() {
                return at;
            }
            match byte {
                b'\n' if self.in_header => {
                    self.in_header = self.line != 0;
                    self.line = 0;
                }
                b'\n' => self.left -= 1,
                b'\r' => {}
                _ => self.line += 1,
            }
        }
        block.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::mail::{Digest, Uidl};

    fn item(retr_size: u64, xretr_size: u64) -> Item {
        Item { uidl: Uidl([1; 16]), retr_size, xretr_size, digest: Digest::default() }
    }

    fn send(fetch: Fetch, item: &Item, message: &[u8], step: usize) -> Result<Vec<u8>, WrongLength> {
        let (mut content, mut out) = (Content::new(fetch, item), Vec::new());
        for block in message.chunks(step) {
            if !content.push(block, &mut out)? {
                break;
            }
        }
        content.finish(&mut out).map(|()| out)
    }

    #[test]
    fn forms() {
        let message = b"A: b\r\n\r\n.one\r\ntwo\r\nend";
        let item = item(message.len() as u64 + 2, message.len() as u64);
        for step in [1, 2, 3, 7, 100] {
            for (fetch, wire) in [
                (Fetch::Whole, b"A: b\r\n\r\n..one\r\ntwo\r\nend\r\n.\r\n".as_slice()),
                (Fetch::Counted, message.as_slice()),
                (Fetch::Top(0), b"A: b\r\n\r\n.\r\n"),
                (Fetch::Top(1), b"A: b\r\n\r\n..one\r\n.\r\n"),
                (Fetch::Top(99), b"A: b\r\n\r\n..one\r\ntwo\r\nend\r\n.\r\n"),
            ] {
                assert_eq!(send(fetch, &item, message, step).as_deref(), Ok(wire), "{fetch:?} by {step}");
            }
        }
    }

    #[test]
    fn other_lengths_than_announced_are_never_ended() {
        for (announced, message) in [(5, b"12345".as_slice()), (8, b"12345"), (3, b"12345")] {
            assert_eq!(send(Fetch::Whole, &item(announced, announced), message, 2), Err(WrongLength));
        }
        assert_eq!(send(Fetch::Counted, &item(0, 4), b"12345", 5), Err(WrongLength));
        assert_eq!(send(Fetch::Counted, &item(0, 6), b"12345", 5), Err(WrongLength));
    }
}
