//! The store as a whole: exact round trips, deduplication, reopening at every stage, damage of every octet.

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::{
    archive::Archive,
    export::{Form, How, export},
    filing::Plan,
    journal::{Content, Context, examine},
    octets::Octets,
    store::{Outcome, StoreError, Unlock},
};
use postkeep_shared::{crypt::Password, disk::LocalDisk, mail::Digest};
use proptest::prelude::*;
use std::fs;
use support::*;

#[test]
fn reports_come_out_as_they_went_in() {
    let place = Place::new();
    let mut store = place.open();
    let report = report("<1@x>", "a body\r\n", 3);
    let pending = add(&mut store, "u1", &report, &plan(&["ann", "bob"])).expect("adds");
    assert_eq!((pending.outcome, pending.instances), (Outcome::Filed, 2));
    let commit = store.commit().expect("commits");
    assert_eq!(commit.receipts.len(), 1);
    assert_eq!(commit.receipts[0].uidl(), "u1");
    assert_eq!(commit.receipts[0].raw_sha256(), Digest::of(&report.octets));
    let listed = list(&store, "ann");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].sha256, Digest::of(report.embedded()).to_string());
    assert_eq!((listed[0].from.as_deref(), listed[0].subject.as_deref()), (Some("a@x"), Some("subject <1@x>")));
    assert_eq!(show(&store, &listed[0].id), report.embedded());
    assert_eq!(raw(&store, "u1"), report.octets);
    let envelopes = store.envelopes(&listed[0].id).expect("known");
    assert_eq!(envelopes[0]["uidl"], "u1");
    assert_eq!(envelopes[0]["instances"][1]["owner"], "bob");
    assert!(store.is_collected("src", Some("mbx"), "u1").expect("reads").is_some());
    assert!(store.is_collected("src", Some("mbx"), "u2").expect("reads").is_none());
    assert!(store.confirm("src", Some("mbx"), "u1").expect("reads").is_some());
    assert!(matches!(store.read_message("00", &mut Vec::new()), Err(StoreError::NoSuchMessage(_))));
    drop(store);
    place.assert_sound(1);
}

#[test]
fn the_same_attachment_is_stored_once() {
    let place = Place::new();
    let mut store = place.open();
    for n in 0..20 {
        let owners = ["ann", "bob", "cyd", "dan", "eve"];
        let report = report(&format!("<{n}@x>"), "short body\r\n", 200);
        add(&mut store, &format!("u{n}"), &report, &plan(&[owners[n % 5]])).expect("adds");
    }
    let commit = store.commit().expect("commits");
    assert_eq!(commit.receipts.len(), 20);
    let stats = store.stats().expect("reads");
    assert_eq!((stats.reports, stats.messages, stats.instances), (20, 20, 20));
    assert_eq!((stats.parts, stats.part_references), (1, 20));
    assert!(commit.bytes_stored() < 215_000, "{}", commit.bytes_stored());
    assert_eq!(store.owners().expect("reads").len(), 5);
    drop(store);
    place.assert_sound(20);
}

#[test]
fn forks_are_one_appearance_and_variants_are_kept() {
    let place = Place::new();
    let mut store = place.open();
    let first = report("<1@x>", "body\r\n", 1);
    let fork = first.replaced("Received: first", "Received: second");
    let other = report("<1@x>", "another body\r\n", 1);
    for (uidl, report) in [("u1", &first), ("u2", &fork), ("u3", &other), ("u4", &first)] {
        add(&mut store, uidl, report, &plan(&["ann"])).expect("adds");
    }
    assert_eq!(store.commit().expect("commits").receipts.len(), 4);
    let listed = list(&store, "ann");
    assert_eq!(listed.len(), 2, "the fork is no second appearance, other content is");
    assert_eq!(store.stats().expect("reads").messages, 3, "every variant is stored");
    let id = listed.iter().find(|l| l.sha256 == Digest::of(first.embedded()).to_string()).expect("there").id.clone();
    let uidls: Vec<_> = store.envelopes(&id).expect("known").iter().map(|e| e["uidl"].to_string()).collect();
    assert_eq!(uidls, ["\"u1\"", "\"u2\"", "\"u4\""]);
    for (uidl, report) in [("u1", &first), ("u2", &fork), ("u3", &other), ("u4", &first)] {
        assert_eq!(raw(&store, uidl), report.octets);
    }
}

