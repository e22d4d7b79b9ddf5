//! What an archive of several stores asks of each of them, and a store of its neighbours (`archive`).

use super::{
    Store, StoreError, StoreResult, Unlock, UnlockKey,
    catalog::{Space, key, sealed_pairs},
    entry::{InstanceRecord, Summary},
    index::{InstanceEntry, UnownedEntry, has_ledger, owner_key, place_key},
    store_file::{StoreFile, change_store_file},
};
use crate::{filing::Instance, store::Listed};
use postkeep_shared::{
    crypt::Password,
    disk::{Disk, create_dirs, write_new_file},
    receipt::Entry,
};
use std::{path::Path, sync::Arc};

/// What the other stores of an archive have.
pub(crate) trait Elsewhere {
    /// Whether the message appears in this owner's folder there.
    fn appears(&self, message: &Summary, instance: &Instance) -> StoreResult<bool>;
}

/// There is no other store.
pub(crate) struct Alone;

impl Elsewhere for Alone {
    fn appears(&self, _: &Summary, _: &Instance) -> StoreResult<bool> {
        Ok(false)
    }
}

/// Appearances as a record holds them.
pub(super) fn instances(
    planned: &[Instance],
    message: Option<&Summary>,
    others: &dyn Elsewhere,
) -> StoreResult<Vec<InstanceRecord>> {
    let record = |instance: &Instance| {
        let known = match message {
            Some(message) => others.appears(message, instance)?,
            None => false,
        };
        Ok(InstanceRecord { known, ..InstanceRecord::from(instance) })
    };
    planned.iter().map(record).collect()
}

/// What may be done with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StoreState {
    /// Takes new mail; one store of an archive.
    Current,
    /// Takes what becomes of its reports later.
    Normal,
    /// Is only read.
    WriteProtected,
    /// Is not opened.
    Disabled,
}

impl StoreState {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Normal => "normal",
            Self::WriteProtected => "write-protected",
            Self::Disabled => "disabled",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Current, Self::Normal, Self::WriteProtected, Self::Disabled].into_iter().find(|one| one.word() == word)
    }
}

/// What `store.toml` says without a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreCard {
    /// The store.
    pub(crate) id: [u8; 16],
    /// What may be done with it.
    pub(crate) state: StoreState,
}

impl StoreCard {
    /// Reads it.
    pub(crate) fn read(dir: &Path, disk: &dyn Disk) -> StoreResult<Self> {
        let file = StoreFile::read(dir, disk)?;
        let state = StoreState::from_word(&file.state).ok_or_else(|| {
            StoreError::damaged(
                &dir.join("store.toml"),
                0,
                "`state` is none of the known words; restore it from a backup",
            )
        })?;
        Ok(Self { id: file.id(dir)?, state })
    }

    /// Changes name and state in `store.toml`; the store key is needed for its check.
    pub(crate) fn write(
        dir: &Path,
        name: &str,
        state: StoreState,
        unlock: &Unlock<'_>,
        disk: &dyn Disk,
    ) -> StoreResult<()> {
        let file = StoreFile::read(dir, disk)?;
        if file.name == name && file.state == state.word() {
            return Ok(());
        }
        change_store_file(dir, unlock, disk, |file| {
            file.name = name.to_owned();
            file.state = state.word().to_owned();
        })
    }

    /// Makes a store that this service opens out of one of another: the passphrase opens it once.
    pub(crate) fn adopt(
        dir: &Path,
        name: &str,
        passphrase: &Password,
        unlock: &UnlockKey,
        disk: &dyn Disk,
    ) -> StoreResult<()> {
        let mut file = StoreFile::read(dir, disk)?;
        let keys = file.root_keys(&Unlock::Passphrase(passphrase), dir)?;
        file.key_by_unlock = file.wrapped_by_unlock(unlock, &keys, dir)?;
        file.key_by_unlock_next = None;
        file.name = name.to_owned();
        file.state = StoreState::Normal.word().to_owned();
        file.seal(&keys, dir)?;
        file.write(dir, disk)
    }
}

impl Store {
    /// Makes a store in `dir` that opens with the same unlock key and passphrase as the one in `beside`, and names
    /// messages as that does. A folder left by an interrupted call is gone on with.
    ///
    /// # Errors
    /// [`StoreError::Present`] when there is one; [`StoreError`].
    pub(crate) fn create_sibling(
        dir: &Path,
        name: &str,
        beside: &Path,
        unlock: &Unlock<'_>,
        disk: &dyn Disk,
    ) -> StoreResult<[u8; 16]> {
        let first = StoreFile::read(beside, disk)?;
        let file = first.sibling(name, &first.root_keys(unlock, beside)?, beside)?;
        for folder in ["packs", "records"] {
            create_dirs(disk, &dir.join(folder))?;
        }
        let text = file.text()?;
        // Last: a store is there when this file is there, whole.
        write_new_file(disk, &dir.join("store.toml"), text.as_bytes()).map_err(|error| match error {
            error if error.is_present() => StoreError::Present(dir.to_owned()),
            error => error.into(),
        })?;
        file.id(dir)
    }

