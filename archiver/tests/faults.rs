//! EIO, ENOSPC, EDQUOT, EROFS and EMFILE at every create, write, sync, rename, directory sync and remove of one round of
//! the store: opened, two reports added, committed, read back.
//!
//! A receipt, without which nothing is deleted at the gateway, is given only for what a sound disk shows afterwards; what
//! got none can come again and is there once.

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::store::{Store, StoreResult, Unlock};
use postkeep_shared::disk::{
    LocalDisk,
    faulty::{FaultyDisk, Operation},
};
use std::{collections::BTreeSet, sync::Arc};
use support::*;

const ERRORS: [(&str, i32); 5] = [("EIO", 5), ("ENOSPC", 28), ("EDQUOT", 122), ("EROFS", 30), ("EMFILE", 24)];
const OPERATIONS: [Operation; 6] =
    [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir, Operation::Remove];

/// Adds both reports and commits; which of them got a receipt.
fn round(store: &mut Store, reports: &[(&str, Report)]) -> StoreResult<BTreeSet<String>> {
    for (uidl, report) in reports {
        if store.is_collected("src", Some("mbx"), uidl)?.is_none() {
            add(store, uidl, report, &plan(&["ann"]))?;
        }
    }
    Ok(store.commit()?.receipts.iter().map(|receipt| receipt.uidl().to_owned()).collect())
}

#[test]
fn no_receipt_for_what_the_disk_refused() {
    let place = Place::new();
    let reports = [("u1", report("<1@x>", "body\r\n", 300)), ("u2", report("<2@x>", "another body\r\n", 5))];
    let key = place.key();
    let trial = || {
        let folder = tempfile::tempdir().expect("temporary folder");
        copy(&place.store(), folder.path());
        (folder, FaultyDisk::new(Arc::new(LocalDisk)))
    };
    let (folder, disk) = trial();
    let mut store = Store::open(folder.path(), &Unlock::Key(&key), Arc::new(disk.clone())).expect("opens");
    assert_eq!(round(&mut store, &reports).expect("commits").len(), 2);
    drop(store);
    let done = disk.take_done();
    let (mut points, mut with, mut without, mut places) = (0, 0, 0, Vec::new());
    for operation in OPERATIONS {
        let count = done.iter().filter(|d| d.operation == operation).count() as u32;
        places.push(format!("{count} {operation:?}"));
        for (n, (name, errno)) in (1..=count).flat_map(|n| ERRORS.map(|error| (n, error))) {
            let at = format!("{name} at {operation:?} {n}");
            let (folder, disk) = trial();
            disk.fail_with_errno(operation, n, errno);
            let opened = Store::open(folder.path(), &Unlock::Key(&key), Arc::new(disk.clone()));
            let promised = opened.and_then(|mut store| round(&mut store, &reports)).unwrap_or_default();
            assert!(disk.has_failed(), "{at}: never came to it");
            // A sound disk: what was promised is there, the rest comes again, everything once.
            let mut store = Store::open(folder.path(), &Unlock::Key(&key), Arc::new(LocalDisk)).expect(&at);
            for (uidl, report) in reports.iter().filter(|(uidl, _)| promised.contains(*uidl)) {
                assert_eq!(raw(&store, uidl), report.octets, "{at}");
            }
            round(&mut store, &reports).expect(&at);
            for (uidl, report) in &reports {
                assert_eq!(raw(&store, uidl), report.octets, "{at}");
            }
            assert_eq!(list(&store, "ann").len(), 2, "{at}");
            let verified = store.verify().expect(&at);
            assert!(verified.ok, "{at}: {verified:#?}");
            assert_eq!(verified.reports, 2, "{at}");
            points += 1;
            with += promised.len();
            without += reports.len() - promised.len();
        }
    }
    println!(
        "archive round: {} | points covered {points} | receipts given {with}, not given {without}, came again | lost 0, \
         duplicated 0",
        places.join(", ")
    );
}
