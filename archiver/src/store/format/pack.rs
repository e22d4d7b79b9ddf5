//! Packs: a header, frames, and when sealed a table of the frames with a footer (`docs/formats/pack.md`).
//!
//! Every frame is bound by its associated data to its store, pack, place, kind, name and lengths: octets moved,
//! swapped, repeated or taken from another store do not open. Lengths are checked before memory is taken.

use super::{Fields, compress, decompress};
use crate::store::keyring::{Keyring, NONCE, TAG};

/// Octets of the header of a pack.
pub const PACK_HEADER: usize = 40;
/// Octets of the header of a frame.
pub const FRAME_HEADER: usize = 72;
/// Octets at the end of a sealed pack.
pub const PACK_FOOTER: usize = 16;
/// Octets of one table entry.
pub const TABLE_ENTRY: usize = 48;
/// No chunk is larger than this, before or after sealing (4 MiB, and a table of [`MAX_FRAMES`]).
pub const MAX_PLAIN: usize = 4 * 1024 * 1024;
/// A pack with this many frames is sealed, whatever its size, so that its table stays within [`MAX_PLAIN`].
pub const MAX_FRAMES: usize = 64 * 1024;

const MAGIC: &[u8; 6] = b"PKPACK";
const VERSION: u16 = 1;
const FRAME_MAGIC: &[u8; 4] = b"PKFR";
const FOOTER_MAGIC: &[u8; 8] = b"PKPKEND1";
const BOUND: usize = FRAME_HEADER - NONCE;

/// A pack's name: UUIDv7 octets, so names sort by age.
pub type PackId = [u8; 16];
/// Keyed BLAKE3 of a chunk.
pub type ChunkId = [u8; 32];

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A chunk.
    Chunk,
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
    /// Octets of the chunk.
    pub plain_len: u32,
    /// Octets that follow the header, the tag included.
    pub sealed_len: u32,
    /// Name of the chunk.
    pub id: ChunkId,
    /// Nonce of the sealing.
    pub nonce: [u8; NONCE],
}

/// Where a frame stands: one table entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableEntry {
    /// Octet of the pack at which the frame's header begins.
    pub offset: u64,
    /// Octets of the chunk.
    pub plain_len: u32,
    /// Octets behind the frame's header.
    pub sealed_len: u32,
    /// Name of the chunk.
    pub id: ChunkId,
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
    #[error("the pack has version {0}, this program reads version 1; use a newer release")]
    Version(u16),
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

/// The header of a pack.
#[must_use]
pub fn pack_header(store: &[u8; 16], pack: &PackId) -> [u8; PACK_HEADER] {
    let mut out = [0; PACK_HEADER];
    for (to, from) in out.iter_mut().zip(MAGIC.iter().chain(&VERSION.to_be_bytes()).chain(store).chain(pack)) {
        *to = *from;
    }
    out
}

/// Checks the header of a pack.
///
/// # Errors
/// [`PackError`].
pub fn check_header(octets: &[u8], store: &[u8; 16], pack: &PackId) -> Result<(), PackError> {
    let mut fields = Fields(octets);
    if octets.len() < PACK_HEADER {
        return Err(PackError::Short);
    }
    if fields.take::<6>().as_ref() != Some(MAGIC) {
        return Err(PackError::Header("pack header"));
    }
    match fields.take().map(u16::from_be_bytes) {
        Some(VERSION) => {}
        Some(other) => return Err(PackError::Version(other)),
        None => return Err(PackError::Short),
    }
    if fields.take().as_ref() != Some(store) || fields.take().as_ref() != Some(pack) {
        return Err(PackError::Foreign);
    }
    Ok(())
}

