//! Packs: a header, frames, and when sealed a table of what is in the frames with a footer (`docs/formats/pack.md`).
//!
//! Two forms are read: packs of version 1 have one chunk in each frame, those of version 2 a group of them and the
//! number of a key epoch; the latter is written. Every frame is bound by its associated data to its store, pack,
//! place, kind and lengths (and of version 1 to its name): octets moved, swapped, repeated or taken from another store
//! do not open. Lengths are checked before memory is taken.

use super::{Fields, USUAL, compress, decompress, group};
use crate::store::keyring::{Keyring, NONCE, TAG};
use std::ops::Range;

/// Octets at the end of a sealed pack.
pub const PACK_FOOTER: usize = 16;
/// No chunk is larger than this (4 MiB).
pub const MAX_PLAIN: usize = 4 * 1024 * 1024;
/// No frame holds more than this: a largest chunk as a group, or a table.
pub const MAX_FRAME: usize = MAX_PLAIN + 64 * 1024;
/// A pack with this many chunks is sealed, whatever its size, so that its table stays within [`MAX_FRAME`].
pub const MAX_CHUNKS: usize = 64 * 1024;

const MAGIC: &[u8; 6] = b"PKPACK";
/// What every frame begins with.
pub const FRAME_MAGIC: &[u8; 4] = b"PKFR";
const FOOTER_MAGIC: &[u8; 8] = b"PKPKEND1";
const FIRST_HEADER: usize = 40;
const HEADER: usize = 44;
const FIRST_FRAME: usize = 72;
const FRAME: usize = 40;

/// A pack's name: UUIDv7 octets, so names sort by age.
pub type PackId = [u8; 16];
/// Keyed BLAKE3 of a chunk.
pub type ChunkId = [u8; 32];

/// How a pack is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Version 1: a chunk in every frame, keys of epoch 0.
    First,
    /// Version 2: a group of chunks in every frame, keys of this epoch.
    Grouped(u32),
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A chunk, or in version 2 a group of them.
    Chunks,
    /// The table of a sealed pack.
    Table,
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it holds.
    pub kind: FrameKind,
    /// Whether zstd was used inside.
    pub compressed: bool,
    /// Octets of the content.
    pub plain_len: u32,
    /// Octets that follow the header, the tag included.
    pub sealed_len: u32,
    /// Name of the content; version 1 only.
    pub id: Option<ChunkId>,
    /// Nonce of the sealing.
    pub nonce: [u8; NONCE],
}

/// A chunk in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkAt {
    /// Name of the chunk.
    pub id: ChunkId,
    /// Octet of the pack at which the frame's header begins.
    pub offset: u64,
    /// Place within the frame's group; 0 in version 1.
    pub index: u32,
    /// Octets of the chunk.
    pub len: u32,
}

/// What a frame turned out to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The content of the frame.
    pub plain: Vec<u8>,
    /// Where in it each chunk lies. Empty for a table.
    pub chunks: Vec<Range<usize>>,
}

/// Why octets are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// Not enough octets: the end of a write that a crash cut off, or a truncated file.
    #[error("the file ends within a frame")]
    Short,
    /// Only zeros: the file system extended the file, the octets never came.
    #[error("zeros where a frame should begin")]
    Zeros,
    /// No header where one must be, or a field that cannot be.
    #[error("no valid {0} here")]
    Header(&'static str),
    /// Written by a newer release.
    #[error("the pack has version {0}, this program reads versions 1 and 2; use a newer release")]
    Version(u16),
    /// Sealed with keys that are not here.
    #[error(
        "the pack is sealed with the keys of epoch {0}, which store.toml does not hold; restore store.toml from a backup"
    )]
    Epoch(u32),
    /// Header of another store or of another pack.
    #[error("the pack belongs to another store or has another name")]
    Foreign,
    /// The octets were changed, or the key is another one.
    #[error("the frame does not open: its octets were changed")]
    Sealed,
    /// It opened, but what came out is not what its name says.
    #[error("the frame opens, but does not hold what its header says")]
    Content,
}

