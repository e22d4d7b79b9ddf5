//! Taking a message apart: glue, parts and chunks go to the open pack, what is there already is only named.

use super::{
    StoreError, StoreResult,
    base64::{self, DecodedReader},
    catalog::{Space, View},
    packs::{Packs, Place},
    recipe::{ChunkRef, Hex, Part, Piece, Recipe},
    split::{Leaf, leaves_around},
};
use crate::octets::Octets;
use fastcdc::v2020::StreamCDC;
use std::{
    io::{self, Read},
    ops::Range,
};

/// Bodies smaller than this stay with the glue: a chunk of their own would cost more than it saves.
const SMALL: u64 = 2 * 1024;
/// Parts up to this size are one chunk; glue is cut at it.
const ONE_CHUNK: u64 = 1024 * 1024;
/// Larger parts are cut by content: least, mean and most octets.
const CUT: (usize, usize, usize) = (256 * 1024, 1024 * 1024, 4 * 1024 * 1024);

/// Where taken apart messages go.
pub(super) struct Writer<'a, 'b> {
    pub(super) view: &'a mut View<'b>,
    pub(super) packs: &'a mut Packs,
    /// Something could not be read back before: nothing that is stored is believed without reading it.
    pub(super) heal: bool,
    /// A message has more parts or levels than are taken apart.
    pub(super) limited: bool,
}

/// A place in a message that is not glue.
enum Segment {
    Leaf(Leaf),
    Message(Range<u64>, [u8; 16]),
}

impl Segment {
    fn range(&self) -> Range<u64> {
        match self {
            Self::Leaf(leaf) => leaf.body.clone(),
            Self::Message(range, _) => range.clone(),
        }
    }
}

impl Writer<'_, '_> {
    /// Stores `message`; `embedded` are ranges of it that are stored as messages already.
    pub(super) fn store(&mut self, message: &dyn Octets, embedded: &[(Range<u64>, [u8; 16])]) -> StoreResult<Recipe> {
        let mut recipe = Recipe::default();
        let mut glue = Vec::new();
        let mut at = 0;
        let (segments, limited) = segments(message, embedded)?;
        self.limited |= limited;
        for segment in segments {
            let range = segment.range();
            self.glue(message, at..range.start, &mut recipe, &mut glue)?;
            match segment {
                Segment::Message(_, id) => recipe.pieces.push(Piece::Message(Hex(id))),
                Segment::Leaf(leaf) => self.leaf(message, &leaf, &mut recipe, &mut glue)?,
            }
            at = range.end;
        }
        self.glue(message, at..message.len(), &mut recipe, &mut glue)?;
        self.flush_glue(&mut recipe, &mut glue)?;
        Ok(recipe)
    }

    fn leaf(&mut self, message: &dyn Octets, leaf: &Leaf, recipe: &mut Recipe, glue: &mut Vec<u8>) -> StoreResult<()> {
        let mut range = leaf.body.clone();
        if leaf.base64
            && range.end - range.start >= SMALL
            && let Some((found, plain)) = base64::decode(message, range.clone(), ONE_CHUNK as usize)?
            && found.encoded >= SMALL
        {
            let encoded = range.start..range.start + found.encoded;
            let chunks = match plain {
                Some(plain) => vec![self.chunk(&plain)?],
                None => self.chunks(DecodedReader::new(message, encoded.clone()), found.decoded)?,
            };
            add_part(recipe, Part { chunks, b64: Some(found.lines) });
            range.start = encoded.end;
        }
        if range.end - range.start < SMALL {
            return self.glue(message, range, recipe, glue);
        }
        let chunks = match range.end - range.start {
            ..=ONE_CHUNK => vec![self.chunk(&message.view(range)?)?],
            len => self.chunks(RangeReader::new(message, range), len)?,
        };
        add_part(recipe, Part { chunks, b64: None });
        Ok(())
    }

