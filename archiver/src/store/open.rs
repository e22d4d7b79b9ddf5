//! Making and opening a store, and bringing its catalog up to packs and records.

use super::{
    CatalogMemory, Store, StoreError, StoreResult, Unlock, UnlockKey,
    catalog::{Batch, Catalog, FjallCatalog, MemoryCatalog, Space, View},
    foreign::check_belonging,
    index::{Totals, apply},
    keyring::{Keyring, is_copy_id},
    packs::{PackFile, Packs, Place},
    records::{Head, LogEnd, Read, Records},
    store_file::StoreFile,
};
use data_encoding::HEXLOWER;
use postkeep_shared::{
    crypt::Password,
    disk::{Disk, create_dirs, write_new_file},
};
use std::{path::Path, sync::Arc, thread::sleep, time::Duration};

/// What the pairs of a catalog say; with another number it is built anew.
const LAYOUT: u32 = 4;
/// The newest versions of files that are read.
const NEWEST_PACK: u32 = 2;
const NEWEST_RECORDS: u32 = 3;
/// Pairs that are put into a catalog at a time.
const BATCH: usize = 4096;
/// How long a writer waits for a reader to be done with the catalog.
const PATIENCE: Duration = Duration::from_secs(10);

impl Store {
    /// Makes a store in `dir`, which must not hold one. `passphrase` opens it when the unlock key is lost.
    ///
    /// # Errors
    /// [`StoreError::Present`] when there is one; [`StoreError::Disk`].
    pub fn create(
        dir: &Path,
        name: &str,
        passphrase: &Password,
        key: &UnlockKey,
        disk: Arc<dyn Disk>,
    ) -> StoreResult<Store> {
        Self::create_with_escrow(dir, name, passphrase, key, None, disk)
    }

    /// As [`Self::create`]; the identity of `escrow` (an age recipient) opens it too.
    ///
    /// # Errors
    /// As [`Self::create`]; [`StoreError::Recipient`].
    pub fn create_with_escrow(
        dir: &Path,
        name: &str,
        passphrase: &Password,
        key: &UnlockKey,
        escrow: Option<&str>,
        disk: Arc<dyn Disk>,
    ) -> StoreResult<Store> {
        let file = dir.join("store.toml");
        match disk.entry(&file) {
            Err(error) if error.is_missing() => {}
            Ok(_) => return Err(StoreError::Present(dir.to_owned())),
            Err(error) => return Err(error.into()),
        }
        for folder in ["packs", "records"] {
            create_dirs(&*disk, &dir.join(folder))?;
        }
        let (content, _) = StoreFile::create(name, passphrase, key, escrow)?;
        let text = content.text()?;
        // Last: a store is there when this file is there, whole.
        write_new_file(&*disk, &file, text.as_bytes()).map_err(|error| match error {
            error if error.is_present() => StoreError::Present(dir.to_owned()),
            error => error.into(),
        })?;
        Self::open(dir, &Unlock::Key(key), disk)
    }

    /// Opens a store for writing: brings the catalog up to the records (or rebuilds it when missing or foreign) and
    /// continues the open pack. The caller holds the writer lock.
    ///
    /// # Errors
    /// [`StoreError::WrongKey`], [`StoreError::Absent`], [`StoreError::Damaged`], [`StoreError::CatalogInUse`].
    pub fn open(dir: &Path, unlock: &Unlock<'_>, disk: Arc<dyn Disk>) -> StoreResult<Store> {
        Self::open_within(dir, unlock, disk, CatalogMemory::default())
    }

