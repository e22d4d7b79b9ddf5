//! A disk that fails or leaves out what it is told to, and remembers the order of what was done to it. For tests only: no program
//! builds one.

use super::{DirEntry, Disk, DiskDir, DiskError, DiskFile, DiskLock, DiskResult, Space};
use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// A kind of operation that changes what is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A file was created.
    Create,
    /// Octets were written to a file.
    Write,
    /// A file was synced.
    Sync,
    /// A file got a new name, with or without replacing another.
    Rename,
    /// A directory was synced.
    SyncDir,
    /// A name was removed.
    Remove,
    /// The pages of a file were dropped from the page cache.
    DropCache,
    /// Octets were read from a file.
    Read,
    /// Something happened that is no operation of a disk, and a test wants to know when: [`FaultyDisk::note`].
    Note,
}

/// One operation that was carried out, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// What.
    pub operation: Operation,
    /// On which path; for renames the new one; for a note its text.
    pub path: PathBuf,
}

struct Fault {
    operation: Operation,
    /// Operations of this kind that still succeed.
    remaining: u32,
    error: Error,
    /// Whether every later operation of this kind fails as well.
    lasting: bool,
}

/// What the operating system is to say.
#[derive(Clone, Copy)]
enum Error {
    Kind(io::ErrorKind),
    Number(i32),
}

impl Error {
    fn make(self) -> io::Error {
        match self {
            Self::Kind(kind) => kind.into(),
            Self::Number(number) => io::Error::from_raw_os_error(number),
        }
    }
}

/// Operations that are not carried out, or not yet, although their caller is told they were done.
struct Omission {
    operation: Operation,
    /// Part of the path; every path with it is meant.
    path: String,
    /// Whether they are kept for [`FaultyDisk::carry_out`].
    later: bool,
}

/// Octets that are in the page cache and will never reach the disk.
struct Loss {
    /// Part of the path; every path with it is meant.
    path: String,
    /// The first octet that is lost.
    from: u64,
}

#[derive(Default)]
struct State {
    done: Vec<Done>,
    fault: Option<Fault>,
    omitted: Vec<Omission>,
    put_off: Vec<Done>,
    losses: Vec<Loss>,
    interruption: Option<Interruption>,
}

/// What comes between two operations.
struct Interruption {
    /// Operations before it.
    remaining: u32,
    what: Box<dyn FnOnce() + Send>,
}

/// Passes everything on to another disk, except the one call that is to fail.
#[derive(Clone)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    state: Arc<Mutex<State>>,
}

impl FaultyDisk {
    /// A disk that does not fail yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Makes the `n`-th next operation of this kind (from 1) fail with `error`, once.
    pub fn fail(&self, operation: Operation, n: u32, error: io::ErrorKind) {
        self.set(operation, n, Error::Kind(error), false);
    }

    /// As [`Self::fail`], with the error number the operating system would give (`ENOSPC` is 28 …).
    pub fn fail_with_errno(&self, operation: Operation, n: u32, errno: i32) {
        self.set(operation, n, Error::Number(errno), false);
    }

    /// As [`Self::fail_with_errno`], and so does every later operation of this kind, until [`Self::mend`].
    pub fn keep_failing(&self, operation: Operation, n: u32, errno: i32) {
        self.set(operation, n, Error::Number(errno), true);
    }

    /// Nothing fails any more.
    pub fn mend(&self) {
        self.with(|state| state.fault = None);
    }

    fn set(&self, operation: Operation, n: u32, error: Error, lasting: bool) {
        self.with(|state| state.fault = Some(Fault { operation, remaining: n.saturating_sub(1), error, lasting }));
    }

