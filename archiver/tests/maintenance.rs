//! Compaction, records made again, repair: nothing lost that is whole, nothing twice, and exactly what is lost is said.

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::store::{Compacting, Deletion, Store, Unlock, rebuild_records, repair};
use postkeep_shared::disk::{
    LocalDisk,
    faulty::{FaultyDisk, Operation},
};
use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};
use support::*;

const ALL: Compacting = Compacting { least: 0.0, old_epochs: false };

/// Ten reports in five commits; the octets of each by its uidl.
fn filled(place: &Place) -> BTreeMap<String, Vec<u8>> {
    let mut store = place.open();
    let mut reports = BTreeMap::new();
    for n in 0..10 {
        let (name, report) = (format!("u{n}"), report(&format!("<{n}@x>"), &format!("body {n}\r\n"), 4 + n));
        add(&mut store, &name, &report, &plan(&["ann"])).expect("adds");
        if n % 2 == 1 {
            assert_eq!(store.commit().expect("commits").receipts.len(), 2);
        }
        reports.insert(name, report.octets);
    }
    reports
}

fn deleted(store: &mut Store, subject: &str) {
    let id = list(store, "ann").into_iter().find(|l| l.subject.as_deref() == Some(subject)).expect("there").id;
    let who = Some("root".to_owned());
    let deletion = Deletion { owner: "ann", id: &id, folder: None, reason: "test", who, deleted_ms: 1 };
    store.delete(&deletion).expect("deletes");
}

/// Reports that come out whole; whatever comes out is right.
fn whole(store: &Store, reports: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let mut found = Vec::new();
    for (uidl, octets) in reports {
        let mut out = Vec::new();
        if store.read_report("src", Some("mbx"), uidl, &mut out).is_ok() {
            assert_eq!(out, *octets, "{uidl}");
            found.push(uidl.clone());
        }
        assert!(octets.starts_with(&out), "{uidl}: a wrong octet");
    }
    found
}

fn listing(place: &Place) -> String {
    format!("{:?}", list(&place.open_read(), "ann"))
}

#[test]
fn compaction_stopped_anywhere_loses_nothing() {
    let place = Place::new();
    let reports = filled(&place);
    let mut store = place.open();
    ["<1@x>", "<4@x>", "<9@x>"].iter().for_each(|id| deleted(&mut store, &format!("subject {id}")));
    drop(store);
    let kept: Vec<_> = reports.keys().filter(|u| !["u1", "u4", "u9"].contains(&u.as_str())).cloned().collect();
    let before = listing(&place);
    let mut points = 0;
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::SyncDir, Operation::Remove] {
        for n in 1.. {
            let place = place.copied();
            let faulty = FaultyDisk::new(Arc::new(LocalDisk));
            let mut store =
                Store::open(&place.store(), &Unlock::Key(&place.key()), Arc::new(faulty.clone())).expect("opens");
            faulty.keep_failing(operation, n, 5);
            if store.compact(ALL, None, &mut |_, _| ()).is_ok() {
                break;
            }
            points += 1;
            drop(store);
            assert_eq!(whole(&place.open(), &reports), kept, "{operation:?} {n}");
            assert_eq!(listing(&place), before);
            place.assert_sound(7);
            // Said again, it ends.
            let told = place.open().compact(ALL, None, &mut |_, _| ()).expect("compacts");
            assert!(told.bytes_after <= told.bytes_before);
            assert_eq!(whole(&place.open(), &reports), kept, "{operation:?} {n}, again");
            place.assert_sound(7);
        }
    }
    let told = place.open().compact(ALL, None, &mut |_, _| ()).expect("compacts");
    println!("compaction stopped at {points} operations; {told:?}");
    assert!(points > 5 && told.packs > 0 && told.chunks_dropped > 0 && told.bytes_after < told.bytes_before);
    assert_eq!(whole(&place.open(), &reports), kept);
    assert_eq!(listing(&place), before);
    place.assert_sound(7);
}

