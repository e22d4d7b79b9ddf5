//! Pack files on disk: what is there, putting chunks into new ones, reading chunks back.
//!
//! Order (reliability before speed): frames are written, then synced with the directory of a new pack, and only then
//! may a record name their chunks. A write or sync that failed is never repeated: the writer is dead from then on. A
//! pack is never changed in place; one with a torn end is left as it is and a new one begun.
//!
//! Chunks that come together are put into groups ([`super::format::group`]); the groups are compressed, sealed and
//! written by a thread of their own ([`super::worker`]) while the next message is taken apart. Where a chunk lies is
//! known when [`Packs::sync`] has brought everything to stable storage, not before.

use super::{
    StoreError, StoreResult,
    appender::{Appender, Synced},
    format::{
        Press,
        group::{Class, Filling},
        pack::{ChunkId, Form, MAX_CHUNKS, Opened, PackError, PackId},
    },
    keyring::Keyring,
    scan::{Reading, Scan, read_head, scan_pack},
    worker::{Group, Worker},
};
use data_encoding::HEXLOWER;
use postkeep_shared::disk::{Disk, DiskFile};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A pack is sealed when it has this many octets.
pub(crate) const PACK_FULL: u64 = 8 * 1024 * 1024;
/// Packs held open for reading.
const OPEN_READERS: usize = 16;
/// Octets of groups that are kept opened, so that the messages of a batch do not open each group again.
const OPEN_GROUPS: usize = 16 * 1024 * 1024;

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pack: PackId,
    /// Where its frame begins.
    pub(crate) offset: u64,
    /// Which of the chunks of the frame it is.
    pub(crate) index: u32,
}

/// The pack files of a store.
pub(crate) struct Packs {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    keys: Arc<Keyring>,
    readers: Mutex<Readers>,
    groups: Mutex<Groups>,
    /// Groups that are being filled, one for each [`Class`].
    filling: [(Vec<ChunkId>, Filling); 3],
    /// Compresses samples. Only who may write uses it; the lock lets others share the rest.
    press: Mutex<Press>,
    /// What was appended since the last [`Packs::sync`].
    pending: HashSet<ChunkId>,
    /// Goes to the worker with the first group.
    appender: Option<Appender>,
    worker: Option<Worker>,
}

#[derive(Default)]
struct Readers {
    files: HashMap<PackId, SharedReader>,
    order: VecDeque<PackId>,
    /// Packs whose pages were dropped since the last [`Packs::fresh`].
    dropped: Option<HashSet<PackId>>,
}

type SharedReader = Arc<Reader>;

/// A pack that is open for reading.
struct Reader {
    file: Box<dyn DiskFile>,
    /// How it may be written: first as its header says, which may have decayed.
    forms: Vec<Form>,
    /// Why the header cannot be read.
    error: Option<PackError>,
}

/// A chunk that was read, in the group that it came in.
pub(crate) struct Chunk {
    opened: Arc<Opened>,
    index: usize,
}

/// A group that is opened once, whoever else waits for it.
type Slot = Arc<Mutex<Option<Arc<Opened>>>>;

/// Opened groups, the oldest first, and those that are being opened.
#[derive(Default)]
struct Groups {
    opened: HashMap<(PackId, u64), Slot>,
    /// Those that are opened, with their octets.
    order: VecDeque<((PackId, u64), usize)>,
    octets: usize,
}

/// A pack file as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackFile {
    pub(crate) id: PackId,
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
}

/// Where a pack lies. The last two digits name the folder: the first ones of a UUIDv7 change too slowly.
pub(crate) fn pack_path(dir: &Path, id: &PackId) -> PathBuf {
    let name = HEXLOWER.encode(id);
    let folder = name.get(30..).unwrap_or_default();
    dir.join(folder).join(format!("{name}.pack"))
}

impl Packs {
    pub(crate) fn new(dir: &Path, disk: Arc<dyn Disk>, keys: Arc<Keyring>) -> Self {
        let appender = Appender::new(dir, Arc::clone(&disk), Arc::clone(&keys));
        Self {
            dir: dir.to_owned(),
            disk,
            keys,
            readers: Mutex::default(),
            groups: Mutex::default(),
            filling: Default::default(),
            press: Mutex::default(),
            pending: HashSet::new(),
            appender: Some(appender),
            worker: None,
        }
    }