impl Form {
    /// Octets of the longest header.
    pub const LONGEST: usize = HEADER;

    /// Every form that a pack may have whose header cannot be read.
    #[must_use]
    pub fn all(keys: &Keyring) -> Vec<Self> {
        (0..=keys.current()).rev().map(Self::Grouped).chain([Self::First]).collect()
    }

    /// Octets of the header of a pack.
    #[must_use]
    pub fn header_len(self) -> usize {
        match self {
            Self::First => FIRST_HEADER,
            Self::Grouped(_) => HEADER,
        }
    }

    /// Octets of the header of a frame.
    #[must_use]
    pub fn frame_len(self) -> usize {
        match self {
            Self::First => FIRST_FRAME,
            Self::Grouped(_) => FRAME,
        }
    }

    /// The version that the header says.
    #[must_use]
    pub fn version(self) -> u16 {
        match self {
            Self::First => 1,
            Self::Grouped(_) => 2,
        }
    }

    /// The number of the key epoch.
    #[must_use]
    pub fn epoch(self) -> u32 {
        match self {
            Self::First => 0,
            Self::Grouped(epoch) => epoch,
        }
    }

    /// The header of a pack.
    #[must_use]
    pub fn header(self, store: &[u8; 16], pack: &PackId) -> Vec<u8> {
        let mut out = [&MAGIC[..], &self.version().to_be_bytes(), store, pack].concat();
        if let Self::Grouped(epoch) = self {
            out.extend_from_slice(&epoch.to_be_bytes());
        }
        out
    }

    /// Reads the header of a pack. Only what is between its first octets and its end is checked here: every frame is
    /// bound to all of it.
    ///
    /// # Errors
    /// [`PackError`].
    pub fn of(octets: &[u8], keys: &Keyring, pack: &PackId) -> Result<Self, PackError> {
        let mut fields = Fields(octets);
        if octets.len() < FIRST_HEADER {
            return Err(PackError::Short);
        }
        if fields.take::<6>().as_ref() != Some(MAGIC) {
            return Err(PackError::Header("pack header"));
        }
        let version = fields.u16().ok_or(PackError::Short)?;
        let (store, name) = (fields.take::<16>(), fields.take::<16>());
        let form = match version {
            1 => Self::First,
            2 => Self::Grouped(fields.u32().ok_or(PackError::Short)?),
            other => return Err(PackError::Version(other)),
        };
        if store != Some(keys.id) || name.as_ref() != Some(pack) {
            return Err(PackError::Foreign);
        }
        keys.epoch(form.epoch()).map(|_| form).ok_or(PackError::Epoch(form.epoch()))
    }

    /// The name that the header of a pack of this store gives, whatever the file is called.
    #[must_use]
    pub fn named(octets: &[u8], keys: &Keyring) -> Option<PackId> {
        let mut fields = Fields(octets);
        fields.take::<6>().filter(|magic| magic == MAGIC)?;
        fields.u16()?;
        fields.take::<16>().filter(|store| *store == keys.id)?;
        fields.take()
    }

    /// Reads the header of a frame at the start of `octets`. Nothing in it is authenticated before [`Form::open`].
    ///
    /// # Errors
    /// [`PackError::Short`], [`PackError::Zeros`] or [`PackError::Header`].
    pub fn frame(self, octets: &[u8]) -> Result<FrameHeader, PackError> {
        let head = octets.get(..self.frame_len().min(octets.len())).unwrap_or_default();
        if !head.is_empty() && head.iter().all(|b| *b == 0) {
            return Err(PackError::Zeros);
        }
        if head.len() < self.frame_len() {
            return Err(PackError::Short);
        }
        self.fields(head).ok_or(PackError::Header("frame"))
    }

