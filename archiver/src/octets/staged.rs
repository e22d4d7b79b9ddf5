//! Octets that are on their way into the store: in memory while they are few, in an encrypted temporary file beyond.
//! A larger message may stay in memory too, while all of those together take no more than 48 MiB.
//!
//! File: blocks of 64 KiB, each sealed with ChaCha20-Poly1305 under a random key of this one file that is never
//! written anywhere; the nonce is the block's number. The name is removed as soon as the file is open, so a killed
//! program leaves nothing; what a crash between the two steps leaves is removed at the next start. Not durable, and
//! not meant to be: until the store has committed, the message is still at its source.

use super::{Octets, read_blocks};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce, aead::AeadInOut as _};
use postkeep_shared::{
    crypt::random,
    disk::{Disk, DiskFile, DiskResult, create_dirs},
};
use std::{
    borrow::Cow,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use zeroize::{Zeroize as _, Zeroizing, optimization_barrier};

/// Octets kept in memory per message.
pub const IN_MEMORY: usize = 1024 * 1024;

/// Octets kept in memory of all messages together that are larger: sealing each for a file and opening it for every
/// pass over it costs more than anything else that is done with it.
const LARGE: usize = 48 * 1024 * 1024;

const BLOCK: usize = 64 * 1024;
const TAG: usize = 16;

/// Where staged messages go.
#[derive(Clone)]
pub struct Staging {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    /// Octets of larger messages in memory.
    large: Arc<AtomicUsize>,
}

/// Memory for one larger message; given back when dropped.
struct Room {
    of: Arc<AtomicUsize>,
    octets: usize,
}

/// A message that is arriving.
pub struct Stager {
    staging: Staging,
    /// Everything while there is no file; then what does not fill a block yet.
    pending: Wiped,
    file: Option<Writer>,
    len: u64,
    /// Octets kept in memory.
    in_memory: usize,
    room: Option<Room>,
}

/// A message that arrived, readable at any place. Gone from memory and disk when dropped.
pub struct Staged {
    len: u64,
    place: Place,
}

enum Place {
    Memory {
        octets: Wiped,
        /// Given back with it.
        _room: Option<Room>,
    },
    File(Mutex<Reader>),
}

/// Octets that are zeros before their memory is given back. As [`Zeroizing`], but not octet by octet, and without the
/// memory behind the last of them, which nothing was ever written to: octets are only added.
struct Wiped(Vec<u8>);

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.fill(0);
        optimization_barrier(self.0.as_slice());
    }
}

struct Writer {
    file: Box<dyn DiskFile>,
    cipher: ChaCha20Poly1305,
    blocks: u64,
}

struct Reader {
    file: Box<dyn DiskFile>,
    cipher: ChaCha20Poly1305,
    len: u64,
    /// The block that was opened last, and its number: reads are mostly in order and small.
    block: Zeroizing<Vec<u8>>,
    number: Option<u64>,
}

impl Staging {
    /// Makes `dir` and removes what an earlier run left there. Only the holder of the writer's lock may call it.
    ///
    /// # Errors
    /// [`postkeep_shared::disk::DiskError`].
    pub fn open(dir: &Path, disk: Arc<dyn Disk>) -> DiskResult<Self> {
        create_dirs(&*disk, dir)?;
        for entry in disk.list(dir)?.iter().filter(|entry| entry.is_file) {
            disk.remove_file(&dir.join(&entry.name))?;
        }
        Ok(Self { dir: dir.to_owned(), disk, large: Arc::default() })
    }

    /// Begins a message.
    #[must_use]
    pub fn begin(&self) -> Stager {
        self.begin_with(IN_MEMORY, None, 0)
    }

    /// Begins a message that should have `octets`, and has at most `most`: a larger one stays in memory too where there
    /// is room.
    #[must_use]
    pub fn begin_sized(&self, octets: u64, most: u64) -> Stager {
        let [octets, most] = [octets, most].map(|octets| usize::try_from(octets).unwrap_or(usize::MAX));
        let room = if most > IN_MEMORY { self.room(most) } else { None };
        let in_memory = room.as_ref().map_or(IN_MEMORY, |room| room.octets);
        self.begin_with(in_memory, room, octets.min(in_memory))
    }