#[test]
fn what_was_not_committed_is_not_there_and_comes_again() {
    let place = Place::new();
    let report = report("<1@x>", "body\r\n", 100);
    let mut store = place.open();
    add(&mut store, "u1", &report, &plan(&["ann"])).expect("adds");
    drop(store);
    let mut store = place.open();
    assert!(store.is_collected("src", Some("mbx"), "u1").expect("reads").is_none());
    assert!(list(&store, "ann").is_empty());
    add(&mut store, "u1", &report, &plan(&["ann"])).expect("adds");
    let commit = store.commit().expect("commits");
    assert_eq!(commit.receipts.len(), 1);
    assert!(commit.pack_bytes < 120_000, "stored once: {}", commit.pack_bytes);
    drop(store);
    place.assert_sound(1);
}

#[test]
fn a_deleted_or_foreign_catalog_is_rebuilt() {
    let place = Place::new();
    let mut store = place.open();
    for n in 0..30 {
        let report = report(&format!("<{n}@x>"), &"line\r\n".repeat(n * 60), 30 + n);
        add(&mut store, &format!("u{n}"), &report, &plan(&[["ann", "bob"][n % 2]])).expect("adds");
        if n % 7 == 0 {
            assert!(store.commit().expect("commits").failures.is_empty());
        }
    }
    assert!(store.commit().expect("commits").failures.is_empty());
    let (listing, stats) = (list(&store, "ann"), store.stats().expect("reads"));
    drop(store);
    fs::remove_dir_all(place.store().join("catalog")).expect("is there");
    for _ in 0..2 {
        let store = place.open();
        assert_eq!(list(&store, "ann"), listing);
        assert_eq!(store.stats().expect("reads"), stats);
    }
    let other = Place::new();
    drop(other.open());
    fs::remove_dir_all(place.store().join("catalog")).expect("is there");
    fs::rename(other.store().join("catalog"), place.store().join("catalog")).expect("moves");
    let store = place.open();
    assert_eq!(list(&store, "ann"), listing);
    drop(store);
    postkeep_archiver::store::rebuild_catalog(&place.store(), &Unlock::Key(&place.key()), disk()).expect("rebuilds");
    assert_eq!(list(&place.open(), "ann"), listing);
    place.assert_sound(30);
}

#[test]
fn reading_works_while_another_process_writes() {
    let place = Place::new();
    let mut store = place.open();
    add(&mut store, "u1", &report("<1@x>", "body\r\n", 10), &plan(&["ann"])).expect("adds");
    let _ = store.commit().expect("commits");
    let reader = place.open_read();
    assert_eq!(list(&reader, "ann"), list(&store, "ann"));
    assert!(reader.verify().expect("reads").ok);
    let mut reader = reader;
    assert!(matches!(reader.commit(), Err(StoreError::ReadOnly)));
}

#[test]
fn the_wrong_key_is_not_damage() {
    let place = Place::new();
    drop(place.open());
    let other = Place::new();
    let wrong = postkeep_archiver::store::Store::open(&place.store(), &Unlock::Key(&other.key()), disk());
    assert!(matches!(wrong, Err(StoreError::WrongKey { .. })));
    let passphrase = Password::received(b"another passphrase");
    let wrong = postkeep_archiver::store::Store::open(&place.store(), &Unlock::Passphrase(&passphrase), disk());
    assert!(matches!(wrong, Err(StoreError::WrongKey { .. })));
    let passphrase = Password::received(PASSPHRASE);
    assert!(postkeep_archiver::store::Store::open(&place.store(), &Unlock::Passphrase(&passphrase), disk()).is_ok());
    let absent =
        postkeep_archiver::store::Store::open(&other.0.path().join("none"), &Unlock::Key(&other.key()), disk());
    assert!(matches!(absent, Err(StoreError::Absent(_))));
}

