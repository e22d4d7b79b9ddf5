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

/// Octets of the pack after the reports were committed together.
fn length(place: &Place) -> u64 {
    let (mut store, _) = opened(place);
    for (uidl, report) in reports() {
        add(&mut store, &uidl, &report, &plan(&["ann"])).expect("adds");
    }
    assert_eq!(store.commit().expect("commits").receipts.len(), reports().len());
    let packs = place.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "pack"));
    packs.map(|path| path.metadata().expect("is there").len()).sum()
}

#[test]
fn only_what_is_on_the_disk_gets_a_receipt() {
    let length = length(&Place::new());
    let mut given = Vec::new();
    // Header and frames are lost at different places; behind the end nothing is.
    let step = length / 11;
    let places = (0..=length + step).step_by(usize::try_from(step).expect("small"));
    for from in places.clone() {
        let place = Place::new();
        let (mut store, disk) = opened(&place);
        for (uidl, report) in reports() {
            add(&mut store, &uidl, &report, &plan(&["ann"])).expect("adds");
        }
        disk.lose(".pack", from);
        let commit = store.commit().expect("commits");
        let names: Vec<_> = commit.receipts.iter().map(|receipt| receipt.uidl().to_owned()).collect();
        assert_eq!(commit.failures.len(), reports().len() - names.len());
        for (uidl, report) in reports() {
            let mut out = Vec::new();
            let there = store.read_report("src", Some("mbx"), &uidl, &mut out).is_ok() && out == report.octets;
            assert_eq!(names.contains(&uidl), there, "lost from octet {from} on: a receipt for what is there, only");
        }
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
    assert!(given.first() == Some(&0) && given.last() == Some(&reports().len()), "{given:?}");
    assert!(given.is_sorted(), "what is lost later loses less: {given:?}");
    println!(
        "packs lost from {} places on: receipts {given:?} of {} each, the rest again and once",
        places.count(),
        reports().len()
    );
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
