//! The octets of one message, wherever they are, read at any place: memory for small ones, an encrypted temporary
//! file for large ones, a part of another message. No message is ever needed whole in memory.

mod file;
mod staged;

pub use file::FileOctets;
pub use staged::{IN_MEMORY, Staged, Stager, Staging};

use std::{borrow::Cow, io, ops::Range};

/// Octets that can be read at any place, any number of times.
pub trait Octets {
    /// How many there are.
    fn len(&self) -> u64;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] beyond the end; whatever reading gives.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies a range that is known to be small.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    fn copy(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let len = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        self.read_at(range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// As [`Self::copy`], without a copy where the octets lie in memory.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    fn view(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        self.copy(range).map(Cow::Owned)
    }

    /// Hands every octet of a range to `each`, in order, at most 64 KiB at a time.
    ///
    /// # Errors
    /// As [`Self::read_at`], and what `each` gives.
    fn for_each_block(&self, range: Range<u64>, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        read_blocks(self, range, each)
    }
}

fn read_blocks(
    octets: &(impl Octets + ?Sized),
    range: Range<u64>,
    each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; BLOCK];
    let mut at = range.start;
    while at < range.end {
        let count = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(buffer.len());
        let block = buffer.get_mut(..count).unwrap_or_default();
        octets.read_at(at, block)?;
        each(block)?;
        at += count as u64;
    }
    Ok(())
}

/// Octets handed on at a time.
const BLOCK: usize = 64 * 1024;

impl Octets for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn view(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        let place = |at: u64| usize::try_from(at).map_err(io::Error::other);
        let octets = self.get(place(range.start)?..place(range.end.max(range.start))?);
        Ok(Cow::Borrowed(octets.ok_or(io::ErrorKind::UnexpectedEof)?))
    }

    /// Nothing is copied.
    fn for_each_block(&self, range: Range<u64>, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.view(range)?.chunks(BLOCK).try_for_each(each)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let from = self.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Octets for Vec<u8> {
    fn len(&self) -> u64 {
        Octets::len(self.as_slice())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        Octets::read_at(self.as_slice(), offset, buffer)
    }

    fn view(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        self.as_slice().view(range)
    }

    fn for_each_block(&self, range: Range<u64>, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.as_slice().for_each_block(range, each)
    }
}

/// A part of other octets.
pub struct Slice<'a> {
    whole: &'a dyn Octets,
    range: Range<u64>,
}

impl<'a> Slice<'a> {
    /// The part of `whole` within `range`; a range beyond the end is cut.
    #[must_use]
    pub fn new(whole: &'a dyn Octets, range: Range<u64>) -> Self {
        let end = range.end.min(whole.len());
        Self { whole, range: range.start.min(end)..end }
    }
}

impl Octets for Slice<'_> {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.len());
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.whole.read_at(self.range.start + offset, buffer)
    }

    fn view(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        let end = range.end.max(range.start);
        if end > self.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.whole.view(self.range.start + range.start..self.range.start + end)
    }

    fn for_each_block(&self, range: Range<u64>, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if range.start >= range.end {
            return Ok(());
        }
        if range.end > self.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.whole.for_each_block(self.range.start + range.start..self.range.start + range.end, each)
    }
}