    /// Stores with the same one name everything alike.
    pub(crate) fn family(&self) -> [u8; 16] {
        self.keys.family
    }

    /// Distinct messages, those of the open batch included.
    pub(crate) fn message_count(&self) -> u64 {
        self.totals.messages
    }

    /// Whether something was added since the last commit.
    pub(crate) fn has_uncommitted(&self) -> bool {
        !self.payloads.is_empty() || !self.pending.is_empty()
    }

    /// Whether packs are read from the disk, not from the page cache, from now on.
    pub(super) fn set_fresh(&self, fresh: bool) {
        if fresh { self.packs.fresh() } else { self.packs.cached() }
    }

    /// Whether nothing failed that makes it unusable.
    pub(crate) fn is_sound(&self) -> bool {
        self.failed.is_none()
    }

    /// Whether it was opened for writing.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Where it reads and writes.
    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The id that a message with these octets has here.
    pub(crate) fn id_of(&self, sha256: &[u8; 32]) -> String {
        self.keys.message_id(sha256)
    }

    /// Whether a message of this identity is in this folder, as committed.
    pub(crate) fn appears(&self, owner: &str, folder: &str, identity: &[u8; 16]) -> StoreResult<bool> {
        let place = place_key(&self.keys, owner, folder, identity);
        Ok(self.clear_value(Space::Instances, &[&owner_key(&self.keys, owner), &place])?.is_some())
    }

    /// Every appearance in an owner's archive without what a listing shows, in the order of the keys: the same
    /// appearance has the same key in every store of the family.
    pub(crate) fn appearances(
        &self,
        owner: &str,
        folder: Option<&str>,
        each: &mut dyn FnMut(Appearance) -> StoreResult<()>,
    ) -> StoreResult<()> {
        let owner = owner_key(&self.keys, owner);
        for pair in sealed_pairs::<InstanceEntry>(&*self.catalog, &self.keys, Space::Instances, &[&owner]) {
            let (key, entry) = pair?;
            if folder.is_some_and(|folder| entry.listed.folder != folder) {
                continue;
            }
            let place = key.last_chunk().copied().ok_or(StoreError::CatalogDamaged)?;
            let InstanceEntry { date, listed, known } = entry;
            let octets = format!("{}\0{}", listed.sha256, listed.folder);
            let exact = *blake3::hash(octets.as_bytes()).as_bytes().first_chunk().unwrap_or(&[0; 16]);
            each(Appearance { date, id: listed.id, place, known, exact })?;
        }
        Ok(())
    }

    /// What a listing shows of one of them.
    pub(crate) fn listed(&self, owner: &str, place: &[u8; 16]) -> StoreResult<Option<Listed>> {
        let owner = owner_key(&self.keys, owner);
        Ok(self.value::<InstanceEntry>(Space::Instances, &[&owner, place])?.map(|entry| entry.listed))
    }

    /// Numbers of the reports that brought a message of this identity.
    pub(crate) fn numbers_of(&self, identity: &[u8; 16]) -> StoreResult<Vec<u64>> {
        let pairs = self.catalog.prefix(&key(Space::Envelopes, &[identity]));
        pairs
            .map(|pair| {
                let key = pair?.0;
                key.last_chunk::<8>().map(|octets| u64::from_be_bytes(*octets)).ok_or(StoreError::CatalogDamaged)
            })
            .collect()
    }

    /// Whether this very ledger entry is kept.
    pub(crate) fn has_ledger_entry(&self, source: &str, entry: &Entry) -> StoreResult<bool> {
        self.with_view(|view| has_ledger(view, source, entry))
    }

    /// Every address without owner.
    pub(crate) fn unowned_addresses(&self, each: &mut dyn FnMut(String)) -> StoreResult<()> {
        let mut last = Vec::new();
        for pair in sealed_pairs::<UnownedEntry>(&*self.catalog, &self.keys, Space::Unowned, &[]) {
            let (key, entry) = pair?;
            let address = key.get(..17).unwrap_or_default();
            if address != last {
                last = address.to_vec();
                each(entry.address);
            }
        }
        Ok(())
    }
}

/// An appearance in an owner's archive.
pub(crate) struct Appearance {
    /// The message's own date.
    pub(crate) date: Option<i64>,
    /// Message id.
    pub(crate) id: String,
    /// The same for the same appearance in every store of a family.
    pub(crate) place: [u8; 16],
    /// Another store had it first.
    pub(crate) known: bool,
    /// The same for the same octets in the same folder, in any store.
    pub(crate) exact: [u8; 16],
}
