//! A catalog in memory: for readers while another process holds the one on disk, and for rebuilding trials.

use super::{Catalog, Change, Pair};
use crate::store::StoreResult;
use std::collections::BTreeMap;

/// Pairs in memory.
#[derive(Default)]
pub(crate) struct MemoryCatalog(BTreeMap<Vec<u8>, Vec<u8>>);

impl Catalog for MemoryCatalog {
    fn get(&self, key: &[u8]) -> StoreResult<Option<Vec<u8>>> {
        Ok(self.0.get(key).cloned())
    }

    fn prefix(&self, prefix: &[u8]) -> Box<dyn Iterator<Item = StoreResult<Pair>> + '_> {
        let prefix = prefix.to_vec();
        let range = self.0.range(prefix.clone()..).take_while(move |(key, _)| key.starts_with(&prefix));
        Box::new(range.map(|(key, value)| Ok((key.clone(), value.clone()))))
    }

    fn persist(&mut self) -> StoreResult<()> {
        Ok(())
    }

    fn change(&mut self, changes: &mut dyn Iterator<Item = Change>) -> StoreResult<()> {
        for (key, value) in changes {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
        Ok(())
    }
}