    fn room(&self, octets: usize) -> Option<Room> {
        let more = |taken: usize| taken.checked_add(octets).filter(|taken| *taken <= LARGE);
        self.large.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Room { of: Arc::clone(&self.large), octets })
    }

    /// Begins a message of which hardly anything stays in memory: one block.
    #[must_use]
    pub fn begin_on_disk(&self) -> Stager {
        self.begin_with(BLOCK, None, 0)
    }

    fn begin_with(&self, in_memory: usize, room: Option<Room>, expected: usize) -> Stager {
        // A vector that grows leaves copies of the message behind in memory that is not wiped.
        let pending = Wiped(Vec::with_capacity(expected));
        Stager { staging: self.clone(), pending, file: None, len: 0, in_memory, room }
    }

    fn writer(&self) -> io::Result<Writer> {
        let path = self.dir.join(data_encoding::HEXLOWER.encode(&random::<16>()));
        let file = self.disk.create(&path).map_err(io::Error::other)?;
        self.disk.remove_file(&path).map_err(io::Error::other)?;
        let mut key: [u8; 32] = random();
        let cipher = ChaCha20Poly1305::new((&key).into());
        key.zeroize();
        Ok(Writer { file, cipher, blocks: 0 })
    }
}

impl Stager {
    /// Adds octets.
    ///
    /// # Errors
    /// What the disk gives; the message is then lost here and still at its source.
    pub fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.len += octets.len() as u64;
        self.pending.0.extend_from_slice(octets);
        if self.file.is_none() {
            if self.pending.0.len() <= self.in_memory {
                return Ok(());
            }
            self.file = Some(self.staging.writer()?);
        }
        let whole = self.pending.0.len() / BLOCK * BLOCK;
        if whole == 0 {
            return Ok(());
        }
        if let Some(writer) = self.file.as_mut() {
            for block in self.pending.0.get(..whole).unwrap_or_default().chunks(BLOCK) {
                writer.write(block)?;
            }
        }
        let mut rest = Vec::with_capacity(2 * BLOCK);
        rest.extend_from_slice(self.pending.0.get(whole..).unwrap_or_default());
        self.pending = Wiped(rest);
        Ok(())
    }

    /// Octets so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ends the message.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn finish(self) -> io::Result<Staged> {
        let len = self.len;
        let place = match self.file {
            None => Place::Memory { octets: self.pending, _room: self.room },
            Some(mut writer) => {
                if !self.pending.0.is_empty() {
                    writer.write(&self.pending.0)?;
                }
                let Writer { file, cipher, .. } = writer;
                Place::File(Mutex::new(Reader { file, cipher, len, block: Zeroizing::new(Vec::new()), number: None }))
            }
        };
        Ok(Staged { len, place })
    }
}

impl Writer {
    fn write(&mut self, block: &[u8]) -> io::Result<()> {
        let mut sealed = Vec::with_capacity(block.len() + TAG);
        sealed.extend_from_slice(block);
        self.cipher.encrypt_in_place(&nonce(self.blocks), b"", &mut sealed).map_err(|_| sealing())?;
        self.blocks += 1;
        self.file.write_all(&sealed)
    }
}

impl Reader {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let (mut at, mut filled) = (offset, 0);
        while filled < buffer.len() {
            self.load(at / BLOCK as u64)?;
            let from = usize::try_from(at % BLOCK as u64).map_err(io::Error::other)?;
            let there = self.block.get(from..).filter(|rest| !rest.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?;
            let wanted = buffer.get_mut(filled..).unwrap_or_default();
            let count = there.len().min(wanted.len());
            wanted.get_mut(..count).unwrap_or_default().copy_from_slice(there.get(..count).unwrap_or_default());
            filled += count;
            at += count as u64;
        }
        Ok(())
    }

