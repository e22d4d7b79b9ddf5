//! A copy of everything the archive cannot do without, made while it is at work (docs/backup.md).
//!
//! Packs and records only grow, and a record names only what lies in packs already. So the lengths of the record files
//! are taken first, then the records are copied up to them, then the packs as they are by then: whatever a copied record
//! names is in the copied packs. Keys come last: they are kept before anything is sealed with them. Each file is written
//! under another name, synced, read back, compared, and then named; one that only grows and is there with the same
//! length is not copied again. The manifest is written last.
//!
//! Not copied: secrets in clear (the unlock key, the signing key, passwords) and what can be made again (catalogs, state).

mod drill;

pub use drill::{Drilled, bound, drill};

use crate::{config::ArchiverConfig, signing::ArchiverKey};
use postkeep_shared::{
    disk::{DirEntry, Disk, DiskError, create_dirs, replace_file},
    mail::{Digest, Hasher},
    run::Failure,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

/// Name of the manifest: `sha256sum -c` checks a backup with it.
pub const MANIFEST: &str = "manifest.sha256";
/// Name of what a backup says of itself.
pub const ABOUT: &str = "backup.json";

/// What a backup did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BackedUp {
    /// Files that the backup has.
    pub files: u64,
    /// Their octets.
    pub bytes: u64,
    /// Of those, files copied by this run.
    pub copied: u64,
    /// Their octets.
    pub bytes_copied: u64,
    /// Files in the backup that the archive has no more; `--prune` removes them.
    pub obsolete: u64,
    /// Of those, removed.
    pub removed: u64,
    /// Copies that had decayed and were made anew; only `--check` looks.
    pub mended: u64,
    /// Stores, by name.
    pub stores: Vec<String>,
}

/// One run of a backup.
struct Run<'a> {
    to: &'a Path,
    disk: &'a dyn Disk,
    /// What the manifest of the run before says.
    before: BTreeMap<String, String>,
    check: bool,
    now: BTreeMap<String, Kept>,
    /// Octets that there are to copy; more when the archive grew meanwhile.
    total: u64,
    done: BackedUp,
}

/// A file that the copy has.
struct Kept {
    sum: String,
    len: u64,
}

/// A store whose records are in the copy.
struct Copied {
    name: String,
    dir: PathBuf,
    /// Before its records were copied, each with the folder it is in.
    packs_before: Vec<(String, DirEntry)>,
    has_records: bool,
}

/// What else a run does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Also {
    /// Remove what the archive has no more from the copy, after the new manifest is there.
    pub prune: bool,
    /// Read every copy back, and make those anew that have decayed.
    pub check: bool,
}

/// Copies the archive to `to`; `now_ms` is the time that it says. `progress` hears of octets.
///
/// # Errors
/// A sentence and an exit code. What was copied before stays, and the next run goes on.
pub fn backup(
    config: &ArchiverConfig,
    to: &Path,
    also: Also,
    disk: &dyn Disk,
    now_ms: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BackedUp, Failure> {
    create_dirs(disk, to)?;
    check_apart(config, to)?;
    let _lock = disk.lock(&to.join(".lock")).map_err(|error| match error.source.kind() {
        std::io::ErrorKind::WouldBlock => Failure::cannot(format!("another backup to {} is at work", to.display())),
        _ => error.into(),
    })?;
    let before = read_manifest(to, disk)?;
    let mut run =
        Run { to, disk, before, check: also.check, now: BTreeMap::new(), total: 0, done: BackedUp::default() };
    run.config(config)?;
    run.stores(&config.stores_dir(), progress)?;
    run.finish(config, also.prune, now_ms)?;
    Ok(run.done)
}

/// A backup inside the data folder would be part of what it copies, and goes where the archive goes.
fn check_apart(config: &ArchiverConfig, to: &Path) -> Result<(), Failure> {
    let real = |path: &Path| std::fs::canonicalize(path);
    match (real(to), real(&config.data_dir)) {
        (Ok(to), Ok(data)) if to.starts_with(&data) || data.starts_with(&to) => Err(Failure::usage(format!(
            "{} and the data folder {} lie in each other; name another place, best on another machine",
            to.display(),
            data.display()
        ))),
        _ => Ok(()),
    }
}

fn read_manifest(to: &Path, disk: &dyn Disk) -> Result<BTreeMap<String, String>, Failure> {
    let octets = match disk.read(&to.join(MANIFEST), 1 << 30) {
        Err(error) if error.is_missing() => return Ok(BTreeMap::new()),
        other => other?,
    };
    let text = String::from_utf8_lossy(&octets);
    Ok(text
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, path)| (path.to_owned(), sum.to_owned()))
        .collect())
}

