//! Records: a file header, then frames that name the one before (`docs/formats/record.md`).
//!
//! Files of version 3 hold batches, each with the records of a commit sealed together; in those of versions 1 and 2 every
//! record stands alone. All are read, the last is written. Each frame is bound by its associated data to its store, the
//! number of its first record and its predecessor. A torn end of a file is recognised, never guessed at; the next file
//! of the chain says where it goes on.

use super::{Fields, USUAL, compress, decompress};
use crate::store::keyring::{Keyring, NONCE, TAG};

/// No record is larger than this before sealing (64 MiB).
pub const MAX_RECORD: usize = 64 * 1024 * 1024;
/// A batch takes no further record when it would have more octets than this: one record is read by opening its batch.
pub const BATCH_FULL: usize = 1024 * 1024;
/// Nor when it has so many.
pub const BATCH_RECORDS: usize = 4096;

const FILE_MAGIC: &[u8; 6] = b"PKRECS";
const ALONE_MAGIC: &[u8; 4] = b"PKRC";
const BATCH_MAGIC: &[u8; 4] = b"PKRB";
const FIRST_FILE_HEADER: usize = 64;
const FILE_HEADER: usize = 68;
const ALONE_HEADER: usize = 80;
const BATCH_HEADER: usize = 84;
/// Level of batches: their JSON repeats itself, and there is little of it.
const BATCH_LEVEL: i32 = 5;
/// Waiting records beyond this are held compressed.
const LARGE: usize = 64 * 1024;

/// BLAKE3 of a frame's octets, header and sealed content: what the next one names.
pub type RecordHash = [u8; 32];

/// How a record file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Versions 1 and 2: each record alone, keys of epoch 0. Version 1 knows no `filing`.
    Alone(u16),
    /// Version 3: records in batches, keys of this epoch.
    Batches(u32),
}

/// The header of a record file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFileHeader {
    /// How the file is written.
    pub form: Form,
    /// The store.
    pub store: [u8; 16],
    /// Number of the first record in the file.
    pub first: u64,
    /// Hash of the frame before that, zeros when there is none.
    pub prev: RecordHash,
}

/// The header of a record that stands alone, or of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether zstd was used inside.
    pub compressed: bool,
    /// Number of the first record, from 1, without gaps.
    pub first: u64,
    /// How many records; 1 where it stands alone.
    pub count: u32,
    /// Octets of the content.
    pub plain_len: u32,
    /// Octets that follow the header, the tag included.
    pub sealed_len: u32,
    /// Hash of the frame before, zeros for the first.
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
    #[error("the record file has version {0}, this program reads versions 1 to 3; use a newer release")]
    Version(u16),
    /// Sealed with keys that are not here.
    #[error(
        "the record file is sealed with the keys of epoch {0}, which store.toml does not hold; restore store.toml from a backup"
    )]
    Epoch(u32),
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

impl Form {
    /// Octets of the longest file header.
    pub const LONGEST: usize = FILE_HEADER;

    /// Every form that a file may have whose header cannot be read.
    #[must_use]
    pub fn all(keys: &Keyring) -> Vec<Self> {
        let batches = (0..=keys.current()).rev().map(Self::Batches);
        batches.chain([Self::Alone(2), Self::Alone(1)]).collect()
    }

    /// The version that the header says.
    #[must_use]
    pub fn version(self) -> u16 {
        match self {
            Self::Alone(version) => version,
            Self::Batches(_) => 3,
        }
    }

    /// The number of the key epoch.
    #[must_use]
    pub fn epoch(self) -> u32 {
        match self {
            Self::Alone(_) => 0,
            Self::Batches(epoch) => epoch,
        }
    }

    /// Octets of the header of a file.
    #[must_use]
    pub fn file_header_len(self) -> usize {
        match self {
            Self::Alone(_) => FIRST_FILE_HEADER,
            Self::Batches(_) => FILE_HEADER,
        }
    }

    /// Octets of the header of a frame.
    #[must_use]
    pub fn frame_len(self) -> usize {
        match self {
            Self::Alone(_) => ALONE_HEADER,
            Self::Batches(_) => BATCH_HEADER,
        }
    }

