//! Compaction, records made again, repair: nothing lost that is whole, nothing twice, and exactly what is lost is said.

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::store::{
    Compacting, Deletion, PassphraseChange, Rekey, Repaired, Store, Unlock, rebuild_catalog, rebuild_records, rekey,
    repair,
};
use postkeep_shared::{
    crypt::Password,
    disk::{
        Disk, LocalDisk,
        faulty::{FaultyDisk, Operation},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
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

/// Two packs under each other's names, the last records cut off: all of it can be mended.
fn mendable(template: &Place, packs: &[PathBuf], records: &[PathBuf]) -> Place {
    let place = template.copied();
    let [one, other] = [&packs[0], &packs[1]].map(|path| place.0.path().join(path));
    let (first, second) = (fs::read(&one).expect("reads"), fs::read(&other).expect("reads"));
    fs::write(&one, second).expect("writes");
    fs::write(&other, first).expect("writes");
    fs::remove_file(place.0.path().join(&records[2])).expect("removes");
    place
}

#[test]
fn mending_stopped_anywhere_loses_nothing() {
    let template = Place::new();
    let (reports, packs, records) = in_three_parts(&template);
    let before = listing(&template);
    let mut points = BTreeMap::new();
    for operation in
        [Operation::Create, Operation::Write, Operation::Sync, Operation::SyncDir, Operation::Rename, Operation::Remove]
    {
        for n in 1.. {
            let place = mendable(&template, &packs, &records);
            let faulty = FaultyDisk::new(Arc::new(LocalDisk));
            faulty.keep_failing(operation, n, 5);
            let failing: Arc<dyn Disk> = Arc::new(faulty);
            if repair(&place.store(), &Unlock::Key(&place.key()), &failing, &mut |_, _| ()).is_ok() {
                break;
            }
            *points.entry(format!("{operation:?}")).or_insert(0) += 1;
            let told = repair(&place.store(), &Unlock::Key(&place.key()), &disk(), &mut |_, _| ()).expect("repairs");
            assert!(told.ok && told.lost.is_empty(), "{operation:?} {n}: {told:#?}");
            assert_eq!(whole(&place.open(), &reports).len(), reports.len(), "{operation:?} {n}");
            assert_eq!(listing(&place), before, "{operation:?} {n}");
            place.assert_sound(reports.len() as u64);
        }
    }
    println!("repair stopped at {points:?} operations: nothing lost");
    assert!(points.values().sum::<u32>() > 20 && points.contains_key("Rename"), "{points:?}");
}

#[test]
fn what_was_never_committed_does_not_take_the_place_of_what_was() {
    let place = Place::new();
    let mut reports = filled(&place);
    let before = place.copied();
    // A commit of two that came to the copy in the pack, and not to the records.
    let mut store = place.open();
    for n in [20, 21] {
        add(&mut store, &format!("u{n}"), &report(&format!("<{n}@x>"), "never\r\n", n), &plan(&["ann"])).expect("adds");
    }
    assert_eq!(store.commit().expect("commits").receipts.len(), 2);
    drop(store);
    for folder in ["records", "catalog"] {
        fs::remove_dir_all(place.store().join(folder)).expect("removes");
        fs::create_dir(place.store().join(folder)).expect("makes");
        copy(&before.store().join(folder), &place.store().join(folder));
    }
    let mut store = place.open();
    let committed = report("<30@x>", "this one\r\n", 30);
    add(&mut store, "u30", &committed, &plan(&["ann"])).expect("adds");
    assert_eq!(store.commit().expect("commits").receipts.len(), 1);
    drop(store);
    reports.insert("u30".to_owned(), committed.octets);
    let listed = listing(&place);
    let rebuilt =
        || rebuild_records(&place.store(), &Unlock::Key(&place.key()), &disk(), &mut |_, _| ()).expect("rebuilds");
    let told = rebuilt();
    assert!(told.ok && !told.rebuilt, "{told:?}");
    assert_eq!((whole(&place.open_read(), &reports).len(), listing(&place)), (11, listed.clone()));
    // From the copies alone.
    for folder in ["records", "catalog"] {
        fs::remove_dir_all(place.store().join(folder)).expect("removes");
    }
    fs::create_dir(place.store().join("records")).expect("makes");
    let told = rebuilt();
    assert!(told.ok && told.from_copies == 11, "{told:?}");
    assert_eq!((whole(&place.open_read(), &reports).len(), listing(&place)), (11, listed));
}

#[test]
fn a_number_is_not_given_twice_when_the_end_of_the_log_is_gone() {
    let template = Place::new();
    let mut reports = filled(&template);
    let before = listing(&template);
    let log = template.store().join("records/00000001.rec");
    let octets = fs::read(&log).expect("reads");
    let last = octets.windows(4).rposition(|four| four == b"PKRB").expect("a batch");
    let fresh = report("<fresh@x>", "fresh\r\n", 3);
    let ways: [(&str, Vec<u8>); 3] = [
        ("cut off", octets[..last].to_vec()),
        ("torn", octets[..last + 100].to_vec()),
        ("changed", octets.iter().enumerate().map(|(at, o)| if at == last + 100 { o ^ 1 } else { *o }).collect()),
    ];
    reports.insert("fresh".to_owned(), fresh.octets.clone());
    for (way, octets) in ways {
        let place = template.copied();
        fs::write(place.store().join("records/00000001.rec"), octets).expect("writes");
        fs::remove_dir_all(place.store().join("catalog")).expect("removes");
        let verified = place.open_read().verify().expect("goes on");
        assert!(!verified.ok, "{way}: the last records are gone, and nobody says so");
        let mut store = place.open();
        assert_eq!(format!("{:?}", list(&store, "ann")), before, "{way}");
        add(&mut store, "fresh", &fresh, &plan(&["ann"])).expect("adds");
        assert_eq!(store.commit().expect("commits").receipts.len(), 1, "{way}");
        drop(store);
        let told = repair(&place.store(), &Unlock::Key(&place.key()), &disk(), &mut |_, _| ()).expect("repairs");
        assert!(told.ok, "{way}: {told:#?}");
        assert_eq!(whole(&place.open_read(), &reports).len(), 11, "{way}");
        place.assert_sound(11);
    }
}

/// Three packs and three record files, of an epoch each, with two reports each.
fn in_three_parts(place: &Place) -> (BTreeMap<String, Vec<u8>>, Vec<PathBuf>, Vec<PathBuf>) {
    let mut reports = BTreeMap::new();
    for part in 0..3 {
        if part > 0 {
            let passphrase = Password::received(PASSPHRASE);
            let wanted = Rekey { passphrase: PassphraseChange::Present(&passphrase), epoch: true, ..Rekey::default() };
            rekey(&[place.store()], &place.key_file(), &Unlock::Key(&place.key()), &wanted, &LocalDisk)
                .expect("changes");
        }
        let mut store = place.open();
        for n in [2 * part, 2 * part + 1] {
            let report = report(&format!("<{n}@x>"), &format!("body {n}\r\n"), 4 + n);
            // The envelope too, so that no part needs another.
            let (name, report) = (format!("u{n}"), report.replaced("Sender: a@x", &format!("Sender: {n}@x")));
            add(&mut store, &name, &report, &plan(&["ann"])).expect("adds");
            reports.insert(name, report.octets);
        }
        assert_eq!(store.commit().expect("commits").receipts.len(), 2);
    }
    let files = place.files();
    let below = |ending: &str| {
        let mut found: Vec<PathBuf> = files
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == ending))
            .filter_map(|path| path.strip_prefix(place.0.path()).ok().map(PathBuf::from))
            .collect();
        found.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
        found
    };
    let (packs, records) = (below("pack"), below("rec"));
    assert_eq!((packs.len(), records.len()), (3, 3));
    (reports, packs, records)
}