    /// As [`Self::open`], with as much memory for the catalog as told.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_within(
        dir: &Path,
        unlock: &Unlock<'_>,
        disk: Arc<dyn Disk>,
        memory: CatalogMemory,
    ) -> StoreResult<Store> {
        Self::open_watched(dir, unlock, disk, memory, &mut |_, _| ())
    }

    /// As [`Self::open_within`]; `progress` hears of packs and record files that the catalog is brought up to.
    fn open_watched(
        dir: &Path,
        unlock: &Unlock<'_>,
        disk: Arc<dyn Disk>,
        memory: CatalogMemory,
        progress: &mut dyn FnMut(u64, u64),
    ) -> StoreResult<Store> {
        let keys = Arc::new(open_keys_to_write(dir, unlock, &*disk)?);
        let path = dir.join("catalog");
        let catalog = open_catalog(&path, &*disk, memory)?;
        let mut store = Self::assemble(dir, keys, disk, Box::new(catalog), true);
        if !store.read_head()? {
            // Missing, of another store, or not readable: built anew.
            store.catalog = Box::new(MemoryCatalog::default());
            remove_catalog(&path, &*store.disk)?;
            store.catalog = Box::new(open_catalog(&path, &*store.disk, memory)?);
            store.anew = true;
        }
        store.bring_up(progress)?;
        store.resume()?;
        Ok(store)
    }

    /// Opens a store for reading, also while another process writes: then packs and records are read into memory.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_read(dir: &Path, unlock: &Unlock<'_>, disk: Arc<dyn Disk>) -> StoreResult<Store> {
        Self::open_read_within(dir, unlock, disk, CatalogMemory::default())
    }

    /// As [`Self::open_read`], with as much memory for the catalog as told.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_read_within(
        dir: &Path,
        unlock: &Unlock<'_>,
        disk: Arc<dyn Disk>,
        memory: CatalogMemory,
    ) -> StoreResult<Store> {
        let keys = Arc::new(open_keys(dir, unlock, &*disk)?);
        let path = dir.join("catalog");
        let there = disk.entry(&path).is_ok_and(|entry| entry.is_dir);
        let found = if there { FjallCatalog::open(&path, memory).ok() } else { None };
        let in_use = matches!(found, Some(None));
        if let Some(catalog) = found.flatten() {
            let mut store = Self::assemble(dir, Arc::clone(&keys), Arc::clone(&disk), Box::new(catalog), false);
            if store.read_head()? {
                store.bring_up(&mut |_, _| ())?;
                return Ok(store);
            }
        }
        let mut store = Self::assemble(dir, keys, disk, Box::new(MemoryCatalog::default()), false);
        store.bring_up(&mut |_, _| ())?;
        store.anew = !in_use;
        Ok(store)
    }

    fn assemble(
        dir: &Path,
        keys: Arc<Keyring>,
        disk: Arc<dyn Disk>,
        catalog: Box<dyn Catalog>,
        writable: bool,
    ) -> Self {
        Self {
            packs: Packs::new(&dir.join("packs"), Arc::clone(&disk), Arc::clone(&keys)),
            records: Records::new(&dir.join("records"), Arc::clone(&disk), Arc::clone(&keys)),
            dir: dir.to_owned(),
            disk,
            keys,
            catalog,
            head: Head::default(),
            totals: Totals::default(),
            batch: Batch::default(),
            pending: Vec::new(),
            payloads: Vec::new(),
            copies: Vec::new(),
            uncommitted: 0,
            writable,
            failed: None,
            heal: false,
            anew: false,
            notes: Vec::new(),
            unseen: Vec::new(),
        }
    }

    /// What the catalog knows last; `false` when it knows nothing or belongs to another store.
    fn read_head(&mut self) -> StoreResult<bool> {
        if !matches!(self.value::<u32>(Space::Meta, &[b"layout"]), Ok(Some(LAYOUT))) {
            return Ok(false);
        }
        let head: Result<Option<String>, _> = self.value(Space::Meta, &[b"head"]);
        let totals: Result<Option<Totals>, _> = self.value(Space::Meta, &[b"totals"]);
        let (head, totals) = match (head, totals) {
            (Ok(head), Ok(totals)) => (head, totals),
            (Err(StoreError::CatalogDamaged), _) | (_, Err(StoreError::CatalogDamaged)) => return Ok(false),
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let head = head.and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok());
        let (Some(head), Some(totals)) = (head.and_then(|octets| Head::decode(&octets)), totals) else {
            return Ok(false);
        };
        (self.head, self.totals) = (head, totals);
        Ok(true)
    }

    /// Applies what packs and records hold beyond the catalog.
    fn bring_up(&mut self, progress: &mut dyn FnMut(u64, u64)) -> StoreResult<()> {
        let records = self.records.list()?.iter().filter(|(file, _)| *file >= self.head.file).count() as u64;
        let packs = self.bring_up_packs(records, progress)?;
        let end = self.bring_up_records(&mut |done| progress(packs + done.min(records), packs + records))?;
        self.notes.extend(end.notes.iter().cloned());
        let unseen = end.damage.iter().map(|(path, at, detail)| format!("{}: octet {at}: {detail}", path.display()));
        self.unseen.extend(unseen);
        self.notes.extend(self.unseen.iter().cloned());
        self.settle(end)?;
        if self.anew && self.writable && self.head.file > 0 {
            self.take_back()?;
        }
        self.anew &= !self.writable;
        let mut batch = std::mem::take(&mut self.batch);
        self.put_head(&mut batch);
        batch.apply(&mut *self.catalog)
    }

    pub(super) fn put_head(&self, batch: &mut Batch) {
        let mut view = View { catalog: &*self.catalog, batch, keys: &self.keys };
        view.put(Space::Meta, &[b"layout"], &LAYOUT);
        view.put(Space::Meta, &[b"head"], &HEXLOWER.encode(&self.head.encode()));
        view.put(Space::Meta, &[b"totals"], &self.totals);
    }

    /// Returns how many packs there are.
    fn bring_up_packs(&mut self, records: u64, progress: &mut dyn FnMut(u64, u64)) -> StoreResult<u64> {
        let (packs, others) = self.packs.list()?;
        let total = packs.len() as u64;
        self.notes.extend(others.iter().map(|path| format!("{} is no pack and was left alone", path.display())));
        for (done, pack) in (1..).zip(packs) {
            // One that is shorter than it was is damaged: what is known of it stays known.
            if self.known_len(&pack.id)?.is_none_or(|len| len < pack.len) {
                self.learn_pack(&pack)?;
            }
            progress(done, total + records);
        }
        Ok(total)
    }

    /// Octets up to which the catalog knows a pack.
    fn known_len(&self, id: &[u8; 16]) -> StoreResult<Option<u64>> {
        let known = self.clear_value(Space::Packs, &[id])?;
        Ok(known.and_then(|len| len.try_into().ok()).map(u64::from_be_bytes))
    }

    /// Chunks of a pack that the catalog does not know, or not in full.
    fn learn_pack(&mut self, pack: &PackFile) -> StoreResult<()> {
        let scan = self.packs.scan(pack, false)?;
        if let (Some(version), true) = (scan.newer(), self.writable) {
            let (path, version) = (pack.path.clone(), u32::from(version));
            return Err(StoreError::Version { path, version, newest: NEWEST_PACK });
        }
        if let (Some(epoch), true) = (scan.keyless(), self.writable) {
            return Err(StoreError::KeysMissing { path: pack.path.clone(), epoch });
        }
        let mut view = View { catalog: &*self.catalog, batch: &mut self.batch, keys: &self.keys };
        for entry in &scan.entries {
            view.put_clear(
                Space::Chunks,
                &[&entry.id],
                Place { pack: pack.id, offset: entry.offset, index: entry.index }.encode(),
            );
        }
        view.put_clear(Space::Packs, &[&pack.id], pack.len.to_be_bytes().to_vec());
        let name = pack.path.display();
        self.notes.extend(scan.torn.map(|at| format!("{name}: the torn end of a write at octet {at} was left behind")));
        self.notes.extend(scan.damage.iter().map(|(at, error)| format!("{name}: octet {at}: {error}")));
        if self.batch.len() >= BATCH { self.batch.apply(&mut *self.catalog) } else { Ok(()) }
    }

    fn bring_up_records(&mut self, progress: &mut dyn FnMut(u64)) -> StoreResult<LogEnd> {
        self.check_head()?;
        let (mut files, mut file) = (0, None);
        let (records, catalog, keys) = (&self.records, &mut self.catalog, &self.keys);
        let (batch, totals) = (&mut self.batch, &mut self.totals);
        let end = records.read_on(self.head, &mut |Read { record, number, place, head }| {
            let mut view = View { catalog: &**catalog, batch, keys };
            apply(&mut view, totals, number, &record)?;
            view.put_clear(Space::Records, &[&number.to_be_bytes()], place.encode());
            if file.replace(place.file) != Some(place.file) {
                files += 1;
                progress(files);
            }
            let Some(head) = head.filter(|_| batch.len() >= BATCH) else { return Ok(()) };
            let mut view = View { catalog: &**catalog, batch, keys };
            view.put(Space::Meta, &[b"layout"], &LAYOUT);
            view.put(Space::Meta, &[b"head"], &HEXLOWER.encode(&head.encode()));
            view.put(Space::Meta, &[b"totals"], &*totals);
            batch.apply(&mut **catalog)
        })?;
        Ok(end)
    }

    /// The catalog may never know more than the records; and packs that hold copies of records without any record are
    /// no empty store.
    fn check_head(&self) -> StoreResult<()> {
        if self.head.file == 0 {
            return if self.records.list()?.is_empty() { self.check_copies() } else { Ok(()) };
        }
        let len = self.records.list()?.into_iter().find(|(number, _)| *number == self.head.file).map(|(_, len)| len);
        if len.is_some_and(|len| len >= self.head.end) || !self.writable {
            return Ok(());
        }
        let detail = format!(
            "the catalog knows record {}, which is not here any more; restore this file from a backup, or accept the \
             loss with `store rebuild-catalog`",
            self.head.number
        );
        Err(StoreError::damaged(&self.records.path(self.head.file), len.unwrap_or(0), detail))
    }

    fn check_copies(&self) -> StoreResult<()> {
        for pack in self.packs.list()?.0 {
            for entry in self.packs.scan(&pack, true)?.entries {
                if is_copy_id(&entry.id) {
                    return Err(StoreError::RecordsMissing(self.dir.clone()));
                }
            }
        }
        Ok(())
    }

    /// A catalog that is built anew does not know whether the log was longer; the copies in the packs do. Without this,
    /// numbers would be given a second time.
    fn take_back(&mut self) -> StoreResult<()> {
        let missing = || StoreError::RecordsMissing(self.dir.clone());
        let copies = self.copies_behind()?.ok_or_else(missing)?;
        if copies.is_empty() {
            return Ok(());
        }
        if copies.iter().any(|(form, ..)| *form != self.records.form()) {
            return Err(missing());
        }
        let batches: Vec<_> = copies.into_iter().map(|(_, count, octets)| (count, octets)).collect();
        self.records.append(&self.head, &batches)?;
        let count: u64 = batches.iter().map(|(count, _)| count).sum();
        self.notes.push(format!("{count} records at the end of the log were taken from their copies"));
        let end = self.bring_up_records(&mut |_| ())?;
        self.settle(end)
    }

    /// Takes over where the log stands; a torn end is settled by beginning a new file behind it.
    fn settle(&mut self, end: LogEnd) -> StoreResult<()> {
        self.head = end.head;
        if let (Some((path, version)), true) = (end.newer, self.writable) {
            return Err(StoreError::Version { path, version: u32::from(version), newest: NEWEST_RECORDS });
        }
        if let (Some((path, epoch)), true) = (end.keyless, self.writable) {
            return Err(StoreError::KeysMissing { path, epoch });
        }
        if let Some((path, at, error)) = end.torn {
            self.notes
                .push(format!("{}: the end of the file at octet {at} was never acknowledged: {error}", path.display()));
            if self.writable {
                self.head = self.records.begin(&self.head)?;
            } else {
                // The catalog keeps where this stands: a writer that comes later must find the torn end, too.
                self.head.end = at;
            }
        }
        Ok(())
    }

    fn resume(&mut self) -> StoreResult<()> {
        let (packs, _) = self.packs.list()?;
        let Some(newest) = packs.last() else { return Ok(()) };
        // What is shorter than it was is damaged, wherever it was cut.
        if self.known_len(&newest.id)?.is_none_or(|len| len <= newest.len) {
            self.packs.resume(newest)?;
        }
        Ok(())
    }

    /// The store's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was noticed while opening: torn ends that were left behind, files that do not belong here.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Records that could not be read while opening, file and place: what they say is in no list. Damage in what the
    /// catalog knows already is not looked for here, but by [`Store::verify`].
    #[must_use]
    pub fn unseen(&self) -> &[String] {
        &self.unseen
    }
}

