//! Reads a ledger file from front to back, whatever state it is in.

use super::{HEADER_LEN, Header, LedgerError};
use postkeep_shared::{
    disk::{Disk, DiskFile},
    mail::{Digest, MailboxId},
    receipt::{ENTRY_LEN, Entry, EntryError},
};
use std::path::{Path, PathBuf};

/// Entries read at once.
const BLOCK: u64 = 200;
/// No version's entry is longer.
const MAX_ENTRY: usize = 4096;

/// The place of an entry and what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Offset in the file.
    pub offset: u64,
    /// The entry, or why there is none.
    pub entry: Result<Entry, EntryError>,
}

impl Slot {
    /// The number an entry in this place has.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.offset.saturating_sub(HEADER_LEN as u64) / ENTRY_LEN as u64 + 1
    }

    /// Offset behind the entry.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + ENTRY_LEN as u64
    }
}

/// Where the entry with number `seq` stands.
#[must_use]
pub fn offset_of(seq: u64) -> u64 {
    seq.saturating_sub(1).saturating_mul(ENTRY_LEN as u64).saturating_add(HEADER_LEN as u64)
}

/// The slots of one ledger file. Memory: one block of 200 entries.
pub struct Scan {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    header: Header,
    at: u64,
    end: u64,
    block: Vec<u8>,
    block_at: u64,
}

impl Scan {
    /// Opens the ledger at `path` and reads its header; the scan begins with the first entry and ends where the file
    /// ends now.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(disk: &dyn Disk, path: &Path, mailbox: MailboxId) -> Result<Self, LedgerError> {
        let file = disk.open(path)?;
        let end = file.len()?;
        let damaged = |detail: &str| LedgerError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
        if end < HEADER_LEN as u64 {
            return Err(damaged("is cut short within its header"));
        }
        let mut octets = [0; HEADER_LEN];
        file.read_at(&mut octets, 0)?;
        let header = Header::decode(&octets).ok_or_else(|| damaged("does not begin as a ledger"))?;
        if header.mailbox != mailbox {
            return Err(damaged(&format!("is the ledger of {}", header.mailbox)));
        }
        let at = HEADER_LEN as u64;
        Ok(Self { file, path: path.to_owned(), header, at, end, block: Vec::new(), block_at: 0 })
    }

    /// Goes on at `offset`, the place of an entry.
    #[must_use]
    pub fn from(mut self, offset: u64) -> Self {
        self.at = offset.max(HEADER_LEN as u64);
        self
    }

    /// Stops at `offset`.
    #[must_use]
    pub fn until(mut self, offset: u64) -> Self {
        self.end = self.end.min(offset);
        self
    }

    /// The file's header.
    #[must_use]
    pub fn header(&self) -> Header {
        self.header
    }

    /// Where the scan ends.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whole entries up to the end, from the first one on.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.end.saturating_sub(HEADER_LEN as u64) / ENTRY_LEN as u64
    }

    fn slot(&mut self) -> Result<Slot, LedgerError> {
        let within = usize::try_from(self.at.saturating_sub(self.block_at)).unwrap_or(usize::MAX);
        if self.block_at > self.at || within >= self.block.len() {
            self.fill()?;
        }
        let within = usize::try_from(self.at - self.block_at).unwrap_or(usize::MAX);
        let octets = self.block.get(within..).unwrap_or_default();
        let entry = Entry::decode(octets);
        if let Err(EntryError::Version(version)) = entry
            && self.is_newer()?
        {
            return Err(LedgerError::Newer { path: self.path.clone(), version });
        }
        // Whatever else is wrong with octets that claim a version nobody could have written, they are damaged.
        let entry = entry.map_err(|e| if e == EntryError::Short { e } else { EntryError::Damaged });
        let slot = Slot { offset: self.at, entry };
        self.at = slot.end();
        Ok(slot)
    }

    fn fill(&mut self) -> Result<(), LedgerError> {
        let len = (self.end - self.at).min(BLOCK * ENTRY_LEN as u64);
        self.block.resize(usize::try_from(len).unwrap_or_default(), 0);
        self.block_at = self.at;
        self.file.read_at(&mut self.block, self.at)?;
        Ok(())
    }

    /// Whether the octets here are a whole entry of a later version: every version has its length first and a
    /// checksum over the rest last.
    fn is_newer(&self) -> Result<bool, LedgerError> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let mut octets = vec![0; left.min(MAX_ENTRY)];
        self.file.read_at(&mut octets, self.at)?;
        let whole = octets
            .first_chunk::<4>()
            .map(|length| u32::from_be_bytes(*length) as usize)
            .and_then(|length| octets.get(..length)?.split_last_chunk::<4>());
        Ok(whole.is_some_and(|(entry, sum)| !entry.is_empty() && Digest::of(entry).0.starts_with(sum)))
    }
}

impl Iterator for Scan {
    type Item = Result<Slot, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let slot = self.slot();
        if slot.is_err() {
            self.at = self.end;
        }
        Some(slot)
    }
}
