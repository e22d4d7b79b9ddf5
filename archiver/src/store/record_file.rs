//! One record file, read frame by frame; behind damage the next frame that opens is searched for.

use super::{
    StoreError, StoreResult,
    format::record::{Form, FrameHeader, Opened, RecordError, RecordFileHeader},
    keyring::Keyring,
};
use postkeep_shared::disk::{Disk, DiskFile};
use std::path::{Path, PathBuf};

/// Octets that are searched for the next record at a time.
const SEARCH: usize = 96 * 1024 * 1024;

/// A record file as far as it went when it was listed.
pub(super) struct RecordFile<'a> {
    file: &'a dyn DiskFile,
    keys: &'a Keyring,
    len: u64,
    /// Its first octets, at most as many as the longest header has.
    head: Vec<u8>,
}

/// A frame of a record file.
pub(super) struct Frame {
    pub(super) header: FrameHeader,
    pub(super) opened: Opened,
    pub(super) octets: Vec<u8>,
}

impl<'a> RecordFile<'a> {
    pub(super) fn of(file: &'a dyn DiskFile, keys: &'a Keyring, len: u64) -> StoreResult<Self> {
        let mut head = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX).min(Form::LONGEST)];
        file.read_at(&mut head, 0)?;
        Ok(Self { file, keys, len, head })
    }

    pub(super) fn header(&self) -> Result<RecordFileHeader, RecordError> {
        RecordFileHeader::decode(&self.head, self.keys)
    }

    /// The form that its records are bound to; every one where its header cannot be read.
    pub(super) fn forms(&self) -> Vec<Form> {
        self.header().map_or_else(|_| Form::all(self.keys), |header| vec![header.form])
    }

    /// Whether nothing was ever written to it: zeros where the header stands, and no record anywhere.
    pub(super) fn is_empty(&self) -> StoreResult<bool> {
        Ok(self.head.iter().all(|b| *b == 0) && self.next_frame(&Form::all(self.keys), 0)?.is_none())
    }

    /// The key epoch of a file whose keys are not there: its header names it and nothing in it opens. With keys that are
    /// there something would, also where only the header is damaged.
    pub(super) fn keyless(&self) -> StoreResult<Option<u32>> {
        let Err(RecordError::Epoch(epoch)) = self.header() else { return Ok(None) };
        let begin = Form::Batches(epoch).file_header_len() as u64;
        let opens = self.len <= begin || self.next_frame(&Form::all(self.keys), begin)?.is_some();
        Ok((!opens).then_some(epoch))
    }

    /// The frame at a place.
    pub(super) fn frame(&self, forms: &[Form], at: u64) -> StoreResult<Result<Frame, RecordError>> {
        let mut result = Err(RecordError::Header("record"));
        for form in forms {
            let found = self.frame_as(*form, at)?;
            // What comes closest says most: a record that does not open, not another kind of header.
            if !matches!((&result, &found), (Err(RecordError::Sealed), Err(RecordError::Header(_)))) {
                result = found;
            }
            if result.is_ok() {
                break;
            }
        }
        Ok(result)
    }

    fn frame_as(&self, form: Form, at: u64) -> StoreResult<Result<Frame, RecordError>> {
        let room = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let head_len = form.frame_len();
        let mut octets = vec![0; room.min(head_len)];
        self.file.read_at(&mut octets, at)?;
        let header = match form.frame(&octets) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        let whole = head_len + header.sealed_len as usize;
        if whole > room {
            return Ok(Err(RecordError::Short));
        }
        octets.resize(whole, 0);
        self.file.read_at(octets.get_mut(head_len..).unwrap_or_default(), at + head_len as u64)?;
        let opened = form.open(self.keys, &header, octets.get(head_len..).unwrap_or_default());
        Ok(opened.map(|opened| Frame { header, opened, octets }))
    }

    /// The next place at which a frame stands that opens.
    pub(super) fn next_frame(&self, forms: &[Form], from: u64) -> StoreResult<Option<u64>> {
        let mut rest = vec![0; usize::try_from(self.len.saturating_sub(from)).unwrap_or(0).min(SEARCH)];
        self.file.read_at(&mut rest, from)?;
        // What all magics begin with.
        for place in memchr::memmem::find_iter(&rest, b"PKR") {
            let at = from + place as u64;
            if self.frame(forms, at)?.is_ok() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}

/// Numbers and lengths of the record files in a folder, in order.
pub(super) fn list(dir: &Path, disk: &dyn Disk) -> StoreResult<Vec<(u64, u64)>> {
    let entries = disk.list(dir)?.into_iter();
    let mut files: Vec<(u64, u64)> = entries
        .filter(|entry| entry.is_file)
        .filter_map(|entry| Some((entry.name.strip_suffix(".rec")?.parse().ok()?, entry.len)))
        .filter(|(number, _)| *number > 0)
        .collect();
    files.sort_unstable();
    Ok(files)
}

/// A record file by its number.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.rec"))
}

/// Whether the keys of every epoch are there that record files of the store in `dir` are sealed with. What an epoch lacks
/// keys for is not damaged: nothing may be made anew without it, and no further epoch may get its number.
///
/// # Errors
/// [`StoreError::KeysMissing`]; [`StoreError`].
pub(super) fn check_epochs(dir: &Path, keys: &Keyring, disk: &dyn Disk) -> StoreResult<()> {
    let dir = dir.join("records");
    let files = match list(&dir, disk) {
        Err(StoreError::Disk(error)) if error.is_missing() => return Ok(()),
        files => files?,
    };
    for (number, len) in files {
        let path = path(&dir, number);
        let file = disk.open(&path)?;
        if let Some(epoch) = RecordFile::of(&*file, keys, len)?.keyless()? {
            return Err(StoreError::KeysMissing { path, epoch });
        }
    }
    Ok(())
}
