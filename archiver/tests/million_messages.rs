//! A store of very many small messages: how fast they go in, what the catalog takes, how long opening, listing and
//! verifying take, and how much memory the process ever had. Alone in its program, since memory is measured.
//!
//! `POSTKEEP_MESSAGES` sets how many (1,000,000 in full), `POSTKEEP_VERIFY=0` leaves the verifying out.

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::journal::{Context, Profile, examine};
use std::time::Instant;
use support::*;

const MESSAGES: u64 = 3_000;
/// Messages of one commit.
const BATCH: u64 = 512;
/// Most memory at any time, in MiB.
const MEMORY: u64 = 512;

fn message(n: u64) -> Vec<u8> {
    let words = ["offer", "invoice", "meeting", "contract", "answer", "question", "travel", "budget"];
    let text: String =
        (0..40).map(|k| words[(n.wrapping_mul(2_654_435_761) >> (k % 29)) as usize % 8].to_owned() + " ").collect();
    format!(
        "Received: from mx by a.example; Tue, 18 Aug 2026 10:00:00 +0200\r\nFrom: Sender {n} <s{n}@b.example>\r\nTo: ann@a.example\r\n\
         Subject: {n}: {}\r\nMessage-ID: <{n}.{:x}@b.example>\r\nDate: Tue, 18 Aug 2026 {:02}:{:02}:{:02} +0200\r\n\r\n{text}\r\n",
        words[n as usize % 8],
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        n / 3600 % 24,
        n / 60 % 60,
        n % 60
    )
    .into_bytes()
}

/// A line of `/proc/self/status`, in MiB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with(name)).expect("is there");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

#[test]
fn very_many_messages_fit() {
    let count = std::env::var("POSTKEEP_MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(MESSAGES);
    let place = Place::new();
    let mut store = place.open();
    let context = Context { profile: Profile::Single, ..Context::default() };
    let start = Instant::now();
    for n in 0..count {
        let octets = message(n);
        let verdict = examine(&octets, &context).expect("memory reads");
        // Ann has all, every tenth goes to somebody else too.
        let owners = ["ann", "bob"];
        let plan = plan(&owners[..1 + usize::from(n % 10 == 0)]);
        add_with(&mut store, &format!("u{n}"), &octets, &verdict, &plan).expect("adds");
        if n % BATCH == BATCH - 1 {
            let commit = store.commit().expect("commits");
            assert!(commit.failures.is_empty(), "{:?}", commit.failures);
        }
        if n % 100_000 == 99_999 {
            println!(
                "{}: {:.0} messages/s, {} MiB",
                n + 1,
                (n + 1) as f64 / start.elapsed().as_secs_f64(),
                memory("VmRSS:")
            );
        }
    }
    assert!(store.commit().expect("commits").failures.is_empty());
    let took = start.elapsed();
    let stats = store.stats().expect("reads");
    let catalog = store.catalog_bytes().expect("reads");
    println!(
        "{count} messages: {:.0}/s, {} octets in, {} stored; catalog {catalog} octets on disk; {} MiB after it, {} MiB at most",
        count as f64 / took.as_secs_f64(),
        stats.bytes_in,
        stats.bytes_stored,
        memory("VmRSS:"),
        memory("VmHWM:")
    );
    drop(store);
    let start = Instant::now();
    let store = place.open();
    let opened = start.elapsed();
    let start = Instant::now();
    let (mut listed, mut last) = (0, None);
    store
        .list("ann", None, &mut |one| {
            assert!(last.as_ref() <= Some(&one.date), "in the order of dates");
            last = Some(one.date);
            listed += 1;
            Ok(())
        })
        .expect("lists");
    println!(
        "opened in {opened:.2?}; {listed} of the largest owner listed in {:.2?}; {} MiB at most",
        start.elapsed(),
        memory("VmHWM:")
    );
    assert_eq!((stats.messages, listed), (count, count));
    if std::env::var("POSTKEEP_VERIFY").as_deref() != Ok("0") {
        let start = Instant::now();
        let verified = store.verify().expect("goes on");
        assert!(verified.ok, "{:?}", verified.problems.first());
        println!("verified in {:.2?}; {} MiB at most", start.elapsed(), memory("VmHWM:"));
    }
    assert!(memory("VmHWM:") < MEMORY, "{} MiB", memory("VmHWM:"));
}
