//! Pack files on disk: appending frames, sealing full packs, reading chunks back.
//!
//! Order (reliability before speed): frames are written, then synced with the directory of a new pack, and only then
//! may a record name them. A write or sync that failed is never repeated: the writer is dead from then on. A pack is
//! never changed in place; one with a torn end is left as it is and a new one begun.

use super::{
    StoreError, StoreResult,
    format::pack::{
        ChunkId, FRAME_HEADER, FrameHeader, FrameKind, MAX_FRAMES, PACK_HEADER, PackId, TableEntry, encode_table,
        open_frame, pack_footer, pack_header, seal_frame,
    },
    keyring::Keyring,
    scan::{Scan, scan_pack},
};
use data_encoding::HEXLOWER;
use postkeep_shared::{
    crypt::random,
    disk::{Disk, DiskError, DiskFile, create_dirs},
    mail::Uidl,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// A pack is sealed when it has this many octets.
pub(crate) const PACK_FULL: u64 = 8 * 1024 * 1024;
/// Packs held open for reading.
const OPEN_READERS: usize = 16;

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pack: PackId,
    pub(crate) offset: u64,
    pub(crate) plain_len: u32,
    pub(crate) sealed_len: u32,
}

/// The pack files of a store.
pub(crate) struct Packs {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    keys: Arc<Keyring>,
    readers: Mutex<Readers>,
    open: Option<OpenPack>,
    /// Packs that were sealed since [`Packs::take_lengths`].
    sealed: Vec<(PackId, u64)>,
}

#[derive(Default)]
struct Readers {
    files: HashMap<PackId, SharedFile>,
    order: VecDeque<PackId>,
    /// Packs whose pages were dropped since the last [`Packs::fresh`].
    dropped: Option<HashSet<PackId>>,
}

type SharedFile = Arc<Mutex<Box<dyn DiskFile>>>;

struct OpenPack {
    id: PackId,
    file: Box<dyn DiskFile>,
    len: u64,
    entries: Vec<TableEntry>,
    unsynced: bool,
    new: bool,
}

/// A pack file as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackFile {
    pub(crate) id: PackId,
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
}

impl Packs {
    pub(crate) fn new(dir: &Path, disk: Arc<dyn Disk>, keys: Arc<Keyring>) -> Self {
        Self { dir: dir.to_owned(), disk, keys, readers: Mutex::default(), open: None, sealed: Vec::new() }
    }

    /// Where a pack lies. The last two digits name the folder: the first ones of a UUIDv7 change too slowly.
    pub(crate) fn path(&self, id: &PackId) -> PathBuf {
        let name = HEXLOWER.encode(id);
        let folder = name.get(30..).unwrap_or_default();
        self.dir.join(folder).join(format!("{name}.pack"))
    }

