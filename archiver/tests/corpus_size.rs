//! What a store takes of the benchmark corpus, beside the sum of its unique decoded parts compressed one by one with zstd
//! level 3; and whether `stats` counts what the files have.
//!
//! `POSTKEEP_REPORTS` sets how many reports (2,000 in full). Receipts and evidence of a gateway are not in it: they add some
//! 400 octets to each report's record.

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::journal::{Context, examine};
use postkeep_bench::{
    corpus::{SEED, reports},
    floor::PartsFloor,
};
use std::time::{Duration, Instant};
use support::*;

const REPORTS: usize = 300;
/// Reports of one commit, as a round takes them.
const BATCH: usize = 64;

#[test]
fn a_store_is_smaller_than_its_parts() {
    let count = std::env::var("POSTKEEP_REPORTS").ok().and_then(|n| n.parse().ok()).unwrap_or(REPORTS);
    let place = Place::new();
    let mut store = place.open();
    let mut floor = PartsFloor::new().expect("zstd");
    let (mut grew, mut took, mut uncommitted) = (0, Duration::ZERO, 0);
    let mut commit = |store: &mut postkeep_archiver::store::Store| {
        let commit = store.commit().expect("commits");
        assert!(commit.failures.is_empty(), "{:?}", commit.failures);
        grew += commit.bytes_stored();
    };
    for (number, report) in reports(SEED, count).enumerate() {
        floor.add(&report).expect("compresses");
        let start = Instant::now();
        let verdict = examine(&report.octets, &Context::default()).expect("memory reads");
        add_with(&mut store, &format!("u{number}"), &report.octets, &verdict, &plan(&["ann"])).expect("adds");
        uncommitted += 1;
        if uncommitted == BATCH {
            commit(&mut store);
            uncommitted = 0;
        }
        took += start.elapsed();
    }
    let start = Instant::now();
    commit(&mut store);
    took += start.elapsed();
    let stats = store.stats().expect("reads");
    drop(store);
    let mut files = place.files();
    files.push(place.store().join("store.toml"));
    let on_disk: u64 = files.iter().map(|path| path.metadata().expect("is there").len()).sum();
    let (of_input, of_parts) =
        (stats.bytes_stored as f64 / stats.bytes_in as f64, stats.bytes_stored as f64 / floor.stored as f64);
    println!(
        "{count} reports, {} octets: stored {} (packs {}, records {}; {} chunks) = {of_input:.3} of the input, {of_parts:.3} of the unique \
         parts each alone ({}, {:.3} of the input); files {on_disk}; {:.0} reports/s in {took:.1?}",
        stats.bytes_in,
        stats.bytes_stored,
        stats.pack_bytes,
        stats.record_bytes,
        stats.chunks,
        floor.stored,
        floor.ratio(),
        count as f64 / took.as_secs_f64()
    );
    assert_eq!(stats.bytes_in, floor.input);
    assert_eq!(stats.bytes_stored, on_disk, "stats and the files");
    assert!(on_disk - grew < 1024, "commits tell what they add: {grew} of {on_disk}");
    assert!(of_parts <= 1.0, "{of_parts}");
    assert!(count < 2000 || of_input <= 0.33, "{of_input}");
    place.assert_sound(count as u64);
}
