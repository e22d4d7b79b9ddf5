//! The log made again from what is left of it in record files and in their copies in the packs
//! (`docs/decisions/0012-second-copy-of-records.md`), and copies made where they are missing.
//!
//! Invariants: what was found damaged is moved to `damaged/`, never removed; a rebuilt log keeps numbers and hashes up to
//! the first record that is lost, and keeps the numbers behind it.

use super::{
    Store, StoreError, StoreResult, Unlock,
    catalog::{Space, View},
    entry::{LostRecord, Record},
    format::{
        copy::chunks_of,
        record::{Content, Form, RecordFileHeader, RecordHash, record_hash, seal_batch},
    },
    keyring::Keyring,
    left::{Left, Pieces, Source, Step, read_chunks},
    open::{open_keys, remove_catalog},
    packs::Packs,
    record_file::check_epochs,
};
use postkeep_shared::{
    crypt::random,
    disk::{Disk, DiskError, DiskFile, create_dirs},
    run::now_ms,
};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A record file gets no further frame when it has this many octets.
const FILE_FULL: u64 = 16 * 1024 * 1024;
/// Where record files are made before they take the place of the others.
const MADE: &str = "records.new";

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
        check_epochs(dir, &keys, &**disk)?;
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
        let mut view = View { catalog: &*self.catalog, batch: &mut batch, keys: &self.keys };
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