    /// All pack files, oldest first, and the paths of what is no pack.
    pub(crate) fn list(&self) -> StoreResult<(Vec<PackFile>, Vec<PathBuf>)> {
        let (mut packs, mut others) = (Vec::new(), Vec::new());
        for folder in self.disk.list(&self.dir)? {
            let path = self.dir.join(&folder.name);
            if !folder.is_dir {
                others.push(path);
                continue;
            }
            for entry in self.disk.list(&path)? {
                let path = path.join(&entry.name);
                let hex = entry.name.strip_suffix(".pack").and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok());
                match hex.and_then(|id| PackId::try_from(id).ok()) {
                    Some(id) if entry.is_file && self.path(&id) == path => {
                        packs.push(PackFile { id, path, len: entry.len });
                    }
                    _ => others.push(path),
                }
            }
        }
        packs.sort_by_key(|pack| pack.id);
        Ok((packs, others))
    }

    /// Reads a pack's frames; with `deep`, opens every one of them.
    pub(crate) fn scan(&self, pack: &PackFile, deep: bool) -> StoreResult<Scan> {
        let file = self.disk.open(&pack.path)?;
        if deep {
            file.drop_cache()?;
        }
        Ok(scan_pack(&self.keys, &*file, &pack.id, deep)?)
    }

    /// Goes on with the newest pack if it is neither sealed nor torn. The frames found in it are returned.
    pub(crate) fn resume(&mut self, newest: &PackFile) -> StoreResult<Option<Scan>> {
        if newest.len >= PACK_FULL || newest.len < PACK_HEADER as u64 {
            return Ok(None);
        }
        let scan = self.scan(newest, true)?;
        if scan.sealed || !scan.whole() || scan.entries.len() >= MAX_FRAMES {
            return Ok(Some(scan));
        }
        let file = self.disk.open_append(&newest.path)?;
        let entries = scan.entries.clone();
        // What the process before wrote may not be on the disk yet, nor the pack's name: the next sync covers both.
        self.open = Some(OpenPack { id: newest.id, file, len: newest.len, entries, unsynced: true, new: true });
        Ok(Some(scan))
    }

    /// Appends a chunk to the open pack. Not durable before [`Self::sync`].
    pub(crate) fn append(&mut self, id: ChunkId, plain: &[u8]) -> StoreResult<Place> {
        if self.open.as_ref().is_some_and(|open| open.len >= PACK_FULL || open.entries.len() >= MAX_FRAMES) {
            self.seal()?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        // Taken out while it is written to: after an error nothing is ever appended to it again.
        let frame = seal_frame(&self.keys, &open.id, open.len, FrameKind::Chunk, id, plain, random());
        let sealed_len = u32::try_from(frame.len() - FRAME_HEADER).unwrap_or(u32::MAX);
        let plain_len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        write(&mut open, &frame)?;
        let place = Place { pack: open.id, offset: open.len - frame.len() as u64, plain_len, sealed_len };
        open.entries.push(TableEntry { offset: place.offset, plain_len, sealed_len, id });
        self.open = Some(open);
        Ok(place)
    }

    fn begin(&mut self) -> StoreResult<OpenPack> {
        let id = Uidl::now().0;
        let path = self.path(&id);
        if let Some(folder) = path.parent() {
            create_dirs(&*self.disk, folder)?;
        }
        let file = self.disk.create(&path)?;
        let mut open = OpenPack { id, file, len: 0, entries: Vec::new(), unsynced: true, new: true };
        write(&mut open, &pack_header(&self.keys.id, &id))?;
        Ok(open)
    }

    /// Ends the open pack with its table.
    fn seal(&mut self) -> StoreResult<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let table = encode_table(&open.entries);
        let at = open.len;
        let id = self.keys.chunk_id(&table);
        let mut end = seal_frame(&self.keys, &open.id, at, FrameKind::Table, id, &table, random());
        end.extend_from_slice(&pack_footer(at));
        write(&mut open, &end)?;
        self.sync_open(&mut open)?;
        self.sealed.push((open.id, open.len));
        Ok(())
    }

    /// Brings everything appended to stable storage: content first, then the name of a new pack.
    pub(crate) fn sync(&mut self) -> StoreResult<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        self.sync_open(&mut open)?;
        self.open = Some(open);
        Ok(())
    }

    fn sync_open(&self, open: &mut OpenPack) -> StoreResult<()> {
        if open.unsynced {
            open.file.sync()?;
            open.unsynced = false;
        }
        if open.new {
            // The folder's own name too: a process that was killed may have made it and not come to its sync.
            for folder in open.file.path().ancestors().skip(1).take(2) {
                self.disk.open_dir(folder)?.sync()?;
            }
            open.new = false;
        }
        Ok(())
    }

    /// From now on every pack is read from the disk, not from the page cache, once.
    pub(crate) fn fresh(&self) {
        self.readers().dropped = Some(HashSet::new());
    }

    /// Ends [`Self::fresh`].
    pub(crate) fn cached(&self) {
        self.readers().dropped = None;
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self, pack: &PackId) -> StoreResult<SharedFile> {
        let mut readers = self.readers();
        let file = match readers.files.get(pack) {
            Some(file) => Arc::clone(file),
            None => {
                let file: SharedFile = Arc::new(Mutex::new(self.disk.open(&self.path(pack))?));
                if readers.order.len() >= OPEN_READERS
                    && let Some(oldest) = readers.order.pop_front()
                {
                    readers.files.remove(&oldest);
                }
                readers.files.insert(*pack, Arc::clone(&file));
                readers.order.push_back(*pack);
                file
            }
        };
        if let Some(dropped) = &mut readers.dropped
            && dropped.insert(*pack)
        {
            locked(&file).drop_cache()?;
        }
        Ok(file)
    }

    /// Reads a chunk and checks it against its name.
    pub(crate) fn read(&self, id: &ChunkId, place: &Place) -> StoreResult<Vec<u8>> {
        let path = self.path(&place.pack);
        let damaged = |detail: String| StoreError::damaged(&path, place.offset, detail);
        let file = match self.reader(&place.pack) {
            Err(StoreError::Disk(error)) if error.is_missing() => {
                return Err(StoreError::ChunkMissing(HEXLOWER.encode(id)));
            }
            other => other?,
        };
        let file = locked(&file);
        let end = place.offset.saturating_add(FRAME_HEADER as u64 + u64::from(place.sealed_len));
        if end > file.len()? {
            return Err(damaged("the file ends before the chunk does".to_owned()));
        }
        let mut head = [0; FRAME_HEADER];
        file.read_at(&mut head, place.offset)?;
        let header = FrameHeader::decode(&head).map_err(|e| damaged(e.to_string()))?;
        if header.kind != FrameKind::Chunk || header.id != *id || header.sealed_len != place.sealed_len {
            return Err(damaged("another chunk stands here; run `store rebuild-catalog`".to_owned()));
        }
        let mut sealed = vec![0; place.sealed_len as usize];
        file.read_at(&mut sealed, place.offset + FRAME_HEADER as u64)?;
        open_frame(&self.keys, &place.pack, place.offset, &header, &sealed).map_err(|e| damaged(e.to_string()))
    }

    /// Whether the pack of a place is there and long enough; nothing of it is read.
    pub(crate) fn check_place(&self, id: &ChunkId, place: &Place) -> StoreResult<()> {
        match self.reader(&place.pack) {
            Err(StoreError::Disk(error)) if error.is_missing() => Err(StoreError::ChunkMissing(HEXLOWER.encode(id))),
            Err(error) => Err(error),
            Ok(file) if locked(&file).len()? > place.offset => Ok(()),
            Ok(_) => {
                let detail = "the file ends before the chunk does";
                Err(StoreError::damaged(&self.path(&place.pack), place.offset, detail))
            }
        }
    }

    /// Names and lengths of the packs written to since the last call, for the catalog.
    pub(crate) fn take_lengths(&mut self) -> Vec<(PackId, u64)> {
        let open = self.open.as_ref().map(|open| (open.id, open.len));
        self.sealed.drain(..).chain(open).collect()
    }
}

