//! A copy of a frame of a record file, in a chunk of a pack (`docs/formats/pack.md`, copies of records): the frame as it stands
//! in the file, bound to its store, number and predecessor, so that nothing can pass for one.

use super::record::{Form, RecordHash, record_hash};

const MAGIC: &[u8; 8] = b"PKRCOPY1";
/// Octets before those of the frame: magic, version, epoch, hash, piece, pieces.
const HEADER: usize = 8 + 2 + 4 + 32 + 4 + 4;
/// Octets of a frame in one chunk at most.
const PIECE: usize = 2 * 1024 * 1024;

/// The chunks that hold a copy of a sealed frame.
pub(crate) fn chunks_of(form: Form, frame: &[u8]) -> Vec<Vec<u8>> {
    let hash = record_hash(frame);
    let pieces = u32::try_from(frame.len().div_ceil(PIECE)).unwrap_or(u32::MAX);
    let chunk = |(piece, octets): (u32, &[u8])| {
        let (version, epoch) = (form.version().to_be_bytes(), form.epoch().to_be_bytes());
        [&MAGIC[..], &version, &epoch, &hash, &piece.to_be_bytes(), &pieces.to_be_bytes(), octets].concat()
    };
    (0..).zip(frame.chunks(PIECE)).map(chunk).collect()
}

/// Whether a chunk says that it is a copy. What it holds is believed only when it opens.
pub(crate) fn is_copy(chunk: &[u8]) -> bool {
    chunk.len() > HEADER && chunk.starts_with(MAGIC)
}

/// A piece of a copy: form, hash of the whole frame, number of the piece and of all, octets.
pub(crate) fn piece(chunk: &[u8]) -> Option<(Form, RecordHash, u32, u32, &[u8])> {
    let rest = chunk.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_first_chunk::<2>()?;
    let (epoch, rest) = rest.split_first_chunk::<4>()?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let (number, rest) = rest.split_first_chunk::<4>()?;
    let (count, octets) = rest.split_first_chunk::<4>()?;
    let form = match u16::from_be_bytes(*version) {
        version @ (1 | 2) => Form::Alone(version),
        3 => Form::Batches(u32::from_be_bytes(*epoch)),
        _ => return None,
    };
    Some((form, *hash, u32::from_be_bytes(*number), u32::from_be_bytes(*count), octets))
}
