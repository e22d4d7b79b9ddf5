//! Line 6, second half: one report of 250 MiB through both programs.

use super::Bench;
use crate::{
    client::smtp::{Session, stuffed},
    process::disk_use,
    product::{Archiver, Gateway, Settings},
    table::{Table, mebibytes},
};
use anyhow::{Context as _, Result, ensure};
use postkeep_bench::corpus;
use std::{collections::BTreeSet, time::Instant};

const SIZE: usize = 250 << 20;

pub(crate) fn run(bench: &Bench, _table: &mut Table) -> Result<()> {
    let folder = crate::fresh(&bench.folder, "large")?;
    let report = report()?;
    let megabytes = report.len() as f64 / 1e6;
    let mut gateway = Gateway::new(&folder.join("gateway"), Settings { connections: 8, mailboxes: 1 })?;
    let archiver = Archiver::new(&folder.join("archiver"), &BTreeSet::new())?;
    archiver.collect_from(&gateway)?;

    let wire = stuffed(&report);
    let before = gateway.server()?.cpu()?;
    let began = Instant::now();
    Session::open(gateway.smtp, false)?.message(&gateway.recipients[0], &wire)?;
    let accepted = began.elapsed().as_secs_f64();
    let cpu = (gateway.server()?.cpu()? - before).as_secs_f64();
    let peak = mebibytes(gateway.server()?.peak()?);

    let cost = archiver.round()?;
    let said: serde_json::Value = serde_json::from_str(cost.output.lines().next().context("no report")?)?;
    ensure!(said.get("collected").and_then(serde_json::Value::as_u64) == Some(1), "the round collected {said}");
    let round = cost.wall.as_secs_f64();
    let stored: u64 =
        archiver.kept().iter().map(|folder| disk_use(folder).map(|(_, octets)| octets)).sum::<Result<_>>()?;

    println!("\n== large: one report of {:.0} MiB", mebibytes(report.len() as u64));
    println!("accepted at {:.0} MB/s, CPU {cpu:.2} s, peak of the gateway {peak:.1} MiB", megabytes / accepted);
    println!(
        "archived at {:.0} MB/s, CPU {:.2} s, peak of the archiver {:.1} MiB, of the gateway {:.1} MiB; stored {:.1} MiB",
        megabytes / round,
        cost.cpu.as_secs_f64(),
        mebibytes(cost.peak),
        mebibytes(gateway.server()?.peak()?),
        mebibytes(stored)
    );
    gateway.halt()
}

/// A report of the corpus whose original has one more attachment, so large that the whole has the size wanted.
fn report() -> Result<Vec<u8>> {
    const DIGITS: usize = 76;
    let base = corpus::reports(corpus::SEED, 1).next().context("the corpus")?;
    let part = base.parts.last().context("a part")?;
    let (before, after) = base.octets.split_at(part.range.start);
    // Digits that differ from line to line; what the part holds is of no matter.
    let mut octets = before.to_vec();
    let mut state = 88_172_645_463_325_252_u64;
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    while octets.len() + after.len() < SIZE {
        for _ in 0..DIGITS / 4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            octets.extend((0..4).map(|digit| ALPHABET[(state >> (digit * 6) & 63) as usize]));
        }
        octets.extend_from_slice(b"\r\n");
    }
    octets.extend_from_slice(after);
    Ok(octets)
}
