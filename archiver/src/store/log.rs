//! The records of a store from front to back, without its catalog: what the catalog is made from, and the truth where
//! the two differ.
//!
//! For those who prove something (`reconcile`, `checkpoint`): nothing is written, no lock is needed, memory stays small
//! whatever the store holds, and a copy of the folder will do (`store.toml` and `records/`). Beside a writer the end of
//! the last file may be half written; that is told apart from damage.

use super::{
    StoreResult, Unlock,
    entry::Record,
    open::open_keys,
    records::{Head, Read, Records},
};
use data_encoding::HEXLOWER;
use postkeep_shared::disk::Disk;
use std::{path::Path, sync::Arc};

/// The records of one store.
pub struct Log {
    id: [u8; 16],
    records: Records,
}

/// A place in the chain of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogHead {
    /// Number of the last record, 0 when there is none.
    pub number: u64,
    /// The hash of its batch: what the next one names. Zeros where a record stands within a batch: no chain and no
    /// checkpoint names a place there.
    pub hash: [u8; 32],
}

/// How reading ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walked {
    /// The last record.
    pub head: LogHead,
    /// What does not belong to the chain, is missing in it or cannot be read: sentences with file and place.
    pub damage: Vec<String>,
    /// The end of the last file that is no whole record: a write that was cut off, or one that is being done.
    pub torn: Option<String>,
}

impl Log {
    /// Opens the records in `dir`.
    ///
    /// # Errors
    /// [`super::StoreError::WrongKey`], [`super::StoreError::Absent`], [`super::StoreError::Damaged`].
    pub fn open(dir: &Path, unlock: &Unlock<'_>, disk: Arc<dyn Disk>) -> StoreResult<Self> {
        let keys = Arc::new(open_keys(dir, unlock, &*disk)?);
        Ok(Self { id: keys.id, records: Records::new(&dir.join("records"), disk, keys) })
    }

    /// The store's id, 32 hex digits.
    #[must_use]
    pub fn id(&self) -> String {
        HEXLOWER.encode(&self.id)
    }

    /// Hands every record to `each`, with the head behind it. Damage ends a file, not the reading.
    ///
    /// # Errors
    /// [`super::StoreError::Disk`], and what `each` gives.
    pub fn walk(&self, each: &mut dyn FnMut(Record, LogHead) -> StoreResult<()>) -> StoreResult<Walked> {
        let end = self.records.read_on(Head::default(), &mut |Read { record, number, head, .. }| {
            let head = head.as_ref().map_or(LogHead { number, hash: [0; 32] }, LogHead::from);
            each(record, head)
        })?;
        let damage = end.damage.iter().map(|(path, at, detail)| format!("{}, octet {at}: {detail}", path.display()));
        let torn = end.torn.map(|(path, at, error)| format!("{}, octet {at}: {error}", path.display()));
        Ok(Walked { head: (&end.head).into(), damage: damage.collect(), torn })
    }
}

impl From<&Head> for LogHead {
    fn from(head: &Head) -> Self {
        Self { number: head.number, hash: head.hash }
    }
}
