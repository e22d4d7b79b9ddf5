//! How large and how fast the catalog is with very many parts: `POSTKEEP_PARTS=10000000 cargo test --release -p
//! postkeep-archiver --lib size_of_the_catalog -- --nocapture` (docs/operations.md, the index); 20,000 in every run.
//!
//! A part is what adding one puts there: the place of its chunk and the number of its references, under keys that are
//! hashes. They go in as a rebuild puts them in, in batches of 4,096 changes, and are looked for in no order at all.

use super::{Batch, FjallCatalog, Space, View};
use crate::store::{CatalogMemory, keyring::Keyring, packs::Place};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Changes at a time.
const BATCH: usize = 4096;
/// Lookups of each kind at most.
const LOOKUPS: u64 = 200_000;
/// Chunks that share a pack.
const IN_PACK: u64 = 400;

fn id(n: u64) -> [u8; 32] {
    *blake3::hash(&n.to_be_bytes()).as_bytes()
}

fn place(n: u64) -> Place {
    let mut pack = [0; 16];
    pack.iter_mut().zip((n / IN_PACK).to_be_bytes()).for_each(|(to, from)| *to = from);
    Place { pack, offset: n % IN_PACK * 20_000, index: 0 }
}

/// MiB that the process has in memory now, and had at most.
fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    (kib("VmRSS:") / 1024, kib("VmHWM:") / 1024)
}

fn octets(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => octets(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Lookups per second of every `step`th of `count` parts from `first` on, each of which is there or not.
fn look(catalog: &FjallCatalog, keys: &Keyring, first: u64, count: u64, there: bool) -> f64 {
    let mut nothing = Batch::default();
    let view = View { catalog, batch: &mut nothing, keys };
    let wanted = count.min(LOOKUPS);
    let began = Instant::now();
    for n in (0..wanted).map(|n| first + n * (count / wanted)) {
        let found = view.get_clear(Space::Chunks, &[&id(n)]).expect("reads");
        assert_eq!(found, there.then(|| place(n).encode()), "part {n}");
    }
    rate(wanted, began.elapsed())
}

#[test]
fn size_of_the_catalog() {
    let parts = std::env::var("POSTKEEP_PARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000_u64);
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("catalog");
    let (keys, memory_limit) = (Keyring::derive([1; 16], &[2; 32]), CatalogMemory::default());
    let open = || FjallCatalog::open(&path, memory_limit).expect("opens").expect("nobody else has it");
    let before = memory().0;
    let mut catalog = open();
    let (mut batch, began) = (Batch::default(), Instant::now());
    for n in 0..parts {
        let mut view = View { catalog: &catalog, batch: &mut batch, keys: &keys };
        let id = id(n);
        view.put_clear(Space::Chunks, &[&id], place(n).encode());
        view.put_clear(Space::Parts, &[id.get(..16).unwrap_or_default()], 1_u64.to_be_bytes().to_vec());
        if batch.len() >= BATCH {
            batch.apply(&mut catalog).expect("writes");
        }
    }
    batch.apply(&mut catalog).expect("writes");
    super::Catalog::persist(&mut catalog).expect("syncs");
    let inserted = rate(parts, began.elapsed());
    drop(catalog);
    let on_disk = octets(&path);

    let began = Instant::now();
    let catalog = open();
    let opened = began.elapsed();
    let after_open = memory().0;
    let first = look(&catalog, &keys, 0, parts, true);
    let again = look(&catalog, &keys, 0, parts, true);
    let absent = look(&catalog, &keys, parts, parts, false);
    println!(
        "| parts | put in per s | MiB on disk | octets per part | open | found per s | again | not there per s | MiB open | \
         MiB after lookups | MiB at most |"
    );
    println!(
        "| {parts} | {inserted:.0} | {:.1} | {:.0} | {opened:.1?} | {first:.0} | {again:.0} | {absent:.0} | {after_open} | \
         {} | {most} |",
        on_disk as f64 / 1_048_576.0,
        on_disk as f64 / parts as f64,
        memory().0,
        most = memory().1,
    );
    println!("(the process before: {before} MiB)");
    assert!(opened < Duration::from_secs(10), "{opened:?}");
    assert!(on_disk < parts * 400 + 256 * 1024 * 1024, "{on_disk} octets");
}
