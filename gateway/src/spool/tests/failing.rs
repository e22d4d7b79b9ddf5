use super::*;
use postkeep_shared::disk::{DirEntry, DiskDir, DiskError, DiskFile, DiskResult};
use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    sync::atomic::{AtomicBool, Ordering},
};

/// A disk on which one kind of operation can be made to fail.
#[derive(Default)]
struct Failing {
    sync_files: AtomicBool,
    sync_folders: AtomicBool,
    full: AtomicBool,
    sync_ledgers: AtomicBool,
}

struct Shared(Arc<Failing>);

struct FailingFile(Box<dyn DiskFile>, Arc<Failing>);

struct FailingDir(Box<dyn DiskDir>, Arc<Failing>, PathBuf);

fn error(operation: &'static str, path: &Path) -> DiskError {
    DiskError::new(operation, path, io::Error::from_raw_os_error(5))
}

impl Disk for Shared {
    fn create(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>> {
        Ok(Box::new(FailingFile(LocalDisk.create(path)?, Arc::clone(&self.0))))
    }
    fn open(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>> {
        LocalDisk.open(path)
    }
    fn open_append(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>> {
        Ok(Box::new(FailingFile(LocalDisk.open_append(path)?, Arc::clone(&self.0))))
    }
    fn rename_new(&self, from: &Path, to: &Path) -> DiskResult<()> {
        LocalDisk.rename_new(from, to)
    }
    fn rename_over(&self, from: &Path, to: &Path) -> DiskResult<()> {
        LocalDisk.rename_over(from, to)
    }
    fn open_dir(&self, path: &Path) -> DiskResult<Box<dyn DiskDir>> {
        Ok(Box::new(FailingDir(LocalDisk.open_dir(path)?, Arc::clone(&self.0), path.to_owned())))
    }
    fn create_dir(&self, path: &Path) -> DiskResult<()> {
        LocalDisk.create_dir(path)
    }
    fn remove_file(&self, path: &Path) -> DiskResult<()> {
        LocalDisk.remove_file(path)
    }
    fn remove_tree(&self, path: &Path) -> DiskResult<()> {
        LocalDisk.remove_tree(path)
    }
    fn list(&self, path: &Path) -> DiskResult<Vec<DirEntry>> {
        LocalDisk.list(path)
    }
    fn entry(&self, path: &Path) -> DiskResult<DirEntry> {
        LocalDisk.entry(path)
    }
    fn free_space(&self, path: &Path) -> DiskResult<u64> {
        if self.0.full.load(Ordering::SeqCst) { Ok(1) } else { LocalDisk.free_space(path) }
    }
    fn lock(&self, path: &Path) -> DiskResult<Box<dyn postkeep_shared::disk::DiskLock>> {
        LocalDisk.lock(path)
    }
}

impl Read for FailingFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Seek for FailingFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl Write for FailingFile {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if self.1.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { self.0.write(octets) }
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl DiskFile for FailingFile {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn len(&self) -> DiskResult<u64> {
        self.0.len()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> DiskResult<()> {
        self.0.read_at(buffer, offset)
    }
    fn sync(&mut self) -> DiskResult<()> {
        let ledger = self.path().extension().is_some_and(|e| e == "ledger");
        let flag = if ledger { &self.1.sync_ledgers } else { &self.1.sync_files };
        if flag.load(Ordering::SeqCst) { Err(error("sync", self.path())) } else { self.0.sync() }
    }
    fn set_len(&mut self, len: u64) -> DiskResult<()> {
        self.0.set_len(len)
    }
    fn reserve(&mut self, len: u64) -> DiskResult<()> {
        self.0.reserve(len)
    }
    fn drop_cache(&self) -> DiskResult<()> {
        self.0.drop_cache()
    }
}

impl DiskDir for FailingDir {
    fn sync(&self) -> DiskResult<()> {
        if self.1.sync_folders.load(Ordering::SeqCst) { Err(error("sync directory", &self.2)) } else { self.0.sync() }
    }
}

#[tokio::test]
async fn one_failed_sync_ends_all_writing() {
    type Pick = fn(&Failing) -> &AtomicBool;
    let picks: [Pick; 3] = [|d| &d.sync_files, |d| &d.sync_folders, |d| &d.sync_ledgers];
    for pick in picks {
        let setup = Setup::new();
        let (mailbox, identity) = setup.mailbox();
        let failing = Arc::new(Failing::default());
        let (spool, _) = setup.open_on(Arc::new(Shared(Arc::clone(&failing))));
        accept(&spool, &mailbox, b"kept\r\n").await;
        let incoming = sealed(&spool, &mailbox, b"lost\r\n");
        pick(&failing).store(true, Ordering::SeqCst);
        assert!(matches!(spool.commit(vec![incoming]).await, Err(SpoolError::Failed(_))));
        // The disk works again, but what it holds is unknown.
        pick(&failing).store(false, Ordering::SeqCst);
        assert!(spool.failed().borrow().as_ref().is_some_and(|reason| reason.contains("sync")));
        assert!(matches!(spool.begin(&mailbox, &origin()), Err(SpoolError::Failed(_))));
        assert!(matches!(spool.check_room(None), Err(SpoolError::Failed(_))));
        let maildrop = spool.open_session(&mailbox).expect("reading goes on");
        assert_eq!(maildrop.list().len(), 1);
        assert_eq!(message_of(&read(&maildrop, 0, &identity).expect("reads")), b"kept\r\n");
        assert!(matches!(maildrop.remove(&[0]).await, Err(SpoolError::Failed(_))));
        drop((maildrop, spool));
        // The next start keeps whatever arrived whole: accepted for certain is only the first.
        let (spool, found) = setup.open();
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        let maildrop = spool.open_session(&mailbox).expect("opens");
        assert_eq!(message_of(&read(&maildrop, 0, &identity).expect("reads")), b"kept\r\n");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_goes_on_later() {
    let setup = Setup::new();
    let (mailbox, _) = setup.mailbox();
    let failing = Arc::new(Failing::default());
    let (spool, _) = setup.open_on(Arc::new(Shared(Arc::clone(&failing))));
    accept(&spool, &mailbox, b"first").await;
    let mut incoming = sealed(&spool, &mailbox, b"half");
    failing.full.store(true, Ordering::SeqCst);
    assert!(spool.check_room(Some(10)).is_err_and(|e| e.is_full()));
    assert!(incoming.write(&vec![0; 200_000]).is_err_and(|e| e.is_full()));
    drop(incoming);
    failing.full.store(false, Ordering::SeqCst);
    assert!(spool.failed().borrow().is_none());
    assert!(setup.names(&mailbox, Folder::Tmp).is_empty());
    assert!(spool.check_room(Some(10)).is_ok());
    accept(&spool, &mailbox, b"second").await;
}