#[test]
fn quarantined_and_encoded_reports_are_kept_whole() {
    let place = Place::new();
    let mut store = place.open();
    let report = report("<1@x>", "body\r\n", 5);
    let mut held = verdict(None);
    held.handling = postkeep_archiver::journal::Handling::Quarantine;
    let pending = add_with(&mut store, "u1", &report.octets, &held, &Plan::default()).expect("adds");
    assert_eq!((pending.outcome, pending.message), (Outcome::Quarantine, None));
    let encoded = data_encoding::BASE64.encode(report.embedded());
    let lines: Vec<&str> = encoded.as_bytes().chunks(76).filter_map(|l| std::str::from_utf8(l).ok()).collect();
    let head = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    let octets = format!("{head}{}\r\n", lines.join("\r\n")).into_bytes();
    let range = head.len() as u64..octets.len() as u64;
    let content = Content::Encoded { range, encoding: postkeep_archiver::journal::Encoding::Base64 };
    add_with(&mut store, "u2", &octets, &verdict(Some(content)), &plan(&["ann"])).expect("adds");
    assert!(store.commit().expect("commits").failures.is_empty());
    assert_eq!(raw(&store, "u1"), report.octets);
    assert_eq!(raw(&store, "u2"), octets);
    assert_eq!(show(&store, &list(&store, "ann")[0].id), report.embedded());
}

/// What a decoder takes and no encoder makes.
#[test]
fn base64_of_padded_pieces_is_kept_as_it_stands() {
    let place = Place::new();
    let mut store = place.open();
    let line = "QUI=".repeat(9) + &"QUJD".repeat(10) + "\r\n";
    let head = "Message-ID: <1@x>\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    let octets = (head.to_owned() + LONG + &line.repeat(60) + &BLOCK).into_bytes();
    let padded = (head.to_owned() + &line.repeat(60)).into_bytes();
    for (uidl, octets) in [("u1", &octets), ("u2", &padded)] {
        let content = Content::Range(0..octets.len() as u64);
        add_with(&mut store, uidl, octets, &verdict(Some(content)), &plan(&["ann"])).expect("adds");
        assert!(store.commit().expect("commits").failures.is_empty());
        assert_eq!(&raw(&store, uidl), octets);
    }
}

#[test]
fn every_changed_octet_is_found() {
    let place = Place::new();
    let mut store = place.open();
    add(&mut store, "u1", &report("<1@x>", "body\r\n", 0), &plan(&["ann"])).expect("adds");
    let _ = store.commit().expect("commits");
    drop(store);
    for path in place.files() {
        let octets = fs::read(&path).expect("reads");
        for at in (0..octets.len()).step_by(if octets.len() > 1500 { 11 } else { 1 }) {
            let mut changed = octets.clone();
            changed[at] ^= 0x20;
            fs::write(&path, &changed).expect("writes");
            let verified = place.open_read().verify().expect("goes on");
            assert!(!verified.ok, "{} octet {at}", path.display());
        }
        for cut in [0, 1, octets.len() / 2, octets.len() - 1] {
            fs::write(&path, &octets[..cut]).expect("writes");
            let verified = place.open_read().verify().expect("goes on");
            assert!(!verified.ok, "{} cut at {cut}", path.display());
        }
        fs::write(&path, &octets).expect("writes");
    }
    place.assert_sound(1);
}

#[test]
fn torn_ends_are_left_behind() {
    let place = Place::new();
    let mut store = place.open();
    add(&mut store, "u1", &report("<1@x>", "body\r\n", 4), &plan(&["ann"])).expect("adds");
    let _ = store.commit().expect("commits");
    drop(store);
    for (n, tail) in [(2, &b"PKRC\0\x01"[..]), (3, &[0; 300]), (4, &b"x"[..])] {
        for path in place.files() {
            let mut octets = fs::read(&path).expect("reads");
            octets.extend_from_slice(tail);
            fs::write(&path, octets).expect("writes");
        }
        let mut store = place.open();
        add(&mut store, &format!("u{n}"), &report(&format!("<{n}@x>"), "body\r\n", 9), &plan(&["ann"])).expect("adds");
        assert_eq!(store.commit().expect("commits").failures.len(), 0);
        assert_eq!(list(&store, "ann").len(), n);
    }
    fs::remove_dir_all(place.store().join("catalog")).expect("is there");
    assert_eq!(list(&place.open(), "ann").len(), 4);
}

