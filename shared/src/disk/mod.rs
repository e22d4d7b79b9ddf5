//! The one place that creates, writes, syncs and renames files (product.md, promise 1).
//!
//! A [`Disk`] gives the few operations that the durability protocol is made of, each with its operation and path in
//! the error. Programs hold an `Arc<dyn Disk>`; tests put one that fails in its place. Nothing here retries: a sync
//! that failed has lost data that a second call would not report (`docs/durability.md`).

mod durable;
pub mod faulty;
mod local;
mod system;

pub use durable::{create_dirs, replace_file, replace_files, write_new_file};
pub use local::LocalDisk;
pub use system::{Standing, require_standing, standing};

use std::{
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// A failed operation on a file, with everything an administrator needs to act.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}", path.display())]
pub struct DiskError {
    /// What was tried, as a verb with its object: `open`, `sync`, `rename to new/…`.
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

impl DiskError {
    /// Attaches operation and path to an I/O error.
    #[must_use]
    pub fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.to_owned(), source }
    }

    /// Whether space, quota or inodes ran out: waiting or emptying helps, data is not damaged.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the file system refuses every change (mounted read-only, also by the kernel after an error).
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.source.kind() == io::ErrorKind::ReadOnlyFilesystem
    }

    /// Whether this process or this machine ran out of descriptors: waiting helps, nothing is damaged.
    #[must_use]
    pub fn is_out_of_descriptors(&self) -> bool {
        let errno = rustix::io::Errno::from_io_error(&self.source);
        matches!(errno, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
    }

    /// Whether the file or directory is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether something is there already.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }
}

/// Whether an error hinders now and says nothing of the file: no space, a read-only file system, no descriptors, no
/// permission. What cannot be opened for such a reason is not damaged, and must not be made anew.
#[must_use]
pub fn is_hindrance(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let hindrances =
        [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::ACCESS, Errno::PERM];
    Errno::from_io_error(error).is_some_and(|errno| hindrances.contains(&errno))
}

/// Result of a disk operation.
pub type DiskResult<T> = Result<T, DiskError>;

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Name within the directory; names that are not UTF-8 are listed lossily and cannot be opened by it.
    pub name: String,
    /// Octets, for a regular file.
    pub len: u64,
    /// Whether it is a regular file (not a link, directory, device …).
    pub is_file: bool,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Modification time.
    pub modified: Option<std::time::SystemTime>,
    /// Permission bits; a file with secrets must have none of 0o077.
    pub mode: u32,
}

/// What is left on a file system for this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Free octets.
    pub free: u64,
    /// Octets in all; 0 where it is not known.
    pub total: u64,
    /// Files that can still be made; `u64::MAX` where the file system has no such limit.
    pub free_inodes: u64,
    /// Mounted read-only.
    pub read_only: bool,
}

