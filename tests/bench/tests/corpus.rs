//! The corpus is what its description says, and the same for ever.

use anyhow::{Context as _, Result, ensure};
use postkeep_bench::{
    corpus::{self, Sizes},
    floor::PartsFloor,
};

/// BLAKE3 over the first 200 reports of seed 1. Another digest is another corpus, and figures taken with one do not
/// compare with those taken with the other.
const DIGEST: &str = "71567e729a5f3b4848bd4b7960283c8525bad74840058ae403ad5166a3f26917";

#[test]
fn the_first_reports_never_change() {
    let mut hasher = blake3::Hasher::new();
    for report in corpus::reports(corpus::SEED, 200) {
        hasher.update(&report.octets);
    }
    assert_eq!(hasher.finalize().to_string(), DIGEST);
}

#[test]
fn sizes_and_floor_are_as_described() -> Result<()> {
    let mut floor = PartsFloor::new()?;
    let mut sizes = Vec::new();
    for report in corpus::reports(corpus::SEED, corpus::COUNT) {
        ensure!(
            corpus::number_of(&report.octets) == Some(report.number),
            "report {} says another number",
            report.number
        );
        sizes.push(report.octets.len());
        floor.add(&report)?;
    }
    let sizes = Sizes::of(sizes);
    println!(
        "{sizes:?}\nfloor: {} of {} parts unique, {} octets, {:.3} of the input",
        floor.unique,
        floor.parts,
        floor.stored,
        floor.ratio()
    );
    ensure!(sizes.count == corpus::COUNT);
    for (what, value, range) in [
        ("total", sizes.total, 150_000_000..170_000_000),
        ("median", sizes.median, 28_000..34_000),
        ("mean", sizes.mean, 75_000..85_000),
        ("99th percentile", sizes.p99, 1_000_000..1_400_000),
        ("largest", sizes.largest, 9_500_000..10_500_000),
    ] {
        ensure!(range.contains(&value), "{what}: {value}, not in {range:?}");
    }
    ensure!((0.345..0.367).contains(&floor.ratio()), "the floor is {:.3}", floor.ratio());
    Ok(())
}

#[test]
fn reports_are_well_formed() -> Result<()> {
    for report in corpus::reports(7, 120) {
        let text = std::str::from_utf8(&report.octets)?;
        ensure!(text.is_ascii() && text.ends_with("\r\n"));
        ensure!(!text.replace("\r\n", "").contains(['\r', '\n']), "bare line end in report {}", report.number);
        ensure!(text.split("\r\n").all(|line| line.len() <= 998), "long line in report {}", report.number);
        let original = text.get(report.original.clone()).context("original")?;
        ensure!(original.starts_with("Received: "));
        for part in &report.parts {
            ensure!(report.original.start < part.range.start && part.range.end < report.original.end);
        }
    }
    Ok(())
}