    /// What every frame begins with.
    #[must_use]
    pub fn magic(self) -> &'static [u8; 4] {
        match self {
            Self::Alone(_) => ALONE_MAGIC,
            Self::Batches(_) => BATCH_MAGIC,
        }
    }

    /// Reads the header of a frame at the start of `octets`. Nothing in it is authenticated before [`Self::open`].
    ///
    /// # Errors
    /// [`RecordError::Short`], [`RecordError::Zeros`] or [`RecordError::Header`].
    pub fn frame(self, octets: &[u8]) -> Result<FrameHeader, RecordError> {
        let head = octets.get(..self.frame_len().min(octets.len())).unwrap_or_default();
        if !head.is_empty() && head.iter().all(|b| *b == 0) {
            return Err(RecordError::Zeros);
        }
        if head.len() < self.frame_len() {
            return Err(RecordError::Short);
        }
        self.fields(head).ok_or(RecordError::Header("record"))
    }

    fn fields(self, head: &[u8]) -> Option<FrameHeader> {
        let mut fields = Fields(head);
        fields.take().filter(|magic| magic == self.magic())?;
        let compressed = match (self, fields.take()?) {
            (_, [0, 0, 0, 0]) => false,
            (Self::Alone(_), [0, 1, 0, 0]) | (Self::Batches(_), [1, 0, 0, 0]) => true,
            _ => return None,
        };
        let first = fields.u64()?;
        let count = if matches!(self, Self::Batches(_)) { fields.u32()? } else { 1 };
        let header = FrameHeader {
            compressed,
            first,
            count,
            plain_len: fields.u32()?,
            sealed_len: fields.u32()?,
            prev: fields.take()?,
            nonce: fields.take()?,
        };
        let (plain, sealed) = (header.plain_len as usize, header.sealed_len as usize);
        let fits = if compressed { sealed < plain + TAG } else { sealed == plain + TAG };
        let counted =
            first > 0 && count > 0 && count as usize <= BATCH_RECORDS && first.checked_add(count.into()).is_some();
        // A batch ends with a line end that a record does not have.
        (plain <= MAX_RECORD + 1 && sealed >= TAG && counted && fits).then_some(header)
    }

    /// The octets of the header of a frame.
    #[must_use]
    pub fn encode(self, header: &FrameHeader) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.frame_len());
        out.extend_from_slice(self.magic());
        let compressed = u8::from(header.compressed);
        match self {
            Self::Alone(_) => out.extend_from_slice(&[0, compressed, 0, 0]),
            Self::Batches(_) => out.extend_from_slice(&[compressed, 0, 0, 0]),
        }
        out.extend_from_slice(&header.first.to_be_bytes());
        if matches!(self, Self::Batches(_)) {
            out.extend_from_slice(&header.count.to_be_bytes());
        }
        out.extend_from_slice(&header.plain_len.to_be_bytes());
        out.extend_from_slice(&header.sealed_len.to_be_bytes());
        out.extend_from_slice(&header.prev);
        out.extend_from_slice(&header.nonce);
        out
    }

    /// What a frame is bound to: the file's form, and its own header without the nonce.
    fn bound(self, store: &[u8; 16], header: &FrameHeader) -> Vec<u8> {
        let mut bound = [&FILE_MAGIC[..], &self.version().to_be_bytes(), store].concat();
        if let Self::Batches(epoch) = self {
            bound.extend_from_slice(&epoch.to_be_bytes());
        }
        bound.extend(self.encode(header));
        bound.truncate(bound.len() - NONCE);
        bound
    }

    /// Opens the sealed octets of a frame: the octets of its records, in order.
    ///
    /// # Errors
    /// [`RecordError::Sealed`], [`RecordError::Content`] or [`RecordError::Epoch`].
    pub fn open(self, keys: &Keyring, header: &FrameHeader, sealed: &[u8]) -> Result<Opened, RecordError> {
        let epoch = keys.epoch(self.epoch()).ok_or(RecordError::Epoch(self.epoch()))?;
        let bound = self.bound(&keys.id, header);
        let inner = epoch.record.open(header.nonce, sealed, &bound).ok_or(RecordError::Sealed)?;
        let len = header.plain_len as usize;
        let plain = if header.compressed { decompress(&inner, len).ok_or(RecordError::Content)? } else { inner };
        let opened = Opened::new(header.first, plain, matches!(self, Self::Batches(_)));
        let whole = opened.plain.len() == len && opened.ends.len() == header.count as usize;
        if whole { Ok(opened) } else { Err(RecordError::Content) }
    }
}

/// Records that were sealed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    first: u64,
    plain: Vec<u8>,
    /// Where the content of each ends; in a batch one line end follows.
    ends: Vec<usize>,
}

impl Opened {
    fn new(first: u64, plain: Vec<u8>, batch: bool) -> Self {
        let ends = match (batch, plain.last()) {
            // JSON has no line end outside of white space, and none is written.
            (true, Some(b'\n')) => memchr::memchr_iter(b'\n', &plain).collect(),
            (true, _) => Vec::new(),
            (false, _) => vec![plain.len()],
        };
        Self { first, plain, ends }
    }