#[test]
fn a_torn_end_that_a_reader_saw_first_is_left_behind_all_the_same() {
    let place = Place::new();
    let log = |place: &Place| {
        place.files().into_iter().find(|path| path.extension().is_some_and(|end| end == "rec")).expect("one")
    };
    let commit = |place: &Place, uidl: &str| {
        let mut store = place.open();
        add(&mut store, uidl, &report(&format!("<{uidl}@x>"), "body\r\n", 4), &plan(&["ann"])).expect("adds");
        assert_eq!(store.commit().expect("commits").failures.len(), 0);
    };
    commit(&place, "u1");
    let before = fs::read(log(&place)).expect("reads");
    let other = place.copied();
    commit(&other, "u2");
    // A process was killed in the midst of writing this.
    let mut octets = fs::read(log(&other)).expect("reads");
    octets.truncate(before.len() + (octets.len() - before.len()) / 2);
    fs::write(log(&place), octets).expect("writes");
    for _ in 0..2 {
        let reader = place.open_read();
        assert_eq!((list(&reader, "ann").len(), reader.notes().len()), (1, 1), "{:?}", reader.notes());
    }
    commit(&place, "u3");
    place.assert_sound(2);
    fs::remove_dir_all(place.store().join("catalog")).expect("is there");
    assert_eq!(list(&place.open(), "ann").len(), 2);
    place.assert_sound(2);
}

#[test]
fn lost_records_stop_the_writer_and_damaged_chunks_are_stored_again() {
    let place = Place::new();
    let report = report("<1@x>", "body\r\n", 50);
    let mut store = place.open();
    add(&mut store, "u1", &report, &plan(&["ann"])).expect("adds");
    let _ = store.commit().expect("commits");
    drop(store);
    let record = place.files().into_iter().find(|p| p.extension().is_some_and(|e| e == "rec")).expect("one");
    let whole = fs::read(&record).expect("reads");
    fs::write(&record, &whole[..whole.len() - 1]).expect("writes");
    let error = postkeep_archiver::store::Store::open(&place.store(), &Unlock::Key(&place.key()), disk()).err();
    assert!(matches!(error, Some(StoreError::Damaged { .. })));
    fs::write(&record, &whole).expect("writes");

    let pack = place.files().into_iter().find(|p| p.extension().is_some_and(|e| e == "pack")).expect("one");
    let mut octets = fs::read(&pack).expect("reads");
    let at = octets.len() / 2;
    octets[at] ^= 1;
    fs::write(&pack, &octets).expect("writes");
    let mut store = place.open();
    assert!(store.confirm("src", Some("mbx"), "u1").expect_err("damaged").is_damage());
    let pending = add(&mut store, "u1", &report, &plan(&["ann"])).expect("adds");
    assert_eq!(pending.instances, 0);
    let commit = store.commit().expect("commits");
    assert_eq!(commit.receipts.len(), 1, "a fresh copy is read back");
    assert!(commit.pack_bytes > 0, "and there is one");
    assert_eq!(show(&store, &list(&store, "ann")[0].id), report.embedded());
    assert_eq!(store.stats().expect("reads").reports, 1);
}

#[test]
fn large_messages_stream_through() {
    let place = Place::new();
    let mut store = place.open();
    let big = Generated::new(40 * 1024 * 1024);
    let verdict = verdict(Some(Content::Range(0..big.len())));
    add_octets(&mut store, "u1", &big, &verdict, &plan(&["ann"])).expect("adds");
    let commit = store.commit().expect("commits");
    assert!(commit.failures.is_empty());
    assert!(commit.pack_bytes < 33 * 1024 * 1024, "base64 is stored decoded: {}", commit.pack_bytes);
    add_octets(&mut store, "u2", &big, &verdict, &plan(&["bob"])).expect("adds");
    let again = store.commit().expect("commits");
    assert!(again.failures.is_empty());
    assert!(again.pack_bytes < 4096, "the chunks are found; only the copy of its record is new: {}", again.pack_bytes);
}