#[test]
fn a_catalog_and_records_that_are_deleted_are_built_again() {
    let template = Place::new();
    let (reports, _, _) = in_three_parts(&template);
    let mut store = template.open();
    deleted(&mut store, "subject <3@x>");
    drop(store);
    let (before, all) = (listing(&template), reports.len() - 1);
    let key = template.key();
    let place = template.copied();
    fs::remove_dir_all(place.store().join("catalog")).expect("removes");
    rebuild_catalog(&place.store(), &Unlock::Key(&key), disk()).expect("rebuilds");
    assert_eq!((listing(&place), whole(&place.open_read(), &reports).len()), (before.clone(), all));
    place.assert_sound(all as u64);
    for also_catalog in [false, true] {
        let place = template.copied();
        fs::remove_dir_all(place.store().join("records")).expect("removes");
        if also_catalog {
            fs::remove_dir_all(place.store().join("catalog")).expect("removes");
        }
        let told = rebuild_records(&place.store(), &Unlock::Key(&key), &disk(), &mut |_, _| ()).expect("rebuilds");
        assert!(told.ok && told.records == 7 && told.from_copies == 7, "{told:?}");
        rebuild_catalog(&place.store(), &Unlock::Key(&key), disk()).expect("rebuilds");
        assert_eq!((listing(&place), whole(&place.open_read(), &reports).len()), (before.clone(), all));
        place.assert_sound(all as u64);
    }
    println!(
        "catalog, records, both deleted: built again, listings equal, {all} of {all} reports octet for octet, 1 stays deleted"
    );
}

