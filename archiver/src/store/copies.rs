//! The second copy of every record, in the packs (`docs/decisions/0012-second-copy-of-records.md`), and the log made again
//! from whatever is left of both.
//!
//! A copy is a chunk that holds a sealed frame of a record file as it stands there: bound to its store, number and
//! predecessor, so that nothing can pass for one. Invariants: nothing that stands in a file is believed unless it opens;
//! what was found damaged is moved to `damaged/`, never removed; a rebuilt log keeps numbers and hashes up to the first
//! record that is lost, and keeps the numbers behind it.

use super::{
    Store, StoreError, StoreResult, Unlock,
    catalog::Space,
    entry::{LostRecord, Record},
    format::{
        pack::PackId,
        record::{Content, Form, FrameHeader, RecordFileHeader, RecordHash, record_hash, seal_batch},
    },
    keyring::Keyring,
    open::{open_keys, remove_catalog},
    packs::{Packs, Place},
};
use postkeep_shared::{
    crypt::random,
    disk::{Disk, DiskError, DiskFile, create_dirs},
    run::now_ms,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

const MAGIC: &[u8; 8] = b"PKRCOPY1";
/// Octets before those of the frame: magic, version, epoch, hash, piece, pieces.
const HEADER: usize = 8 + 2 + 4 + 32 + 4 + 4;
/// Octets of a frame in one chunk at most.
const PIECE: usize = 2 * 1024 * 1024;
/// A record file gets no further frame when it has this many octets.
const FILE_FULL: u64 = 16 * 1024 * 1024;
/// How many packs, the newest first, are looked through for the copy of the last record.
const NEWEST: usize = 16;
/// Where record files are made before they take the place of the others.
const MADE: &str = "records.new";

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
fn piece(chunk: &[u8]) -> Option<(Form, RecordHash, u32, u32, &[u8])> {
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

/// Where the octets of a frame are.
#[derive(Clone)]
enum Source {
    File(PathBuf, u64),
    Chunks(Vec<([u8; 32], Place)>),
}

/// A frame that opened.
#[derive(Clone)]
struct Frame {
    form: Form,
    first: u64,
    count: u32,
    len: usize,
    sources: Vec<Source>,
    copied: bool,
    rank: Rank,
}

/// Which of two frames with one number and predecessor was committed: what stands in a file was; of copies the later one
/// was, since it was written when the one before had failed. The same counts for all that follows them.
type Rank = (bool, Option<(PackId, u64, u32)>);

/// Everything that is left of the log.
#[derive(Default)]
struct Left {
    frames: HashMap<RecordHash, Frame>,
    /// Hashes by first number and predecessor.
    follow: BTreeMap<(u64, RecordHash), Vec<RecordHash>>,
    /// The highest rank of each frame and all that follow it.
    ranks: HashMap<RecordHash, Rank>,
}

/// What becomes of the log.
enum Step {
    /// The frame as it is.
    Keep(RecordHash),
    /// The records of the frame, sealed anew behind those that were lost.
    Again(RecordHash),
    /// These numbers are lost.
    Lost(u64, u64),
}

/// What `store rebuild-records` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RebuiltRecords {
    /// Nothing is lost.
    pub ok: bool,
    /// Records that are there now.
    pub records: u64,
    /// Of these, how many came from their copies.
    pub from_copies: u64,
    /// Whether the files were made anew.
    pub rebuilt: bool,
    /// Copies that were missing and were made.
    pub copies_made: u64,
    /// Records of which neither file nor copy is left.
    pub lost: Vec<u64>,
    /// Where the files of before are.
    pub moved_to: Option<String>,
}

impl Left {
    /// Takes a frame, if it opens.
    fn take(&mut self, keys: &Keyring, form: Form, octets: &[u8], source: Source, copied: bool) -> Option<FrameHeader> {
        let header = form.frame(octets).ok()?;
        let whole = octets.get(..form.frame_len() + header.sealed_len as usize)?;
        form.open(keys, &header, whole.get(form.frame_len()..)?).ok()?;
        let hash = record_hash(whole);
        let frame = Frame {
            form,
            first: header.first,
            count: header.count,
            len: whole.len(),
            sources: Vec::new(),
            copied: false,
            rank: (false, None),
        };
        let rank = match &source {
            Source::File(..) => (true, None),
            Source::Chunks(places) => (false, places.iter().map(|(_, at)| (at.pack, at.offset, at.index)).max()),
        };
        let frame = self.frames.entry(hash).or_insert_with(|| {
            self.follow.entry((header.first, header.prev)).or_default().push(hash);
            frame
        });
        frame.sources.push(source);
        frame.copied |= copied;
        frame.rank = frame.rank.max(rank);
        Some(header)
    }

    /// Every frame of a record file, also behind damage.
    fn read_file(&mut self, keys: &Keyring, file: &dyn DiskFile) -> StoreResult<()> {
        file.drop_cache()?;
        let len = file.len()?;
        let mut octets = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_at(&mut octets, 0)?;
        let header = RecordFileHeader::decode(&octets, keys);
        let forms = header.map_or_else(|_| Form::all(keys), |header| vec![header.form]);
        let mut at = 0;
        while let Some(found) = memchr::memmem::find(octets.get(at..).unwrap_or_default(), b"PKR") {
            at += found;
            let rest = octets.get(at..).unwrap_or_default();
            let source = Source::File(file.path().to_owned(), at as u64);
            let taken = forms.iter().find_map(|form| {
                self.take(keys, *form, rest, source.clone(), false)
                    .map(|header| form.frame_len() + header.sealed_len as usize)
            });
            at += taken.unwrap_or(1);
        }
        Ok(())
    }

    /// Every copy in a pack.
    fn read_pack(
        &mut self,
        keys: &Keyring,
        packs: &Packs,
        pieces: &mut Pieces,
        pack: &super::packs::PackFile,
    ) -> StoreResult<()> {
        let scan = packs.scan(pack, true)?;
        for entry in scan.entries {
            let place = Place { pack: pack.id, offset: entry.offset, index: entry.index };
            // A chunk that does not open is told by whoever checks the packs.
            let Ok(chunk) = packs.read(&entry.id, &place) else { continue };
            let Some((form, hash, number, count, octets)) = piece(&chunk).filter(|_| is_copy(&chunk)) else { continue };
            let at = (entry.id, place);
            if count == 1 {
                self.take(keys, form, octets, Source::Chunks(vec![at]), true);
                continue;
            }
            let all = pieces.entry(hash).or_default();
            all.insert(number, (at, octets.to_vec()));
            if all.len() == count as usize {
                let all = pieces.remove(&hash).unwrap_or_default();
                let whole: Vec<u8> = all.values().flat_map(|(_, octets)| octets.iter().copied()).collect();
                let places = all.into_values().map(|(at, _)| at).collect();
                self.take(keys, form, &whole, Source::Chunks(places), true);
            }
        }
        Ok(())
    }

    /// The chain from the beginning, and what of the rest goes behind it.
    fn plan(&mut self) -> Vec<Step> {
        self.rank();
        let (mut steps, mut number, mut hash) = (Vec::new(), 0_u64, [0; 32]);
        let mut whole = true;
        loop {
            let next = match whole {
                true => self.best((number + 1, hash)),
                false => None,
            };
            if let Some(found) = next {
                let Some(frame) = self.frames.get(&found) else { break };
                steps.push(Step::Keep(found));
                number = frame.first + u64::from(frame.count) - 1;
                hash = found;
                continue;
            }
            // What does not follow goes behind a gap.
            let Some((first, found)) = self.beyond(number) else { break };
            if first > number + 1 {
                steps.push(Step::Lost(number + 1, first - 1));
            }
            let Some(frame) = self.frames.get(&found) else { break };
            whole = false;
            steps.push(Step::Again(found));
            number = frame.first + u64::from(frame.count) - 1;
        }
        steps
    }

    /// The rank of every frame, from the last to the first: each hands its own on to the one before it.
    fn rank(&mut self) {
        self.ranks.clear();
        for ((_, prev), found) in self.follow.iter().rev() {
            for hash in found {
                let own = self.frames.get(hash).map(|frame| frame.rank).unwrap_or_default();
                let rank = *self.ranks.entry(*hash).and_modify(|rank| *rank = own.max(*rank)).or_insert(own);
                self.ranks.entry(*prev).and_modify(|before| *before = rank.max(*before)).or_insert(rank);
            }
        }
    }

    fn best(&self, key: (u64, RecordHash)) -> Option<RecordHash> {
        self.follow.get(&key)?.iter().copied().max_by_key(|hash| self.ranks.get(hash).copied())
    }

    /// The next frame with a higher number.
    fn beyond(&self, number: u64) -> Option<(u64, RecordHash)> {
        let (key, _) = self.follow.range((number + 1, [0; 32])..).next()?;
        let same = self.follow.range((key.0, [0; 32])..=(key.0, [255; 32]));
        let hash = same.flat_map(|(_, found)| found).copied().max_by_key(|hash| self.ranks.get(hash).copied())?;
        Some((key.0, hash))
    }
}

/// A frame from its copy: form, number of its records, octets.
pub(super) type Copied = (Form, u64, Vec<u8>);

/// The octets of a frame from its copy.
fn read_chunks(packs: &Packs, source: &Source, len: usize) -> StoreResult<Vec<u8>> {
    let Source::Chunks(places) = source else { return Err(StoreError::CatalogDamaged) };
    let mut octets = Vec::with_capacity(len);
    for (id, place) in places {
        let chunk = packs.read(id, place)?;
        octets.extend(piece(&chunk).map(|(.., octets)| octets).unwrap_or_default());
    }
    Ok(octets)
}

type Pieces = HashMap<RecordHash, BTreeMap<u32, (([u8; 32], Place), Vec<u8>)>>;

/// Everything that is needed to make the log again.
struct Rebuilding {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    keys: Arc<Keyring>,
    packs: Packs,
    left: Left,
}

/// Makes the record files of the store in `dir` again where they are damaged, cut off or gone, from what is left of them
/// and from the copies in the packs; makes copies where those are missing. The catalog is built anew when the files
/// changed. The caller holds the writer's lock. `progress` hears of files and packs.
///
/// # Errors
/// [`StoreError`]. Stopped anywhere, it can be said again.
pub fn rebuild_records(
    dir: &Path,
    unlock: &Unlock<'_>,
    disk: &Arc<dyn Disk>,
    progress: &mut dyn FnMut(u64, u64),
) -> StoreResult<RebuiltRecords> {
    let mut rebuilding = Rebuilding::look(dir, unlock, disk, progress)?;
    // A catalog may know of more: it goes with the files of before.
    let known = Store::open_read(dir, unlock, Arc::clone(disk)).map_or(0, |store| store.head.number);
    let mut told = rebuilding.rebuild()?;
    let missing = rebuilding.without_copy()?;
    drop(rebuilding);
    if told.rebuilt {
        told.lost.extend(told.records + told.lost.len() as u64 + 1..=known);
        remove_catalog(&dir.join("catalog"), &**disk)?;
    }
    let mut store = Store::open(dir, unlock, Arc::clone(disk))?;
    told.copies_made = store.add_copies(missing)?;
    told.ok = told.lost.is_empty();
    Ok(told)
}

impl Rebuilding {
    fn look(
        dir: &Path,
        unlock: &Unlock<'_>,
        disk: &Arc<dyn Disk>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> StoreResult<Self> {
        let keys = Arc::new(open_keys(dir, unlock, &**disk)?);
        finish_exchange(dir, &**disk)?;
        let packs = Packs::new(&dir.join("packs"), Arc::clone(disk), Arc::clone(&keys));
        let mut left = Left::default();
        let records = dir.join("records");
        let files = match disk.list(&records) {
            Err(error) if error.is_missing() => Vec::new(),
            other => other?,
        };
        let (all, _) = packs.list()?;
        let total = (files.len() + all.len()) as u64;
        let mut done = 0;
        for entry in files.into_iter().filter(|entry| entry.is_file) {
            left.read_file(&keys, &*disk.open(&records.join(&entry.name))?)?;
            done += 1;
            progress(done, total);
        }
        let mut pieces = Pieces::new();
        packs.fresh();
        for pack in all {
            left.read_pack(&keys, &packs, &mut pieces, &pack)?;
            done += 1;
            progress(done, total);
        }
        packs.cached();
        Ok(Self { dir: dir.to_owned(), disk: Arc::clone(disk), keys, packs, left })
    }

    fn octets(&self, hash: &RecordHash) -> StoreResult<(Form, Vec<u8>)> {
        let frame = self.left.frames.get(hash).ok_or(StoreError::CatalogDamaged)?;
        let mut error = StoreError::CatalogDamaged;
        for source in &frame.sources {
            match self.read(source, frame.len) {
                Ok(octets) if record_hash(&octets) == *hash => return Ok((frame.form, octets)),
                Ok(_) => {}
                Err(found) => error = found,
            }
        }
        Err(error)
    }

    fn read(&self, source: &Source, len: usize) -> StoreResult<Vec<u8>> {
        match source {
            Source::File(path, at) => {
                let mut octets = vec![0; len];
                self.disk.open(path)?.read_at(&mut octets, *at)?;
                Ok(octets)
            }
            Source::Chunks(_) => read_chunks(&self.packs, source, len),
        }
    }

    /// Whether the files as they are hold just what `steps` say.
    fn is_whole(&self, steps: &[Step]) -> StoreResult<bool> {
        let records =
            super::records::Records::new(&self.dir.join("records"), Arc::clone(&self.disk), Arc::clone(&self.keys));
        if self.disk.entry(&self.dir.join("records")).is_err_and(|error| error.is_missing()) {
            return Ok(false);
        }
        let end = records.read_on(super::records::Head::default(), &mut |_| Ok(()))?;
        let kept: u64 = steps.iter().map(|step| self.count(step)).sum();
        let again = steps.iter().any(|step| !matches!(step, Step::Keep(_)));
        let torn = end.torn.is_some_and(|(_, _, error)| {
            use super::format::record::RecordError;
            !matches!(error, RecordError::Short | RecordError::Zeros)
        });
        Ok(end.damage.is_empty() && !torn && !again && end.newer.is_none() && end.head.number == kept)
    }

    fn count(&self, step: &Step) -> u64 {
        match step {
            Step::Keep(hash) | Step::Again(hash) => self.left.frames.get(hash).map_or(0, |frame| frame.count.into()),
            Step::Lost(from, to) => to - from + 1,
        }
    }

    fn rebuild(&mut self) -> StoreResult<RebuiltRecords> {
        let steps = self.left.plan();
        let mut told =
            RebuiltRecords { records: steps.iter().map(|step| self.count(step)).sum(), ..RebuiltRecords::default() };
        for step in &steps {
            match step {
                Step::Lost(from, to) => told.lost.extend(*from..=*to),
                Step::Keep(hash) | Step::Again(hash) => {
                    let frame = self.left.frames.get(hash);
                    let file = frame.is_some_and(|f| f.sources.iter().any(|s| matches!(s, Source::File(..))));
                    told.from_copies += if file { 0 } else { self.count(step) };
                }
            }
        }
        told.records -= told.lost.len() as u64;
        if self.is_whole(&steps)? {
            return Ok(told);
        }
        self.write(&steps)?;
        told.rebuilt = true;
        told.moved_to = exchange(&self.dir, &*self.disk)?.map(|path| path.display().to_string());
        // What is where has changed.
        let records = self.dir.join("records");
        self.left.frames.values_mut().for_each(|frame| frame.sources.retain(|s| matches!(s, Source::Chunks(_))));
        for entry in self.disk.list(&records)? {
            self.left.read_file(&self.keys, &*self.disk.open(&records.join(&entry.name))?)?;
        }
        Ok(told)
    }

    /// Makes the new files, synced, in a folder beside the old ones.
    fn write(&self, steps: &[Step]) -> StoreResult<()> {
        let made = self.dir.join(MADE);
        match self.disk.remove_tree(&made) {
            Err(error) if !error.is_missing() => return Err(error.into()),
            _ => create_dirs(&*self.disk, &made)?,
        }
        let mut out =
            Out { dir: made, disk: &*self.disk, keys: &self.keys, file: 0, open: None, number: 0, hash: [0; 32] };
        for step in steps {
            match step {
                Step::Keep(hash) => {
                    let (form, octets) = self.octets(hash)?;
                    out.put(form, &octets, self.count(step))?;
                }
                Step::Again(hash) => {
                    let (form, octets) = self.octets(hash)?;
                    let header = form.frame(&octets).map_err(|_| StoreError::CatalogDamaged)?;
                    let opened = form.open(&self.keys, &header, octets.get(form.frame_len()..).unwrap_or_default());
                    let opened = opened.map_err(|_| StoreError::CatalogDamaged)?;
                    // Numbers that the records before hold already are not told twice.
                    let known = usize::try_from((out.number + 1).saturating_sub(header.first)).unwrap_or(usize::MAX);
                    let contents = opened.records().skip(known).filter_map(|plain| Content::new(plain.to_vec()));
                    out.seal(&contents.collect::<Vec<_>>())?;
                }
                Step::Lost(from, to) => {
                    let lost = Record::Lost(LostRecord { found_ms: now_ms() });
                    let plain = serde_json::to_vec(&lost).map_err(|e| StoreError::Failed(e.to_string()))?;
                    let contents: Vec<_> = (*from..=*to).filter_map(|_| Content::new(plain.clone())).collect();
                    out.seal(&contents)?;
                }
            }
        }
        out.end()
    }

    /// Frames of the log without a copy.
    fn without_copy(&mut self) -> StoreResult<Vec<(Form, Vec<u8>)>> {
        let mut found = Vec::new();
        for step in self.left.plan() {
            if let Step::Keep(hash) = step
                && self.left.frames.get(&hash).is_some_and(|frame| !frame.copied)
            {
                found.push(self.octets(&hash)?);
            }
        }
        Ok(found)
    }
}

/// The files that are made.
struct Out<'a> {
    dir: PathBuf,
    disk: &'a dyn Disk,
    keys: &'a Keyring,
    file: u64,
    open: Option<(Form, Box<dyn DiskFile>)>,
    number: u64,
    hash: RecordHash,
}

impl Out<'_> {
    fn put(&mut self, form: Form, frame: &[u8], count: u64) -> StoreResult<()> {
        let fits = match &self.open {
            Some((open, file)) => *open == form && file.len()? < FILE_FULL,
            None => false,
        };
        if !fits {
            self.close()?;
            self.file += 1;
            let mut file = self.disk.create(&self.dir.join(format!("{:08}.rec", self.file)))?;
            let header = RecordFileHeader { form, store: self.keys.id, first: self.number + 1, prev: self.hash };
            write(&mut *file, &header.encode())?;
            self.open = Some((form, file));
        }
        if let Some((_, file)) = &mut self.open {
            write(&mut **file, frame)?;
        }
        self.number += count;
        self.hash = record_hash(frame);
        Ok(())
    }

    fn seal(&mut self, contents: &[Content]) -> StoreResult<()> {
        let mut rest = contents;
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(Content::batch_len(rest));
            rest = after;
            let epoch = self.keys.current();
            let sealed = seal_batch(self.keys, epoch, self.number + 1, self.hash, batch, random());
            let sealed = sealed.map_err(|error| StoreError::Failed(error.to_string()))?;
            self.put(Form::Batches(epoch), &sealed, batch.len() as u64)?;
        }
        Ok(())
    }

    fn close(&mut self) -> StoreResult<()> {
        if let Some((_, mut file)) = self.open.take() {
            file.sync()?;
        }
        Ok(())
    }

    fn end(mut self) -> StoreResult<()> {
        self.close()?;
        Ok(self.disk.open_dir(&self.dir)?.sync()?)
    }
}

