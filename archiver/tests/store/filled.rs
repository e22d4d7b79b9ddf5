//! A store with everything that damage can strike: open packs, a sealed one before them where it is wanted (it needs 8 MiB),
//! two key epochs, two record files, a message that was deleted; and what must come out of it.

#![allow(dead_code, unreachable_pub, missing_docs)]

use super::support::{PASSPHRASE, Place, Report, add, disk, list, plan, report};
use postkeep_archiver::store::{Deletion, PassphraseChange, Rekey, Store, Unlock, UnlockKey, rekey};
use postkeep_shared::{crypt::Password, disk::LocalDisk};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Reports with an octet stream of their own; together they fill a pack.
const LARGE: usize = 8;
const LARGE_OCTETS: usize = 1024 * 1024;

pub struct Filled {
    pub place: Place,
    /// Whether the first pack is sealed.
    pub sealed: bool,
    /// The same before the last commits.
    pub earlier: Place,
    /// Another archive.
    pub other: Place,
    /// Files below the store's folder, oldest first.
    pub packs: Vec<PathBuf>,
    pub records: Vec<PathBuf>,
    pub catalog: Vec<PathBuf>,
    /// By uidl.
    pub reports: BTreeMap<String, Report>,
    /// By id.
    pub messages: BTreeMap<String, Vec<u8>>,
    /// Uidl and id of what a person deleted.
    pub deleted: (String, String),
    pub listing: String,
}

/// What comes out whole: reports and messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub reports: BTreeSet<String>,
    pub messages: BTreeSet<String>,
}

impl Seen {
    pub fn holds(&self, other: &Self) -> bool {
        self.reports.is_superset(&other.reports) && self.messages.is_superset(&other.messages)
    }
}

impl Filled {
    pub fn new(sealed: bool) -> Self {
        let place = Place::new();
        let mut filled = Self {
            sealed,
            earlier: Place::new(),
            other: Place::new(),
            packs: Vec::new(),
            records: Vec::new(),
            catalog: Vec::new(),
            reports: BTreeMap::new(),
            messages: BTreeMap::new(),
            deleted: <(String, String)>::default(),
            listing: String::new(),
            place,
        };
        let large_ones = if sealed { LARGE } else { 0 };
        filled.commit((0..large_ones).map(|n| (format!("large{n}"), large(&format!("<large{n}@x>"), n))).collect());
        filled.commit(small(0..2));
        filled.commit(small(2..4));
        let passphrase = Password::received(PASSPHRASE);
        let wanted = Rekey { passphrase: PassphraseChange::Present(&passphrase), epoch: true, ..Rekey::default() };
        let (stores, key) = ([filled.place.store()], filled.place.key());
        rekey(&stores, &filled.place.key_file(), &Unlock::Key(&key), &wanted, &LocalDisk).expect("a new epoch");
        filled.commit(small(4..6));
        filled.earlier = filled.place.copied();
        filled.commit(small(6..8));
        filled.delete("small7");
        filled.commit(small(8..9));
        fs::write(filled.place.0.path().join("lock"), "of a process that is gone\n").expect("writes");
        fs::write(filled.other.0.path().join("lock"), "of another archive\n").expect("writes");
        filled.look();
        filled
    }

    fn commit(&mut self, reports: Vec<(String, Report)>) {
        let mut store = self.place.open();
        for (uidl, report) in &reports {
            add(&mut store, uidl, report, &plan(&["ann"])).expect("adds");
        }
        assert_eq!(store.commit().expect("commits").receipts.len(), reports.len());
        self.reports.extend(reports);
    }

    fn delete(&mut self, uidl: &str) {
        let report = self.reports.remove(uidl).expect("there");
        let mut store = self.place.open();
        let subject = Some(format!("subject <{uidl}@x>"));
        let id = list(&store, "ann").into_iter().find(|listed| listed.subject == subject).expect("listed").id;
        let who = Some("root".to_owned());
        store
            .delete(&Deletion { owner: "ann", id: &id, folder: None, reason: "test", who, deleted_ms: 1 })
            .expect("deletes");
        drop(report);
        self.deleted = (uidl.to_owned(), id);
    }