impl FrameHeader {
    /// The octets of the header.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEADER] {
        let mut out = [0; FRAME_HEADER];
        let kind = match self.kind {
            FrameKind::Chunk => 1,
            FrameKind::Table => 2,
        };
        let octets = FRAME_MAGIC
            .iter()
            .copied()
            .chain([kind, u8::from(self.compressed), 0, 0])
            .chain(self.plain_len.to_be_bytes())
            .chain(self.sealed_len.to_be_bytes())
            .chain(self.id)
            .chain(self.nonce);
        for (to, from) in out.iter_mut().zip(octets) {
            *to = from;
        }
        out
    }

    /// Reads the header at the start of `octets`. Nothing in it is authenticated before [`open_frame`].
    ///
    /// # Errors
    /// [`PackError::Short`], [`PackError::Zeros`] or [`PackError::Header`].
    pub fn decode(octets: &[u8]) -> Result<Self, PackError> {
        let head = octets.get(..FRAME_HEADER.min(octets.len())).unwrap_or_default();
        if !head.is_empty() && head.iter().all(|b| *b == 0) {
            return Err(PackError::Zeros);
        }
        if head.len() < FRAME_HEADER {
            return Err(PackError::Short);
        }
        let bad = PackError::Header("frame");
        let mut fields = Fields(head);
        if fields.take().as_ref() != Some(FRAME_MAGIC) {
            return Err(bad);
        }
        let kind = match fields.take().ok_or(bad)? {
            [1] => FrameKind::Chunk,
            [2] => FrameKind::Table,
            _ => return Err(bad),
        };
        let compressed = match fields.take().ok_or(bad)? {
            [0, 0, 0] => false,
            [1, 0, 0] => true,
            _ => return Err(bad),
        };
        let header = Self {
            kind,
            compressed,
            plain_len: fields.u32().ok_or(bad)?,
            sealed_len: fields.u32().ok_or(bad)?,
            id: fields.take().ok_or(bad)?,
            nonce: fields.take().ok_or(bad)?,
        };
        let (plain, sealed) = (header.plain_len as usize, header.sealed_len as usize);
        let fits = if compressed { sealed < plain + TAG } else { sealed == plain + TAG };
        if plain > MAX_PLAIN || sealed < TAG || !fits {
            return Err(bad);
        }
        Ok(header)
    }

    fn bound(&self, store: &[u8; 16], pack: &PackId, offset: u64) -> Vec<u8> {
        let header = self.encode();
        [&pack_header(store, pack)[..], &offset.to_be_bytes(), header.get(..BOUND).unwrap_or_default()].concat()
    }
}

/// Header and sealed octets of a frame that will stand at `offset` of `pack`.
#[must_use]
pub fn seal_frame(
    keys: &Keyring,
    pack: &PackId,
    offset: u64,
    kind: FrameKind,
    id: ChunkId,
    plain: &[u8],
    nonce: [u8; NONCE],
) -> Vec<u8> {
    let small = compress(plain);
    let inner = small.as_deref().unwrap_or(plain);
    let header = FrameHeader {
        kind,
        compressed: small.is_some(),
        plain_len: u32::try_from(plain.len()).unwrap_or(u32::MAX),
        sealed_len: u32::try_from(inner.len() + TAG).unwrap_or(u32::MAX),
        id,
        nonce,
    };
    let sealed = keys.pack.seal(nonce, inner, &header.bound(&keys.id, pack, offset));
    let mut out = Vec::with_capacity(FRAME_HEADER + sealed.len());
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(&sealed);
    out
}

/// Opens the sealed octets of a frame and checks that they are what its name says.
///
/// # Errors
/// [`PackError::Sealed`] or [`PackError::Content`].
pub fn open_frame(
    keys: &Keyring,
    pack: &PackId,
    offset: u64,
    header: &FrameHeader,
    sealed: &[u8],
) -> Result<Vec<u8>, PackError> {
    let inner = keys.pack.open(header.nonce, sealed, &header.bound(&keys.id, pack, offset)).ok_or(PackError::Sealed)?;
    let len = header.plain_len as usize;
    let plain = if header.compressed { decompress(&inner, len).ok_or(PackError::Content)? } else { inner };
    if plain.len() != len || keys.chunk_id(&plain) != header.id {
        return Err(PackError::Content);
    }
    Ok(plain)
}

/// The content of a table frame.
#[must_use]
pub fn encode_table(entries: &[TableEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * TABLE_ENTRY);
    for entry in entries {
        out.extend_from_slice(&entry.offset.to_be_bytes());
        out.extend_from_slice(&entry.plain_len.to_be_bytes());
        out.extend_from_slice(&entry.sealed_len.to_be_bytes());
        out.extend_from_slice(&entry.id);
    }
    out
}

/// Reads what [`encode_table`] wrote.
#[must_use]
pub fn decode_table(octets: &[u8]) -> Option<Vec<TableEntry>> {
    let (entries, rest) = octets.as_chunks::<TABLE_ENTRY>();
    let entries = entries.iter().map(|entry| {
        let mut fields = Fields(entry);
        Some(TableEntry {
            offset: fields.u64()?,
            plain_len: fields.u32()?,
            sealed_len: fields.u32()?,
            id: fields.take()?,
        })
    });
    if rest.is_empty() { entries.collect() } else { None }
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