/// Removes the catalog of the store in `dir` and builds it again from packs and records. The caller holds the writer
/// lock. Returns what was noticed on the way.
///
/// # Errors
/// [`StoreError`].
pub fn rebuild_catalog(dir: &Path, unlock: &Unlock<'_>, disk: Arc<dyn Disk>) -> StoreResult<Vec<String>> {
    rebuild_catalog_with(dir, unlock, disk, &mut |_, _| ())
}

/// As [`rebuild_catalog`]; `progress` hears of packs and record files.
///
/// # Errors
/// [`StoreError`].
pub fn rebuild_catalog_with(
    dir: &Path,
    unlock: &Unlock<'_>,
    disk: Arc<dyn Disk>,
    progress: &mut dyn FnMut(u64, u64),
) -> StoreResult<Vec<String>> {
    // The key first: nothing is removed for somebody who could not build it again.
    drop(open_keys(dir, unlock, &*disk)?);
    remove_catalog(&dir.join("catalog"), &*disk)?;
    Store::open_watched(dir, unlock, disk, CatalogMemory::default(), progress).map(|store| store.notes)
}

pub(super) fn open_keys(dir: &Path, unlock: &Unlock<'_>, disk: &dyn Disk) -> StoreResult<Keyring> {
    let file = StoreFile::read(dir, disk)?;
    let keys = file.keyring(&file.root_keys(unlock, dir)?, dir)?;
    check_belonging(dir, &keys, disk)?;
    Ok(keys)
}

