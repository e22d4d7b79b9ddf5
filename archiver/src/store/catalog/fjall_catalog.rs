//! The catalog on fjall (`docs/decisions/0003-index-stores.md`). It writes its files itself, not through
//! `shared::disk`: what it loses in a crash is applied again from the records.

use super::{Catalog, Change, Pair};
use crate::store::{CatalogMemory, StoreError, StoreResult};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, config::PartitioningPolicy};
use postkeep_shared::disk::{DiskError, is_hindrance};
use std::path::{Path, PathBuf};

/// Octets of its own log; the smallest that fjall takes.
const JOURNAL: u64 = 64 * 1024 * 1024;

/// Pairs in one fjall keyspace.
pub(crate) struct FjallCatalog {
    database: Database,
    pairs: Keyspace,
    path: PathBuf,
}

impl FjallCatalog {
    /// Opens or makes the catalog in `path`; `None` when another process has it open. Half of `memory` keeps blocks; the
    /// rest is what is written before it goes to a table, while the last such part is on its way there.
    pub(crate) fn open(path: &Path, memory: CatalogMemory) -> StoreResult<Option<Self>> {
        let builder = Database::builder(path).cache_size(memory.0 / 2).max_journaling_size(JOURNAL).worker_threads(1);
        let database = match builder.max_cached_files(Some(64)).open() {
            Ok(database) => database,
            Err(fjall::Error::Locked) => return Ok(None),
            Err(error) => return Err(failed(path, error)),
        };
        // A filter of a whole table is near a mebibyte: where the cache is too small for all of them, every lookup would
        // read and check one. In parts of 4 KiB a lookup reads what it needs.
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(memory.0 / 4)
                .filter_block_partitioning_policy(PartitioningPolicy::all(true))
                .index_block_partitioning_policy(PartitioningPolicy::all(true))
        };
        let pairs = database.keyspace("catalog", options).map_err(|error| failed(path, error))?;
        Ok(Some(Self { database, pairs, path: path.to_owned() }))
    }
}

/// A hindrance is told apart: a catalog on a full or read-only disk is sound, and not to be built anew.
fn failed(path: &Path, error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) if is_hindrance(&error) => {
            DiskError::new("use the catalog in", path, error).into()
        }
        error => StoreError::Catalog { path: path.to_owned(), detail: format!("{error:?}") },
    }
}

impl Catalog for FjallCatalog {
    fn get(&self, key: &[u8]) -> StoreResult<Option<Vec<u8>>> {
        let value = self.pairs.get(key).map_err(|error| failed(&self.path, error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn prefix(&self, prefix: &[u8]) -> Box<dyn Iterator<Item = StoreResult<Pair>> + '_> {
        Box::new(self.pairs.prefix(prefix).map(|guard| {
            let (key, value) = guard.into_inner().map_err(|error| failed(&self.path, error))?;
            Ok((key.to_vec(), value.to_vec()))
        }))
    }

    fn last(&self, prefix: &[u8]) -> StoreResult<Option<Pair>> {
        let last = self.pairs.prefix(prefix).next_back().map(|guard| {
            let (key, value) = guard.into_inner().map_err(|error| failed(&self.path, error))?;
            Ok((key.to_vec(), value.to_vec()))
        });
        last.transpose()
    }

    fn persist(&mut self) -> StoreResult<()> {
        self.database.persist(PersistMode::SyncAll).map_err(|error| failed(&self.path, error))
    }

    fn change(&mut self, changes: &mut dyn Iterator<Item = Change>) -> StoreResult<()> {
        let mut batch = self.database.batch();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.pairs, key, value),
                None => batch.remove(&self.pairs, key),
            }
        }
        batch.commit().map_err(|error| failed(&self.path, error))
    }
}
