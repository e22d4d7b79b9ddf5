//! All stores of a data folder as one archive.
//!
//! One store is current: it takes new mail. The others are read, and take what becomes of their own reports later
//! (a filing lies in the store of its report, so that a store can be moved away whole); a write-protected one takes
//! nothing, a disabled one is not opened. Listings show an appearance once, however many stores know it; what one
//! store has collected is collected for all.
//!
//! Invariants: exactly one store is current, as `stores/current` says (docs/operations.md, several stores); a report is
//! looked for in the current store first. Not here: what a single store does (`store`), moving messages between stores
//! (`transfer`).

mod folder;
mod read;
mod transfer;
mod write;

pub use folder::{Folder, Found};
pub use transfer::{Moved, Which};

use crate::{
    config::ArchiverConfig,
    store::{CatalogMemory, Store, StoreError, StoreResult, StoreState, Unlock, UnlockKey},
};
use postkeep_shared::disk::Disk;
use std::{path::Path, sync::Arc};

/// Every enabled store, open.
pub struct Archive {
    folder: Option<Folder>,
    members: Vec<Member>,
    /// Place of the current store in `members`; readers go on without one.
    current: Option<usize>,
    disabled: Vec<String>,
    /// Messages after which the next store begins.
    new_store_at: u64,
    catalog_memory: CatalogMemory,
}

/// One open store.
pub struct Member {
    name: String,
    state: StoreState,
    store: Store,
}

/// A report, by the store that holds it and the number of its record there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReportRef {
    member: usize,
    number: u64,
}

impl Member {
    /// The name of its folder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether something may be recorded in it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.store.is_writable()
    }
}

impl Archive {
    /// Opens every enabled store for writing (the write-protected ones for reading). The caller holds the writer lock.
    ///
    /// # Errors
    /// [`StoreError`]; one enabled store that cannot be opened is an error that names it.
    pub fn open(config: &ArchiverConfig, disk: &Arc<dyn Disk>) -> StoreResult<Self> {
        let mut archive = Self::open_with(config, disk, true)?;
        if archive.current.is_none() {
            return Err(StoreError::NoCurrent);
        }
        archive.new_store_at = config.new_store_at;
        Ok(archive)
    }

