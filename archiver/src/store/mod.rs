//! The store: every message once, deduplicated, compressed, encrypted, read back before it counts.
//!
//! Formats: `docs/formats/pack.md` (keys, packs, chunks), `docs/formats/record.md` (records, recipes, the catalog).
//! Invariants: packs and records are only ever appended to; a record names only chunks whose packs were synced before
//! it; the catalog never knows more than the records; a [`StoreReceipt`] exists only for octets that were read back
//! from the disk, past the page cache, and compared. Nothing of a message is on disk in clear.
//! Not here: who owns what (`filing`), what a report is (`journal`), where it comes from (`collect`).

mod add;
mod appender;
pub mod base64;
mod beside;
mod catalog;
mod compact;
mod copies;
mod delete;
pub mod entry;
mod error;
mod escrow;
mod examine;
mod file;
mod foreign;
pub mod format;
mod header;
mod held;
mod index;
pub mod keyring;
mod left;
mod log;
mod moving;
mod open;
mod packs;
mod query;
mod read;
mod read_back;
pub mod recipe;
mod record_file;
mod records;
mod rekey;
mod repair;
mod report;
mod scan;
pub mod split;
mod store_file;
mod unlock;
mod verify;
mod worker;
mod write;

pub(crate) use beside::{Appearance, Elsewhere, StoreCard, StoreState};
pub use compact::{Compacted, Compacting};
pub use copies::{RebuiltRecords, rebuild_records};
pub use delete::{Deleted, Deletion};
pub use error::{StoreError, StoreResult};
pub use escrow::{EscrowIdentity, check_recipient};
pub(crate) use examine::Examined;
pub use file::{Filed, NewFiling, Unowned, UnownedMessage};
pub(crate) use held::HeldKey;
pub use held::{Decided, Held};
pub(crate) use index::{rfc3339, rfc3339_ms};
pub use log::{Log, LogHead, Walked};
pub(crate) use moving::Bundle;
pub use open::{rebuild_catalog, rebuild_catalog_with};
pub use rekey::{EscrowChange, PassphraseChange, Rekey, rekey, restore_unlock};
pub use repair::{LostContent, Repaired, repair};
pub use report::{Collected, Commit, NewReport, Outcome, Pending, StoreReceipt};
pub use unlock::{Unlock, UnlockKey};
pub use verify::{Depth, Problem, Verified};

use postkeep_shared::disk::Disk;
use serde::Serialize;
use std::{path::PathBuf, sync::Arc};

/// Octets that the catalog of an open store may hold in memory, beside what its library needs for its own (some 10 MiB,
/// and the index blocks of open tables).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogMemory(pub u64);

impl Default for CatalogMemory {
    fn default() -> Self {
        Self(32 * 1024 * 1024)
    }
}

/// An open store. One process writes at a time (the caller holds `data/lock`); others may read.
pub struct Store {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    keys: Arc<keyring::Keyring>,
    packs: packs::Packs,
    records: records::Records,
    catalog: Box<dyn catalog::Catalog>,
    /// The last record.
    head: records::Head,
    totals: index::Totals,
    /// What the catalog gets with the next commit.
    batch: catalog::Batch,
    pending: Vec<add::Waiting>,
    /// Records of the next commit, not sealed yet.
    payloads: Vec<format::record::Content>,
    /// Chunks with the second copy of what was committed last.
    copies: Vec<format::pack::ChunkId>,
    uncommitted: u64,
    writable: bool,
    /// Why nothing more is taken.
    failed: Option<String>,
    /// Something could not be read back: what is stored is read before it is believed.
    heal: bool,
    /// The catalog was built from packs and records alone: what the log held beyond its end is not known.
    anew: bool,
    notes: Vec<String>,
    unseen: Vec<String>,
}

/// One line of a listing: one appearance of a message. Field names are those of `list --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Listed {
    /// Message id, 32 hex digits.
    pub id: String,
    /// Folder in the owner's archive.
    pub folder: String,
    /// The message's own date, RFC 3339 in UTC; `None` when it has none that can be read.
    pub date: Option<String>,
    /// Author's address.
    pub from: Option<String>,
    /// Addresses in To.
    pub to: Vec<String>,
    /// Decoded subject.
    pub subject: Option<String>,
    /// Octets.
    pub size: u64,
    /// SHA-256 of the exact octets, hex.
    pub sha256: String,
    /// When it was archived, RFC 3339 in UTC.
    pub archived_at: String,
}

impl Stats {
    /// Adds those of another store.
    pub(crate) fn add(&mut self, other: &Self) {
        self.reports += other.reports;
        self.messages += other.messages;
        self.instances += other.instances;
        self.parts += other.parts;
        self.part_references += other.part_references;
        self.chunks += other.chunks;
        self.packs += other.packs;
        self.message_bytes += other.message_bytes;
        self.bytes_in += other.bytes_in;
        self.bytes_stored += other.bytes_stored;
        self.pack_bytes += other.pack_bytes;
        self.record_bytes += other.record_bytes;
        self.ratio = if self.bytes_in == 0 { 0.0 } else { self.bytes_stored as f64 / self.bytes_in as f64 };
    }
}

/// What `store stats --owners` says of one owner.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct OwnerStats {
    /// The owner.
    pub owner: String,
    /// Appearances in the owner's archive.
    pub instances: u64,
    /// Octets of the messages there; one in two folders counts twice.
    pub bytes: u64,
    /// The store's octets, divided among the owners in proportion to `bytes`: what is shared belongs to nobody alone.
    pub stored_share: u64,
}

/// What `store stats` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Reports collected.
    pub reports: u64,
    /// Distinct messages (by their exact octets).
    pub messages: u64,
    /// Appearances: one per owner, folder and message.
    pub instances: u64,
    /// Distinct MIME parts that are stored on their own.
    pub parts: u64,
    /// How often messages refer to a part.
    pub part_references: u64,
    /// Distinct chunks, without the copies of records.
    pub chunks: u64,
    /// Pack files.
    pub packs: u64,
    /// Octets of all distinct messages.
    pub message_bytes: u64,
    /// Octets of all reports as collected.
    pub bytes_in: u64,
    /// Octets of packs, records and `store.toml` on disk: all that cannot be made again.
    pub bytes_stored: u64,
    /// Octets of packs on disk.
    pub pack_bytes: u64,
    /// Octets of records on disk.
    pub record_bytes: u64,
    /// `bytes_stored` / `bytes_in`; 0 when nothing came in.
    pub ratio: f64,
}
