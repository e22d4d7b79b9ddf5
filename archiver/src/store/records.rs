//! Record files on disk: the log that says what the store holds.
//!
//! The records of a commit are appended together, with one write and one sync: the commit point. Each batch names the
//! hash of the one before. A torn end stays where it is; the next file begins with the number and hash that follow the
//! last whole batch, which settles that nothing behind it was ever acknowledged.

use super::{
    StoreError, StoreResult,
    entry::Record,
    format::record::{
        Content, Form, FrameHeader, Opened, RecordError, RecordFileHeader, RecordHash, record_hash, seal_batch,
    },
    keyring::Keyring,
    record_file::{self, Frame, RecordFile},
};
use postkeep_shared::{
    crypt::random,
    disk::{Disk, DiskError, DiskFile},
};
use std::{
    collections::VecDeque,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// A new file is begun when one has this many octets.
const FILE_FULL: u64 = 16 * 1024 * 1024;
/// Batches that are kept opened, so that the records of a commit are not opened one by one, and records; larger batches are
/// not kept.
const KEPT: usize = 4;
const KEPT_OCTETS: usize = 4 * 1024 * 1024;

/// Where the log stands behind a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// Number of the last record, 0 when there is none.
    pub(crate) number: u64,
    /// Its hash.
    pub(crate) hash: RecordHash,
    /// The file it is in, from 1; 0 when there is none.
    pub(crate) file: u64,
    /// Where the next record goes.
    pub(crate) end: u64,
}

/// Where a record lies: the batch that holds it, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordPlace {
    pub(crate) file: u64,
    pub(crate) offset: u64,
}

/// A record that [`Records::read_on`] hands on.
pub(crate) struct Read {
    pub(crate) record: Record,
    pub(crate) number: u64,
    pub(crate) place: RecordPlace,
    /// Where the log stands behind it; `None` within a batch, where reading cannot begin again.
    pub(crate) head: Option<Head>,
}

/// The record files of a store.
pub(crate) struct Records {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    keys: Arc<Keyring>,
    open: Option<(u64, Box<dyn DiskFile>)>,
    kept: Mutex<VecDeque<(RecordPlace, Arc<Opened>)>>,
    /// What was read last, by each of some threads: a report and the message in it are asked for one after the other.
    last: Mutex<VecDeque<(u64, Arc<Record>)>>,
}

/// What reading the log on found.
#[derive(Debug, Default)]
pub(crate) struct LogEnd {
    /// Where the log stands.
    pub(crate) head: Head,
    /// The torn end of the last file.
    pub(crate) torn: Option<(PathBuf, u64, RecordError)>,
    /// What does not belong to the chain.
    pub(crate) damage: Vec<(PathBuf, u64, String)>,
    /// A file that a newer release wrote: nothing may be appended behind it.
    pub(crate) newer: Option<(PathBuf, u16)>,
    /// A file of a key epoch that `store.toml` does not hold: what is in it was acknowledged, nothing may be appended
    /// behind it.
    pub(crate) keyless: Option<(PathBuf, u32)>,
    /// Torn ends that a later file settled.
    pub(crate) notes: Vec<String>,
}

impl Records {
    pub(crate) fn new(dir: &Path, disk: Arc<dyn Disk>, keys: Arc<Keyring>) -> Self {
        Self { dir: dir.to_owned(), disk, keys, open: None, kept: Mutex::default(), last: Mutex::default() }
    }

    pub(crate) fn path(&self, file: u64) -> PathBuf {
        record_file::path(&self.dir, file)
    }

    /// Numbers and lengths of the record files, in order.
    pub(crate) fn list(&self) -> StoreResult<Vec<(u64, u64)>> {
        record_file::list(&self.dir, &*self.disk)
    }

    /// Reads every record behind `from` and hands it to `each`. Damage ends a file, not the
    /// reading: what stands behind it is still handed on.
    pub(crate) fn read_on(&self, from: Head, each: &mut dyn FnMut(Read) -> StoreResult<()>) -> StoreResult<LogEnd> {
        let mut end = LogEnd { head: from, ..LogEnd::default() };
        let files = self.list()?;
        for (number, len) in files.into_iter().filter(|(number, _)| *number >= from.file.max(1)) {
            if end.newer.is_some() || end.keyless.is_some() {
                let detail = "not read, since the file before it cannot be".to_owned();
                end.damage.push((self.path(number), 0, detail));
                continue;
            }
            self.read_file(number, len, &mut end, each)?;
        }
        Ok(end)
    }