fn write(file: &mut dyn DiskFile, octets: &[u8]) -> StoreResult<()> {
    let result = file.write_all(octets);
    Ok(result.map_err(|e| DiskError::new("write", file.path(), e))?)
}

/// A new folder below `damaged/`.
pub(crate) fn damaged_folder(dir: &Path, disk: &dyn Disk) -> StoreResult<PathBuf> {
    let folder = dir.join("damaged").join(now_ms().to_string());
    create_dirs(disk, &folder)?;
    Ok(folder)
}

/// Puts the files that were made in the place of the others, which go to `damaged/`.
fn exchange(dir: &Path, disk: &dyn Disk) -> StoreResult<Option<PathBuf>> {
    let (records, parent) = (dir.join("records"), disk.open_dir(dir)?);
    let there = match disk.entry(&records) {
        Ok(_) => true,
        Err(error) if error.is_missing() => false,
        Err(error) => return Err(error.into()),
    };
    let mut moved = None;
    if there {
        let folder = damaged_folder(dir, disk)?;
        let to = folder.join("records");
        disk.rename_new(&records, &to)?;
        disk.open_dir(&folder)?.sync()?;
        moved = Some(to);
    }
    disk.rename_new(&dir.join(MADE), &records)?;
    parent.sync()?;
    Ok(moved)
}

