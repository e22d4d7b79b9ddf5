//! What the disk said it had and has not: a store that reads back past the page cache gives no receipt for it, whichever
//! octets are gone. (`faulty::lose`: writes and syncs succeed, and the octets are zero once their pages are dropped.)

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::store::{Store, StoreError, Unlock};
use postkeep_shared::disk::{LocalDisk, faulty::FaultyDisk};
use std::sync::Arc;
use support::*;

fn reports() -> Vec<(String, Report)> {
    (0..4).map(|n| (format!("u{n}"), report(&format!("<{n}@x>"), "body\r\n", 3 + n))).collect()
}

/// A store on a disk that can lose.
fn opened(place: &Place) -> (Store, FaultyDisk) {
    let disk = FaultyDisk::new(Arc::new(LocalDisk));
    let store = Store::open(&place.store(), &Unlock::Key(&place.key()), Arc::new(disk.clone())).expect("opens");
    (store, disk)
}

/// The pack's length after each of the reports, from 0.
fn lengths(place: &Place) -> Vec<u64> {
    let (mut store, _) = opened(place);
    let mut lengths = vec![0];
    for (uidl, report) in reports() {
        add(&mut store, &uidl, &report, &plan(&["ann"])).expect("adds");
        assert_eq!(store.commit().expect("commits").receipts.len(), 1);
        let packs = place.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "pack"));
        lengths.push(packs.map(|path| path.metadata().expect("is there").len()).sum());
    }
    lengths
}

#[test]
fn only_what_is_on_the_disk_gets_a_receipt() {
    let lengths = lengths(&Place::new());
    let mut given = Vec::new();
    for (whole, from) in lengths.iter().take(reports().len()).enumerate() {
        let place = Place::new();
        let (mut store, disk) = opened(&place);
        for (uidl, report) in reports() {
            add(&mut store, &uidl, &report, &plan(&["ann"])).expect("adds");
        }
        disk.lose(".pack", *from);
        let commit = store.commit().expect("commits");
        let names: Vec<_> = commit.receipts.iter().map(|receipt| receipt.uidl().to_owned()).collect();
        let expected: Vec<_> = reports().into_iter().take(whole).map(|(uidl, _)| uidl).collect();
        assert_eq!(names, expected, "lost from octet {from} on");
        assert_eq!(commit.failures.len(), reports().len() - whole);
        assert!(commit.failures.iter().all(|(_, error)| error.is_damage()));
        given.push(names.len());
        drop((store, disk));

        // Given again on a sound disk, everything is there, and once.
        let mut store = place.open();
        for (uidl, report) in reports() {
            if !matches!(store.confirm("src", Some("mbx"), &uidl), Ok(Some(_))) {
                add(&mut store, &uidl, &report, &plan(&["ann"])).expect("adds");
            }
        }
        assert!(store.commit().expect("commits").failures.is_empty());
        assert_eq!(list(&store, "ann").len(), reports().len());
        for (uidl, report) in reports() {
            assert_eq!(raw(&store, &uidl), report.octets);
        }
    }
    println!("packs lost from four places on: receipts {given:?} of {} each, the rest again and once", reports().len());
}

#[test]
fn a_lost_record_is_no_commit() {
    let place = Place::new();
    let (mut store, disk) = opened(&place);
    let (uidl, first) = reports().swap_remove(0);
    add(&mut store, &uidl, &first, &plan(&["ann"])).expect("adds");
    disk.lose(".rec", 100);
    let error = store.commit().expect_err("the record is not there");
    assert!(error.is_damage(), "{error}");
    assert!(matches!(store.commit(), Err(StoreError::Failed(_))), "the store takes nothing more");
    drop((store, disk));
    let mut store = place.open();
    assert!(store.is_collected("src", Some("mbx"), &uidl).expect("reads").is_none());
    add(&mut store, &uidl, &first, &plan(&["ann"])).expect("adds");
    assert_eq!(store.commit().expect("commits").receipts.len(), 1);
    assert_eq!(list(&store, "ann").len(), 1);
}

/// What was stored by a round that did not come to its deletion is read again before it is deleted.
#[test]
fn what_was_lost_since_is_not_confirmed() {
    let place = Place::new();
    let (uidl, first) = reports().swap_remove(0);
    let mut store = place.open();
    add(&mut store, &uidl, &first, &plan(&["ann"])).expect("adds");
    assert_eq!(store.commit().expect("commits").receipts.len(), 1);
    drop(store);
    let (mut store, disk) = opened(&place);
    assert!(store.confirm("src", Some("mbx"), &uidl).expect("reads").is_some());
    disk.lose(".pack", 64);
    assert!(store.confirm("src", Some("mbx"), &uidl).expect_err("is lost").is_damage());
}