    /// Number of the first.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Octets of them all.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.plain.len()
    }

    /// The content of each, in order.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).filter_map(|place| self.at(place))
    }

    fn at(&self, place: usize) -> Option<&[u8]> {
        let start = place.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| end + 1);
        self.plain.get(start..*self.ends.get(place)?)
    }

    /// The content of one, by its number.
    #[must_use]
    pub fn record(&self, number: u64) -> Option<&[u8]> {
        self.at(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
}

impl RecordFileHeader {
    /// The octets of the header.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let version = self.form.version().to_be_bytes();
        let mut out = [&FILE_MAGIC[..], &version, &self.store, &self.first.to_be_bytes(), &self.prev].concat();
        if let Form::Batches(epoch) = self.form {
            out.extend_from_slice(&epoch.to_be_bytes());
        }
        out
    }

    /// Reads the header of a record file.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(octets: &[u8], keys: &Keyring) -> Result<Self, RecordError> {
        if octets.len() < FIRST_FILE_HEADER {
            return Err(RecordError::Short);
        }
        let mut fields = Fields(octets);
        if fields.take().as_ref() != Some(FILE_MAGIC) {
            return Err(RecordError::Header("record file header"));
        }
        let version = fields.u16().ok_or(RecordError::Short)?;
        let store = fields.take().ok_or(RecordError::Short)?;
        let first = fields.u64().ok_or(RecordError::Short)?;
        let prev = fields.take().ok_or(RecordError::Short)?;
        let form = match version {
            1 | 2 => Form::Alone(version),
            3 => Form::Batches(fields.u32().ok_or(RecordError::Short)?),
            other => return Err(RecordError::Version(other)),
        };
        if store != keys.id {
            return Err(RecordError::Foreign);
        }
        if keys.epoch(form.epoch()).is_none() {
            return Err(RecordError::Epoch(form.epoch()));
        }
        Ok(Self { form, store, first, prev })
    }
}

/// The content of a record that waits for its commit; a large one is held compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    len: usize,
    compressed: bool,
    inner: Vec<u8>,
}

impl Content {
    /// Takes the octets of a record; `None` when there are more than [`MAX_RECORD`].
    #[must_use]
    pub fn new(plain: Vec<u8>) -> Option<Self> {
        let len = plain.len();
        if len > MAX_RECORD {
            return None;
        }
        let small = if len > LARGE { compress(&plain, USUAL) } else { None };
        Some(Self { len, compressed: small.is_some(), inner: small.unwrap_or(plain) })
    }

    /// How many of `records` make the next batch; at least one.
    #[must_use]
    pub fn batch_len(records: &[Self]) -> usize {
        let mut octets = 0;
        let fits = records.iter().take(BATCH_RECORDS).take_while(|record| {
            octets += record.len + 1;
            octets <= BATCH_FULL
        });
        fits.count().max(1).min(records.len())
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        if self.compressed {
            out.extend(decompress(&self.inner, self.len).ok_or(RecordError::Content)?);
        } else {
            out.extend_from_slice(&self.inner);
        }
        out.push(b'\n');
        Ok(())
    }
}

/// Header and sealed octets of a batch in a file of version 3.
///
/// # Errors
/// [`RecordError::Epoch`].
pub fn seal_batch(
    keys: &Keyring,
    epoch: u32,
    first: u64,
    prev: RecordHash,
    records: &[Content],
    nonce: [u8; NONCE],
) -> Result<Vec<u8>, RecordError> {
    let form = Form::Batches(epoch);
    let mut plain = Vec::with_capacity(records.iter().map(|record| record.len + 1).sum());
    records.iter().try_for_each(|record| record.write(&mut plain))?;
    let plain_len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
    let small = compress(&plain, BATCH_LEVEL);
    let compressed = small.is_some();
    let inner = small.unwrap_or(plain);
    let header = FrameHeader {
        compressed,
        first,
        count: u32::try_from(records.len()).unwrap_or(u32::MAX),
        plain_len,
        sealed_len: u32::try_from(inner.len() + TAG).unwrap_or(u32::MAX),
        prev,
        nonce,
    };
    let mut out = form.encode(&header);
    let keys_of = keys.epoch(epoch).ok_or(RecordError::Epoch(epoch))?;
    keys_of.record.seal_behind(nonce, &inner, &form.bound(&keys.id, &header), &mut out);
    Ok(out)
}

/// The hash of a whole frame (header and sealed octets).
#[must_use]
pub fn record_hash(octets: &[u8]) -> RecordHash {
    *blake3::hash(octets).as_bytes()
}
