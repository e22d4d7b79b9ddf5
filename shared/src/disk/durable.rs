//! Whole small files, written so that after a crash there is the old content or the new, never half.

use super::{Disk, DiskResult};
use crate::crypt::random;
use std::path::Path;

/// Creates `path` and every missing directory above it, each synced into its parent.
///
/// # Errors
/// [`super::DiskError`].
pub fn create_dirs(disk: &dyn Disk, path: &Path) -> DiskResult<()> {
    match disk.entry(path) {
        Ok(entry) if entry.is_dir => return Ok(()),
        Ok(_) => {}
        Err(e) if e.is_missing() => {}
        Err(e) => return Err(e),
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dirs(disk, parent)?;
    }
    match disk.create_dir(path) {
        // Another process made it in between: it still has to be durable.
        Err(e) if e.is_present() && disk.entry(path).is_ok_and(|e| e.is_dir) => {}
        other => other?,
    }
    disk.open_dir(parent.unwrap_or(Path::new(".")))?.sync()
}

/// Writes a file that must not exist yet: temporary name, sync, rename without replacing, directory sync.
///
/// # Errors
/// [`super::DiskError`]; [`super::DiskError::is_present`] when the name is taken.
pub fn write_new_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> DiskResult<()> {
    written(disk, path, bytes, |from| disk.rename_new(from, path))
}

/// Replaces a file's content (or makes the file): temporary name, sync, rename over it, directory sync.
///
/// # Errors
/// [`super::DiskError`].
pub fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> DiskResult<()> {
    written(disk, path, bytes, |from| disk.rename_over(from, path))
}

fn written(disk: &dyn Disk, path: &Path, bytes: &[u8], rename: impl FnOnce(&Path) -> DiskResult<()>) -> DiskResult<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = disk.open_dir(parent)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.{}.tmp", data_encoding::HEXLOWER.encode(&random::<8>())));
    let result = (|| {
        let mut file = disk.create(&temporary)?;
        file.write_all(bytes).map_err(|e| super::DiskError::new("write", &temporary, e))?;
        file.sync()?;
        drop(file);
        rename(&temporary)
    })();
    if result.is_err() {
        // The caller gets the first error; a temporary file that stays is found and named at the next start.
        let _ = disk.remove_file(&temporary);
    }
    result?;
    directory.sync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::LocalDisk;

    #[test]
    fn new_files_do_not_replace_and_replaced_files_are_whole() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("a/b/file");
        create_dirs(&LocalDisk, path.parent().expect("has one")).expect("creates");
        create_dirs(&LocalDisk, path.parent().expect("has one")).expect("is there already");
        write_new_file(&LocalDisk, &path, b"one").expect("writes");
        assert!(write_new_file(&LocalDisk, &path, b"two").expect_err("is there").is_present());
        assert_eq!(LocalDisk.read(&path, 10).expect("reads"), b"one");
        replace_file(&LocalDisk, &path, b"three").expect("replaces");
        assert_eq!(LocalDisk.read(&path, 10).expect("reads"), b"three");
        assert!(LocalDisk.read(&path, 4).is_err());
        let names = LocalDisk.list(path.parent().expect("has one")).expect("lists");
        assert_eq!(names.len(), 1, "no temporary file is left: {names:?}");
    }

    #[test]
    fn links_are_not_followed_and_locks_exclude() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        write_new_file(&LocalDisk, &target, b"x").expect("writes");
        std::os::unix::fs::symlink(&target, &link).expect("links");
        assert!(LocalDisk.open(&link).is_err());
        std::fs::hard_link(&target, folder.path().join("second")).expect("links");
        assert!(LocalDisk.open(&target).is_err());
        let lock = LocalDisk.lock(&folder.path().join("lock")).expect("free");
        assert!(LocalDisk.lock(&folder.path().join("lock")).is_err());
        drop(lock);
        assert!(LocalDisk.lock(&folder.path().join("lock")).is_ok());
    }
}