    fn glue(
        &mut self,
        message: &dyn Octets,
        mut range: Range<u64>,
        recipe: &mut Recipe,
        glue: &mut Vec<u8>,
    ) -> StoreResult<()> {
        recipe.glue(range.end.saturating_sub(range.start));
        while range.start < range.end {
            let room = ONE_CHUNK - glue.len() as u64;
            let end = range.end.min(range.start + room);
            glue.extend_from_slice(&message.view(range.start..end)?);
            range.start = end;
            if glue.len() as u64 == ONE_CHUNK {
                self.flush_glue(recipe, glue)?;
            }
        }
        Ok(())
    }

    fn flush_glue(&mut self, recipe: &mut Recipe, glue: &mut Vec<u8>) -> StoreResult<()> {
        if !glue.is_empty() {
            recipe.glue.push(self.chunk(glue)?);
            glue.clear();
        }
        Ok(())
    }

    fn chunks(&mut self, mut reader: impl Read, len: u64) -> StoreResult<Vec<ChunkRef>> {
        if len <= ONE_CHUNK {
            let mut plain = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
            reader.read_to_end(&mut plain)?;
            return Ok(vec![self.chunk(&plain)?]);
        }
        let (least, mean, most) = CUT;
        let mut chunks = Vec::new();
        for piece in StreamCDC::new(reader, least, mean, most) {
            let piece = piece.map_err(|error| StoreError::Input(error.into()))?;
            chunks.push(self.chunk(&piece.data)?);
        }
        Ok(chunks)
    }

    pub(super) fn chunk(&mut self, plain: &[u8]) -> StoreResult<ChunkRef> {
        let id = self.view.keys.chunk_id(plain);
        let len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        if !self.known(&id)? {
            self.packs.append(id, plain)?;
        }
        Ok(ChunkRef(Hex(id), len))
    }

    pub(super) fn known(&self, id: &[u8; 32]) -> StoreResult<bool> {
        if self.packs.is_pending(id) {
            return Ok(true);
        }
        let place = self.view.get_clear(Space::Chunks, &[id])?;
        let Some(place) = place.and_then(|octets| Place::decode(&octets)) else { return Ok(false) };
        Ok(!self.heal || self.packs.read(id, &place).is_ok())
    }
}

fn add_part(recipe: &mut Recipe, part: Part) {
    let place = u32::try_from(recipe.parts.len()).unwrap_or(u32::MAX);
    recipe.parts.push(part);
    recipe.pieces.push(Piece::Part(place));
}

/// Embedded messages and the leaves between them, in order, not overlapping.
fn segments(message: &dyn Octets, embedded: &[(Range<u64>, [u8; 16])]) -> io::Result<(Vec<Segment>, bool)> {
    let mut messages: Vec<_> = embedded.iter().filter(|(range, _)| range.start < range.end).cloned().collect();
    messages.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
    // A message inside another one is reached through that one.
    messages.dedup_by(|inner, outer| inner.0.start < outer.0.end);
    let all = messages.iter().any(|(range, _)| *range == (0..message.len()));
    let ranges: Vec<_> = messages.iter().map(|(range, _)| range.clone()).collect();
    let (leaves, limited) = if all { (Vec::new(), false) } else { leaves_around(message, &ranges)? };
    let mut out: Vec<Segment> = leaves.into_iter().map(Segment::Leaf).collect();
    out.extend(messages.iter().map(|(range, id)| Segment::Message(range.clone(), *id)));
    out.sort_by_key(|segment| segment.range().start);
    // What stands in a message that is stored on its own was told when that was stored.
    Ok((out, limited && messages.is_empty()))
}

/// Reads a range from front to back.
pub(super) struct RangeReader<'a> {
    octets: &'a dyn Octets,
    range: Range<u64>,
}

impl<'a> RangeReader<'a> {
    pub(super) fn new(octets: &'a dyn Octets, range: Range<u64>) -> Self {
        Self { octets, range }
    }
}

impl Read for RangeReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end.saturating_sub(self.range.start)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        if let Some(buffer) = buffer.get_mut(..count) {
            self.octets.read_at(self.range.start, buffer)?;
        }
        self.range.start += count as u64;
        Ok(count)
    }
}
