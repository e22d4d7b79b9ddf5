//! Whether `store.toml` is that of the files beside it. Another store's opens nothing here, and what opens nothing would
//! look like an empty store: it would be filled, or everything in it called damaged.

use super::{StoreError, StoreResult, keyring::Keyring};
use data_encoding::HEXLOWER;
use postkeep_shared::disk::{Disk, DiskResult};
use std::path::{Path, PathBuf};

/// Files that are looked at in each folder.
const ENOUGH: usize = 16;

/// Refuses when files say which store they belong to, and none says this one: a single header may have decayed.
pub(super) fn check_belonging(dir: &Path, keys: &Keyring, disk: &dyn Disk) -> StoreResult<()> {
    let mut other = None;
    for (folder, magic) in [("records", b"PKRECS"), ("packs", b"PKPACK")] {
        for path in files(&dir.join(folder), disk)? {
            match owner(&path, magic, disk)? {
                Some(id) if id == keys.id => return Ok(()),
                Some(id) => other = Some(id),
                None => {}
            }
        }
    }
    let Some(other) = other else { return Ok(()) };
    let detail = format!(
        "it is that of store {}, and what lies beside it belongs to store {}; restore store.toml from a backup",
        HEXLOWER.encode(&keys.id),
        HEXLOWER.encode(&other)
    );
    Err(StoreError::damaged(&dir.join("store.toml"), 0, detail))
}

/// Some regular files of a folder and its folders.
fn files(dir: &Path, disk: &dyn Disk) -> DiskResult<Vec<PathBuf>> {
    let entries = match disk.list(dir) {
        Err(error) if error.is_missing() => Vec::new(),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = dir.join(&entry.name);
        match entry.is_dir {
            true => found.extend(files(&path, disk)?),
            false if entry.is_file => found.push(path),
            false => {}
        }
        if found.len() >= ENOUGH {
            break;
        }
    }
    Ok(found)
}

/// The store that the header of a file names.
fn owner(path: &Path, magic: &[u8; 6], disk: &dyn Disk) -> DiskResult<Option<[u8; 16]>> {
    // What cannot be opened is told by whoever needs it.
    let Ok(file) = disk.open(path) else { return Ok(None) };
    let mut head = [0; 24];
    if file.len()? < head.len() as u64 {
        return Ok(None);
    }
    file.read_at(&mut head, 0)?;
    Ok(head.starts_with(magic).then(|| head.last_chunk().copied()).flatten())
}
