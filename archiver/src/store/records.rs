//! Record files on disk: the log that says what the store holds.
//!
//! Records are appended in batches, one write and one sync each: the commit point. Each names the hash of the one
//! before. A torn end stays where it is; the next file begins with the number and hash that follow the last whole
//! record, which settles that nothing behind it was ever acknowledged.

use super::{
    StoreError, StoreResult,
    entry::Record,
    format::record::{
        Content, FILE_HEADER, RECORD_HEADER, RecordError, RecordFileHeader, RecordHash, RecordHeader, VERSION,
        VERSIONS, open_record, record_hash, seal_record,
    },
    keyring::Keyring,
};
use postkeep_shared::{
    crypt::random,
    disk::{Disk, DiskError, DiskFile},
};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A new file is begun when one has this many octets.
const FILE_FULL: u64 = 16 * 1024 * 1024;

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

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordPlace {
    pub(crate) file: u64,
    pub(crate) offset: u64,
}

/// The record files of a store.
pub(crate) struct Records {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    keys: Arc<Keyring>,
    open: Option<(u64, Box<dyn DiskFile>)>,
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
    /// Torn ends that a later file settled.
    pub(crate) notes: Vec<String>,
}

impl Records {
    pub(crate) fn new(dir: &Path, disk: Arc<dyn Disk>, keys: Arc<Keyring>) -> Self {
        Self { dir: dir.to_owned(), disk, keys, open: None }
    }

    pub(crate) fn path(&self, file: u64) -> PathBuf {
        self.dir.join(format!("{file:08}.rec"))
    }

    /// Numbers and lengths of the record files, in order.
    pub(crate) fn list(&self) -> StoreResult<Vec<(u64, u64)>> {
        let entries = self.disk.list(&self.dir)?.into_iter();
        let mut files: Vec<(u64, u64)> = entries
            .filter(|entry| entry.is_file)
            .filter_map(|entry| Some((entry.name.strip_suffix(".rec")?.parse().ok()?, entry.len)))
            .filter(|(number, _)| *number > 0)
            .collect();
        files.sort_unstable();
        Ok(files)
    }

    /// Reads every record behind `from` and hands it to `each` with its place and hash. Damage ends a file, not the
    /// reading: what stands behind it is still handed on.
    pub(crate) fn read_on(
        &self,
        from: Head,
        each: &mut dyn FnMut(Record, &Head, RecordPlace) -> StoreResult<()>,
    ) -> StoreResult<LogEnd> {
        let mut end = LogEnd { head: from, ..LogEnd::default() };
        let files = self.list()?;
        for (number, len) in files.into_iter().filter(|(number, _)| *number >= from.file.max(1)) {
            self.read_file(number, len, &mut end, each)?;
        }
        Ok(end)
    }