    /// Opens every enabled store for reading, also while another process writes.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_read(config: &ArchiverConfig, disk: &Arc<dyn Disk>) -> StoreResult<Self> {
        Self::open_with(config, disk, false)
    }

    /// An archive of one store.
    #[must_use]
    pub fn alone(store: Store) -> Self {
        let member = Member { name: "main".to_owned(), state: StoreState::Current, store };
        Self {
            folder: None,
            members: vec![member],
            current: Some(0),
            disabled: Vec::new(),
            new_store_at: u64::MAX,
            catalog_memory: CatalogMemory::default(),
        }
    }

    /// Opens the stores of a copy for reading: every folder in `stores`, whatever its state.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_copy(stores: &Path, unlock: &Unlock<'_>, disk: &Arc<dyn Disk>) -> StoreResult<Self> {
        let mut archive = Self {
            folder: None,
            members: Vec::new(),
            current: None,
            disabled: Vec::new(),
            new_store_at: u64::MAX,
            catalog_memory: CatalogMemory::default(),
        };
        let entries = match disk.list(stores) {
            Err(error) if error.is_missing() => return Err(StoreError::Absent(stores.to_owned())),
            other => other?,
        };
        for entry in entries.into_iter().filter(|entry| entry.is_dir) {
            let store = Store::open_read(&stores.join(&entry.name), unlock, Arc::clone(disk));
            let store = store.map_err(|error| StoreError::Copy { name: entry.name.clone(), error: Box::new(error) })?;
            archive.members.push(Member { name: entry.name, state: StoreState::WriteProtected, store });
        }
        if archive.members.is_empty() {
            return Err(StoreError::Absent(stores.to_owned()));
        }
        Ok(archive)
    }

    fn open_with(config: &ArchiverConfig, disk: &Arc<dyn Disk>, write: bool) -> StoreResult<Self> {
        let memory = config.catalog_memory;
        let folder = Folder::of(config, Arc::clone(disk));
        let key = folder.unlock_key()?;
        let found = folder.list()?;
        let several = found.len() > 1;
        let mut archive = Self {
            folder: None,
            members: Vec::new(),
            current: None,
            disabled: Vec::new(),
            new_store_at: u64::MAX,
            catalog_memory: memory,
        };
        for found in found {
            let name = found.name.clone();
            let named = |error: StoreError| match several {
                true => StoreError::Member { name: name.clone(), error: Box::new(error) },
                false => error,
            };
            let state = found.state().map_err(named)?;
            if state == StoreState::Disabled {
                archive.disabled.push(found.name);
                continue;
            }
            let unlock = Unlock::Key(&key);
            let store = match write && state != StoreState::WriteProtected {
                true => Store::open_within(&found.dir, &unlock, Arc::clone(disk), memory),
                false => Store::open_read_within(&found.dir, &unlock, Arc::clone(disk), memory),
            };
            if state == StoreState::Current {
                archive.current = Some(archive.members.len());
            }
            archive.members.push(Member { store: store.map_err(named)?, name: found.name, state });
        }
        archive.folder = Some(folder);
        Ok(archive)
    }

    /// The open stores.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The store with this name.
    ///
    /// # Errors
    /// [`StoreError::NoSuchStore`] also where it is disabled.
    pub fn member(&self, name: &str) -> StoreResult<&Member> {
        let found = self.members.iter().find(|member| member.name == name);
        found.ok_or_else(|| StoreError::NoSuchStore(name.to_owned()))
    }

    /// Names of the stores that are not open.
    #[must_use]
    pub fn disabled(&self) -> &[String] {
        &self.disabled
    }

    /// What was noticed while opening.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let several = self.members.len() > 1;
        self.members.iter().flat_map(move |member| {
            let named =
                move |note: &String| if several { format!("store {}: {note}", member.name) } else { note.clone() };
            member.store.notes().iter().map(named)
        })
    }

    /// Records that could not be read while opening: what they say is in no list.
    pub fn unseen(&self) -> impl Iterator<Item = String> {
        let named = |member: &Member, place: &String| format!("store {}: {place}", member.name);
        self.members.iter().flat_map(move |member| member.store.unseen().iter().map(move |place| named(member, place)))
    }

    /// Places of the stores: the current one, then the others, the last named first.
    fn order(&self) -> Vec<usize> {
        let others = (0..self.members.len()).rev().filter(|at| Some(*at) != self.current);
        self.current.into_iter().chain(others).collect()
    }

    /// Open stores in that order.
    fn ordered(&self) -> impl Iterator<Item = (usize, &Member)> {
        self.order().into_iter().filter_map(|at| Some((at, self.members.get(at)?)))
    }

    fn store(&self, at: usize) -> StoreResult<&Store> {
        // Places come from this archive; members are never taken out.
        self.members.get(at).map(|member| &member.store).ok_or(StoreError::CatalogDamaged)
    }

    fn store_mut(&mut self, at: usize) -> StoreResult<&mut Store> {
        let member = self.members.get_mut(at).ok_or(StoreError::CatalogDamaged)?;
        match member.store.is_writable() {
            true => Ok(&mut member.store),
            false if member.state == StoreState::WriteProtected => Err(StoreError::WriteProtected(member.name.clone())),
            false => Err(StoreError::ReadOnly),
        }
    }
}

/// The key that opens the stores of this data folder.
///
/// # Errors
/// [`StoreError::KeyFile`].
pub fn unlock_key(config: &ArchiverConfig, disk: &dyn Disk) -> StoreResult<UnlockKey> {
    UnlockKey::load(&config.unlock_key_file(), disk)
}