#[test]
fn every_sample_comes_out_as_it_went_in() {
    let place = Place::new();
    let mut store = place.open();
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/journal");
    let mut paths: Vec<_> = fs::read_dir(samples).expect("is there").filter_map(|e| Some(e.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "eml"));
    paths.sort();
    assert!(paths.len() >= 60, "{}", paths.len());
    let names: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    let octets: Vec<Vec<u8>> = paths.iter().map(|p| fs::read(p).expect("reads")).collect();
    for (name, octets) in names.iter().zip(&octets) {
        let verdict = examine(octets, &Context::default()).expect("memory reads");
        add_with(&mut store, name, octets, &verdict, &plan(&["ann"])).expect("adds");
    }
    assert_eq!(store.commit().expect("commits").receipts.len(), paths.len());
    for (name, octets) in names.iter().zip(&octets) {
        assert_eq!(&raw(&store, name), octets, "{name}");
    }
    drop(store);
    place.assert_sound(paths.len() as u64);
}

#[test]
fn an_export_is_whole_and_never_into_a_full_folder() {
    let place = Place::new();
    let mut store = place.open();
    let report = report("<1@x>", "body\r\n", 5);
    add(&mut store, "u1", &report, &plan(&["ann", "../b"])).expect("adds");
    assert!(store.commit().expect("commits").failures.is_empty());
    let out = place.0.path().join("out");
    let store = Archive::alone(store);
    let how = How { form: Form::Eml, mailstore_headers: false };
    let run = |owners: &[String]| export(&store, owners, how, &out, &LocalDisk, None, &mut |_, _| {});
    let done = run(&store.owners().expect("reads")).expect("exports");
    assert_eq!((done.messages, done.problems.len()), (2, 0));
    let manifest = fs::read_to_string(out.join("manifest.sha256")).expect("is there");
    assert_eq!(manifest.lines().next(), Some("# postkeep export 1"));
    for line in manifest.lines().skip(1).filter(|line| !line.ends_with("messages.jsonl")) {
        let (sum, path) = line.split_once("  ").expect("two fields");
        let octets = fs::read(out.join(path)).expect("is there");
        assert_eq!((sum, octets.as_slice()), (Digest::of(&octets).to_string().as_str(), report.embedded()));
    }
    assert!(run(&[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_octets_come_out_as_they_went_in(
        words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..60), extra in any::<Vec<u8>>(),
        from in 0.0..1.0f64, to in 0.0..1.0f64,
    ) {
        static PLACE: std::sync::OnceLock<Place> = std::sync::OnceLock::new();
        let mut octets: Vec<u8> = words.concat().into_bytes();
        octets.extend(extra);
        let place = PLACE.get_or_init(Place::new);
        let mut store = place.open();
        let (a, b) = (octets.len() as f64 * from, octets.len() as f64 * to);
        let content = Content::Range(a.min(b) as u64..a.max(b) as u64);
        let uidl = Digest::of(&octets).to_string();
        add_with(&mut store, &uidl, &octets, &verdict(Some(content)), &plan(&["ann"])).expect("adds");
        prop_assert_eq!(store.commit().expect("commits").receipts.len(), 1);
        prop_assert_eq!(raw(&store, &uidl), octets);
    }
}

const LONG: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0NTY3\r\n";
static BLOCK: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| LONG.repeat(40));
static WORDS: std::sync::LazyLock<Vec<&'static str>> = std::sync::LazyLock::new(|| {
    vec![
        "Content-Type: multipart/mixed; boundary=x\r\n\r\n",
        "--x\r\n",
        "\r\n--x\r\n",
        "--x--\r\n",
        "\r\n",
        "\n",
        "\r",
        "Content-Transfer-Encoding: base64\r\n\r\n",
        "Content-Type: message/rfc822\r\n\r\n",
        "text ",
        LONG,
        &BLOCK,
        "QUI=\r\n",
        "Message-ID: <1@x>\r\n",
    ]
});