    fn read_file(
        &self,
        number: u64,
        len: u64,
        end: &mut LogEnd,
        each: &mut dyn FnMut(Read) -> StoreResult<()>,
    ) -> StoreResult<()> {
        let path = self.path(number);
        let file = self.disk.open(&path)?;
        file.drop_cache()?;
        let file = RecordFile::of(&*file, &self.keys, len)?;
        let header = file.header();
        if number != end.head.file {
            let newer = if let Err(RecordError::Version(version)) = header { Some(version) } else { None };
            let keyless = file.keyless()?;
            if let (Err(error), true) = (&header, newer.is_some() || keyless.is_some()) {
                // The head stays before it: a reader may keep it in the catalog, and whoever comes next must meet the file too.
                end.damage.push((path.clone(), 0, error.to_string()));
                end.newer = newer.map(|version| (path.clone(), version));
                end.keyless = keyless.map(|epoch| (path, epoch));
                return Ok(());
            }
            end.head.file = number;
            if file.is_empty()? || header == Err(RecordError::Short) {
                // Its first write was cut off; nothing was ever in it.
                end.head.end = len;
                end.torn = Some((path, 0, RecordError::Short));
                return Ok(());
            }
            match header {
                Ok(header) => {
                    self.enter(&path, &header, end);
                    end.head.end = header.form.file_header_len() as u64;
                }
                Err(error) => {
                    end.damage.push((path.clone(), 0, error.to_string()));
                    // The shortest: what is not a record is passed over.
                    end.head.end = Form::Alone(2).file_header_len() as u64;
                }
            }
        }
        let forms = file.forms();
        while end.head.end < len {
            let at = end.head.end;
            match file.frame(&forms, at)? {
                Ok(frame) => self.hand_on(number, &path, &frame, end, each)?,
                Err(error) => match file.next_frame(&forms, at + 1)? {
                    Some(next) => {
                        // Octets of a header that is damaged were told already.
                        if forms.len() == 1 || next > Form::LONGEST as u64 {
                            end.damage.push((path.clone(), at, error.to_string()));
                        }
                        end.head.end = next;
                    }
                    None => {
                        end.torn = Some((path, at, error));
                        end.head.end = len;
                        return Ok(());
                    }
                },
            }
        }
        Ok(())
    }

    /// The records of a frame.
    fn hand_on(
        &self,
        file: u64,
        path: &Path,
        frame: &Frame,
        end: &mut LogEnd,
        each: &mut dyn FnMut(Read) -> StoreResult<()>,
    ) -> StoreResult<()> {
        let (at, header, known) = (end.head.end, &frame.header, end.head.number);
        self.check_chain(path, at, header, end);
        end.head.end = at + frame.octets.len() as u64;
        let last = header.first + u64::from(header.count) - 1;
        if last <= known {
            // A file or batch that stands here a second time, or too late: a number is never given anew.
            return Ok(());
        }
        end.head.number = last;
        end.head.hash = record_hash(&frame.octets);
        let place = RecordPlace { file, offset: at };
        for (number, content) in (header.first..).zip(frame.opened.records()).filter(|(number, _)| *number > known) {
            let head = (number == end.head.number).then_some(end.head);
            match Record::of(content) {
                Ok(record) => each(Read { record, number, place, head })?,
                Err(error) => {
                    let detail = format!("record {number} cannot be read: {error}");
                    end.damage.push((path.to_owned(), at, detail));
                }
            }
        }
        Ok(())
    }

