//! Every octet of a small pack, record file and store.toml changed once, every file cut at every 512 octets (small ones
//! at every 64) and each such tail filled with zeros: `store verify` says so every time, no wrong octet is served, and
//! other reports come out as they are.
//!
//! `POSTKEEP_STEP=1` changes every octet also of files beyond 2 KiB; else it is every 3rd of those.

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::store::{Store, Unlock};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use support::*;

const THREADS: usize = 4;

fn changes(octets: &[u8]) -> Vec<(String, Vec<u8>)> {
    let usual = if octets.len() > 2048 { 3 } else { 1 };
    let step = std::env::var("POSTKEEP_STEP").ok().and_then(|step| step.parse().ok()).unwrap_or(usual);
    let mut all = Vec::new();
    for at in (0..octets.len()).step_by(step) {
        let mut changed = octets.to_vec();
        changed[at] ^= 1;
        all.push((format!("octet {at} changed"), changed));
    }
    for at in (0..octets.len()).step_by(if octets.len() < 4096 { 64 } else { 512 }) {
        let mut zeros = octets[..at].to_vec();
        zeros.resize(octets.len(), 0);
        all.push((format!("cut at {at}"), octets[..at].to_vec()));
        all.push((format!("zeros from {at}"), zeros));
    }
    all
}

/// Whether it was noticed; whatever was served must be right.
fn noticed(dir: &Path, place: &Place, reports: &[(&str, Vec<u8>)]) -> bool {
    let Ok(store) = Store::open_read(dir, &Unlock::Key(&place.key()), disk()) else { return true };
    let mut served = 0;
    for (uidl, octets) in reports {
        let mut out = Vec::new();
        let read = store.read_report("src", Some("mbx"), uidl, &mut out);
        assert!(read.is_err() || out == *octets, "{uidl}: wrong octets served");
        assert!(octets.starts_with(&out), "{uidl}: wrong octets served before the error");
        served += usize::from(read.is_ok());
    }
    let noticed = store.verify().map_or(true, |verified| !verified.ok);
    // Chunks of one report are damaged by one change, or the log as a whole is refused.
    assert!(!noticed || served + 1 >= reports.len() || served == 0, "{served} served");
    noticed
}

#[test]
fn every_change_is_found() {
    let place = Place::new();
    let mut store = place.open();
    let reports = [("u1", report("<1@x>", "body\r\n", 0)), ("u2", report("<2@x>", "another body\r\n", 0))];
    for (uidl, report) in &reports {
        add(&mut store, uidl, report, &plan(&["ann"])).expect("adds");
        let _ = store.commit().expect("commits");
    }
    drop(store);
    let reports: Vec<_> = reports.iter().map(|(uidl, report)| (*uidl, report.octets.clone())).collect();
    let mut files = place.files();
    files.push(place.store().join("store.toml"));
    for file in files {
        every_change(&place, &file, &reports);
    }
    place.assert_sound(2);
}

fn every_change(place: &Place, file: &Path, reports: &[(&str, Vec<u8>)]) {
    let inside: PathBuf = file.strip_prefix(place.store()).expect("below").to_owned();
    let changes = changes(&fs::read(file).expect("reads"));
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let folder = tempfile::tempdir().expect("temporary folder");
                copy(&place.store(), folder.path());
                while let Some((name, octets)) = changes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    fs::write(folder.path().join(&inside), octets).expect("writes");
                    if !noticed(folder.path(), place, reports) {
                        missed.lock().expect("whole").push(name.clone());
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().expect("whole");
    println!(
        "{}: {} changes, {} detected, 0 wrong octets served",
        inside.display(),
        changes.len(),
        changes.len() - missed.len()
    );
    assert!(missed.is_empty(), "{}: {missed:?}", inside.display());
}
