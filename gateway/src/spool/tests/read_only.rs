//! A disk that fails the test of the start is read from and not written to.

use super::*;
use postkeep_shared::disk::faulty::{FaultyDisk, Operation};
use std::collections::BTreeMap;

const EIO: i32 = 5;
const EACCES: i32 = 13;
const EMFILE: i32 = 24;
const EROFS: i32 = 30;

/// Every file with its octets.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("lists").flatten() {
        if entry.path().is_dir() {
            files.append(&mut tree(&entry.path()));
        } else {
            files.insert(entry.path(), std::fs::read(entry.path()).expect("reads"));
        }
    }
    files
}

#[tokio::test]
async fn what_waits_is_served_and_nothing_is_changed() {
    let setup = Setup::new();
    let (mailbox, identity) = setup.mailbox();
    let (spool, _) = setup.open();
    for content in [b"first\r\n".as_slice(), b"second\r\n", b"third\r\n"] {
        accept(&spool, &mailbox, content).await;
    }
    spool.open_session(&mailbox).expect("opens").remove(&[0]).await.expect("removes");
    drop(spool);
    // A file without entry, a half one, one that is gone, a torn end: nothing of it may be touched now.
    let layout = Layout::new(setup.data());
    let names = setup.names(&mailbox, Folder::New);
    let (second, third) = (layout.folder(mailbox.id, Folder::New).join(&names[0]), names[1].clone());
    std::fs::copy(&second, second.with_file_name(Uidl::now().to_string())).expect("copies");
    std::fs::write(layout.folder(mailbox.id, Folder::Tmp).join("half"), b"half").expect("writes");
    std::fs::rename(&second, setup.data().join("elsewhere")).expect("renames");
    let torn = [std::fs::read(setup.ledger(&mailbox)).expect("reads"), b"torn".to_vec()].concat();
    std::fs::write(setup.ledger(&mailbox), torn).expect("writes");
    let before = tree(setup.data());

    for (operation, n, errno) in [
        (Operation::Sync, 1, EIO),
        (Operation::Create, 1, EROFS),
        (Operation::Write, 1, EIO),
        (Operation::Remove, 2, EIO),
    ] {
        let disk = FaultyDisk::new(Arc::new(LocalDisk));
        disk.fail_with_errno(operation, n, errno);
        let (spool, found) = setup.open_on(Arc::new(disk));
        let at = format!("{operation:?} {errno}");
        assert!(spool.read_only().is_some(), "{at}");
        assert!(spool.failed().borrow().is_none(), "{at}: goes on serving");
        assert_eq!((found.adopted, found.quarantined), (0, 0), "{at}");
        let maildrop = spool.open_session(&mailbox).expect("opens");
        let listed: Vec<String> = maildrop.list().iter().map(|e| e.body.uidl.to_string()).collect();
        assert_eq!(listed, std::slice::from_ref(&third), "{at}");
        assert_eq!(message_of(&read(&maildrop, 0, &identity).expect("reads")), b"third\r\n");
        let entries = maildrop.ledger(1).expect("reads").filter_map(Result::ok).count();
        assert_eq!(entries, 4, "{at}");
        assert!(matches!(maildrop.remove(&[0]).await, Err(SpoolError::ReadOnly(_))), "{at}");
        assert!(matches!(spool.check_room(None), Err(SpoolError::ReadOnly(_))), "{at}");
        assert!(matches!(spool.begin(&mailbox, &origin()), Err(SpoolError::ReadOnly(_))), "{at}");
        drop((maildrop, spool));
        // The probe's own file stays where even removing fails.
        std::fs::remove_file(setup.data().join(".probe")).ok();
        assert_eq!(tree(setup.data()), before, "{at}");
    }
}

#[test]
fn what_is_not_the_disk_s_fault_ends_the_start() {
    let setup = Setup::new();
    drop(setup.open());
    for errno in [EACCES, EMFILE] {
        let disk = FaultyDisk::new(Arc::new(LocalDisk));
        disk.fail_with_errno(Operation::Create, 1, errno);
        assert!(matches!(Spool::open(setup.data(), "gw.example", Arc::new(disk)), Err(SpoolError::Disk(_))), "{errno}");
    }
}