    fn read_file(
        &self,
        number: u64,
        len: u64,
        end: &mut LogEnd,
        each: &mut dyn FnMut(Record, &Head, RecordPlace) -> StoreResult<()>,
    ) -> StoreResult<()> {
        let path = self.path(number);
        let file = self.disk.open(&path)?;
        file.drop_cache()?;
        if number != end.head.file {
            let mut head = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(FILE_HEADER)];
            file.read_at(&mut head, 0)?;
            if head.len() < FILE_HEADER || head.iter().all(|b| *b == 0) {
                // Its first write was cut off; nothing was ever in it.
                end.head.file = number;
                end.head.end = len;
                end.torn = Some((path, 0, RecordError::Short));
                return Ok(());
            }
            match RecordFileHeader::decode(&head, &self.keys.id) {
                Ok(header) => self.enter(&path, &header, end),
                Err(RecordError::Version(version)) => {
                    end.damage.push((path.clone(), 0, RecordError::Version(version).to_string()));
                    end.newer = Some((path, version));
                    end.head.file = number;
                    end.head.end = len;
                    return Ok(());
                }
                Err(error) => end.damage.push((path.clone(), 0, error.to_string())),
            }
            end.head.file = number;
            end.head.end = FILE_HEADER as u64;
        }
        let versions = self.versions(&*file)?;
        while end.head.end < len {
            let at = end.head.end;
            match self.read_one(&*file, versions, at, len)? {
                Ok((header, plain, octets)) => {
                    self.check_chain(&path, at, &header, end);
                    end.head.number = header.number;
                    end.head.hash = record_hash(&octets);
                    end.head.end = at + octets.len() as u64;
                    match serde_json::from_slice(&plain) {
                        Ok(record) => each(record, &end.head, RecordPlace { file: number, offset: at })?,
                        Err(error) => {
                            let detail = format!("record {} cannot be read: {error}", header.number);
                            end.damage.push((path.clone(), at, detail));
                        }
                    }
                }
                Err(error) => match self.resync(&*file, versions, at + 1, len)? {
                    Some(next) => {
                        end.damage.push((path.clone(), at, error.to_string()));
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
            // Believed from here on: otherwise every later record would be called damaged too.
            end.head.number = header.first.saturating_sub(1);
            end.head.hash = header.prev;
        }
    }

    fn check_chain(&self, path: &Path, at: u64, header: &RecordHeader, end: &mut LogEnd) {
        let expected = end.head.number + 1;
        if header.number != expected {
            let detail = format!("record {} stands where record {expected} must be", header.number);
            end.damage.push((path.to_owned(), at, detail));
        } else if header.prev != end.head.hash {
            let detail = format!("record {expected} does not follow the record before it");
            end.damage.push((path.to_owned(), at, detail));
        }
    }

    /// The version that the records of a file are bound to; every one where its header cannot be read.
    fn versions(&self, file: &dyn DiskFile) -> StoreResult<&'static [u16]> {
        let mut head = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX).min(FILE_HEADER)];
        file.read_at(&mut head, 0)?;
        let header = RecordFileHeader::decode(&head, &self.keys.id);
        let one = header.ok().and_then(|header| VERSIONS.iter().position(|version| *version == header.version));
        Ok(one.and_then(|at| VERSIONS.get(at..=at)).unwrap_or(&VERSIONS))
    }

    #[expect(clippy::type_complexity, reason = "a record, its content, its octets; or why there is none")]
    fn read_one(
        &self,
        file: &dyn DiskFile,
        versions: &[u16],
        at: u64,
        len: u64,
    ) -> StoreResult<Result<(RecordHeader, Vec<u8>, Vec<u8>), RecordError>> {
        let room = usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut octets = vec![0; room.min(RECORD_HEADER)];
        file.read_at(&mut octets, at)?;
        let header = match RecordHeader::decode(&octets) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        let whole = RECORD_HEADER + header.sealed_len as usize;
        if whole > room {
            return Ok(Err(RecordError::Short));
        }
        octets.resize(whole, 0);
        file.read_at(octets.get_mut(RECORD_HEADER..).unwrap_or_default(), at + RECORD_HEADER as u64)?;
        let sealed = octets.get(RECORD_HEADER..).unwrap_or_default();
        let mut opened = Err(RecordError::Sealed);
        for version in versions {
            opened = open_record(&self.keys, *version, &header, sealed);
            if opened.is_ok() {
                break;
            }
        }
        Ok(opened.map(|plain| (header, plain, octets)))
    }

    /// The next place at which a record stands that opens.
    fn resync(&self, file: &dyn DiskFile, versions: &[u16], from: u64, len: u64) -> StoreResult<Option<u64>> {
        let mut rest = vec![0; usize::try_from(len.saturating_sub(from)).unwrap_or(0).min(96 * 1024 * 1024)];
        file.read_at(&mut rest, from)?;
        for place in memchr::memmem::find_iter(&rest, b"PKRC") {
            let at = from + place as u64;
            if self.read_one(file, versions, at, len)?.is_ok() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// One record at a known place.
    pub(crate) fn read(&self, place: RecordPlace, number: u64) -> StoreResult<Record> {
        let path = self.path(place.file);
        let file = self.disk.open(&path)?;
        let damaged = |detail: String| StoreError::damaged(&path, place.offset, detail);
        let found = self.read_one(&*file, self.versions(&*file)?, place.offset, file.len()?)?;
        let (header, plain, _) = found.map_err(|error| damaged(error.to_string()))?;
        if header.number != number {
            return Err(damaged("another record stands here; run `store rebuild-catalog`".to_owned()));
        }
        serde_json::from_slice(&plain).map_err(|error| damaged(format!("record {number} cannot be read: {error}")))
    }

    /// Begins a new file behind `head`; used when the last one is full or torn.
    pub(crate) fn begin(&mut self, head: &Head) -> StoreResult<Head> {
        self.open = None;
        let number = head.file + 1;
        let path = self.path(number);
        let header =
            RecordFileHeader { version: VERSION, store: self.keys.id, first: head.number + 1, prev: head.hash };
        let mut file = self.disk.create(&path)?;
        file.write_all(&header.encode()).map_err(|e| DiskError::new("write", &path, e))?;
        file.sync()?;
        self.disk.open_dir(&self.dir)?.sync()?;
        self.open = Some((number, file));
        Ok(Head { file: number, end: FILE_HEADER as u64, ..*head })
    }

    /// The open file behind `head`; a new one where there is none, where it is full, or where it is of an earlier
    /// version.
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
            if head.end < FILE_FULL && *self.versions(&*file)? == [VERSION] {
                return Ok((*head, head.file, file));
            }
        }
        let head = self.begin(head)?;
        let (number, file) = self.open.take().ok_or_else(|| StoreError::Failed("no record file is open".to_owned()))?;
        Ok((head, number, file))
    }

    /// Appends records behind `head` and syncs them: the commit point. Returns where the log then stands and where
    /// each record lies.
    pub(crate) fn append(&mut self, head: &Head, records: &[Content]) -> StoreResult<(Head, Vec<RecordPlace>)> {
        let (mut head, number, mut file) = self.last(head)?;
        let (mut octets, mut places) = (Vec::new(), Vec::new());
        for content in records {
            let sealed = seal_record(&self.keys, VERSION, head.number + 1, head.hash, content, random());
            places.push(RecordPlace { file: number, offset: head.end });
            head.number += 1;
            head.hash = record_hash(&sealed);
            head.end += sealed.len() as u64;
            octets.extend_from_slice(&sealed);
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
