//! Sources that a command paused: a file each in `data/paused/`, so that it holds over restarts and needs no service.
//!
//! The file's name is the source's; its content says since when and by whom, for people. Not here: `pause = true` in the
//! configuration, which only the configuration can end.

use postkeep_shared::{
    disk::{Disk, DiskError, create_dirs, replace_file},
    run::Failure,
};
use serde::{Deserialize, Serialize};
use std::path::Path;

const MAX_FILE: u64 = 4096;

/// Who paused a source, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// RFC 3339, UTC.
    pub since: String,
    /// As far as the system knows.
    pub by: Option<String>,
}

/// Whether a source is paused by command. Where nobody can tell it is not: collecting is the safer mistake.
#[must_use]
pub fn is_paused(disk: &dyn Disk, dir: &Path, source: &str) -> bool {
    disk.entry(&dir.join(source)).is_ok_and(|entry| entry.is_file)
}

/// Who paused it; `None`: nobody.
///
/// # Errors
/// The file is there and cannot be read.
pub fn paused(disk: &dyn Disk, dir: &Path, source: &str) -> Result<Option<Paused>, DiskError> {
    match disk.read(&dir.join(source), MAX_FILE) {
        Ok(octets) => {
            let unknown = Paused { since: "unknown".into(), by: None };
            Ok(Some(serde_json::from_slice(&octets).unwrap_or(unknown)))
        }
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Pauses a source; `false`: it was paused before.
///
/// # Errors
/// The disk's.
pub fn pause(disk: &dyn Disk, dir: &Path, source: &str, paused: &Paused) -> Result<bool, Failure> {
    if is_paused(disk, dir, source) {
        return Ok(false);
    }
    create_dirs(disk, dir)?;
    let octets = serde_json::to_vec(paused).map_err(Failure::cannot)?;
    replace_file(disk, &dir.join(source), &octets)?;
    Ok(true)
}

/// Ends that; `false`: it was not paused.
///
/// # Errors
/// The disk's.
pub fn resume(disk: &dyn Disk, dir: &Path, source: &str) -> Result<bool, Failure> {
    match disk.remove_file(&dir.join(source)) {
        Ok(()) => {
            disk.open_dir(dir)?.sync()?;
            Ok(true)
        }
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;

    #[test]
    fn holds_until_it_is_ended() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (dir, by) = (folder.path().join("paused"), Paused { since: "now".into(), by: Some("ann".into()) });
        assert!(!is_paused(&LocalDisk, &dir, "m365") && !resume(&LocalDisk, &dir, "m365").expect("nothing to do"));
        assert!(pause(&LocalDisk, &dir, "m365", &by).expect("writes"));
        assert!(!pause(&LocalDisk, &dir, "m365", &by).expect("is paused"));
        assert!(is_paused(&LocalDisk, &dir, "m365") && !is_paused(&LocalDisk, &dir, "other"));
        assert_eq!(paused(&LocalDisk, &dir, "m365").expect("reads"), Some(by));
        assert!(resume(&LocalDisk, &dir, "m365").expect("removes"));
        assert_eq!(paused(&LocalDisk, &dir, "m365").expect("reads"), None);
    }
}