#[test]
fn repair_says_what_is_whole_when_parts_are_deleted() {
    let template = Place::new();
    let (reports, packs, records) = in_three_parts(&template);
    let (mut trials, mut named, mut unnamed) = (0, 0, 0);
    for gone in (0..128_u32).map(|bits| [bits & 7, bits >> 3 & 7, bits >> 6]) {
        let [no_packs, no_records, no_catalog] = gone;
        let place = template.copied();
        let is = |set: u32, n: usize| set >> n & 1 == 1;
        let remove = |path: &Path| fs::remove_file(place.0.path().join(path)).expect("removes");
        (0..3).filter(|n| is(no_packs, *n)).for_each(|n| remove(&packs[n]));
        (0..3).filter(|n| is(no_records, *n)).for_each(|n| remove(&records[n]));
        if no_catalog == 1 {
            fs::remove_dir_all(place.store().join("catalog")).expect("removes");
        }
        let told = repair(&place.store(), &Unlock::Key(&place.key()), &disk(), &mut |_, _| ()).expect("repairs");
        let what = format!("packs {no_packs:03b}, records {no_records:03b}, catalog {no_catalog}: {told:#?}");
        let store = place.open_read();
        let found: BTreeSet<String> = whole(&store, &reports).into_iter().collect();
        // What is in a pack that is there is whole: its record is in the pack too.
        let expected = (0..6).filter(|n| !is(no_packs, n / 2)).map(|n| format!("u{n}")).collect();
        assert_eq!(found, expected, "{what}");
        assert_eq!((told.reports, told.messages), (found.len() as u64, found.len() as u64), "{what}");
        let said = lost_reports(&told);
        assert!(said.is_disjoint(&found), "{what}");
        for part in (0..3).filter(|part| is(no_packs, *part)) {
            // Pack, record and catalog: nobody knows the names any more; the numbers, if a later one is there.
            let known = !is(no_records, part) || no_catalog == 0;
            let later = (part + 1..3).any(|later| !is(no_packs, later) || !is(no_records, later));
            for n in [2 * part, 2 * part + 1] {
                assert_eq!(said.contains(&format!("u{n}")), known, "u{n}, {what}");
                let numbered = told.records.lost.contains(&(n as u64 + 1));
                assert_eq!(numbered, is(no_records, part) && (later || no_catalog == 0), "record {}, {what}", n + 1);
                (named, unnamed) = (named + usize::from(known), unnamed + usize::from(!known));
            }
        }
        // Listed is what has a record, each once; of that, what is whole is what is not called lost.
        let listed = list(&store, "ann");
        let lost: BTreeSet<_> = told.lost.iter().filter_map(|lost| lost.message.clone()).collect();
        assert_eq!(listed.iter().map(|one| &one.id).collect::<BTreeSet<_>>().len(), listed.len(), "{what}");
        for one in &listed {
            assert_eq!(store.read_message(&one.id, &mut Vec::new()).is_err(), lost.contains(&one.id), "{what}");
        }
        assert_eq!(listed.iter().filter(|one| !lost.contains(&one.id)).count(), found.len(), "{what}");
        assert!(store.verify().expect("goes on").ok, "{what}");
        trials += 1;
    }
    println!(
        "parts deleted: {trials} combinations; whole is what is said to be; lost {named} by name, {unnamed} of which no name is left"
    );
    assert!(named > unnamed);
}

fn lost_reports(told: &Repaired) -> BTreeSet<String> {
    told.lost.iter().flat_map(|lost| &lost.reports).map(|(_, uidl)| uidl.clone()).collect()
}
