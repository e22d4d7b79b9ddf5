//! Ledgers of other nodes whose messages were moved here: `ledger/origin/<mailbox>.<node>.ledger`
//! (`docs/formats/ledger.md`). Copies that are never written to again, only replaced by a longer one.
//!
//! A moved message keeps the receipt it was accepted with; the entry that moved it in names that receipt's number and
//! hash, and here the receipt itself is found.

use super::{HEADER_LEN, Header, Scan, offset_of};
use postkeep_shared::{
    disk::{self, Disk, DiskError, DiskFile, DiskResult},
    mail::{Digest, MailboxId, Uidl},
    receipt::{ENTRY_LEN, Entry, Event},
};
use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

/// Octets copied at once.
const BLOCK: usize = 1024 * 1024;

/// The ledgers that messages of one mailbox came with.
pub struct Origins {
    files: Vec<(PathBuf, Box<dyn DiskFile>)>,
    mailbox: MailboxId,
}

fn folder(ledgers: &Path) -> PathBuf {
    ledgers.join("origin")
}

impl Origins {
    /// Opens those kept below `ledgers`.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(disk: &dyn Disk, ledgers: &Path, mailbox: MailboxId) -> DiskResult<Self> {
        let folder = folder(ledgers);
        let entries = match disk.list(&folder) {
            Ok(entries) => entries,
            Err(e) if e.is_missing() => Vec::new(),
            Err(e) => return Err(e),
        };
        let prefix = format!("{mailbox}.");
        let mut files = Vec::new();
        for entry in entries.iter().filter(|e| e.name.starts_with(&prefix) && e.name.ends_with(".ledger")) {
            let path = folder.join(&entry.name);
            files.push((path.clone(), disk.open(&path)?));
        }
        Ok(Self { files, mailbox })
    }

    /// Where they are.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// The entry that a message was accepted with, for the one that moved it in; `None` where it is not kept here.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn resolve(&self, moved: &Entry) -> DiskResult<Option<Entry>> {
        let offset = offset_of(moved.body.refers_to);
        for (_, file) in &self.files {
            let mut octets = [0; ENTRY_LEN];
            if file.len()? < offset.saturating_add(ENTRY_LEN as u64) {
                continue;
            }
            file.read_at(&mut octets, offset)?;
            let entry = Entry::decode(&octets).ok();
            if let Some(entry) = entry.filter(|entry| entry.hash() == moved.body.digest && is_of(entry, moved)) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Every message that was accepted with one of them.
    ///
    /// # Errors
    /// [`super::LedgerError`].
    pub fn accepted(&self, disk: &dyn Disk) -> Result<BTreeMap<Uidl, Entry>, super::LedgerError> {
        let mut all = BTreeMap::new();
        for path in self.paths() {
            for slot in Scan::open(disk, path, self.mailbox)? {
                if let Ok(entry) = slot?.entry
                    && entry.body.event == Event::Accepted
                {
                    all.insert(entry.body.uidl, entry);
                }
            }
        }
        Ok(all)
    }
}

/// An acceptance of the same message.
fn is_of(entry: &Entry, moved: &Entry) -> bool {
    entry.body.event == Event::Accepted
        && entry.body.uidl == moved.body.uidl
        && entry.body.mailbox == moved.body.mailbox
        && entry.body.sealed_sha256 == moved.body.sealed_sha256
}

/// Keeps a copy of another node's ledger, up to octet `end`. One that is kept already stays unless this one is longer.
///
/// # Errors
/// [`DiskError`].
pub fn keep(disk: &dyn Disk, ledgers: &Path, from: &Path, header: &Header, end: u64) -> DiskResult<()> {
    let folder = folder(ledgers);
    disk::create_dirs(disk, &folder)?;
    let to = folder.join(format!("{}.{}.ledger", header.mailbox, header.node.id()));
    match disk.entry(&to) {
        Ok(kept) if kept.len >= end => return Ok(()),
        Ok(_) => {}
        Err(e) if e.is_missing() => {}
        Err(e) => return Err(e),
    }
    let directory = disk.open_dir(&folder)?;
    let temporary = folder.join(format!(".{}", Digest::of(&postkeep_shared::crypt::random::<16>()).short(16)));
    let copied = copy(disk, from, &temporary, end).and_then(|()| disk.rename_over(&temporary, &to));
    if copied.is_err() {
        // The caller gets the first error; what stays begins with a dot and is nothing.
        drop(disk.remove_file(&temporary));
    }
    copied?;
    directory.sync()
}

fn copy(disk: &dyn Disk, from: &Path, to: &Path, end: u64) -> DiskResult<()> {
    let mut source = disk.open(from)?.take(end.max(HEADER_LEN as u64));
    let mut target = disk.create(to)?;
    let mut block = vec![0; BLOCK];
    loop {
        let read = source.read(&mut block).map_err(|e| DiskError::new("read", from, e))?;
        if read == 0 {
            return target.sync();
        }
        let written = target.write_all(block.get(..read).unwrap_or_default());
        written.map_err(|e| DiskError::new("write", to, e))?;
    }
}
