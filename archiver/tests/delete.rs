//! Messages taken out of archives: what goes, what stays, who said so; and that a rebuilt catalog says the same.

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::store::{Deletion, Store, StoreError};
use std::fs;
use support::*;

fn deletion<'a>(owner: &'a str, id: &'a str) -> Deletion<'a> {
    Deletion {
        owner,
        id,
        folder: None,
        reason: "asked for",
        who: Some("root".to_owned()),
        deleted_ms: 1_790_000_000_000,
    }
}

/// Everything a rebuilt catalog must say again.
fn state(store: &Store) -> String {
    let owners = store.owners().expect("reads");
    let lists: Vec<_> = owners.iter().map(|owner| list(store, owner)).collect();
    let mut stats = store.stats().expect("reads");
    // How the catalog lies on disk is its own affair.
    stats.chunks = 0;
    format!(
        "{owners:?} {lists:?} {:?}",
        (stats.messages, stats.instances, stats.parts, stats.part_references, stats.message_bytes)
    )
}

fn assert_rebuilt(place: &Place, store: Store) -> Store {
    let before = state(&store);
    drop(store);
    fs::remove_dir_all(place.store().join("catalog")).expect("is there");
    let store = place.open();
    assert_eq!(state(&store), before, "the rebuilt catalog says the same");
    store
}

#[test]
fn a_message_goes_from_one_archive_and_then_from_the_last() {
    let place = Place::new();
    let mut store = place.open();
    let (first, fork) = (report("<1@x>", "body\r\n", 5), report("<1@x>", "body\r\n", 5).replaced("first", "second"));
    let other = report("<2@x>", "another\r\n", 5);
    for (uidl, report) in [("u1", &first), ("u2", &fork), ("u3", &other)] {
        add(&mut store, uidl, report, &plan(&["ann", "bob"])).expect("adds");
    }
    assert_eq!(store.commit().expect("commits").receipts.len(), 3);
    let before = store.stats().expect("reads");
    let id = list(&store, "ann").into_iter().find(|l| l.subject.as_deref() == Some("subject <1@x>")).expect("there").id;
    let done = store.delete(&deletion("ann", &id)).expect("deletes");
    assert_eq!((done.messages, done.reports, done.folders.len()), (0, 0, 1), "bob has it still");
    assert_eq!((list(&store, "ann").len(), list(&store, "bob").len()), (1, 2));
    assert_eq!(show(&store, &id), first.embedded());
    assert!(matches!(store.delete(&deletion("ann", &id)), Err(StoreError::NotThere { .. })));
    let mut store = assert_rebuilt(&place, store);
    let done = store.delete(&deletion("bob", &id)).expect("deletes");
    assert_eq!((done.messages, done.reports), (2, 2), "both variants and both reports");
    let mut out = Vec::new();
    let error = store.read_message(&id, &mut out).expect_err("is deleted");
    assert!(
        matches!(&error, StoreError::Deleted { who, reason, .. } if who == "root" && reason == "asked for"),
        "{error}"
    );
    assert!(store.read_report("src", Some("mbx"), "u1", &mut out).is_err());
    assert!(out.is_empty());
    assert_eq!((list(&store, "ann").len(), list(&store, "bob").len()), (1, 1));
    assert!(store.confirm("src", Some("mbx"), "u1").expect("reads").is_some(), "it must not be fetched again");
    let after = store.stats().expect("reads");
    assert_eq!((after.messages, after.instances), (1, 2));
    assert!(after.parts < before.parts || before.parts == 1);
    let mut store = assert_rebuilt(&place, store);
    let verified = store.verify().expect("goes on");
    assert!(verified.ok, "{verified:#?}");
    assert_eq!((verified.messages, verified.reports, verified.deleted), (1, 1, 2));
    // The same message comes again with another report: it is there again, whole.
    add(&mut store, "u4", &first, &plan(&["ann"])).expect("adds");
    assert_eq!(store.commit().expect("commits").receipts.len(), 1);
    assert_eq!(show(&store, &id), first.embedded());
    let store = assert_rebuilt(&place, store);
    assert!(store.verify().expect("goes on").ok);
}

#[test]
fn write_protected_stores_refuse() {
    let place = Place::new();
    let mut store = place.open();
    add(&mut store, "u1", &report("<1@x>", "body\r\n", 1), &plan(&["ann"])).expect("adds");
    assert_eq!(store.commit().expect("commits").receipts.len(), 1);
    let id = list(&store, "ann").remove(0).id;
    let file = place.store().join("store.toml");
    let text = fs::read_to_string(&file).expect("reads");
    fs::write(&file, text.replace("state = \"current\"", "state = \"write-protected\"")).expect("writes");
    assert!(matches!(store.delete(&deletion("ann", &id)), Err(StoreError::Protected { .. })));
    assert_eq!(list(&store, "ann").len(), 1);
}

#[test]
fn quick_sampled_and_full_verification() {
    use postkeep_archiver::store::Depth;
    let place = Place::new();
    let mut store = place.open();
    for n in 0..20 {
        add(&mut store, &format!("u{n}"), &report(&format!("<{n}@x>"), "body\r\n", 3 + n), &plan(&["ann"]))
            .expect("adds");
    }
    assert_eq!(store.commit().expect("commits").receipts.len(), 20);
    drop(store);
    let store = place.open_read();
    for (depth, sampled) in
        [(Depth::Quick, 0), (Depth::Count(7), 7), (Depth::Percent(1.0), 1), (Depth::Percent(50.0), 10)]
    {
        let mut steps = Vec::new();
        let found = store.verify_with(depth, &mut |done, total| steps.push((done, total))).expect("goes on");
        assert!(found.ok, "{found:#?}");
        assert_eq!((found.messages, found.reports, found.sampled), (20, 20, sampled));
        assert!(steps.windows(2).all(|two| two[0].0 < two[1].0) && steps.last().is_some_and(|(d, t)| d == t));
    }
    drop(store);
    // A pack that is gone is seen without reading content.
    let pack = place.files().into_iter().find(|path| path.extension().is_some_and(|e| e == "pack")).expect("a pack");
    fs::remove_file(pack).expect("removes");
    let found = place.open_read().verify_with(Depth::Quick, &mut |_, _| ()).expect("goes on");
    assert!(!found.ok && found.messages == 0, "{found:#?}");
}