/// The operations that files are kept with.
pub trait Disk: Send + Sync {
    /// Creates a file that must not exist (0600, links not followed), for reading and writing.
    ///
    /// # Errors
    /// [`DiskError`]; [`DiskError::is_present`] when the name is taken.
    fn create(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>>;

    /// Opens a regular file for reading; a link, a device or a file with a second name is refused.
    ///
    /// # Errors
    /// [`DiskError`].
    fn open(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>>;

    /// Opens an existing regular file for reading and appending; writes go to its end.
    ///
    /// # Errors
    /// [`DiskError`].
    fn open_append(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>>;

    /// Gives a file a name that must not be taken (RENAME_NOREPLACE).
    ///
    /// # Errors
    /// [`DiskError`]; [`DiskError::is_present`] when the name is taken.
    fn rename_new(&self, from: &Path, to: &Path) -> DiskResult<()>;

    /// Puts a file in the place of another, atomically.
    ///
    /// # Errors
    /// [`DiskError`].
    fn rename_over(&self, from: &Path, to: &Path) -> DiskResult<()>;

    /// Opens a directory to sync it later. Held open across renames, so that an error of the directory is reported
    /// even when its inode was evicted in between.
    ///
    /// # Errors
    /// [`DiskError`].
    fn open_dir(&self, path: &Path) -> DiskResult<Box<dyn DiskDir>>;

    /// Creates one directory (0700); its parent is not synced. See [`create_dirs`].
    ///
    /// # Errors
    /// [`DiskError`]; [`DiskError::is_present`] when the name is taken.
    fn create_dir(&self, path: &Path) -> DiskResult<()>;

    /// Removes a file's name.
    ///
    /// # Errors
    /// [`DiskError`].
    fn remove_file(&self, path: &Path) -> DiskResult<()>;

    /// Removes a directory with everything in it: only for indexes that can be rebuilt.
    ///
    /// # Errors
    /// [`DiskError`].
    fn remove_tree(&self, path: &Path) -> DiskResult<()>;

    /// Everything in a directory, sorted by name.
    ///
    /// # Errors
    /// [`DiskError`].
    fn list(&self, path: &Path) -> DiskResult<Vec<DirEntry>>;

    /// What stands at a path (links not followed).
    ///
    /// # Errors
    /// [`DiskError`]; [`DiskError::is_missing`] when there is nothing.
    fn entry(&self, path: &Path) -> DiskResult<DirEntry>;

    /// Free octets for this user on the file system that holds `path`.
    ///
    /// # Errors
    /// [`DiskError`].
    fn free_space(&self, path: &Path) -> DiskResult<u64>;

    /// What is left on the file system that holds `path`. The default knows the free octets only.
    ///
    /// # Errors
    /// [`DiskError`].
    fn space(&self, path: &Path) -> DiskResult<Space> {
        let free = self.free_space(path)?;
        Ok(Space { free, total: 0, free_inodes: u64::MAX, read_only: false })
    }

    /// Takes the exclusive lock of a lock file (made when missing) until the value is dropped. The kernel gives it up
    /// with the process, so a stale file is harmless.
    ///
    /// # Errors
    /// [`DiskError`] with [`io::ErrorKind::WouldBlock`] when another process holds it.
    fn lock(&self, path: &Path) -> DiskResult<Box<dyn DiskLock>>;

    /// Reads a whole small file of at most `limit` octets.
    ///
    /// # Errors
    /// [`DiskError`]; a larger file is [`io::ErrorKind::FileTooLarge`].
    fn read(&self, path: &Path, limit: u64) -> DiskResult<Vec<u8>> {
        let mut file = self.open(path)?;
        let error = |e| DiskError::new("read", path, e);
        let len = file.len()?;
        if len > limit {
            return Err(error(io::ErrorKind::FileTooLarge.into()));
        }
        // One more than there is: then one read finds the end.
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or_default().saturating_add(1));
        file.read_to_end(&mut bytes).map_err(error)?;
        Ok(bytes)
    }
}

/// An open file.
pub trait DiskFile: Read + Write + Seek + Send + Sync {
    /// Where it was opened.
    fn path(&self) -> &Path;

    /// Octets in the file.
    ///
    /// # Errors
    /// [`DiskError`].
    fn len(&self) -> DiskResult<u64>;

    /// Whether the file has no octets.
    ///
    /// # Errors
    /// [`DiskError`].
    fn is_empty(&self) -> DiskResult<bool> {
        self.len().map(|len| len == 0)
    }

    /// Fills `buffer` from `offset`; the position does not move.
    ///
    /// # Errors
    /// [`DiskError`]; [`io::ErrorKind::UnexpectedEof`] when the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> DiskResult<()>;

    /// Brings content and size to stable storage (fdatasync). After an error the file's content is unknown: never
    /// called again on it.
    ///
    /// # Errors
    /// [`DiskError`].
    fn sync(&mut self) -> DiskResult<()>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// [`DiskError`].
    fn set_len(&mut self, len: u64) -> DiskResult<()>;

    /// Reserves `len` octets of space behind the end without changing the size.
    ///
    /// # Errors
    /// [`DiskError`].
    fn reserve(&mut self, len: u64) -> DiskResult<()>;

    /// Drops the file's pages from the page cache, so that the next read shows what the disk holds. The file must
    /// have been synced.
    ///
    /// # Errors
    /// [`DiskError`].
    fn drop_cache(&self) -> DiskResult<()>;
}

/// An open directory.
pub trait DiskDir: Send + Sync {
    /// Brings its names to stable storage.
    ///
    /// # Errors
    /// [`DiskError`]; never retried.
    fn sync(&self) -> DiskResult<()>;
}

/// A held lock; dropping it releases.
pub trait DiskLock: Send + Sync {}
