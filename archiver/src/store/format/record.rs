//! Records: a file header, then record frames that name the one before (`docs/formats/record.md`).
//!
//! Each record is bound by its associated data to its store, number and predecessor. A torn end of a file is
//! recognised, never guessed at; the next file of the chain says where it goes on. Files of version 1 hold reports and
//! ledger entries, those of version 2 also what was filed later; both are read, the latter is written.

use super::{Fields, compress, decompress};
use crate::store::keyring::{Keyring, NONCE, TAG};

/// Octets of the header of a record file.
pub const FILE_HEADER: usize = 64;
/// Octets of the header of a record.
pub const RECORD_HEADER: usize = 80;
/// No record is larger than this before sealing (64 MiB).
pub const MAX_RECORD: usize = 64 * 1024 * 1024;

const FILE_MAGIC: &[u8; 6] = b"PKRECS";
/// The version that is written.
pub const VERSION: u16 = 2;
/// Every version that is read.
pub const VERSIONS: [u16; 2] = [2, 1];
const RECORD_MAGIC: &[u8; 4] = b"PKRC";
const BOUND: usize = RECORD_HEADER - NONCE;

/// BLAKE3 of a record's octets, header and sealed content: what the next record names.
pub type RecordHash = [u8; 32];

/// The header of a record file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFileHeader {
    /// The file's version, one of [`VERSIONS`].
    pub version: u16,
    /// The store.
    pub store: [u8; 16],
    /// Number of the first record in the file.
    pub first: u64,
    /// Hash of the record before that, zeros when there is none.
    pub prev: RecordHash,
}

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Whether zstd was used inside.
    pub compressed: bool,
    /// Number of the record, from 1, without gaps.
    pub number: u64,
    /// Octets of the content.
    pub plain_len: u32,
    /// Octets that follow the header, the tag included.
    pub sealed_len: u32,
    /// Hash of the record before, zeros for the first.
    pub prev: RecordHash,
    /// Nonce of the sealing.
    pub nonce: [u8; NONCE],
}

/// Why octets are not a record or record file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Not enough octets: the end of a write that a crash cut off, or a truncated file.
    #[error("the file ends within a record")]
    Short,
    /// Only zeros: the file system extended the file, the octets never came.
    #[error("zeros where a record should begin")]
    Zeros,
    /// No header where one must be, or a field that cannot be.
    #[error("no valid {0} here")]
    Header(&'static str),
    /// Written by a newer release.
    #[error("the record file has version {0}, this program reads versions 1 and 2; use a newer release")]
    Version(u16),
    /// Header of another store.
    #[error("the record file belongs to another store")]
    Foreign,
    /// The octets were changed, or the key is another one.
    #[error("the record does not open: its octets were changed")]
    Sealed,
    /// It opened, but what came out is not what its header says.
    #[error("the record opens, but does not hold what its header says")]
    Content,
}

impl RecordFileHeader {
    /// The octets of the header.
    #[must_use]
    pub fn encode(&self) -> [u8; FILE_HEADER] {
        let mut out = [0; FILE_HEADER];
        let octets = FILE_MAGIC
            .iter()
            .copied()
            .chain(self.version.to_be_bytes())
            .chain(self.store)
            .chain(self.first.to_be_bytes())
            .chain(self.prev);
        for (to, from) in out.iter_mut().zip(octets) {
            *to = from;
        }
        out
    }

    /// Reads the header of a record file of `store`.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(octets: &[u8], store: &[u8; 16]) -> Result<Self, RecordError> {
        let octets = octets.get(..FILE_HEADER).ok_or(RecordError::Short)?;
        let bad = RecordError::Header("record file header");
        let mut fields = Fields(octets);
        if fields.take().as_ref() != Some(FILE_MAGIC) {
            return Err(bad);
        }
        let version = u16::from_be_bytes(fields.take().ok_or(bad)?);
        if !VERSIONS.contains(&version) {
            return Err(RecordError::Version(version));
        }
        let (of, first) = (fields.take().ok_or(bad)?, fields.u64().ok_or(bad)?);
        let header = Self { version, store: of, first, prev: fields.take().ok_or(bad)? };
        if header.store != *store {
            return Err(RecordError::Foreign);
        }
        Ok(header)
    }
}