    fn fields(self, head: &[u8]) -> Option<FrameHeader> {
        let mut fields = Fields(head);
        fields.take().filter(|magic| magic == FRAME_MAGIC)?;
        let kind = match fields.take()? {
            [1] => FrameKind::Chunks,
            [2] => FrameKind::Table,
            _ => return None,
        };
        let compressed = match fields.take()? {
            [0, 0, 0] => false,
            [1, 0, 0] => true,
            _ => return None,
        };
        let (plain_len, sealed_len) = (fields.u32()?, fields.u32()?);
        let id = if self == Self::First { Some(fields.take()?) } else { None };
        let header = FrameHeader { kind, compressed, plain_len, sealed_len, id, nonce: fields.take()? };
        let (plain, sealed) = (plain_len as usize, sealed_len as usize);
        let most = if self == Self::First { MAX_PLAIN } else { MAX_FRAME };
        let fits = if compressed { sealed < plain + TAG } else { sealed == plain + TAG };
        (plain <= most && sealed >= TAG && fits).then_some(header)
    }

    /// What a frame at `offset` of `pack` is bound to: its place, and its own header without the nonce.
    fn bound(self, store: &[u8; 16], pack: &PackId, offset: u64, header: &FrameHeader) -> Vec<u8> {
        let mut bound = [&self.header(store, pack)[..], &offset.to_be_bytes(), &header.encode()].concat();
        bound.truncate(bound.len() - NONCE);
        bound
    }

    /// Opens the sealed octets of a frame and checks that they are what its header says.
    ///
    /// # Errors
    /// [`PackError::Sealed`], [`PackError::Content`] or [`PackError::Epoch`].
    pub fn open(
        self,
        keys: &Keyring,
        pack: &PackId,
        offset: u64,
        header: &FrameHeader,
        sealed: &[u8],
    ) -> Result<Opened, PackError> {
        self.open_within(keys, pack, offset, header, sealed.to_vec())
    }

    /// As [`Self::open`], in the memory of `sealed`.
    pub(crate) fn open_within(
        self,
        keys: &Keyring,
        pack: &PackId,
        offset: u64,
        header: &FrameHeader,
        sealed: Vec<u8>,
    ) -> Result<Opened, PackError> {
        let epoch = keys.epoch(self.epoch()).ok_or(PackError::Epoch(self.epoch()))?;
        let bound = self.bound(&keys.id, pack, offset, header);
        let inner = epoch.pack.open_within(header.nonce, sealed, &bound).ok_or(PackError::Sealed)?;
        let len = header.plain_len as usize;
        let plain = if header.compressed { decompress(&inner, len).ok_or(PackError::Content)? } else { inner };
        if plain.len() != len || header.id.is_some_and(|id| keys.chunk_hash(&plain) != id) {
            return Err(PackError::Content);
        }
        let chunks = match (header.kind, self) {
            (FrameKind::Table, _) => Vec::new(),
            (FrameKind::Chunks, Self::First) => std::iter::once(0..len).collect(),
            (FrameKind::Chunks, Self::Grouped(_)) => group::chunks(&plain).ok_or(PackError::Content)?,
        };
        Ok(Opened { plain, chunks })
    }

    /// Reads the content of a table frame.
    #[must_use]
    pub fn table(self, octets: &[u8]) -> Option<Vec<ChunkAt>> {
        match self {
            Self::First => first_table(octets),
            Self::Grouped(_) => grouped_table(octets),
        }
    }
}

impl Opened {
    /// A chunk of the frame.
    #[must_use]
    pub fn chunk(&self, index: usize) -> Option<&[u8]> {
        self.plain.get(self.chunks.get(index)?.clone())
    }
}

impl FrameHeader {
    /// The octets of the header.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let kind = match self.kind {
            FrameKind::Chunks => 1,
            FrameKind::Table => 2,
        };
        let mut out = Vec::with_capacity(FIRST_FRAME);
        out.extend_from_slice(FRAME_MAGIC);
        out.extend_from_slice(&[kind, u8::from(self.compressed), 0, 0]);
        out.extend_from_slice(&self.plain_len.to_be_bytes());
        out.extend_from_slice(&self.sealed_len.to_be_bytes());
        out.extend_from_slice(self.id.as_ref().map_or(&[], |id| &id[..]));
        out.extend_from_slice(&self.nonce);
        out
    }
}

