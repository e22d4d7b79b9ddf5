//! The parts of the archiver between a POP3 session and a disk: understanding a report, splitting it, storing it
//! (deduplicated, compressed, encrypted), building it again.
//!
//! `cargo bench -p postkeep-archiver` times them; `postkeep-bench count` counts their instructions. Storing goes into a
//! pack that is not committed, so no sync is in it.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/store/support.rs"]
mod support;

use criterion::{Criterion, Throughput};
use postkeep_archiver::{
    journal::{Content, Context, examine},
    octets::Slice,
    store::{Store, split::leaves},
};
use postkeep_bench::{
    corpus,
    subject::{Subject, once},
};
use support::{Place, add_octets, plan, raw, verdict};

fn main() {
    let report = report();
    let place = Place::new();
    let stored = place.open();
    let mut subjects = subjects(&report, stored);
    if once(&mut subjects) {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("archiver");
    for subject in &mut subjects {
        group.throughput(Throughput::Bytes(subject.octets));
        group.bench_function(subject.name, |bencher| bencher.iter(&mut subject.work));
    }
    group.finish();
    criterion.final_summary();
}

/// A report of some 300 KB with attachments.
fn report() -> corpus::Report {
    let large = corpus::reports(corpus::SEED, 100).find(|report| report.octets.len() > 250_000);
    large.expect("the corpus has one among its first")
}

fn subjects(report: &corpus::Report, mut stored: Store) -> Vec<Subject<'_>> {
    let len = report.octets.len();
    let range = report.original.start as u64..report.original.end as u64;
    let original = range.clone();
    let kept = Content::Range(range);
    let verdict = verdict(Some(kept));
    add_octets(&mut stored, "kept", &report.octets, &verdict, &plan(&["ann"])).unwrap();
    let committed = stored.commit().unwrap();
    assert_eq!(committed.receipts.len(), 1);
    // A second store, so that what is added there does not get in the way of what is read here.
    let place = Place::new();
    let mut open = place.open();
    let (mut number, mut fresh) = (0_u64, report.octets.clone());
    let places: Vec<_> = report.parts.iter().map(|part| part.range.clone()).collect();
    vec![
        Subject::new("journal report, understood", len, || examine(&report.octets, &Context::default()).unwrap()),
        Subject::new("split into parts", len, move || leaves(&Slice::new(&report.octets, original.clone())).unwrap()),
        Subject::new("deduplicated, compressed, encrypted", len, move || {
            // Every part is another one each time, at its beginning and with the same length.
            number += 1;
            for place in &places {
                let digits = format!("{number:08}");
                fresh[place.start..place.start + 8].copy_from_slice(digits.as_bytes());
            }
            add_octets(&mut open, &format!("u{number}"), &fresh, &verdict, &plan(&["ann"])).unwrap();
            let _ = &place;
        }),
        Subject::new("built again", len, move || raw(&stored, "kept")),
    ]
}