/// Ends an exchange that was cut off: the files that were made are whole once the others are gone.
pub(crate) fn finish_exchange(dir: &Path, disk: &dyn Disk) -> StoreResult<()> {
    let missing = |path: &Path| disk.entry(path).is_err_and(|error| error.is_missing());
    if missing(&dir.join("records")) && !missing(&dir.join(MADE)) {
        disk.rename_new(&dir.join(MADE), &dir.join("records"))?;
        disk.open_dir(dir)?.sync()?;
    }
    Ok(())
}

impl Store {
    /// Copies of what comes behind the end of the log: cut off with the end of a file, lost with a file, or written before
    /// a commit that never was. In order, each with its form and number of records; `None` when they do not follow.
    pub(super) fn copies_behind(&self) -> StoreResult<Option<Vec<Copied>>> {
        let (mut left, mut pieces) = (Left::default(), Pieces::new());
        for pack in self.packs.list()?.0.iter().rev().take(NEWEST) {
            left.read_pack(&self.keys, &self.packs, &mut pieces, pack)?;
            // Copies are written in the order of the log: what comes behind the last record lies behind its copy.
            if left.frames.contains_key(&self.head.hash) {
                break;
            }
        }
        left.rank();
        let (mut found, mut number, mut hash) = (Vec::new(), self.head.number, self.head.hash);
        while let Some(next) = left.best((number + 1, hash))
            && let Some(frame) = left.frames.get(&next)
        {
            let octets = frame.sources.iter().find_map(|source| read_chunks(&self.packs, source, frame.len).ok());
            found.push((frame.form, frame.count.into(), octets.ok_or(StoreError::CatalogDamaged)?));
            (number, hash) = (number + u64::from(frame.count), next);
        }
        Ok(left.beyond(number).is_none().then_some(found))
    }