    /// A file follows: whatever was torn before it is settled when the numbers go on, and damage when not.
    fn enter(&self, path: &Path, header: &RecordFileHeader, end: &mut LogEnd) {
        let follows = header.first == end.head.number + 1 && header.prev == end.head.hash;
        if let Some((torn, at, error)) = end.torn.take() {
            if follows {
                end.notes.push(format!("{}: the torn end of a write at octet {at} was left behind", torn.display()));
            } else {
                end.damage.push((torn, at, error.to_string()));
            }
        }
        if !follows {
            let (expected, first) = (end.head.number + 1, header.first);
            let detail = format!("the file begins with record {first} where record {expected} follows in the chain");
            end.damage.push((path.to_owned(), 0, detail));
            // Believed from here on, unless it goes back: otherwise every later record would be called damaged too.
            if header.first > end.head.number {
                end.head.number = header.first - 1;
                end.head.hash = header.prev;
            }
        }
    }

    fn check_chain(&self, path: &Path, at: u64, header: &FrameHeader, end: &mut LogEnd) {
        let expected = end.head.number + 1;
        if header.first != expected {
            let detail = format!("record {} stands where record {expected} must be", header.first);
            end.damage.push((path.to_owned(), at, detail));
        } else if header.prev != end.head.hash {
            let detail = format!("record {expected} does not follow the record before it");
            end.damage.push((path.to_owned(), at, detail));
        }
    }

    /// One record at a known place.
    pub(crate) fn read(&self, place: RecordPlace, number: u64) -> StoreResult<Record> {
        let opened = self.batch(place)?;
        let damaged = |detail: String| StoreError::damaged(&self.path(place.file), place.offset, detail);
        let content = opened.record(number);
        let content =
            content.ok_or_else(|| damaged("another record stands here; run `store rebuild-catalog`".to_owned()))?;
        Record::of(content).map_err(|error| damaged(format!("record {number} cannot be read: {error}")))
    }