    pub(crate) fn path(&self, id: &PackId) -> PathBuf {
        pack_path(&self.dir, id)
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

    /// Goes on with the newest pack if it is neither sealed nor torn, nor of an earlier form or key epoch.
    pub(crate) fn resume(&mut self, newest: &PackFile) -> StoreResult<()> {
        if newest.len >= PACK_FULL {
            return Ok(());
        }
        let scan = self.scan(newest, true)?;
        let current = scan.form == Some(Form::Grouped(self.keys.current()));
        if scan.sealed || !scan.whole() || !current || scan.entries.len() >= MAX_CHUNKS {
            return Ok(());
        }
        let file = self.disk.open_append(&newest.path)?;
        if let Some(appender) = &mut self.appender {
            appender.resume(newest.id, file, newest.len, scan.entries);
        }
        Ok(())
    }

    /// Whether a chunk was appended and is not synced yet.
    pub(crate) fn is_pending(&self, id: &ChunkId) -> bool {
        self.pending.contains(id)
    }

    /// Puts a chunk behind the others of its kind. Not durable, nor to be read, before [`Self::sync`].
    pub(crate) fn append(&mut self, id: ChunkId, plain: &[u8]) -> StoreResult<()> {
        let class = Class::of(plain, self.press.get_mut().unwrap_or_else(PoisonError::into_inner));
        let full = self.filling.get(class as usize).is_some_and(|(_, filling)| !filling.takes(plain.len()));
        if full {
            self.send(class)?;
        }
        if let Some((ids, filling)) = self.filling.get_mut(class as usize) {
            ids.push(id);
            filling.push(plain);
        }
        self.pending.insert(id);
        Ok(())
    }

    /// Hands a group to the worker.
    fn send(&mut self, class: Class) -> StoreResult<()> {
        let Some((ids, filling)) = self.filling.get_mut(class as usize).map(std::mem::take) else { return Ok(()) };
        if filling.is_empty() {
            return Ok(());
        }
        self.worker()?.append(Group { ids, filling, class })
    }

    fn worker(&mut self) -> StoreResult<&mut Worker> {
        if let Some(appender) = self.appender.take() {
            self.worker = Some(Worker::start(appender)?);
        }
        self.worker.as_mut().ok_or_else(|| StoreError::Failed("packs cannot be written to any more".to_owned()))
    }

    /// Lets the thread begin with what takes longest, and is filled no further before [`Self::sync`].
    pub(crate) fn begin_sync(&mut self) -> StoreResult<()> {
        self.send(Class::Text)?;
        self.send(Class::Binary)
    }

    /// Brings everything appended to stable storage, content first, then the name of a new pack; says where the chunks
    /// lie.
    pub(crate) fn sync(&mut self) -> StoreResult<Synced> {
        for class in Class::ALL {
            self.send(class)?;
        }
        self.pending.clear();
        self.worker()?.sync()
    }

    /// The open pack is left as it is, whole and unsealed; what comes next begins a new one.
    pub(crate) fn leave_open_pack(&mut self) -> StoreResult<()> {
        match (&mut self.appender, &mut self.worker) {
            (Some(appender), _) => appender.leave(),
            (None, Some(worker)) => worker.leave()?,
            (None, None) => {}
        }
        Ok(())
    }

    /// Nothing of a pack is kept open any more.
    pub(crate) fn forget(&mut self, id: &PackId) {
        let mut readers = locked(&self.readers);
        readers.files.remove(id);
        readers.order.retain(|other| other != id);
        drop(readers);
        *locked(&self.groups) = Groups::default();
    }

    /// From now on every pack is read from the disk, not from the page cache, once.
    pub(crate) fn fresh(&self) {
        locked(&self.readers).dropped = Some(HashSet::new());
        *locked(&self.groups) = Groups::default();
    }

    /// Ends [`Self::fresh`].
    pub(crate) fn cached(&self) {
        locked(&self.readers).dropped = None;
    }

    fn reader(&self, pack: &PackId) -> StoreResult<SharedReader> {
        let mut readers = locked(&self.readers);
        let reader = match readers.files.get(pack) {
            Some(reader) => Arc::clone(reader),
            None => {
                let file = self.disk.open(&self.path(pack))?;
                let (forms, error) = match Form::of(&read_head(&*file)?, &self.keys, pack) {
                    Ok(form) => {
                        let others = Form::all(&self.keys).into_iter().filter(|other| *other != form);
                        (std::iter::once(form).chain(others).collect(), None)
                    }
                    Err(error) => (Form::all(&self.keys), Some(error)),
                };
                let reader: SharedReader = Arc::new(Reader { file, forms, error });
                if readers.order.len() >= OPEN_READERS
                    && let Some(oldest) = readers.order.pop_front()
                {
                    readers.files.remove(&oldest);
                }
                readers.files.insert(*pack, Arc::clone(&reader));
                readers.order.push_back(*pack);
                reader
            }
        };
        if let Some(dropped) = &mut readers.dropped
            && dropped.insert(*pack)
        {
            reader.file.drop_cache()?;
        }
        Ok(reader)
    }

    /// Reads a chunk and checks it against its name.
    pub(crate) fn read(&self, id: &ChunkId, place: &Place) -> StoreResult<Chunk> {
        let damaged = |detail: String| StoreError::damaged(&self.path(&place.pack), place.offset, detail);
        let opened = match self.group(place) {
            Err(StoreError::Disk(error)) if error.is_missing() => {
                return Err(StoreError::ChunkMissing(HEXLOWER.encode(id)));
            }
            other => other?,
        };
        let chunk = Chunk { opened, index: usize::try_from(place.index).unwrap_or(usize::MAX) };
        if chunk.is_there() && self.keys.is_named(id, &chunk) {
            Ok(chunk)
        } else {
            Err(damaged("another chunk stands here; run `store rebuild-catalog`".to_owned()))
        }
    }

    /// The frame of a chunk, opened.
    fn group(&self, place: &Place) -> StoreResult<Arc<Opened>> {
        let key = (place.pack, place.offset);
        // First of all, so that what is read fresh is not what was kept.
        let reader = self.reader(&place.pack)?;
        let slot = locked(&self.groups).slot(key);
        let mut slot = locked(&slot);
        if let Some(opened) = &*slot {
            return Ok(Arc::clone(opened));
        }
        let result = self.open_group(&reader, place);
        let kept = locked(&self.groups).settle(key, result.as_deref().ok());
        *slot = result.as_ref().ok().filter(|_| kept).cloned();
        result
    }

    fn open_group(&self, reader: &Reader, place: &Place) -> StoreResult<Arc<Opened>> {
        let file = &*reader.file;
        let len = file.len()?;
        let mut error = reader.error.unwrap_or(PackError::Sealed);
        for (at, form) in reader.forms.iter().enumerate() {
            let reading = Reading { keys: &self.keys, file, pack: &place.pack, form: *form, len };
            match reading.frame(place.offset, len)? {
                Ok((_, opened)) => return Ok(Arc::new(opened)),
                Err(found) if reader.error.is_none() && at == 0 => error = found,
                Err(_) => {}
            }
        }
        let detail = match error {
            PackError::Short => "the file ends before the chunk does".to_owned(),
            other => other.to_string(),
        };
        Err(StoreError::damaged(&self.path(&place.pack), place.offset, detail))
    }

    /// Whether the pack of a place is there and long enough; nothing of it is read.
    pub(crate) fn check_place(&self, id: &ChunkId, place: &Place) -> StoreResult<()> {
        match self.reader(&place.pack) {
            Err(StoreError::Disk(error)) if error.is_missing() => Err(StoreError::ChunkMissing(HEXLOWER.encode(id))),
            Err(error) => Err(error),
            Ok(reader) if reader.file.len()? > place.offset => Ok(()),
            Ok(_) => {
                let detail = "the file ends before the chunk does";
                Err(StoreError::damaged(&self.path(&place.pack), place.offset, detail))
            }
        }
    }
}

impl Chunk {
    fn is_there(&self) -> bool {
        self.index < self.opened.chunks.len()
    }
}

impl std::ops::Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.opened.chunk(self.index).unwrap_or_default()
    }
}

