//! The open pack: groups are appended to it, it is synced, and sealed when it is full.
//!
//! An open pack is taken out of [`Appender`] while it is written to: after an error nothing is ever appended to it
//! again, nor a sync repeated.

use super::{
    StoreError, StoreResult,
    format::{
        Press,
        group::{Class, chunks},
        pack::{
            ChunkAt, ChunkId, Form, FrameKind, MAX_CHUNKS, PackError, PackId, Plain, encode_table, pack_footer,
            seal_frame,
        },
    },
    keyring::Keyring,
    packs::{PACK_FULL, Place, pack_path},
};
use postkeep_shared::{
    crypt::random,
    disk::{Disk, DiskError, DiskFile, create_dirs},
    mail::Uidl,
};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Appends to packs.
pub(crate) struct Appender {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    keys: Arc<Keyring>,
    press: Press,
    open: Option<OpenPack>,
    since: Synced,
}

struct OpenPack {
    id: PackId,
    file: Box<dyn DiskFile>,
    len: u64,
    entries: Vec<ChunkAt>,
    unsynced: bool,
    new: bool,
}

/// What was brought to stable storage.
#[derive(Default)]
pub(crate) struct Synced {
    /// Where each chunk lies.
    pub(crate) places: Vec<(ChunkId, Place)>,
    /// Packs that were written to, with their lengths.
    pub(crate) lengths: Vec<(PackId, u64)>,
    /// Octets that packs grew by.
    pub(crate) octets: u64,
}

impl Appender {
    pub(crate) fn new(dir: &Path, disk: Arc<dyn Disk>, keys: Arc<Keyring>) -> Self {
        Self { dir: dir.to_owned(), disk, keys, press: Press::default(), open: None, since: Synced::default() }
    }

    /// Goes on with a pack of which every frame was just opened.
    pub(crate) fn resume(&mut self, id: PackId, file: Box<dyn DiskFile>, len: u64, entries: Vec<ChunkAt>) {
        // What the process before wrote may not be on the disk yet, nor the pack's name: the next sync covers both.
        self.open = Some(OpenPack { id, file, len, entries, unsynced: true, new: true });
    }

    /// Leaves the open pack as it is. What was appended to it must have been synced.
    pub(crate) fn leave(&mut self) {
        self.open = None;
    }

    /// Seals a group and appends it.
    pub(crate) fn append(&mut self, ids: &[ChunkId], group: &[u8], class: Class) -> StoreResult<()> {
        let small = class.compress(group, &mut self.press);
        if self.open.as_ref().is_some_and(|open| open.len >= PACK_FULL || open.entries.len() >= MAX_CHUNKS) {
            self.seal()?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        let offset = open.len;
        let plain = Plain { octets: group, small };
        let frame = self.frame(&open, FrameKind::Chunks, &plain)?;
        self.write(&mut open, &frame)?;
        let ranges = chunks(group).unwrap_or_default();
        for (index, (id, range)) in (0..).zip(ids.iter().zip(ranges)) {
            let len = u32::try_from(range.len()).unwrap_or(u32::MAX);
            open.entries.push(ChunkAt { id: *id, offset, index, len });
            self.since.places.push((*id, Place { pack: open.id, offset, index }));
        }
        self.open = Some(open);
        Ok(())
    }

    fn frame(&self, open: &OpenPack, kind: FrameKind, plain: &Plain<'_>) -> StoreResult<Vec<u8>> {
        let sealed = seal_frame(&self.keys, self.keys.current(), &open.id, open.len, kind, plain, random());
        sealed.map_err(|error: PackError| StoreError::Failed(error.to_string()))
    }

    fn begin(&mut self) -> StoreResult<OpenPack> {
        let id = Uidl::now().0;
        let path = pack_path(&self.dir, &id);
        if let Some(folder) = path.parent() {
            create_dirs(&*self.disk, folder)?;
        }
        let file = self.disk.create(&path)?;
        let mut open = OpenPack { id, file, len: 0, entries: Vec::new(), unsynced: true, new: true };
        let header = Form::Grouped(self.keys.current()).header(&self.keys.id, &id);
        self.write(&mut open, &header)?;
        Ok(open)
    }

    /// Ends the open pack with its table.
    fn seal(&mut self) -> StoreResult<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let table = encode_table(&open.entries);
        let at = open.len;
        let mut end = self.frame(&open, FrameKind::Table, &Plain::usual(&table))?;
        end.extend_from_slice(&pack_footer(at));
        self.write(&mut open, &end)?;
        self.sync_open(&mut open)?;
        self.since.lengths.push((open.id, open.len));
        Ok(())
    }

    /// Brings everything appended to stable storage: content first, then the name of a new pack.
    pub(crate) fn sync(&mut self) -> StoreResult<Synced> {
        if let Some(mut open) = self.open.take() {
            self.sync_open(&mut open)?;
            self.since.lengths.push((open.id, open.len));
            self.open = Some(open);
        }
        Ok(std::mem::take(&mut self.since))
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

    fn write(&mut self, open: &mut OpenPack, octets: &[u8]) -> StoreResult<()> {
        let result = open.file.write_all(octets);
        result.map_err(|e| DiskError::new("write", open.file.path(), e))?;
        open.len += octets.len() as u64;
        open.unsynced = true;
        self.since.octets += octets.len() as u64;
        Ok(())
    }
}