    fn load(&mut self, number: u64) -> io::Result<()> {
        if self.number == Some(number) {
            return Ok(());
        }
        self.number = None;
        let left = self.len.checked_sub(number * BLOCK as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        let plain = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK);
        self.block.resize(plain + TAG, 0);
        self.file.read_at(&mut self.block, number * (BLOCK + TAG) as u64).map_err(io::Error::other)?;
        self.cipher.decrypt_in_place(&nonce(number), b"", &mut *self.block).map_err(|_| sealing())?;
        self.number = Some(number);
        Ok(())
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    for (to, from) in nonce.iter_mut().skip(4).zip(number.to_be_bytes()) {
        *to = from;
    }
    nonce.into()
}

fn sealing() -> io::Error {
    io::Error::other("a temporary file holds other octets than were written to it; check the disk")
}

impl Octets for Staged {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.len).ok_or(io::ErrorKind::UnexpectedEof)?;
        match &self.place {
            Place::Memory { octets, .. } => octets.0.as_slice().read_at(offset, buffer),
            Place::File(reader) => reader.lock().unwrap_or_else(PoisonError::into_inner).read_at(offset, buffer),
        }
    }

    fn view(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        match &self.place {
            Place::Memory { octets, .. } => octets.0.as_slice().view(range),
            Place::File(_) => self.copy(range).map(Cow::Owned),
        }
    }

    fn for_each_block(&self, range: Range<u64>, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match &self.place {
            Place::Memory { octets, .. } => octets.0.as_slice().for_each_block(range, each),
            Place::File(_) => read_blocks(self, range, each),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.of.fetch_sub(self.octets, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;

    fn staging() -> (tempfile::TempDir, Staging) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let staging = Staging::open(&folder.path().join("staging"), Arc::new(LocalDisk)).expect("opens");
        (folder, staging)
    }

    #[test]
    fn every_size_reads_back_at_every_place() {
        let (folder, staging) = staging();
        for len in [0, 1, BLOCK, IN_MEMORY, IN_MEMORY + 1, IN_MEMORY + BLOCK, 3 * IN_MEMORY + 17] {
            let octets: Vec<u8> = (0..len).map(|i| (i / 7 % 251) as u8).collect();
            let mut stager = staging.begin();
            for piece in octets.chunks(50_021) {
                stager.write(piece).expect("writes");
            }
            let staged = stager.finish().expect("ends");
            assert_eq!(staged.len(), len as u64);
            assert!(staged.copy(0..len as u64).expect("reads") == octets, "{len}");
            for at in [0, BLOCK - 1, BLOCK, len / 2, len.saturating_sub(70_000)] {
                let end = (at + 70_000).min(len);
                if at < end {
                    assert!(staged.copy(at as u64..end as u64).expect("reads") == octets[at..end], "{len} at {at}");
                }
            }
            assert!(staged.copy(len as u64..len as u64 + 1).is_err());
            let left = std::fs::read_dir(folder.path().join("staging")).expect("lists").count();
            assert_eq!(left, 0, "no name is left, not even while in use");
        }
    }

    #[test]
    fn larger_messages_stay_in_memory_while_there_is_room() {
        let (_folder, staging) = staging();
        let stage = |announced: usize, len: usize| {
            let mut stager = staging.begin_sized(announced as u64, announced as u64);
            stager.write(&vec![b'A'; len]).expect("writes");
            let staged = stager.finish().expect("ends");
            assert!(staged.copy(0..len as u64).expect("reads").iter().all(|octet| *octet == b'A'));
            staged
        };
        let in_memory = |staged: &Staged| matches!(staged.place, Place::Memory { .. });
        let first = stage(LARGE - IN_MEMORY, 2 * IN_MEMORY);
        assert!(in_memory(&first));
        let second = stage(2 * IN_MEMORY, 2 * IN_MEMORY);
        assert!(!in_memory(&second), "there is no room for it");
        drop(first);
        assert!(in_memory(&stage(2 * IN_MEMORY, 2 * IN_MEMORY)));
        assert!(!in_memory(&stage(2 * IN_MEMORY, 3 * IN_MEMORY)), "longer than announced");
        assert!(in_memory(&stage(1, 1)) && in_memory(&stage(LARGE, IN_MEMORY)));
        assert_eq!(staging.large.load(Ordering::Relaxed), 0, "all of it was given back");
    }

    #[test]
    fn blocks_hide_their_content_and_notice_changes() {
        let (folder, staging) = staging();
        let mut writer = staging.writer().expect("opens");
        let plain = vec![b'A'; BLOCK];
        writer.write(&plain).expect("writes");
        writer.write(&plain).expect("writes");
        let mut sealed = vec![0; 2 * (BLOCK + TAG)];
        writer.file.read_at(&mut sealed, 0).expect("reads");
        assert!(!sealed.windows(8).any(|w| w == b"AAAAAAAA"));
        assert!(sealed[..BLOCK] != sealed[BLOCK + TAG..2 * BLOCK + TAG], "equal blocks differ");
        let len = 2 * BLOCK as u64;
        let Writer { mut file, cipher, .. } = writer;
        file.set_len(0).expect("cuts");
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(0)).expect("seeks");
        sealed[BLOCK + TAG + 5] ^= 1;
        file.write_all(&sealed).expect("writes");
        let mut reader = Reader { file, cipher, len, block: Zeroizing::new(Vec::new()), number: None };
        let mut buffer = vec![0; BLOCK];
        assert!(reader.read_at(0, &mut buffer).is_ok());
        assert!(reader.read_at(BLOCK as u64, &mut buffer).is_err());
        drop(folder);
    }

    #[test]
    fn leftovers_are_removed_at_start() {
        let (folder, _) = staging();
        let dir = folder.path().join("staging");
        std::fs::write(dir.join("left"), "x").expect("writes");
        Staging::open(&dir, Arc::new(LocalDisk)).expect("opens");
        assert_eq!(std::fs::read_dir(&dir).expect("lists").count(), 0);
    }
}