fn locked(file: &SharedFile) -> std::sync::MutexGuard<'_, Box<dyn DiskFile>> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(open: &mut OpenPack, octets: &[u8]) -> StoreResult<()> {
    let result = open.file.write_all(octets);
    result.map_err(|e| DiskError::new("write", open.file.path(), e))?;
    open.len += octets.len() as u64;
    open.unsynced = true;
    Ok(())
}

impl Place {
    /// As the catalog holds it: nothing that the pack does not show in clear.
    pub(crate) fn encode(&self) -> Vec<u8> {
        [&self.pack[..], &self.offset.to_be_bytes(), &self.plain_len.to_be_bytes(), &self.sealed_len.to_be_bytes()]
            .concat()
    }

    pub(crate) fn decode(octets: &[u8]) -> Option<Self> {
        let (pack, rest) = octets.split_first_chunk::<16>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (plain, rest) = rest.split_first_chunk::<4>()?;
        let sealed = rest.try_into().ok()?;
        Some(Self {
            pack: *pack,
            offset: u64::from_be_bytes(*offset),
            plain_len: u32::from_be_bytes(*plain),
            sealed_len: u32::from_be_bytes(sealed),
        })
    }

    pub(crate) fn of(pack: &PackId, entry: &TableEntry) -> Self {
        Self { pack: *pack, offset: entry.offset, plain_len: entry.plain_len, sealed_len: entry.sealed_len }
    }
}
