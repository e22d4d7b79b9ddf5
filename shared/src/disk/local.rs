//! The disk of this machine.

use super::{DirEntry, Disk, DiskDir, DiskError, DiskFile, DiskLock, DiskResult, Space};
use rustix::fs::{self, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

/// Files of this machine, through system calls that say when they fail.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalDisk;

struct LocalFile {
    file: File,
    path: PathBuf,
}

struct LocalDir {
    file: File,
    path: PathBuf,
}

struct LocalLock(#[expect(dead_code, reason = "held for its lock")] File);

impl DiskLock for LocalLock {}

const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

fn open(path: &Path, flags: OFlags, operation: &'static str) -> DiskResult<LocalFile> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::open(path, flags, PRIVATE_FILE).map_err(|e| DiskError::new(operation, path, e.into()))?;
    Ok(LocalFile { file: fd.into(), path: path.to_owned() })
}

/// A second name would let a change through it alter what was verified; a device could block for ever.
fn only_regular(file: LocalFile) -> DiskResult<LocalFile> {
    let meta = file.file.metadata().map_err(|e| DiskError::new("inspect", &file.path, e))?;
    if !meta.is_file() || meta.nlink() > 1 {
        let error = io::Error::other("not a regular file with one name");
        return Err(DiskError::new("open", &file.path, error));
    }
    Ok(file)
}

fn entry_of(name: String, meta: &std::fs::Metadata) -> DirEntry {
    DirEntry {
        name,
        len: if meta.is_file() { meta.len() } else { 0 },
        is_file: meta.is_file(),
        is_dir: meta.is_dir(),
        modified: meta.modified().ok(),
        mode: meta.mode() & 0o7777,
    }
}

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>> {
        Ok(Box::new(open(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, "create")?))
    }

    fn open(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>> {
        // NONBLOCK: opening a FIFO must not hang; regular files ignore it.
        Ok(Box::new(only_regular(open(path, OFlags::RDONLY | OFlags::NONBLOCK, "open")?)?))
    }

    fn open_append(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>> {
        Ok(Box::new(only_regular(open(path, OFlags::RDWR | OFlags::APPEND | OFlags::NONBLOCK, "open")?)?))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> DiskResult<()> {
        fs::renameat_with(fs::CWD, from, fs::CWD, to, RenameFlags::NOREPLACE)
            .map_err(|e| DiskError::new("rename to", to, e.into()))
    }

    fn rename_over(&self, from: &Path, to: &Path) -> DiskResult<()> {
        fs::rename(from, to).map_err(|e| DiskError::new("replace", to, e.into()))
    }

    fn open_dir(&self, path: &Path) -> DiskResult<Box<dyn DiskDir>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(path, flags, Mode::empty()).map_err(|e| DiskError::new("open directory", path, e.into()))?;
        Ok(Box::new(LocalDir { file: fd.into(), path: path.to_owned() }))
    }

    fn create_dir(&self, path: &Path) -> DiskResult<()> {
        fs::mkdir(path, Mode::RWXU).map_err(|e| DiskError::new("create directory", path, e.into()))
    }

    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        fs::unlink(path).map_err(|e| DiskError::new("remove", path, e.into()))
    }

    fn remove_tree(&self, path: &Path) -> DiskResult<()> {
        std::fs::remove_dir_all(path).map_err(|e| DiskError::new("remove", path, e))
    }

    fn list(&self, path: &Path) -> DiskResult<Vec<DirEntry>> {
        let error = |e| DiskError::new("list", path, e);
        let mut entries = Vec::new();
        for item in std::fs::read_dir(path).map_err(error)? {
            let item = item.map_err(error)?;
            match item.metadata() {
                Ok(meta) => entries.push(entry_of(item.file_name().to_string_lossy().into_owned(), &meta)),
                // Removed between the listing and the look: it is not there any more.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(error(e)),
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn entry(&self, path: &Path) -> DiskResult<DirEntry> {
        let meta = std::fs::symlink_metadata(path).map_err(|e| DiskError::new("inspect", path, e))?;
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        Ok(entry_of(name.unwrap_or_default(), &meta))
    }

    fn free_space(&self, path: &Path) -> DiskResult<u64> {
        let stat = fs::statvfs(path).map_err(|e| DiskError::new("inspect the file system of", path, e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn space(&self, path: &Path) -> DiskResult<Space> {
        let stat = fs::statvfs(path).map_err(|e| DiskError::new("inspect the file system of", path, e.into()))?;
        // Btrfs and others make inodes as they need them and say 0 of 0.
        let free_inodes = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
        Ok(Space {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_inodes,
            read_only: stat.f_flag.contains(fs::StatVfsMountFlags::RDONLY),
        })
    }

    fn lock(&self, path: &Path) -> DiskResult<Box<dyn DiskLock>> {
        let held = match open(path, OFlags::RDWR | OFlags::CREATE, "open") {
            // What is only read must have one reader all the same: a lock needs no right to write.
            Err(e) if e.is_read_only() => open(path, OFlags::RDONLY, "open")?,
            held => held?,
        };
        fs::flock(&held.file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| DiskError::new("lock", path, e.into()))?;
        Ok(Box::new(LocalLock(held.file)))
    }
}

impl Read for LocalFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Write for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for LocalFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl DiskFile for LocalFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> DiskResult<u64> {
        self.file.metadata().map(|m| m.len()).map_err(|e| DiskError::new("inspect", &self.path, e))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> DiskResult<()> {
        self.file.read_exact_at(buffer, offset).map_err(|e| DiskError::new("read", &self.path, e))
    }

    fn sync(&mut self) -> DiskResult<()> {
        self.file.sync_data().map_err(|e| DiskError::new("sync", &self.path, e))
    }

    fn set_len(&mut self, len: u64) -> DiskResult<()> {
        self.file.set_len(len).map_err(|e| DiskError::new("resize", &self.path, e))
    }

    fn reserve(&mut self, len: u64) -> DiskResult<()> {
        let end = DiskFile::len(self)?;
        match fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, end, len) {
            Ok(()) => Ok(()),
            // A file system that cannot reserve still works; it only has no reserve.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(DiskError::new("reserve space for", &self.path, e.into())),
        }
    }

    fn drop_cache(&self) -> DiskResult<()> {
        fs::fadvise(&self.file, 0, None, fs::Advice::DontNeed)
            .map_err(|e| DiskError::new("drop the cache of", &self.path, e.into()))
    }
}

impl DiskDir for LocalDir {
    fn sync(&self) -> DiskResult<()> {
        self.file.sync_all().map_err(|e| DiskError::new("sync directory", &self.path, e))
    }
}
