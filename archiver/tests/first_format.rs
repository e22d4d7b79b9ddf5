//! A store of the first formats, kept as it was written (`fixtures/first`: packs of version 1, one of them sealed, record
//! files of versions 1 and 2), is opened, read, verified and continued by today's code; what a newer release wrote is
//! refused with a sentence.
//!
//! The fixture was made with the builds of those days, with packs of 12 KiB and record files of 3 KiB so that it is small;
//! it is never made again.

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::store::{Store, StoreError, Unlock, UnlockKey, rebuild_catalog};
use postkeep_shared::{crypt::Password, disk::LocalDisk};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use support::*;

/// Reports in the fixture: 0 to 5 in records of version 1, 6 to 9 and a later filing of the first in version 2.
const REPORTS: usize = 10;

fn fixture_report(n: usize) -> Report {
    report(&format!("<{n}@x>"), &format!("body {n}\r\n"), 2 + n % 3)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("makes");
    for entry in fs::read_dir(from).expect("reads") {
        let entry = entry.expect("reads");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("copies");
            // Not kept by the repository.
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).expect("sets");
        }
    }
}

fn fixture() -> Place {
    let folder = tempfile::tempdir().expect("temporary folder");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/first"), folder.path());
    Place(folder)
}

fn files(place: &Place, extension: &str) -> Vec<PathBuf> {
    place.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
}

fn versions(place: &Place, extension: &str) -> Vec<u8> {
    let mut versions: Vec<u8> = files(place, extension).iter().map(|path| fs::read(path).expect("reads")[7]).collect();
    versions.sort_unstable();
    versions
}

fn assert_all_there(store: &Store, reports: usize) {
    for n in 0..reports {
        assert_eq!(raw(store, &format!("u{n}")), fixture_report(n).octets, "report {n}");
    }
    let (ann, bob, zoe) = (list(store, "ann"), list(store, "bob"), list(store, "zoe"));
    assert_eq!((ann.len(), bob.len(), zoe.len()), (reports, reports / 2, 1), "{zoe:?}");
    for listed in &ann {
        let mut found = (0..reports).map(fixture_report).filter(|report| show(store, &listed.id) == report.embedded());
        assert!(found.next().is_some(), "{}", listed.id);
    }
}

#[test]
fn the_first_formats_are_read_for_ever() {
    let place = fixture();
    assert_eq!((versions(&place, "pack"), versions(&place, "rec")), (vec![1, 1], vec![1, 1, 2, 2]));
    let store = place.open_read();
    assert!(store.notes().is_empty(), "{:?}", store.notes());
    assert_all_there(&store, REPORTS);
    drop(store);
    place.assert_sound(REPORTS as u64);
    let passphrase = Password::received(PASSPHRASE);
    Store::open_read(&place.store(), &Unlock::Passphrase(&passphrase), disk()).expect("the passphrase opens it");
}

#[test]
fn a_store_goes_on_in_the_present_formats() {
    let place = fixture();
    let mut store = place.open();
    // An attachment of the fixture's is found in the old packs; a report of it is confirmed.
    assert!(store.confirm("src", Some("mbx"), "u3").expect("reads").is_some());
    for n in REPORTS..REPORTS + 4 {
        add(&mut store, &format!("u{n}"), &fixture_report(n), &plan(&["ann", "bob"][..1 + n % 2])).expect("adds");
        let commit = store.commit().expect("commits");
        assert!(commit.failures.is_empty(), "{:?}", commit.failures);
        assert!(commit.pack_bytes < 2048, "attachments are not stored again: {}", commit.pack_bytes);
    }
    assert_all_there(&store, REPORTS + 4);
    drop(store);
    assert_eq!((versions(&place, "pack"), versions(&place, "rec")), (vec![1, 1, 2], vec![1, 1, 2, 2, 3]));
    rebuild_catalog(&place.store(), &Unlock::Key(&place.key()), disk()).expect("rebuilds");
    let store = place.open();
    assert!(store.notes().is_empty(), "{:?}", store.notes());
    assert_all_there(&store, REPORTS + 4);
    drop(store);
    place.assert_sound(REPORTS as u64 + 4);
}

/// The sentence that refuses a store in which `path` says a newer version at octet `at`.
fn refused(place: &Place, path: &Path, change: impl Fn(Vec<u8>) -> Vec<u8>) -> String {
    fs::write(path, change(fs::read(path).expect("reads"))).expect("writes");
    let key = UnlockKey::load(&place.0.path().join("unlock.key"), &LocalDisk).expect("loads");
    let error = Store::open(&place.store(), &Unlock::Key(&key), disk()).err().expect("refused");
    assert!(matches!(error, StoreError::Version { .. }), "{error}");
    error.to_string()
}

#[test]
fn what_a_newer_release_wrote_is_refused() {
    let newer = |mut octets: Vec<u8>| {
        octets[7] = 9;
        octets
    };
    // Of a pack too new nothing opens: its frames are bound to its version. Here they are old, so they go too.
    let emptied = |octets: Vec<u8>| newer(octets)[..44].to_vec();
    let place = fixture();
    let pack = files(&place, "pack").pop().expect("one");
    let pack = refused(&place, &pack, emptied);
    let place = fixture();
    let record = files(&place, "rec").pop().expect("one");
    let record = refused(&place, &record, newer);
    let place = fixture();
    let file = refused(&place, &place.store().join("store.toml"), |octets| {
        String::from_utf8(octets).expect("text").replace("version = 1", "version = 9").into_bytes()
    });
    for sentence in [&pack, &record, &file] {
        println!("{sentence}");
        assert!(sentence.contains("has version 9, this program reads versions up to"), "{sentence}");
        assert!(sentence.ends_with("use a newer release"), "{sentence}");
    }
}