    fn look(&mut self) {
        let store = self.place.open_read();
        self.listing = format!("{:?}", list(&store, "ann"));
        for listed in list(&store, "ann") {
            let report = self.reports.values().find(|report| {
                listed.subject.as_deref().is_some_and(|subject| {
                    String::from_utf8_lossy(report.embedded()).contains(&format!("Subject: {subject}\r\n"))
                })
            });
            self.messages.insert(listed.id, report.expect("known").embedded().to_vec());
        }
        assert_eq!(self.messages.len(), self.reports.len());
        drop(store);
        let below = |folder: &str| files(&self.place.store(), folder);
        (self.packs, self.records, self.catalog) = (below("packs"), below("records"), below("catalog"));
        // Names sort by age, folders do not.
        self.packs.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
        assert_eq!((self.packs.len(), self.records.len()), (if self.sealed { 3 } else { 2 }, 2));
    }

    /// What can be read; whatever comes out is right.
    pub fn seen(&self, store: &Store, what: &str) -> Seen {
        let mut seen = Seen::default();
        for (uidl, report) in &self.reports {
            let mut out = Vec::new();
            let read = store.read_report("src", Some("mbx"), uidl, &mut out);
            assert!(report.octets.starts_with(&out), "{what}: {uidl}: a wrong octet");
            if read.is_ok() {
                assert!(out == report.octets, "{what}: {uidl}: cut short");
                seen.reports.insert(uidl.clone());
            }
        }
        for (id, octets) in &self.messages {
            let mut out = Vec::new();
            let read = store.read_message(id, &mut out);
            assert!(octets.starts_with(&out), "{what}: message {id}: a wrong octet");
            if read.is_ok() {
                assert!(out == *octets, "{what}: message {id}: cut short");
                seen.messages.insert(id.clone());
            }
        }
        seen
    }

    pub fn all(&self) -> Seen {
        Seen { reports: self.reports.keys().cloned().collect(), messages: self.messages.keys().cloned().collect() }
    }
}

/// Opens as the program does: key file, then store.
pub fn open(place: &Place, write: bool) -> postkeep_archiver::store::StoreResult<Store> {
    let key = UnlockKey::load(&place.key_file(), &LocalDisk)?;
    let unlock = Unlock::Key(&key);
    if write { Store::open(&place.store(), &unlock, disk()) } else { Store::open_read(&place.store(), &unlock, disk()) }
}

fn small(numbers: std::ops::Range<usize>) -> Vec<(String, Report)> {
    let one = |n: usize| {
        let report = report(&format!("<small{n}@x>"), &format!("body {n}\r\n"), 4 + n);
        (format!("small{n}"), of_its_own(&report, n))
    };
    numbers.map(one).collect()
}

/// With an envelope that no other report has.
fn of_its_own(report: &Report, n: usize) -> Report {
    report.replaced("Sender: a@x", &format!("Sender: {}@x", char::from(b'b' + n as u8)))
}

/// A report of 1 MiB that does not compress and is one chunk of its own.
fn large(message_id: &str, n: usize) -> Report {
    let mut noise = vec![0; LARGE_OCTETS];
    blake3::Hasher::new().update(&n.to_be_bytes()).finalize_xof().fill(&mut noise);
    let small = of_its_own(&report(message_id, "a large one\r\n", 1), 10 + n);
    let at = small.octets.windows(10).position(|octets| octets == b"base64\r\n\r\n").expect("a header") + 10;
    let end = at + small.octets[at..].windows(8).position(|eight| eight == b"\r\n--in--").expect("an end");
    let octets = [&small.octets[..at], &noise, &small.octets[end..]].concat();
    // What says base64 and is none is kept as it is.
    Report { range: small.range.start..small.range.end + octets.len() - small.octets.len(), octets }
}

/// Regular files, below `root`.
fn files(root: &Path, folder: &str) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root.join(folder)]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("reads") {
            let path = entry.expect("reads").path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(root).expect("below").to_owned());
            }
        }
    }
    found.sort();
    found
}
