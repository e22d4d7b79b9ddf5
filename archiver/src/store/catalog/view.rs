//! A catalog with changes on top that are not in it yet.

use super::{Catalog, Space};
use crate::store::{StoreError, StoreResult, keyring::Keyring};
use postkeep_shared::crypt::random;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// Changes that go into the catalog together.
#[derive(Default)]
pub(crate) struct Batch(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Batch {
    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What becomes of a key with them, where they say something of it.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.0.get(key)
    }

    /// Makes them in `catalog`, all or none.
    pub(crate) fn apply(&mut self, catalog: &mut dyn Catalog) -> StoreResult<()> {
        catalog.change(&mut std::mem::take(&mut self.0).into_iter())
    }
}

/// A catalog as it will be with `batch` applied. Values are sealed on the way in and opened on the way out.
pub(crate) struct View<'a> {
    pub(crate) catalog: &'a dyn Catalog,
    pub(crate) batch: &'a mut Batch,
    pub(crate) keys: &'a Keyring,
}

/// Space and fields of a key.
pub(crate) fn key(space: Space, fields: &[&[u8]]) -> Vec<u8> {
    [&[space as u8][..], &fields.concat()].concat()
}

impl View<'_> {
    /// A value that is not sealed.
    pub(crate) fn get_clear(&self, space: Space, fields: &[&[u8]]) -> StoreResult<Option<Vec<u8>>> {
        let key = key(space, fields);
        match self.batch.0.get(&key) {
            Some(change) => Ok(change.clone()),
            None => self.catalog.get(&key),
        }
    }

    /// Whether any key begins with these fields.
    pub(crate) fn has_any(&self, space: Space, fields: &[&[u8]]) -> StoreResult<bool> {
        let prefix = key(space, fields);
        let mut changed = self.batch.0.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        if changed.any(|(_, value)| value.is_some()) {
            return Ok(true);
        }
        for pair in self.catalog.prefix(&prefix) {
            // What is in the batch was looked at, and is gone.
            if !self.batch.0.contains_key(&pair?.0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every key that begins with these fields.
    pub(crate) fn keys(&self, space: Space, fields: &[&[u8]]) -> StoreResult<Vec<Vec<u8>>> {
        let prefix = key(space, fields);
        let mut keys = Vec::new();
        for pair in self.catalog.prefix(&prefix) {
            let (key, _) = pair?;
            if !self.batch.0.contains_key(&key) {
                keys.push(key);
            }
        }
        let changed = self.batch.0.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        keys.extend(changed.filter(|(_, value)| value.is_some()).map(|(key, _)| key.clone()));
        Ok(keys)
    }

    /// Takes out a key that [`Self::keys`] gave.
    pub(crate) fn remove_key(&mut self, key: Vec<u8>) {
        self.batch.0.insert(key, None);
    }

    /// Takes a key out.
    pub(crate) fn remove(&mut self, space: Space, fields: &[&[u8]]) {
        self.batch.0.insert(key(space, fields), None);
    }

    /// Puts a value that need not be sealed.
    pub(crate) fn put_clear(&mut self, space: Space, fields: &[&[u8]], value: Vec<u8>) {
        self.batch.0.insert(key(space, fields), Some(value));
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, space: Space, fields: &[&[u8]]) -> StoreResult<bool> {
        self.get_clear(space, fields).map(|value| value.is_some())
    }

    /// A sealed value.
    pub(crate) fn get<T: DeserializeOwned>(&self, space: Space, fields: &[&[u8]]) -> StoreResult<Option<T>> {
        let value = self.get_clear(space, fields)?;
        value.map(|value| open(self.keys, &key(space, fields), &value)).transpose()
    }

    /// Seals a value and puts it.
    pub(crate) fn put<T: Serialize>(&mut self, space: Space, fields: &[&[u8]], value: &T) {
        let key = key(space, fields);
        let plain = serde_json::to_vec(value).unwrap_or_default();
        let nonce = random();
        let mut value = nonce.to_vec();
        self.keys.catalog.seal_behind(nonce, &plain, &bound(self.keys, &key), &mut value);
        self.batch.0.insert(key, Some(value));
    }
}

fn bound(keys: &Keyring, key: &[u8]) -> Vec<u8> {
    [b"postkeep catalog v1\0", &keys.id[..], key].concat()
}

/// Opens a sealed value: one that does not open is never taken for absent.
fn open<T: DeserializeOwned>(keys: &Keyring, key: &[u8], value: &[u8]) -> StoreResult<T> {
    let plain = value
        .split_first_chunk()
        .and_then(|(nonce, sealed)| keys.catalog.open(*nonce, sealed, &bound(keys, key)))
        .and_then(|plain| serde_json::from_slice(&plain).ok());
    plain.ok_or(StoreError::CatalogDamaged)
}

/// Everything of one space that begins with `fields`, opened.
pub(crate) fn sealed_pairs<'a, T: DeserializeOwned + 'a>(
    catalog: &'a dyn Catalog,
    keys: &'a Keyring,
    space: Space,
    fields: &[&[u8]],
) -> impl Iterator<Item = StoreResult<(Vec<u8>, T)>> + use<'a, T> {
    let pairs = catalog.prefix(&key(space, fields));
    pairs.map(move |pair| {
        let (key, value) = pair?;
        let value = open(keys, &key, &value)?;
        Ok((key, value))
    })
}

/// The last of one space that begins with `fields`, opened.
pub(crate) fn sealed_last<T: DeserializeOwned>(
    catalog: &dyn Catalog,
    keys: &Keyring,
    space: Space,
    fields: &[&[u8]],
) -> StoreResult<Option<T>> {
    let last = catalog.last(&key(space, fields))?;
    last.map(|(key, value)| open(keys, &key, &value)).transpose()
}
