//! Groups: what a frame of a pack of version 2 holds (`docs/formats/pack.md`, groups), and which chunks share one.
//!
//! A group is the number of its chunks, their lengths, and the chunks one after the other. Names are not in it: they
//! are the keyed hashes of the chunks. Chunks that look alike are put together, because they compress together; what
//! no compression makes much smaller is put with its like, out of the way of the others. Which chunk goes where changes
//! the size of a store and nothing else: a reader need not know.

use super::{Fields, Press, USUAL};
use std::{borrow::Cow, ops::Range};
use zstd::zstd_safe::CompressionLevel;

/// Octets of content after which a group takes no further chunk. Larger groups make less of a store (text by 1.3 % from 512
/// KiB to 1 MiB, by as much again to 4 MiB) and cost more to read one message from, and to lose.
pub const GROUP_FULL: usize = 1024 * 1024;
/// Chunks after which a group takes no further one.
pub const GROUP_CHUNKS: usize = 4096;
/// Text is packed harder: 3 % less for 0.05 ms of processor time per message, beside the fetching. The next level takes as
/// much again for 0.7 %.
const TEXT_LEVEL: CompressionLevel = 5;
/// Octets looked at in each of three places to tell what a chunk is.
const SAMPLE: usize = 4 * 1024;
/// Of 100 octets of the sample, so many must go for a chunk to be worth compressing.
const WORTH: usize = 3;

/// What chunks look like, as far as it decides which compress well together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Headers, text, markup.
    Text,
    /// Other content that can be made smaller.
    Binary,
    /// Compressed or encrypted content: hardly any of it can be made smaller.
    Dense,
}

impl Class {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Text, Self::Binary, Self::Dense];

    /// Looks at the beginning, the middle and the end of a chunk.
    #[must_use]
    pub(crate) fn of(chunk: &[u8], press: &mut Press) -> Self {
        let sample = sample(chunk);
        if is_text(&sample, chunk) {
            return Self::Text;
        }
        let small = press.compress(&sample, 1).map_or(sample.len(), |small| small.len());
        if small * 100 > sample.len() * (100 - WORTH) { Self::Dense } else { Self::Binary }
    }

    /// The content of a group, compressed as its class deserves; `None` when that does not make it smaller.
    #[must_use]
    pub(crate) fn compress(self, group: &[u8], press: &mut Press) -> Option<Vec<u8>> {
        match self {
            Self::Text => press.compress(group, TEXT_LEVEL),
            // Of what cannot be made smaller zstd passes over most; in the rest is 1 %.
            Self::Binary | Self::Dense => press.compress(group, USUAL),
        }
    }
}

fn sample(chunk: &[u8]) -> Cow<'_, [u8]> {
    if chunk.len() <= 3 * SAMPLE {
        return chunk.into();
    }
    let middle = (chunk.len() - SAMPLE) / 2;
    let places = [0, middle, chunk.len() - SAMPLE];
    places.map(|at| chunk.get(at..at + SAMPLE).unwrap_or_default()).concat().into()
}

/// Whether hardly any octet is a control character that text does not have, and most are ASCII or all are UTF-8.
fn is_text(sample: &[u8], chunk: &[u8]) -> bool {
    let control = count(sample, |octet| matches!(octet, 0..=8 | 14..=31 | 127));
    let ascii = count(sample, |octet| octet.is_ascii());
    let start = chunk.get(..SAMPLE.min(chunk.len())).unwrap_or_default();
    // A character that the end of the sample cuts is no mistake.
    let utf8 = std::str::from_utf8(start).map_or_else(|error| error.error_len().is_none(), |_| true);
    control * 200 <= sample.len() && (utf8 || ascii * 2 >= sample.len())
}

/// How many octets are so. Counted in octets as far as these reach, which compilers do many at a time.
fn count(sample: &[u8], is_so: impl Fn(u8) -> bool) -> usize {
    let blocks = sample.chunks(usize::from(u8::MAX));
    // Never more than the length of a block, and a check of each step would make it one octet at a time again.
    let in_block = |block: &[u8]| block.iter().fold(0_u8, |found, octet| found.wrapping_add(u8::from(is_so(*octet))));
    blocks.map(|block| usize::from(in_block(block))).sum()
}

