//! A message while it arrives: blocks for the spool, the size limit, the count of Received fields.
//!
//! Invariants: at most one block is held; after the message was refused nothing is kept any more, only counted. The
//! header is scanned for one field name and for nothing else; no MIME is parsed here.

use super::replies::{self, Reply};

/// Octets handed over at once.
pub(super) const BLOCK: usize = 64 * 1024;
/// Received fields a message may have (RFC 5321 §6.3 asks for at least 100).
const MAX_RECEIVED: u32 = 100;
/// A message that is over the limit is read to its end, so that its sender hears why; up to this many times the limit.
const PATIENCE: u64 = 4;

/// The message so far.
#[derive(Debug)]
pub(super) struct Content {
    block: Vec<u8>,
    size: u64,
    limit: u64,
    header: Header,
    refused: Option<Reply>,
}

impl Content {
    pub(super) fn new(limit: u64) -> Self {
        Self { block: Vec::new(), size: 0, limit, header: Header::default(), refused: None }
    }

    /// Takes octets of the message, which `write` appends to the block it is given, without another copy; what it
    /// says, and whether the message was refused just now.
    pub(super) fn append<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> (T, bool) {
        let before = self.block.len();
        if self.block.capacity() == 0 {
            // At once: one that grows leaves copies of the message behind.
            self.block.reserve(BLOCK);
        }
        let said = write(&mut self.block);
        (said, self.judge(before))
    }

    /// Looks at what was appended behind `before`.
    fn judge(&mut self, before: usize) -> bool {
        let octets = self.block.get(before..).unwrap_or_default();
        let fits = usize::try_from(self.limit.saturating_sub(self.size)).unwrap_or(usize::MAX);
        self.size = self.size.saturating_add(octets.len() as u64);
        if self.refused.is_some() {
            self.block.clear();
            return false;
        }
        // Only what fits: of two reasons the one that comes first in the message counts, however it was cut.
        self.header.scan(octets.get(..fits).unwrap_or(octets));
        if self.header.received > MAX_RECEIVED {
            return self.refuse(replies::LOOP);
        }
        if self.size > self.limit {
            return self.refuse(replies::TOO_BIG);
        }
        false
    }

    /// Keeps nothing from here on; whether the message stood until now. The first reason stays.
    pub(super) fn refuse(&mut self, reply: Reply) -> bool {
        if self.refused.is_some() {
            return false;
        }
        self.refused = Some(reply);
        self.block = Vec::new();
        true
    }

    /// Why the message is not taken.
    pub(super) fn refused(&self) -> Option<Reply> {
        self.refused
    }

    /// Whether `more` octets would be more than anyone waits for.
    pub(super) fn is_hopeless(&self, more: u64) -> bool {
        self.size.saturating_add(more) > self.limit.saturating_mul(PATIENCE)
    }

    /// Whether `more` octets are over the limit.
    pub(super) fn exceeds(&self, more: u64) -> bool {
        self.size.saturating_add(more) > self.limit
    }

    /// Octets that still fit the block.
    pub(super) fn room(&self) -> usize {
        BLOCK.saturating_sub(self.block.len()).max(1)
    }

    /// The block, when it is full or, with `ended`, when it holds anything.
    pub(super) fn take_block(&mut self, ended: bool) -> Option<Vec<u8>> {
        let ready = self.block.len() >= BLOCK || (ended && !self.block.is_empty());
        ready.then(|| std::mem::take(&mut self.block))
    }

    /// Octets so far, also those not kept.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

/// Counts `Received:` at the start of header lines. The header ends at the first empty line; here a bare LF ends a
/// line too, since a message sent by BDAT may have no other.
#[derive(Debug)]
struct Header {
    /// How many octets of the name the line has matched; `None` once it cannot be that field.
    matched: Option<usize>,
    ended: bool,
    received: u32,
}

impl Default for Header {
    fn default() -> Self {
        Self { matched: Some(0), ended: false, received: 0 }
    }
}

impl Header {
    fn scan(&mut self, octets: &[u8]) {
        const NAME: &[u8] = b"received:";
        for byte in octets {
            if self.ended {
                return;
            }
            self.matched = match (byte, self.matched) {
                (b'\n', Some(0)) => {
                    self.ended = true;
                    None
                }
                (b'\n', _) => Some(0),
                (b'\r', matched) => matched,
                (byte, Some(n)) if NAME.get(n) == Some(&byte.to_ascii_lowercase()) => {
                    let whole = n + 1 == NAME.len();
                    self.received += u32::from(whole);
                    (!whole).then_some(n + 1)
                }
                _ => None,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Content {
        fn push(&mut self, octets: &[u8]) -> bool {
            self.append(|block| block.extend_from_slice(octets)).1
        }
    }

    #[test]
    fn received_fields_of_the_header_are_counted() {
        for (message, count) in [
            (b"Received: a\r\nRECEIVED: b\r\nX-Received: c\r\n\tReceived: d\r\n\r\nReceived: e\r\n".as_slice(), 2),
            (b"\r\nReceived: a\r\n", 0),
            (b"Received: a\nreceived: b\n\nReceived: c\n", 2),
            (b"", 0),
        ] {
            let mut gulp = Header::default();
            gulp.scan(message);
            assert_eq!(gulp.received, count);
            let mut single = Header::default();
            message.iter().for_each(|b| single.scan(&[*b]));
            assert_eq!(single.received, count, "byte by byte");
        }
    }

    #[test]
    fn the_101st_received_field_is_a_loop_and_100_are_not() {
        let (mut fits, mut loops) = (Content::new(1 << 20), Content::new(1 << 20));
        assert!(!fits.push("Received: x\r\n".repeat(100).as_bytes()));
        assert!(loops.push("Received: x\r\n".repeat(101).as_bytes()));
        assert_eq!((fits.refused(), loops.refused()), (None, Some(replies::LOOP)));
        assert_eq!(loops.take_block(true), None);
    }

    #[test]
    fn of_two_reasons_the_first_one_counts_whatever_the_cuts() {
        let message = "Received: x\r\n".repeat(120);
        // The 101st name ends at octet 13 * 100 + 9.
        for (limit, reason) in [(1308, replies::TOO_BIG), (1309, replies::LOOP), (1310, replies::LOOP)] {
            for size in [1, 7, 64, 1308, 1309, 1310, message.len()] {
                let mut content = Content::new(limit);
                for piece in message.as_bytes().chunks(size) {
                    content.push(piece);
                }
                assert_eq!(content.refused(), Some(reason), "limit {limit}, pieces of {size}");
            }
        }
    }

    #[test]
    fn over_the_limit_nothing_is_kept() {
        let mut content = Content::new(10);
        assert!(!content.push(b"0123456789"));
        assert!(content.push(b"x"));
        assert!(!content.push(b"y"));
        assert_eq!((content.refused(), content.size()), (Some(replies::TOO_BIG), 12));
        assert!(content.take_block(true).is_none());
        assert!(content.is_hopeless(29) && !content.is_hopeless(28));
    }
}