    /// As [`Self::read`], not decoded again when it is the one that was read last in this way.
    pub(crate) fn read_shared(&self, place: RecordPlace, number: u64) -> StoreResult<Arc<Record>> {
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, record)) = last().iter().find(|(at, _)| *at == number) {
            return Ok(Arc::clone(record));
        }
        let record = Arc::new(self.read(place, number)?);
        let mut last = last();
        last.push_back((number, Arc::clone(&record)));
        if last.len() > KEPT {
            last.pop_front();
        }
        Ok(record)
    }

    fn batch(&self, place: RecordPlace) -> StoreResult<Arc<Opened>> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, opened)) = kept().iter().find(|(at, _)| *at == place) {
            return Ok(Arc::clone(opened));
        }
        let path = self.path(place.file);
        let file = self.disk.open(&path)?;
        let file = RecordFile::of(&*file, &self.keys, file.len()?)?;
        let found = file.frame(&file.forms(), place.offset)?;
        let frame = found.map_err(|error| StoreError::damaged(&path, place.offset, error.to_string()))?;
        let opened = Arc::new(frame.opened);
        if opened.octets() <= KEPT_OCTETS {
            let mut kept = kept();
            kept.push_back((place, Arc::clone(&opened)));
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
        Ok(opened)
    }

    /// Lets go of what was opened before: what is read next comes from the files.
    pub(crate) fn fresh(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Begins a new file behind `head`; used when the last one is full or torn.
    pub(crate) fn begin(&mut self, head: &Head) -> StoreResult<Head> {
        self.open = None;
        let number = head.file + 1;
        let path = self.path(number);
        let form = Form::Batches(self.keys.current());
        let header = RecordFileHeader { form, store: self.keys.id, first: head.number + 1, prev: head.hash };
        let mut file = self.disk.create(&path)?;
        file.write_all(&header.encode()).map_err(|e| DiskError::new("write", &path, e))?;
        file.sync()?;
        self.disk.open_dir(&self.dir)?.sync()?;
        self.open = Some((number, file));
        Ok(Head { file: number, end: form.file_header_len() as u64, ..*head })
    }

    /// The open file behind `head`; a new one where there is none, where it is full, or where it is of an earlier
    /// version or key epoch.
    fn last(&mut self, head: &Head) -> StoreResult<(Head, u64, Box<dyn DiskFile>)> {
        let open = match self.open.take() {
            Some((number, file)) if number == head.file => Some(file),
            _ if head.file == 0 => None,
            _ => {
                // A process that was killed may have made this file and not come to the sync of its name.
                self.disk.open_dir(&self.dir)?.sync()?;
                Some(self.disk.open_append(&self.path(head.file))?)
            }
        };
        if let Some(file) = open {
            if file.len()? != head.end {
                return Err(StoreError::damaged(file.path(), head.end, "another process wrote to this file"));
            }
            let forms = RecordFile::of(&*file, &self.keys, head.end)?.forms();
            if head.end < FILE_FULL && forms == [Form::Batches(self.keys.current())] {
                return Ok((*head, head.file, file));
            }
        }
        let head = self.begin(head)?;
        let (number, file) = self.open.take().ok_or_else(|| StoreError::Failed("no record file is open".to_owned()))?;
        Ok((head, number, file))
    }

    /// Records as they will stand behind `head`: batches, each with the number of its records. Nothing is written.
    pub(crate) fn seal(&self, head: &Head, records: &[Content]) -> StoreResult<Vec<(u64, Vec<u8>)>> {
        let (mut number, mut hash, mut batches, mut rest) = (head.number, head.hash, Vec::new(), records);
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(Content::batch_len(rest));
            rest = after;
            let sealed = seal_batch(&self.keys, self.keys.current(), number + 1, hash, batch, random());
            let sealed = sealed.map_err(|error| StoreError::Failed(error.to_string()))?;
            number += batch.len() as u64;
            hash = record_hash(&sealed);
            batches.push((batch.len() as u64, sealed));
        }
        Ok(batches)
    }

    /// The form that new batches have.
    pub(crate) fn form(&self) -> Form {
        Form::Batches(self.keys.current())
    }

    /// Makes the file that comes next, where one has to be made; says where the log then stands. A pack may hold a copy
    /// of a record only when there is a record file: copies without any mean that the files are gone.
    pub(crate) fn ready(&mut self, head: &Head) -> StoreResult<Head> {
        let (head, number, file) = self.last(head)?;
        self.open = Some((number, file));
        Ok(head)
    }

    /// Appends batches behind `head`, for which they were sealed, and syncs them: the commit point. Returns where the
    /// log then stands and where each record lies.
    pub(crate) fn append(&mut self, head: &Head, batches: &[(u64, Vec<u8>)]) -> StoreResult<(Head, Vec<RecordPlace>)> {
        let (mut head, number, mut file) = self.last(head)?;
        let (mut octets, mut places) = (Vec::new(), Vec::new());
        for (count, sealed) in batches {
            places.extend((0..*count).map(|_| RecordPlace { file: number, offset: head.end }));
            head.number += count;
            head.hash = record_hash(sealed);
            head.end += sealed.len() as u64;
            octets.extend_from_slice(sealed);
        }
        // Taken out while it is written to: after an error nothing is ever appended to it again.
        file.write_all(&octets).map_err(|e| DiskError::new("write", file.path(), e))?;
        file.sync()?;
        file.drop_cache()?;
        let mut back = vec![0; octets.len()];
        file.read_at(&mut back, head.end - octets.len() as u64)?;
        if back != octets {
            return Err(StoreError::damaged(file.path(), head.end, "what was read back differs from what was written"));
        }
        self.open = Some((number, file));
        Ok((head, places))
    }
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [&self.number.to_be_bytes()[..], &self.hash, &self.file.to_be_bytes(), &self.end.to_be_bytes()].concat()
    }

    pub(crate) fn decode(octets: &[u8]) -> Option<Self> {
        let (number, rest) = octets.split_first_chunk::<8>()?;
        let (hash, rest) = rest.split_first_chunk::<32>()?;
        let (file, end) = rest.split_first_chunk::<8>()?;
        Some(Self {
            number: u64::from_be_bytes(*number),
            hash: *hash,
            file: u64::from_be_bytes(*file),
            end: u64::from_be_bytes(end.try_into().ok()?),
        })
    }
}

impl RecordPlace {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [self.file.to_be_bytes(), self.offset.to_be_bytes()].concat()
    }

    pub(crate) fn decode(octets: &[u8]) -> Option<Self> {
        let (file, offset) = octets.split_first_chunk::<8>()?;
        Some(Self { file: u64::from_be_bytes(*file), offset: u64::from_be_bytes(offset.try_into().ok()?) })
    }
}