impl Run<'_> {
    /// What people wrote, and the key that verifies what the archiver signed.
    fn config(&mut self, config: &ArchiverConfig) -> Result<(), Failure> {
        for file in [&config.file, &config.owners_file] {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.whole(file, &format!("config/{name}"))?;
        }
        if let Ok(key) = ArchiverKey::load(&config.signing_key_file(), self.disk) {
            self.put("config/archiver.pub", format!("{}\n", key.public()).as_bytes())?;
        }
        Ok(())
    }

    fn stores(&mut self, stores: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Failure> {
        // Which store is current before the list of stores: the one it names is in the list.
        self.whole(&stores.join("current"), "stores/current")?;
        let mut copied: Vec<Copied> = Vec::new();
        // Records of every store before the packs of any: what is moved between stores meanwhile is in both. That may be
        // a store that began meanwhile.
        loop {
            let new = self.begin_stores(stores, &copied)?;
            if new.is_empty() {
                break;
            }
            for mut store in new {
                let records = store.dir.join("records");
                let files = self.files(&records, ".rec")?;
                store.has_records = !files.is_empty();
                for entry in files {
                    self.file(&records, &format!("stores/{}/records", store.name), &entry, progress)?;
                }
                copied.push(store);
            }
        }
        for store in &copied {
            // What was compacted away while it was copied lies in packs that are in the next list.
            while !self.packs_of(store, progress)? {}
        }
        // Again, and last: a new epoch of keys is in store.toml before anything is sealed with it.
        for store in &copied {
            self.store_file(store)?;
        }
        self.done.stores = copied.into_iter().map(|store| store.name).collect();
        Ok(())
    }

    /// The stores that are not among `known`, each with its keys and folders in the copy.
    fn begin_stores(&mut self, stores: &Path, known: &[Copied]) -> Result<Vec<Copied>, Failure> {
        let mut new = Vec::new();
        for entry in self.disk.list(stores)?.into_iter().filter(|entry| entry.is_dir) {
            if known.iter().any(|store| store.name == entry.name) {
                continue;
            }
            let dir = stores.join(&entry.name);
            let packs_before = match self.disk.entry(&dir.join("store.toml")) {
                Ok(_) => self.packs(&dir)?,
                // What an interrupted `store create` left.
                Err(error) if error.is_missing() => continue,
                Err(error) => return Err(error.into()),
            };
            let store = Copied { name: entry.name, dir, packs_before, has_records: false };
            self.store_file(&store)?;
            // An empty store has folders, too.
            for folder in ["packs", "records"] {
                create_dirs(self.disk, &self.to.join("stores").join(&store.name).join(folder))?;
            }
            self.total += self.octets(&store.dir.join("records"), ".rec")?;
            self.total += store.packs_before.iter().map(|(_, pack)| pack.len).sum::<u64>();
            new.push(store);
        }
        Ok(new)
    }

    /// Copies the packs of a store; says whether the copy has all that are there then, and none went away meanwhile.
    fn packs_of(&mut self, store: &Copied, progress: &mut dyn FnMut(u64, u64)) -> Result<bool, Failure> {
        let packs = store.dir.join("packs");
        let to = |folder: &str| format!("stores/{}/packs/{folder}", store.name);
        // Without records it is in its first commit, perhaps: packs as they were before. Later ones may hold copies of
        // records, and those without a record file are no empty store.
        let later = if store.has_records { Some(self.packs(&store.dir)?) } else { None };
        let mut all_stayed = true;
        for (folder, entry) in later.as_ref().unwrap_or(&store.packs_before) {
            all_stayed &= self.file(&packs.join(folder), &to(folder), entry, progress)?;
        }
        if later.is_none() {
            return Ok(true);
        }
        // One folder is listed after the other: a pack may have gone from a later one to one that was passed.
        let there = self.packs(&store.dir)?;
        let is_copied = |folder: &str, name: &str| self.now.contains_key(&format!("{}/{name}", to(folder)));
        Ok(all_stayed && there.iter().all(|(folder, entry)| is_copied(folder, &entry.name)))
    }

    fn store_file(&mut self, store: &Copied) -> Result<(), Failure> {
        self.whole(&store.dir.join("store.toml"), &format!("stores/{}/store.toml", store.name))
    }

    /// Octets of the files in a folder whose names end so.
    fn octets(&self, folder: &Path, suffix: &str) -> Result<u64, Failure> {
        Ok(self.files(folder, suffix)?.iter().map(|entry| entry.len).sum())
    }

    /// The files in a folder whose names end so.
    fn files(&self, folder: &Path, suffix: &str) -> Result<Vec<DirEntry>, Failure> {
        let files = self.disk.list(folder)?.into_iter();
        Ok(files.filter(|entry| entry.is_file && entry.name.ends_with(suffix)).collect())
    }

    /// The packs of a store, each with the folder it is in.
    fn packs(&self, store: &Path) -> Result<Vec<(String, DirEntry)>, Failure> {
        let mut packs = Vec::new();
        for folder in self.disk.list(&store.join("packs"))?.into_iter().filter(|entry| entry.is_dir) {
            let files = self.files(&store.join("packs").join(&folder.name), ".pack")?;
            packs.extend(files.into_iter().map(|file| (folder.name.clone(), file)));
        }
        Ok(packs)
    }

    /// Copies a file that only grows; says whether it stayed.
    fn file(
        &mut self,
        from: &Path,
        to: &str,
        entry: &DirEntry,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<bool, Failure> {
        let stayed = match self.copy(&from.join(&entry.name), &format!("{to}/{}", entry.name), entry.len) {
            Err(error) if self.disk.entry(&from.join(&entry.name)).is_err_and(|gone| gone.is_missing()) => {
                tracing::warn!("{} went away while it was copied: {error}", from.join(&entry.name).display());
                let gone = self.now.remove(&format!("{to}/{}", entry.name));
                self.done.bytes -= gone.map_or(0, |gone| gone.len);
                false
            }
            other => other.map(|()| true)?,
        };
        progress(self.done.bytes, self.total.max(self.done.bytes));
        Ok(stayed)
    }

    /// Copies the first `len` octets of a file that only grows, unless the copy has just as many.
    fn copy(&mut self, from: &Path, relative: &str, len: u64) -> Result<(), Failure> {
        if self.now.get(relative).is_some_and(|kept| kept.len == len) {
            return Ok(());
        }
        let to = self.to.join(relative);
        let there = self.disk.entry(&to).is_ok_and(|entry| entry.is_file && entry.len == len);
        if let (true, Some(sum)) = (there, self.before.get(relative)) {
            if !self.check || sum_of(&to, self.disk).is_ok_and(|found| found.to_string() == *sum) {
                self.keep(relative, sum.clone(), len);
                return Ok(());
            }
            tracing::warn!("{} had decayed and is copied anew", to.display());
            self.done.mended += 1;
        }
        self.anew(from, relative, Some(len))
    }

    /// Copies a file that is replaced as a whole when it changes, if it is there and this run has not copied it as it is.
    fn whole(&mut self, from: &Path, relative: &str) -> Result<(), Failure> {
        if let Some(copied) = self.now.get(relative)
            && sum_of(from, self.disk)?.to_string() == copied.sum
        {
            return Ok(());
        }
        match self.disk.entry(from) {
            Err(error) if error.is_missing() => Ok(()),
            Err(error) => Err(error.into()),
            // Its length is that of the file that is opened, which may be another one by then.
            Ok(_) => {
                self.anew(from, relative, None)?;
                self.total += self.now.get(relative).map_or(0, |kept| kept.len);
                Ok(())
            }
        }
    }

    /// Copies the first `len` octets of a file, or all.
    fn anew(&mut self, from: &Path, relative: &str, len: Option<u64>) -> Result<(), Failure> {
        let to = self.to.join(relative);
        if let Some(folder) = to.parent() {
            create_dirs(self.disk, folder)?;
        }
        let part = part_of(&to);
        self.remove_stale(&part)?;
        let (sum, len) = copy_octets(from, &part, len, self.disk)?;
        let back = sum_of(&part, self.disk)?;
        if back != sum {
            return Err(Failure::cannot(format!(
                "{} read back from the disk differs from what was written; the disk is not to be trusted",
                part.display()
            )));
        }
        self.name(&part, &to)?;
        self.keep(relative, sum.to_string(), len);
        self.done.copied += 1;
        self.done.bytes_copied += len;
        Ok(())
    }

    fn put(&mut self, relative: &str, octets: &[u8]) -> Result<(), Failure> {
        let to = self.to.join(relative);
        if let Some(folder) = to.parent() {
            create_dirs(self.disk, folder)?;
        }
        replace_file(self.disk, &to, octets)?;
        self.keep(relative, Digest::of(octets).to_string(), octets.len() as u64);
        Ok(())
    }

    fn keep(&mut self, relative: &str, sum: String, len: u64) {
        let before = self.now.insert(relative.to_owned(), Kept { sum, len });
        self.done.bytes = self.done.bytes + len - before.map_or(0, |before| before.len);
    }

    fn remove_stale(&self, part: &Path) -> Result<(), Failure> {
        match self.disk.remove_file(part) {
            Err(error) if !error.is_missing() => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn name(&self, part: &Path, to: &Path) -> Result<(), Failure> {
        let folder = self.disk.open_dir(to.parent().unwrap_or(self.to))?;
        self.disk.rename_over(part, to)?;
        Ok(folder.sync()?)
    }

    /// Manifest and what the backup says of itself; then what is not in it any more.
    fn finish(&mut self, config: &ArchiverConfig, prune: bool, now_ms: u64) -> Result<(), Failure> {
        let about = serde_json::json!({
            "postkeep_backup": 1, "finished_ms": now_ms, "data_dir": config.data_dir, "stores": self.done.stores,
            "files": self.now.len(), "bytes": self.done.bytes,
            "opens_with": "the recovery passphrase, or the unlock key of the archiver (not in this backup)",
        });
        self.put(ABOUT, format!("{about:#}\n").as_bytes())?;
        self.done.files = self.now.len() as u64;
        let kept: BTreeSet<&String> = self.now.keys().collect();
        let obsolete: Vec<PathBuf> =
            self.before.keys().filter(|path| !kept.contains(path)).map(|path| self.to.join(path)).collect();
        let obsolete: Vec<PathBuf> = obsolete.into_iter().filter(|path| self.disk.entry(path).is_ok()).collect();
        self.done.obsolete = obsolete.len() as u64;
        let mut lines: Vec<String> = self.now.iter().map(|(path, kept)| format!("{}  {path}\n", kept.sum)).collect();
        if !prune {
            // They stay listed, so that a later run can still remove them.
            let stays = |path: &&String| !self.now.contains_key(*path) && self.disk.entry(&self.to.join(path)).is_ok();
            lines.extend(
                self.before.iter().filter(|(path, _)| stays(path)).map(|(path, sum)| format!("{sum}  {path}\n")),
            );
        }
        replace_file(self.disk, &self.to.join(MANIFEST), lines.concat().as_bytes())?;
        if prune {
            for path in obsolete {
                self.disk.remove_file(&path)?;
                self.done.removed += 1;
            }
        }
        Ok(())
    }
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// Copies the first `len` octets, or all, and syncs them. Their digest and number.
fn copy_octets(from: &Path, to: &Path, len: Option<u64>, disk: &dyn Disk) -> Result<(Digest, u64), Failure> {
    let (mut source, mut target) = (disk.open(from)?, disk.create(to)?);
    let (mut hasher, mut copied, mut block) = (Hasher::default(), 0, vec![0; 256 * 1024]);
    while len.is_none_or(|len| copied < len) {
        let left = len.map_or(u64::MAX, |len| len - copied);
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        let room = block.get_mut(..room).unwrap_or_default();
        let count = source.read(room).map_err(|e| DiskError::new("read", from, e))?;
        if count == 0 && len.is_some() {
            return Err(Failure::cannot(format!("{} became shorter while it was copied", from.display())));
        }
        if count == 0 {
            break;
        }
        let octets = room.get(..count).unwrap_or_default();
        hasher.update(octets);
        target.write_all(octets).map_err(|e| DiskError::new("write", to, e))?;
        copied += count as u64;
    }
    target.sync()?;
    Ok((hasher.finish(), copied))
}

/// What the disk has, past the page cache.
fn sum_of(path: &Path, disk: &dyn Disk) -> Result<Digest, Failure> {
    let mut file = disk.open(path)?;
    file.drop_cache()?;
    let (mut hasher, mut block) = (Hasher::default(), vec![0; 256 * 1024]);
    loop {
        let count = file.read(&mut block).map_err(|e| DiskError::new("read", path, e))?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(block.get(..count).unwrap_or_default());
    }
}