/// Content that is to be sealed: as it is, and compressed where that is smaller.
pub struct Plain<'a> {
    /// Its octets.
    pub octets: &'a [u8],
    /// The same, compressed.
    pub small: Option<Vec<u8>>,
}

impl<'a> Plain<'a> {
    /// Content that is compressed in the usual way.
    #[must_use]
    pub fn usual(octets: &'a [u8]) -> Self {
        Self { octets, small: compress(octets, USUAL) }
    }
}

/// Header and sealed octets of a frame that will stand at `offset` of a pack of version 2.
///
/// # Errors
/// [`PackError::Epoch`].
pub fn seal_frame(
    keys: &Keyring,
    epoch: u32,
    pack: &PackId,
    offset: u64,
    kind: FrameKind,
    plain: &Plain<'_>,
    nonce: [u8; NONCE],
) -> Result<Vec<u8>, PackError> {
    let inner = plain.small.as_deref().unwrap_or(plain.octets);
    let header = FrameHeader {
        kind,
        compressed: plain.small.is_some(),
        plain_len: u32::try_from(plain.octets.len()).unwrap_or(u32::MAX),
        sealed_len: u32::try_from(inner.len() + TAG).unwrap_or(u32::MAX),
        id: None,
        nonce,
    };
    let bound = Form::Grouped(epoch).bound(&keys.id, pack, offset, &header);
    let mut out = header.encode();
    keys.epoch(epoch).ok_or(PackError::Epoch(epoch))?.pack.seal_behind(nonce, inner, &bound, &mut out);
    Ok(out)
}

/// The content of a table frame of version 2: chunks of one frame stand together.
#[must_use]
pub fn encode_table(chunks: &[ChunkAt]) -> Vec<u8> {
    let mut out = Vec::with_capacity(chunks.len() * 40);
    for frame in chunks.chunk_by(|a, b| a.offset == b.offset) {
        out.extend_from_slice(&frame.first().map_or(0, |first| first.offset).to_be_bytes());
        out.extend_from_slice(&u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes());
        for chunk in frame {
            out.extend_from_slice(&chunk.len.to_be_bytes());
            out.extend_from_slice(&chunk.id);
        }
    }
    out
}

fn grouped_table(octets: &[u8]) -> Option<Vec<ChunkAt>> {
    let (mut fields, mut found) = (Fields(octets), Vec::new());
    while !fields.0.is_empty() {
        let (offset, count) = (fields.u64()?, fields.u32()?);
        for index in 0..count {
            let len = fields.u32()?;
            found.push(ChunkAt { id: fields.take()?, offset, index, len });
        }
    }
    Some(found)
}

fn first_table(octets: &[u8]) -> Option<Vec<ChunkAt>> {
    let (mut fields, mut found) = (Fields(octets), Vec::new());
    while !fields.0.is_empty() {
        // The third says what the header of the frame says.
        let (offset, len, _) = (fields.u64()?, fields.u32()?, fields.u32()?);
        found.push(ChunkAt { id: fields.take()?, offset, index: 0, len });
    }
    Some(found)
}

/// The last octets of a sealed pack: where its table frame begins.
#[must_use]
pub fn pack_footer(table: u64) -> [u8; PACK_FOOTER] {
    let mut out = [0; PACK_FOOTER];
    for (to, from) in out.iter_mut().zip(table.to_be_bytes().iter().chain(FOOTER_MAGIC)) {
        *to = *from;
    }
    out
}

/// Where the table frame begins, if `octets` are a footer.
#[must_use]
pub fn decode_footer(octets: &[u8]) -> Option<u64> {
    let mut fields = Fields(octets);
    let table = fields.u64()?;
    (fields.0 == FOOTER_MAGIC).then_some(table)
}
