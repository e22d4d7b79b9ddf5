//! `data/stores`: which stores there are, which one is current, and changing that.
//!
//! A store is a folder; its name is the folder's. `stores/current` holds the id of the current store and is replaced
//! whole: that is the moment a store becomes current. Every step here is one atomic change, in an order in which a
//! process that is killed leaves the archive as it was or as it will be.

use crate::{
    config::ArchiverConfig,
    store::{Store, StoreCard, StoreError, StoreResult, StoreState, Unlock, UnlockKey},
};
use data_encoding::HEXLOWER;
use postkeep_shared::{
    crypt::Password,
    disk::{Disk, create_dirs, replace_file},
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// First line of `stores/current`.
const FIRST_LINE: &str = "postkeep-current-store-v1";

/// The folder with the stores.
pub struct Folder {
    stores: PathBuf,
    detached: PathBuf,
    key_file: PathBuf,
    disk: Arc<dyn Disk>,
}

/// A store as its folder shows it.
pub struct Found {
    /// The name of its folder.
    pub name: String,
    /// Where it is.
    pub dir: PathBuf,
    card: Result<StoreCard, String>,
    is_current: bool,
    gone: bool,
}

impl Found {
    /// What may be done with it.
    ///
    /// # Errors
    /// Its `store.toml` cannot be read.
    pub(crate) fn state(&self) -> StoreResult<StoreState> {
        match &self.card {
            Ok(card) if self.is_current && card.state != StoreState::Disabled => Ok(StoreState::Current),
            Ok(card) if card.state == StoreState::Current => Ok(StoreState::Normal),
            Ok(card) => Ok(card.state),
            Err(_) if self.gone => Err(StoreError::Absent(self.dir.clone())),
            Err(detail) => Err(StoreError::damaged(&self.dir.join("store.toml"), 0, detail.clone())),
        }
    }

    fn id(&self) -> Option<[u8; 16]> {
        self.card.as_ref().ok().map(|card| card.id)
    }
}

impl Folder {
    /// That of a configuration.
    #[must_use]
    pub fn of(config: &ArchiverConfig, disk: Arc<dyn Disk>) -> Self {
        Self {
            stores: config.stores_dir(),
            detached: config.data_dir.join("detached"),
            key_file: config.unlock_key_file(),
            disk,
        }
    }

    /// The key that opens the stores.
    ///
    /// # Errors
    /// [`StoreError::KeyFile`].
    pub fn unlock_key(&self) -> StoreResult<UnlockKey> {
        UnlockKey::load(&self.key_file, &*self.disk)
    }

    /// Every store, by name. A folder without `store.toml` and without content is what an interrupted `store create`
    /// left, and is no store.
    ///
    /// # Errors
    /// [`StoreError::Absent`] where there is none at all.
    pub fn list(&self) -> StoreResult<Vec<Found>> {
        let entries = match self.disk.list(&self.stores) {
            Err(error) if error.is_missing() => Vec::new(),
            other => other?,
        };
        let mut found = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.is_dir) {
            let dir = self.stores.join(&entry.name);
            let (card, gone) = match StoreCard::read(&dir, &*self.disk) {
                Ok(card) => (Ok(card), false),
                Err(StoreError::Absent(_)) if self.is_empty(&dir)? => continue,
                Err(error @ StoreError::Disk(_)) => return Err(error),
                Err(StoreError::Absent(_)) => (Err(String::new()), true),
                Err(StoreError::Damaged { detail, .. }) => (Err(detail), false),
                Err(error) if entry.name == "main" => return Err(error),
                Err(error) => (Err(error.to_string()), false),
            };
            found.push(Found { name: entry.name, dir, card, is_current: false, gone });
        }
        if found.is_empty() {
            return Err(StoreError::Absent(self.stores.join("main")));
        }
        found.sort_by_cached_key(|one| natural(&one.name));
        self.mark_current(&mut found)?;
        Ok(found)
    }

    /// A folder that never held a store.
    fn is_empty(&self, dir: &Path) -> StoreResult<bool> {
        for folder in ["packs", "records"] {
            match self.disk.list(&dir.join(folder)) {
                Ok(entries) if !entries.is_empty() => return Ok(false),
                Ok(_) => {}
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            }
        }
        // `main` was there from the beginning.
        Ok(dir.file_name().is_none_or(|name| name != "main"))
    }

    /// The pointer decides; without one, the only store that says so itself.
    fn mark_current(&self, found: &mut [Found]) -> StoreResult<()> {
        let pointed = self.pointer()?;
        let says = |one: &Found| one.card.as_ref().is_ok_and(|card| card.state == StoreState::Current);
        let alone = found.iter().filter(|one| says(one)).count() == 1;
        for one in found {
            one.is_current = match &pointed {
                Some(id) => one.id() == Some(*id),
                None => alone && says(one),
            };
        }
        Ok(())
    }

    fn pointer_file(&self) -> PathBuf {
        self.stores.join("current")
    }

    fn pointer(&self) -> StoreResult<Option<[u8; 16]>> {
        let path = self.pointer_file();
        let octets = match self.disk.read(&path, 1024) {
            Err(error) if error.is_missing() => return Ok(None),
            other => other?,
        };
        let text = std::str::from_utf8(&octets).ok().and_then(|text| text.strip_prefix(FIRST_LINE));
        let id = text.and_then(|hex| HEXLOWER.decode(hex.trim().as_bytes()).ok()).and_then(|id| id.try_into().ok());
        id.map(Some).ok_or_else(|| {
            StoreError::damaged(&path, 0, "it does not name a store; run `store set-state NAME current`")
        })
    }

    fn point(&self, id: &[u8; 16]) -> StoreResult<()> {
        let text = format!("{FIRST_LINE}\n{}\n", HEXLOWER.encode(id));
        Ok(replace_file(&*self.disk, &self.pointer_file(), text.as_bytes())?)
    }

    fn find(&self, name: &str) -> StoreResult<Found> {
        let found = self.list()?.into_iter().find(|one| one.name == name);
        found.ok_or_else(|| StoreError::NoSuchStore(name.chars().take(64).collect()))
    }

    /// Makes an empty store that opens with the passphrase of the current one; it is `normal`. Returns its folder.
    ///
    /// # Errors
    /// [`StoreError::Present`]; [`StoreError`].
    pub fn create(&self, name: &str) -> StoreResult<PathBuf> {
        check_name(name)?;
        let beside = self.current()?;
        let (dir, key) = (self.stores.join(name), self.unlock_key()?);
        Store::create_sibling(&dir, name, &beside.dir, &Unlock::Key(&key), &*self.disk)?;
        Ok(dir)
    }

    /// Makes an empty store with a passphrase of its own, for one that is to be handed over some day.
    ///
    /// # Errors
    /// [`StoreError::Present`]; [`StoreError`].
    pub fn create_apart(&self, name: &str, passphrase: &Password) -> StoreResult<PathBuf> {
        check_name(name)?;
        // There is an archive already, or this is the place for `init`.
        self.current()?;
        let (dir, key) = (self.stores.join(name), self.unlock_key()?);
        drop(Store::create(&dir, name, passphrase, &key, Arc::clone(&self.disk))?);
        StoreCard::write(&dir, name, StoreState::Normal, &Unlock::Key(&key), &*self.disk)?;
        Ok(dir)
    }

    fn current(&self) -> StoreResult<Found> {
        let current = self.list()?.into_iter().find(|one| matches!(one.state(), Ok(StoreState::Current)));
        current.ok_or(StoreError::NoCurrent)
    }

    /// Name and folder of the store that follows `name`: made, empty, and current from now on.
    ///
    /// # Errors
    /// [`StoreError`]; then the one before is current, and the next call goes on.
    pub(crate) fn begin_next(&self, name: &str) -> StoreResult<Found> {
        let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let base = base.strip_suffix('-').filter(|base| base.len() < name.len()).unwrap_or(name);
        let all = self.list()?;
        // One that was made and not yet used when a call before was interrupted.
        let unused = |one: &&Found| one.name.starts_with(base) && self.is_unused(one);
        let next = match all.iter().find(unused) {
            Some(found) => found.name.clone(),
            None => {
                let taken = |name: &String| all.iter().any(|one| one.name == *name);
                let free = (2u32..).map(|number| format!("{base}-{number}")).find(|name| !taken(name));
                let free = free.ok_or_else(|| StoreError::Failed("no name is left for a store".to_owned()))?;
                self.create(&free)?;
                free
            }
        };
        self.set_state(&next, StoreState::Current)?;
        self.find(&next)
    }

    /// Made by [`Self::begin_next`] and nothing in it.
    fn is_unused(&self, one: &Found) -> bool {
        let empty = |folder: &str| self.disk.list(&one.dir.join(folder)).is_ok_and(|entries| entries.is_empty());
        matches!(one.state(), Ok(StoreState::Normal)) && empty("packs") && empty("records")
    }

    /// Takes a store into the archive: its folder is moved to `stores/`, unless it is there. With the passphrase it is
    /// wrapped by the unlock key of this data folder first. It is `normal` then. Returns its name.
    ///
    /// # Errors
    /// [`StoreError::WrongKey`]; [`StoreError::Present`] for a store that is attached; [`StoreError`].
    pub fn attach(&self, dir: &Path, passphrase: Option<&Password>) -> StoreResult<String> {
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        check_name(&name)?;
        let card = StoreCard::read(dir, &*self.disk)?;
        let to = self.stores.join(&name);
        let in_place = same(dir, &to);
        if let Some(other) = self.list()?.into_iter().find(|one| one.id() == Some(card.id) && !same(&one.dir, dir)) {
            let detail = format!("{} is the same store and attached already", other.dir.display());
            return Err(StoreError::Refused { name, detail });
        }
        if !in_place && self.disk.entry(&to).is_ok() {
            return Err(StoreError::Present(to));
        }
        let key = self.unlock_key()?;
        match passphrase {
            Some(passphrase) => StoreCard::adopt(dir, &name, passphrase, &key, &*self.disk)?,
            None => StoreCard::write(dir, &name, StoreState::Normal, &Unlock::Key(&key), &*self.disk)?,
        }
        if !in_place {
            self.rename(dir, &to)?;
        }
        Ok(name)
    }

    /// Takes a store out of the archive: its folder is moved to `detached/`. Returns where it is then.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for the current one; [`StoreError`].
    pub fn detach(&self, name: &str) -> StoreResult<PathBuf> {
        let found = self.find(name)?;
        if found.is_current {
            let detail = "it takes the new mail; make another one current first".to_owned();
            return Err(StoreError::Refused { name: name.to_owned(), detail });
        }
        let to = self.detached.join(name);
        if self.disk.entry(&to).is_ok() {
            return Err(StoreError::Present(to));
        }
        create_dirs(&*self.disk, &self.detached)?;
        self.rename(&found.dir, &to)?;
        Ok(to)
    }

    /// Gives a store another name.
    ///
    /// # Errors
    /// [`StoreError::Present`]; [`StoreError`].
    pub fn rename_store(&self, old: &str, new: &str) -> StoreResult<()> {
        check_name(new)?;
        let found = self.find(old)?;
        let to = self.stores.join(new);
        if self.disk.entry(&to).is_ok() {
            return Err(StoreError::Present(to));
        }
        self.rename(&found.dir, &to)?;
        // The name inside is for people who find the folder somewhere.
        let state = found.card.map_err(|detail| StoreError::damaged(&to.join("store.toml"), 0, detail))?.state;
        StoreCard::write(&to, new, state, &Unlock::Key(&self.unlock_key()?), &*self.disk)
    }

    /// Changes what may be done with a store. The one that was current becomes `normal`.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for the current one, unless another becomes current; [`StoreError`].
    pub(crate) fn set_state(&self, name: &str, state: StoreState) -> StoreResult<()> {
        let found = self.find(name)?;
        if found.is_current && state != StoreState::Current {
            let detail = "it takes the new mail; make another one current first".to_owned();
            return Err(StoreError::Refused { name: name.to_owned(), detail });
        }
        let id =
            found.id().ok_or_else(|| StoreError::damaged(&found.dir.join("store.toml"), 0, "it cannot be read"))?;
        let key = self.unlock_key()?;
        let write = |one: &Found, state| StoreCard::write(&one.dir, &one.name, state, &Unlock::Key(&key), &*self.disk);
        if state != StoreState::Current {
            return write(&found, state);
        }
        let before = self.list()?.into_iter().find(|one| one.is_current && one.name != name);
        // Its store.toml first, so that it may be opened; then the pointer, which decides; then the other's.
        if !matches!(found.state()?, StoreState::Normal | StoreState::Current) {
            write(&found, StoreState::Normal)?;
        }
        self.point(&id)?;
        if let Some(before) = before {
            write(&before, StoreState::Normal)?;
        }
        write(&found, StoreState::Current)
    }

    fn rename(&self, from: &Path, to: &Path) -> StoreResult<()> {
        let missing = || StoreError::Absent(from.to_owned());
        let parents = [from.parent().ok_or_else(missing)?, to.parent().ok_or_else(missing)?];
        let dirs = parents.map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
        let dirs = [self.disk.open_dir(dirs[0])?, self.disk.open_dir(dirs[1])?];
        self.disk.rename_new(from, to).map_err(|error| match error.source.kind() {
            io::ErrorKind::CrossesDevices => StoreError::Refused {
                name: from.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                detail: format!(
                    "{} is on another file system; copy the folder to {} while nothing runs, or mount it there, and \
                     attach it in that place",
                    from.display(),
                    to.display()
                ),
            },
            _ => error.into(),
        })?;
        dirs.iter().try_for_each(|dir| Ok(dir.sync()?))
    }
}

/// Names sort as people count: `main-2` before `main-10`.
fn natural(name: &str) -> (String, u64, String) {
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = name.get(base.len()..).and_then(|digits| digits.parse().ok()).unwrap_or_default();
    // `main` stands before `main-2`.
    (base.trim_end_matches('-').to_owned(), number, name.to_owned())
}

fn same(one: &Path, other: &Path) -> bool {
    match (std::fs::canonicalize(one), std::fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

fn check_name(name: &str) -> StoreResult<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.chars().all(fits) && (1..=64).contains(&name.len()) && !name.starts_with(['.', '-']) && name != "current" {
        return Ok(());
    }
    let name: String = name.chars().take(64).collect();
    let detail = "a store's name has 1 to 64 letters, digits, `-`, `_` or `.`, and is not `current`".to_owned();
    Err(StoreError::Refused { name: name.escape_debug().to_string(), detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_people_count_and_lead_nowhere_else() {
        let mut names = ["main-10", "main", "old", "main-2"];
        names.sort_by_cached_key(|name| natural(name));
        assert_eq!(names, ["main", "main-2", "main-10", "old"]);
        for bad in ["", ".", "..", "a/b", "-x", "current", "a b", "ä"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name("mail.2026_a-1").is_ok());
    }
}