/// As [`open_keys`] for a writer, which ends a change of the unlock key that was cut off.
fn open_keys_to_write(dir: &Path, unlock: &Unlock<'_>, disk: &dyn Disk) -> StoreResult<Keyring> {
    let mut file = StoreFile::read(dir, disk)?;
    let keys = file.root_keys(unlock, dir)?;
    check_belonging(dir, &file.keyring(&keys, dir)?, disk)?;
    if let Unlock::Key(key) = unlock
        && file.settle(key, &keys, dir)?
    {
        file.write(dir, disk)?;
    }
    file.keyring(&keys, dir)
}

/// Opens the catalog for a writer; one that cannot be opened is built anew.
fn open_catalog(path: &Path, disk: &dyn Disk, memory: CatalogMemory) -> StoreResult<FjallCatalog> {
    let mut waited = Duration::ZERO;
    let mut again = true;
    loop {
        match FjallCatalog::open(path, memory) {
            Ok(Some(catalog)) => return Ok(catalog),
            Ok(None) if waited < PATIENCE => {
                let pause = Duration::from_millis(100);
                sleep(pause);
                waited += pause;
            }
            Ok(None) => return Err(StoreError::CatalogInUse(path.to_owned())),
            Err(StoreError::Catalog { .. }) if again => {
                again = false;
                remove_catalog(path, disk)?;
            }
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn remove_catalog(path: &Path, disk: &dyn Disk) -> StoreResult<()> {
    match disk.remove_tree(path) {
        Err(error) if !error.is_missing() => Err(error.into()),
        _ => Ok(()),
    }
}