#[test]
fn records_are_made_again_from_their_copies() {
    let place = Place::new();
    let reports = filled(&place);
    let before = listing(&place);
    let octets: Vec<_> =
        place.files().iter().filter(|p| p.ends_with("00000001.rec")).map(|p| fs::read(p).unwrap_or_default()).collect();
    fs::remove_dir_all(place.store().join("records")).expect("removes");
    fs::create_dir(place.store().join("records")).expect("makes");
    for catalog in [true, false] {
        if !catalog {
            fs::remove_dir_all(place.store().join("catalog")).expect("removes");
        }
        let opened = Store::open(&place.store(), &Unlock::Key(&place.key()), disk());
        assert!(opened.is_err(), "records that are gone are an error, with or without a catalog");
    }
    let told = rebuild_records(&place.store(), &Unlock::Key(&place.key()), &disk(), &mut |_, _| ()).expect("rebuilds");
    println!("{told:?}");
    assert!(told.ok && told.rebuilt && told.records == 10 && told.from_copies == 10);
    assert_eq!(fs::read(place.store().join("records/00000001.rec")).expect("reads"), octets[0], "octet for octet");
    assert_eq!(listing(&place), before);
    assert_eq!(whole(&place.open_read(), &reports).len(), 10);
    place.assert_sound(10);
    let told = rebuild_records(&place.store(), &Unlock::Key(&place.key()), &disk(), &mut |_, _| ()).expect("rebuilds");
    assert!(told.ok && !told.rebuilt && told.copies_made == 0);
}

#[test]
fn repair_says_exactly_what_is_lost() {
    let template = Place::new();
    let reports = filled(&template);
    type Change = fn(Vec<u8>) -> Option<Vec<u8>>;
    let changes: [(&str, Change); 5] = [
        ("flip header", |mut octets| {
            octets[20] ^= 1;
            Some(octets)
        }),
        ("flip middle", |mut octets| {
            let at = octets.len() / 2;
            octets[at] ^= 1;
            Some(octets)
        }),
        ("truncate", |octets| Some(octets[..octets.len() / 2].to_vec())),
        ("zero", |octets| Some(vec![0; octets.len()])),
        ("delete", |_| None),
    ];
    let files: Vec<PathBuf> =
        template.files().iter().filter_map(|p| p.strip_prefix(template.0.path()).ok().map(PathBuf::from)).collect();
    println!("{:<12} {:<8} {:>5} {:>5} {:>6}", "change", "file", "whole", "lost", "verify");
    for file in &files {
        for (what, change) in changes {
            let place = template.copied();
            let path = place.0.path().join(file);
            match change(fs::read(&path).expect("reads")) {
                Some(octets) => fs::write(&path, octets).expect("writes"),
                None => fs::remove_file(&path).expect("removes"),
            }
            let told = repair(&place.store(), &Unlock::Key(&place.key()), &disk(), &mut |_, _| ()).expect("repairs");
            let store = place.open();
            let whole = whole(&store, &reports);
            let named: Vec<_> = told.lost.iter().flat_map(|lost| &lost.reports).map(|(_, uidl)| uidl.clone()).collect();
            for uidl in reports.keys() {
                assert!(whole.contains(uidl) != named.contains(uidl), "{what} {}: {uidl}, {told:#?}", file.display());
            }
            let verified = store.verify().expect("goes on");
            assert!(verified.ok, "{what} {}: {verified:#?}\n{told:#?}", file.display());
            assert_eq!(told.ok, whole.len() == reports.len());
            let kind = file.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
            println!("{what:<12} {kind:<8} {:>5} {:>5} {:>6}", whole.len(), told.lost.len(), "ok");
            drop(store);
            let again = repair(&place.store(), &Unlock::Key(&place.key()), &disk(), &mut |_, _| ());
            assert!(again.expect("repairs").lost.is_empty(), "told once");
        }
    }
}