impl Groups {
    fn slot(&mut self, key: (PackId, u64)) -> Slot {
        Arc::clone(self.opened.entry(key).or_default())
    }

    /// Whether an opened group is kept for the next reader; a large chunk alone is not asked for again.
    fn settle(&mut self, key: (PackId, u64), opened: Option<&Opened>) -> bool {
        let Some(opened) = opened.filter(|opened| opened.chunks.len() > 1) else {
            self.opened.remove(&key);
            return false;
        };
        self.octets += opened.plain.len();
        self.order.push_back((key, opened.plain.len()));
        while self.octets > OPEN_GROUPS
            && let Some((oldest, octets)) = self.order.pop_front()
        {
            self.opened.remove(&oldest);
            self.octets -= octets;
        }
        true
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    /// As the catalog holds it: nothing that the pack does not show in clear.
    pub(crate) fn encode(&self) -> Vec<u8> {
        [&self.pack[..], &self.offset.to_be_bytes(), &self.index.to_be_bytes()].concat()
    }

    pub(crate) fn decode(octets: &[u8]) -> Option<Self> {
        let (pack, rest) = octets.split_first_chunk::<16>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let index = u32::from_be_bytes(rest.try_into().ok()?);
        Some(Self { pack: *pack, offset: u64::from_be_bytes(*offset), index })
    }
}