    /// Whether the fault that was set has happened.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.with(|state| state.fault.is_none())
    }

    /// From now on says "done" to every operation of this kind on a path that contains `path`, and does nothing: the
    /// program with one step of its protocol removed, to see whether a check of that protocol notices. For operations
    /// without a result to hand out, that is, syncs, renames, removals and dropped caches. A read that is left out is
    /// answered, but not counted: as if the program went by what it remembers.
    pub fn omit(&self, operation: Operation, path: &str) {
        self.with(|state| state.omitted.push(Omission { operation, path: path.to_owned(), later: false }));
    }

    /// As [`Self::omit`], but what is left out is done in the end, by [`Self::carry_out`]: the program with two steps of
    /// its protocol in the wrong order. For syncs.
    pub fn put_off(&self, operation: Operation, path: &str) {
        self.with(|state| state.omitted.push(Omission { operation, path: path.to_owned(), later: true }));
    }

    /// Does what was put off.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn carry_out(&self) -> DiskResult<()> {
        for done in self.with(|state| std::mem::take(&mut state.put_off)) {
            match done.operation {
                Operation::Sync => self.inner.open_append(&done.path)?.sync()?,
                Operation::SyncDir => self.inner.open_dir(&done.path)?.sync()?,
                _ => {}
            }
            self.with(|state| state.done.push(done));
        }
        Ok(())
    }

    /// From now on files whose path contains `path` lose what they hold from octet `from` on, in the moment their pages
    /// are dropped from the page cache: writes and syncs said that all was well, and the octets are not on the disk, as
    /// after a sync that failed before (`docs/durability.md`). The octets are zero then, for everybody and for good.
    pub fn lose(&self, path: &str, from: u64) {
        self.with(|state| state.losses.push(Loss { path: path.to_owned(), from }));
    }

    fn lost(&self, path: &Path) -> io::Result<()> {
        let text = path.to_string_lossy();
        let froms = self.with(|state| {
            state.losses.iter().filter(|loss| text.contains(&loss.path)).map(|loss| loss.from).collect::<Vec<_>>()
        });
        for from in froms {
            let file = std::fs::OpenOptions::new().write(true).open(path)?;
            let len = usize::try_from(file.metadata()?.len().saturating_sub(from)).map_err(io::Error::other)?;
            std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; len], from)?;
        }
        Ok(())
    }

    /// Does `what` before the `n`-th next operation (from 1): what another program does in that moment. Listing, opening
    /// and looking at files count, too; only blocks that are read and written do not.
    pub fn interrupt(&self, n: u32, what: impl FnOnce() + Send + 'static) {
        let interruption = Interruption { remaining: n.saturating_sub(1), what: Box::new(what) };
        self.with(|state| state.interruption = Some(interruption));
    }

    /// Whether what [`Self::interrupt`] was given has been done.
    #[must_use]
    pub fn was_interrupted(&self) -> bool {
        self.with(|state| state.interruption.is_none())
    }

    /// Counts an operation that is about to begin.
    fn begins(&self) {
        let due = self.with(|state| match &mut state.interruption {
            Some(interruption) if interruption.remaining > 0 => {
                interruption.remaining -= 1;
                None
            }
            _ => state.interruption.take(),
        });
        if let Some(interruption) = due {
            (interruption.what)();
        }
    }

    /// Puts a line into the order of what was done.
    pub fn note(&self, what: &str) {
        self.with(|state| state.done.push(Done { operation: Operation::Note, path: what.into() }));
    }

    /// Whether the operation is not to be carried out; keeps it where it is put off.
    fn is_omitted(&self, operation: Operation, path: &Path) -> bool {
        let text = path.to_string_lossy();
        self.with(|state| {
            let found = state.omitted.iter().find(|o| o.operation == operation && text.contains(&o.path));
            if found.is_some_and(|omission| omission.later) {
                state.put_off.push(Done { operation, path: path.to_owned() });
            }
            found.is_some()
        })
    }

    /// Carries out an operation without a value, or leaves it out.
    fn step(
        &self,
        operation: Operation,
        path: &Path,
        name: &'static str,
        call: impl FnOnce() -> DiskResult<()>,
    ) -> DiskResult<()> {
        if self.is_omitted(operation, path) { Ok(()) } else { self.run(operation, path, name, call) }
    }

    /// What was carried out since the last call, in order.
    #[must_use]
    pub fn take_done(&self) -> Vec<Done> {
        self.with(|state| std::mem::take(&mut state.done))
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fails when it is this call's turn.
    fn check(&self, operation: Operation) -> io::Result<()> {
        self.with(|state| match &mut state.fault {
            Some(fault) if fault.operation == operation && fault.remaining == 0 => {
                let error = fault.error.make();
                if !fault.lasting {
                    state.fault = None;
                }
                Err(error)
            }
            Some(fault) if fault.operation == operation => {
                fault.remaining -= 1;
                Ok(())
            }
            _ => Ok(()),
        })
    }

    fn run<T>(
        &self,
        operation: Operation,
        path: &Path,
        name: &'static str,
        call: impl FnOnce() -> DiskResult<T>,
    ) -> DiskResult<T> {
        self.begins();
        self.check(operation).map_err(|e| DiskError::new(name, path, e))?;
        let value = call()?;
        self.with(|state| state.done.push(Done { operation, path: path.to_owned() }));
        Ok(value)
    }

    fn file(&self, inner: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FaultyFile { inner, disk: self.clone() })
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>> {
        self.run(Operation::Create, path, "create", || self.inner.create(path)).map(|file| self.file(file))
    }

    fn open(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>> {
        self.begins();
        self.inner.open(path).map(|file| self.file(file))
    }

    fn open_append(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>> {
        self.begins();
        self.inner.open_append(path).map(|file| self.file(file))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.step(Operation::Rename, to, "rename to", || self.inner.rename_new(from, to))
    }

    fn rename_over(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.step(Operation::Rename, to, "replace", || self.inner.rename_over(from, to))
    }

    fn open_dir(&self, path: &Path) -> DiskResult<Box<dyn DiskDir>> {
        self.begins();
        let inner = self.inner.open_dir(path)?;
        Ok(Box::new(FaultyDir { inner, path: path.to_owned(), disk: self.clone() }))
    }

    fn create_dir(&self, path: &Path) -> DiskResult<()> {
        self.run(Operation::Create, path, "create directory", || self.inner.create_dir(path))
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        self.step(Operation::Remove, path, "remove", || self.inner.remove_file(path))
    }

    fn remove_tree(&self, path: &Path) -> DiskResult<()> {
        self.step(Operation::Remove, path, "remove", || self.inner.remove_tree(path))
    }

    fn list(&self, path: &Path) -> DiskResult<Vec<DirEntry>> {
        self.begins();
        self.inner.list(path)
    }

    fn entry(&self, path: &Path) -> DiskResult<DirEntry> {
        self.begins();
        self.inner.entry(path)
    }

    fn free_space(&self, path: &Path) -> DiskResult<u64> {
        self.inner.free_space(path)
    }

    fn space(&self, path: &Path) -> DiskResult<Space> {
        self.inner.space(path)
    }

    fn lock(&self, path: &Path) -> DiskResult<Box<dyn DiskLock>> {
        self.inner.lock(path)
    }
}

struct FaultyFile {
    inner: Box<dyn DiskFile>,
    disk: FaultyDisk,
}

impl FaultyFile {
    /// Counts a read.
    fn is_read(&self) {
        if !self.disk.is_omitted(Operation::Read, self.inner.path()) {
            let path = self.inner.path().to_owned();
            self.disk.with(|state| state.done.push(Done { operation: Operation::Read, path }));
        }
    }
}

impl Read for FaultyFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.check(Operation::Read)?;
        self.is_read();
        self.inner.read(buffer)
    }
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.check(Operation::Write)?;
        let count = self.inner.write(bytes)?;
        let path = self.inner.path().to_owned();
        self.disk.with(|state| state.done.push(Done { operation: Operation::Write, path }));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Seek for FaultyFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

impl DiskFile for FaultyFile {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn len(&self) -> DiskResult<u64> {
        self.inner.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> DiskResult<()> {
        self.disk.check(Operation::Read).map_err(|e| DiskError::new("read", self.inner.path(), e))?;
        self.is_read();
        self.inner.read_at(buffer, offset)
    }

    fn sync(&mut self) -> DiskResult<()> {
        let path = self.inner.path().to_owned();
        self.disk.step(Operation::Sync, &path, "sync", || self.inner.sync())
    }

    fn set_len(&mut self, len: u64) -> DiskResult<()> {
        self.inner.set_len(len)
    }

    fn reserve(&mut self, len: u64) -> DiskResult<()> {
        self.inner.reserve(len)
    }

    fn drop_cache(&self) -> DiskResult<()> {
        let path = self.inner.path();
        self.disk.step(Operation::DropCache, path, "drop the cache of", || {
            self.inner.drop_cache()?;
            self.disk.lost(path).map_err(|e| DiskError::new("write", path, e))
        })
    }
}

struct FaultyDir {
    inner: Box<dyn DiskDir>,
    path: PathBuf,
    disk: FaultyDisk,
}

impl DiskDir for FaultyDir {
    fn sync(&self) -> DiskResult<()> {
        self.disk.step(Operation::SyncDir, &self.path, "sync directory", || self.inner.sync())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{LocalDisk, replace_file};

    /// The order of reliability: octets, their sync, the name, its directory's sync.
    #[test]
    fn the_order_of_a_replacement_is_kept_and_a_failed_step_leaves_the_old_file() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("file");
        let disk = FaultyDisk::new(Arc::new(LocalDisk));
        replace_file(&disk, &path, b"old").expect("writes");
        let order: Vec<_> = disk.take_done().into_iter().map(|done| done.operation).collect();
        use Operation::{Create, Rename, Sync, SyncDir, Write};
        assert_eq!(order, [Create, Write, Sync, Rename, SyncDir]);
        for operation in [Create, Write, Sync, Rename] {
            disk.fail(operation, 1, io::ErrorKind::StorageFull);
            let error = replace_file(&disk, &path, b"new").expect_err("was told to fail");
            assert!(error.is_full(), "{error}");
            assert!(disk.has_failed());
            assert_eq!(disk.read(&path, 10).expect("reads"), b"old");
        }
    }
}