/// A group that is being filled.
#[derive(Debug, Default)]
pub struct Filling {
    lengths: Vec<u32>,
    /// Behind room for the most lengths, so that it need not be moved when these are put before it.
    content: Vec<u8>,
}

/// Octets before the content of a group with the most chunks.
const ROOM: usize = 4 + 4 * GROUP_CHUNKS;

impl Filling {
    /// Puts a chunk behind the others; returns its place in the group.
    pub fn push(&mut self, chunk: &[u8]) -> u32 {
        let place = u32::try_from(self.lengths.len()).unwrap_or(u32::MAX);
        self.lengths.push(u32::try_from(chunk.len()).unwrap_or(u32::MAX));
        if self.content.is_empty() {
            // Memory that is never written to is never taken; growing to this would copy it all twice.
            self.content.reserve_exact(ROOM + chunk.len().max(GROUP_FULL));
            self.content.resize(ROOM, 0);
        }
        self.content.extend_from_slice(chunk);
        place
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Whether `more` octets still belong into it.
    #[must_use]
    pub fn takes(&self, more: usize) -> bool {
        self.is_empty() || (self.content.len() - ROOM + more <= GROUP_FULL && self.lengths.len() < GROUP_CHUNKS)
    }

    /// The octets of the group.
    #[must_use]
    pub fn encode(&mut self) -> &[u8] {
        let count = u32::try_from(self.lengths.len()).unwrap_or(u32::MAX);
        let fields = [count].into_iter().chain(self.lengths.iter().copied());
        let start = ROOM.saturating_sub(4 + 4 * self.lengths.len());
        let head = self.content.get_mut(start..ROOM).unwrap_or_default();
        head.as_chunks_mut().0.iter_mut().zip(fields).for_each(|(to, field)| *to = field.to_be_bytes());
        self.content.get(start..).unwrap_or_default()
    }
}

/// Where the chunks of a group lie in its octets; `None` when these are no group.
#[must_use]
pub fn chunks(group: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut fields = Fields(group);
    let count = usize::try_from(fields.u32()?).ok()?;
    // Checked before memory is taken.
    let mut at = count.checked_mul(4)?.checked_add(4).filter(|at| *at <= group.len())?;
    let mut ranges = Vec::with_capacity(count);
    for _ in 0..count {
        let end = at.checked_add(usize::try_from(fields.u32()?).ok()?).filter(|end| *end <= group.len())?;
        ranges.push(at..end);
        at = end;
    }
    (at == group.len() && count > 0).then_some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn groups_come_apart_again(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..20)) {
            let mut filling = Filling::default();
            for (place, part) in parts.iter().enumerate() {
                prop_assert_eq!(filling.push(part) as usize, place);
            }
            let octets = filling.encode();
            let ranges = chunks(octets).expect("a group");
            prop_assert_eq!(ranges.iter().map(|range| octets[range.clone()].to_vec()).collect::<Vec<_>>(), parts);
            prop_assert!(chunks(&octets[..octets.len() - 1]).is_none() || octets.len() == 4);
        }

        #[test]
        fn any_octets_are_read(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = chunks(&octets);
            let _ = Class::of(&octets, &mut Press::default());
        }
    }

    #[test]
    fn content_is_told_apart_by_itself() {
        let mut press = Press::default();
        let of = |chunk: &[u8]| Class::of(chunk, &mut Press::default());
        let mut noise = vec![0; 100_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert_eq!(of(&noise), Class::Dense);
        assert_eq!(of(&noise[..500]), Class::Dense);
        assert_eq!(of(&"<p>Grüße aus Köln</p>\r\n".repeat(50).into_bytes()), Class::Text);
        assert_eq!(of(b""), Class::Text);
        assert_eq!(of(&"Привет, мир. ".repeat(500).into_bytes()), Class::Text);
        noise.iter_mut().step_by(2).for_each(|octet| *octet = 0);
        assert_eq!(of(&noise), Class::Binary);
        assert!(Class::Dense.compress(&noise[..1000], &mut press).is_some());
        assert!(Class::Text.compress(&[b'a'; 1000], &mut press).is_some_and(|small| small.len() < 100));
    }
}