    /// Makes copies of frames that have none.
    fn add_copies(&mut self, frames: Vec<(Form, Vec<u8>)>) -> StoreResult<u64> {
        let count = frames.len() as u64;
        for (form, frame) in frames {
            for chunk in chunks_of(form, &frame) {
                let id = self.keys.chunk_id(&chunk);
                self.packs.append(id, &chunk)?;
            }
        }
        if count > 0 {
            self.sync_packs()?;
        }
        Ok(count)
    }

    /// Brings appended chunks to stable storage and into the catalog, without a record: for chunks that no record
    /// names, or that were named before.
    pub(super) fn sync_packs(&mut self) -> StoreResult<BTreeSet<([u8; 32], [u8; 16])>> {
        let synced = self.packs.sync()?;
        let mut batch = std::mem::take(&mut self.batch);
        let mut view = super::catalog::View { catalog: &*self.catalog, batch: &mut batch, keys: &self.keys };
        let mut fresh = BTreeSet::new();
        for (id, place) in synced.places {
            view.put_clear(Space::Chunks, &[&id], place.encode());
            fresh.insert((id, place.pack));
        }
        for (pack, len) in synced.lengths {
            view.put_clear(Space::Packs, &[&pack], len.to_be_bytes().to_vec());
        }
        batch.apply(&mut *self.catalog)?;
        Ok(fresh)
    }
}
