//! Appends to a ledger: many entries, one write, one sync.

use super::{HEADER_LEN, Header, LedgerError, Scan};
use crate::node::Node;
use postkeep_shared::{
    disk::{self, Disk, DiskFile},
    mail::{Digest, MailboxId},
    receipt::{ENTRY_LEN, Entry, EntryBody},
};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Kept allocated behind the end, so that a full disk can still be emptied: a removal needs an entry.
pub const RESERVE: u64 = 1024 * 1024;

/// How far a ledger goes: what the next entry continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of the last entry; 0 where there is none.
    pub seq: u64,
    /// Its hash, or the header's.
    pub hash: Digest,
    /// Offset behind it.
    pub end: u64,
}

impl Head {
    /// The head of a ledger without entries.
    #[must_use]
    pub fn of(header: &Header) -> Self {
        Self { seq: 0, hash: header.hash(), end: HEADER_LEN as u64 }
    }
}

/// A ledger open for appending. One owner at a time, guarded by the data directory's lock.
pub struct Ledger {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    node: Arc<Node>,
    head: Head,
    staged: Vec<u8>,
    reserved_to: u64,
}

impl Ledger {
    /// Makes the ledger of a mailbox where there is none yet.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn create(
        disk: &dyn Disk,
        path: &Path,
        mailbox: MailboxId,
        node: &Node,
        now_ms: u64,
    ) -> Result<Header, LedgerError> {
        let header = Header { mailbox, node: node.public(), created_ms: now_ms };
        if let Some(folder) = path.parent() {
            disk::create_dirs(disk, folder)?;
        }
        disk::write_new_file(disk, path, &header.encode())?;
        Ok(header)
    }

    /// Opens a ledger whose entries were read up to `head`, and syncs it: what a killed process left unsynced must
    /// not be built on.
    ///
    /// # Errors
    /// [`LedgerError`]; a file that does not end at `head.end` is damaged.
    pub fn open(disk: &dyn Disk, path: &Path, head: Head, node: Arc<Node>) -> Result<Self, LedgerError> {
        let mut file = disk.open_append(path)?;
        if file.len()? != head.end {
            let detail = format!("does not end at octet {} as it did", head.end);
            return Err(LedgerError::Damaged { path: path.to_owned(), detail });
        }
        file.sync()?;
        let mut ledger = Self { file, path: path.to_owned(), node, head, staged: Vec::new(), reserved_to: 0 };
        ledger.keep_reserve();
        Ok(ledger)
    }

    /// Reads how far the ledger at `path` goes; it must be whole.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn read_head(disk: &dyn Disk, path: &Path, mailbox: MailboxId) -> Result<Head, LedgerError> {
        let scan = Scan::open(disk, path, mailbox)?;
        let mut head = Head::of(&scan.header());
        for slot in scan {
            let slot = slot?;
            if let Ok(entry) = &slot.entry {
                head = Head { seq: entry.body.seq, hash: entry.hash(), end: slot.end() };
            }
        }
        Ok(head)
    }

    /// How far it goes, staged entries included.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Numbers, chains and signs an entry and keeps it for [`Self::commit`]. `seq` and `prev` of the body are set here.
    pub fn stage(&mut self, body: EntryBody) -> Entry {
        let entry = EntryBody { seq: self.head.seq + 1, prev: self.head.hash, ..body }.sign(self.node.signing_key());
        self.staged.extend_from_slice(&entry.encode());
        let end = self.head.end + ENTRY_LEN as u64;
        self.head = Head { seq: entry.body.seq, hash: entry.hash(), end };
        entry
    }

    /// Appends what was staged and syncs.
    ///
    /// # Errors
    /// [`LedgerError`]: what the file holds is then unknown. The ledger must not be used again in this process; the
    /// next start reads it.
    pub fn commit(&mut self) -> Result<(), LedgerError> {
        let staged = std::mem::take(&mut self.staged);
        if staged.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&staged);
        written.map_err(|e| disk::DiskError::new("append to", &self.path, e))?;
        self.file.sync()?;
        self.keep_reserve();
        Ok(())
    }

    /// Allocates the reserve anew once less than half of it is left.
    fn keep_reserve(&mut self) {
        if self.reserved_to >= self.head.end + RESERVE / 2 {
            return;
        }
        match self.file.reserve(RESERVE) {
            Ok(()) => self.reserved_to = self.head.end + RESERVE,
            // Not a reason to refuse mail: while there is room entries can be written without a reserve.
            Err(e) => tracing::warn!("no room for the ledger's reserve: {e}"),
        }
    }
}