impl RecordHeader {
    /// The octets of the header.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_HEADER] {
        let mut out = [0; RECORD_HEADER];
        let octets = RECORD_MAGIC
            .iter()
            .copied()
            .chain([0, u8::from(self.compressed), 0, 0])
            .chain(self.number.to_be_bytes())
            .chain(self.plain_len.to_be_bytes())
            .chain(self.sealed_len.to_be_bytes())
            .chain(self.prev)
            .chain(self.nonce);
        for (to, from) in out.iter_mut().zip(octets) {
            *to = from;
        }
        out
    }

    /// Reads the header at the start of `octets`. Nothing in it is authenticated before [`open_record`].
    ///
    /// # Errors
    /// [`RecordError::Short`], [`RecordError::Zeros`] or [`RecordError::Header`].
    pub fn decode(octets: &[u8]) -> Result<Self, RecordError> {
        let head = octets.get(..RECORD_HEADER.min(octets.len())).unwrap_or_default();
        if !head.is_empty() && head.iter().all(|b| *b == 0) {
            return Err(RecordError::Zeros);
        }
        if head.len() < RECORD_HEADER {
            return Err(RecordError::Short);
        }
        let bad = RecordError::Header("record");
        let mut fields = Fields(head);
        if fields.take().as_ref() != Some(RECORD_MAGIC) {
            return Err(bad);
        }
        let compressed = match fields.take().ok_or(bad)? {
            [0, 0, 0, 0] => false,
            [0, 1, 0, 0] => true,
            _ => return Err(bad),
        };
        let header = Self {
            compressed,
            number: fields.u64().ok_or(bad)?,
            plain_len: fields.u32().ok_or(bad)?,
            sealed_len: fields.u32().ok_or(bad)?,
            prev: fields.take().ok_or(bad)?,
            nonce: fields.take().ok_or(bad)?,
        };
        let (plain, sealed) = (header.plain_len as usize, header.sealed_len as usize);
        let fits = if compressed { sealed < plain + TAG } else { sealed == plain + TAG };
        if plain > MAX_RECORD || sealed < TAG || header.number == 0 || !fits {
            return Err(bad);
        }
        Ok(header)
    }

    fn bound(&self, store: &[u8; 16], version: u16) -> Vec<u8> {
        let header = self.encode();
        let version = version.to_be_bytes();
        [&FILE_MAGIC[..], &version, store, header.get(..BOUND).unwrap_or_default()].concat()
    }
}

/// The content of a record, compressed where that makes it smaller: what waits for a commit is held this way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    plain_len: usize,
    compressed: bool,
    inner: Vec<u8>,
}

impl Content {
    /// Takes the octets of a record; `None` when there are more than [`MAX_RECORD`].
    #[must_use]
    pub fn new(plain: Vec<u8>) -> Option<Self> {
        let plain_len = plain.len();
        let small = compress(&plain);
        let compressed = small.is_some();
        (plain_len <= MAX_RECORD).then(|| Self { plain_len, compressed, inner: small.unwrap_or(plain) })
    }
}

/// Header and sealed octets of a record in a file of `version`.
#[must_use]
pub fn seal_record(
    keys: &Keyring,
    version: u16,
    number: u64,
    prev: RecordHash,
    content: &Content,
    nonce: [u8; NONCE],
) -> Vec<u8> {
    let header = RecordHeader {
        compressed: content.compressed,
        number,
        plain_len: u32::try_from(content.plain_len).unwrap_or(u32::MAX),
        sealed_len: u32::try_from(content.inner.len() + TAG).unwrap_or(u32::MAX),
        prev,
        nonce,
    };
    let sealed = keys.record.seal(nonce, &content.inner, &header.bound(&keys.id, version));
    let mut out = Vec::with_capacity(RECORD_HEADER + sealed.len());
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(&sealed);
    out
}

/// Opens the sealed octets of a record in a file of `version`.
///
/// # Errors
/// [`RecordError::Sealed`] or [`RecordError::Content`].
pub fn open_record(keys: &Keyring, version: u16, header: &RecordHeader, sealed: &[u8]) -> Result<Vec<u8>, RecordError> {
    let bound = header.bound(&keys.id, version);
    let inner = keys.record.open(header.nonce, sealed, &bound).ok_or(RecordError::Sealed)?;
    let len = header.plain_len as usize;
    let plain = if header.compressed { decompress(&inner, len).ok_or(RecordError::Content)? } else { inner };
    if plain.len() == len { Ok(plain) } else { Err(RecordError::Content) }
}

/// The hash of a whole record (header and sealed octets).
#[must_use]
pub fn record_hash(octets: &[u8]) -> RecordHash {
    *blake3::hash(octets).as_bytes()
}
