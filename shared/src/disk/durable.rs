//! Whole small files, written so that after a crash there is the old content or the new, never half.

use super::{Disk, DiskResult};
use crate::crypt::random;
use std::path::{Path, PathBuf};

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
    let temporary = temporary(path);
    let result = fill(disk, &temporary, bytes).and_then(|()| rename(&temporary));
    if result.is_err() {
        // The caller gets the first error; a temporary file that stays is found and named at the next start.
        let _ = disk.remove_file(&temporary);
    }
    result?;
    directory.sync()
}

/// Writers at once: the file system joins their syncs.
const WRITERS: usize = 8;

/// As [`replace_file`] for many files of one folder: all are written and synced before the first gets its name, and the
/// folder is synced once. After a crash each file has its old content or its new one.
///
/// # Errors
/// [`super::DiskError`]; then some files may be the new ones.
pub fn replace_files(disk: &dyn Disk, folder: &Path, files: &[(&Path, &[u8])]) -> DiskResult<()> {
    if files.is_empty() {
        return Ok(());
    }
    let directory = disk.open_dir(folder)?;
    let named: Vec<(PathBuf, &Path, &[u8])> =
        files.iter().map(|(path, bytes)| (temporary(path), *path, *bytes)).collect();
    let written: DiskResult<()> = std::thread::scope(|scope| {
        let piece = named.len().div_ceil(WRITERS);
        let write =
            |piece: &[(PathBuf, &Path, &[u8])]| piece.iter().try_for_each(|(from, _, bytes)| fill(disk, from, bytes));
        let threads: Vec<_> = named.chunks(piece).map(|piece| scope.spawn(move || write(piece))).collect();
        // A thread that panicked has said why; nothing got its name.
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(broken(folder))))
    });
    let result = written.and_then(|()| named.iter().try_for_each(|(from, to, _)| disk.rename_over(from, to)));
    if result.is_err() {
        // Most are gone already; the caller gets the first error.
        named.iter().for_each(|(from, ..)| drop(disk.remove_file(from)));
    }
    result?;
    directory.sync()
}

fn broken(folder: &Path) -> super::DiskError {
    super::DiskError::new("write files in", folder, std::io::Error::other("a writer broke off"))
}

fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", data_encoding::HEXLOWER.encode(&random::<8>())))
}

/// Makes a file with this content, synced.
fn fill(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> DiskResult<()> {
    let mut file = disk.create(path)?;
    file.write_all(bytes).map_err(|e| super::DiskError::new("write", path, e))?;
    file.sync()
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
    fn many_files_are_replaced_together() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let paths: Vec<PathBuf> = (0..20).map(|n| folder.path().join(format!("file {n}"))).collect();
        for content in [b"one".as_slice(), b"another"] {
            let files: Vec<(&Path, &[u8])> = paths.iter().map(|path| (path.as_path(), content)).collect();
            replace_files(&LocalDisk, folder.path(), &files).expect("replaces");
            assert!(paths.iter().all(|path| LocalDisk.read(path, 10).expect("reads") == content));
        }
        assert_eq!(LocalDisk.list(folder.path()).expect("lists").len(), 20, "no temporary file is left");
        let missing = folder.path().join("none/x");
        let files: [(&Path, &[u8]); 2] = [(&paths[0], b"third"), (&missing, b"third")];
        assert!(replace_files(&LocalDisk, folder.path(), &files).is_err());
        assert_eq!(
            LocalDisk.read(&paths[0], 10).expect("reads"),
            b"another",
            "nothing gets its name before all are there"
        );
        assert_eq!(LocalDisk.list(folder.path()).expect("lists").len(), 20);
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
