//! The catalog: an index over packs and records, behind one narrow trait. It can be deleted at any time.
//!
//! Keys are keyed hashes (numbers of records and ledger entries excepted); values are sealed, but for the places of
//! chunks, which say no more than the packs show in clear. Nothing is in a catalog that is not in packs or records.

mod fjall_catalog;
mod memory;
#[cfg(test)]
mod size;
mod view;

pub(crate) use fjall_catalog::FjallCatalog;
pub(crate) use memory::MemoryCatalog;
pub(crate) use view::{Batch, View, key, sealed_last, sealed_pairs};

use super::StoreResult;

/// What a key is about: the first octet of every key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Space {
    /// `head`, `totals`.
    Meta = 1,
    /// Chunk id → place, in clear.
    Chunks = 2,
    /// Pack id → length up to which its chunks are known, in clear.
    Packs = 3,
    /// Record number → place.
    Records = 4,
    /// Message id → [`super::index::MessageEntry`].
    Messages = 5,
    /// Owner, folder and identity → listing.
    Instances = 6,
    /// Owner → name.
    Owners = 7,
    /// Identity, record number → nothing.
    Envelopes = 8,
    /// Source, mailbox and uidl → collected.
    Collected = 9,
    /// Source, node and mailbox, number → ledger entry.
    Ledger = 10,
    /// Distinct parts → how often recipes name them.
    Parts = 11,
    /// Every message of an identity → nothing.
    Variants = 12,
    /// Address without owner, identity, report → address and report.
    Unowned = 13,
    /// Identity, report → number of its record, in clear: what nobody owns.
    CatchAll = 14,
    /// Report, record number → nothing: what was filed later.
    Filings = 15,
    /// Message id → [`super::index::Gone`], in clear: deleted, or damaged beyond repair.
    Gone = 16,
    /// Message or report that lies in another store now → nothing.
    Moved = 18,
    /// Id of a message in the store that it came from → its id here, in clear.
    Alias = 19,
    /// Source, mailbox and uidl of every report that was ever kept whole and filed nowhere → nothing.
    Held = 20,
}

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// A key and its new value; `None` takes it out.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// What the store needs of an index. Keys begin with the octet of a [`Space`].
pub(crate) trait Catalog: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> StoreResult<Option<Vec<u8>>>;

    /// Everything that begins with `prefix`, in order of the keys.
    fn prefix(&self, prefix: &[u8]) -> Box<dyn Iterator<Item = StoreResult<Pair>> + '_>;

    /// The last that begins with `prefix`.
    fn last(&self, prefix: &[u8]) -> StoreResult<Option<Pair>> {
        self.prefix(prefix).last().transpose()
    }

    /// Brings every change so far to stable storage: before files go that the pairs of before named.
    fn persist(&mut self) -> StoreResult<()>;

    /// Makes changes, all or none.
    fn change(&mut self, changes: &mut dyn Iterator<Item = Change>) -> StoreResult<()>;
}
