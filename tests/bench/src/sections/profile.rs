//! What our programs use their processor time for, sampled in one more round that counts for no figure.
//!
//! The shares are from that round, the processor time they are shares of from one beside it that was not sampled, since
//! sampling costs the sampled time.

use super::{Bench, accept, archive};
use crate::{
    profile::{Tally, perf},
    table::Table,
};
use anyhow::Result;
use clap::ValueEnum;

/// What is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Lines 1 and 2: the gateway with eight connections.
    Accept,
    /// Line 5: the gateway with one connection.
    Latency,
    /// Line 4: a round of the archiver.
    Archive,
}

/// What explains which lines.
const EXPLAINS: [(Work, &[u32]); 3] = [(Work::Accept, &[1, 2]), (Work::Latency, &[5]), (Work::Archive, &[4])];

/// Samples one of them, or all.
pub(crate) fn run(bench: &Bench, table: &mut Table, work: Option<Work>) -> Result<()> {
    if let Some(why) = perf::missing() {
        table.not_run("profile", &why);
        return Ok(());
    }
    EXPLAINS
        .iter()
        .filter(|(each, _)| work.is_none_or(|work| work == *each))
        .try_for_each(|(work, _)| one(bench, *work))
}

/// Samples what explains the targets that were missed.
pub(crate) fn explain(bench: &Bench, table: &Table) -> Result<()> {
    let wanted: Vec<Work> = EXPLAINS.iter().filter(|(_, lines)| table.missed(lines)).map(|(work, _)| *work).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    if let Some(why) = perf::missing() {
        println!("NOT RUN: the profile that says why: {why}");
        return Ok(());
    }
    println!("\nwhy: one more round of each, sampled");
    wanted.into_iter().try_for_each(|work| one(bench, work))
}

fn one(bench: &Bench, work: Work) -> Result<()> {
    let data = crate::fresh(&bench.folder, "profile")?.join("perf.data");
    let name = match work {
        Work::Accept => "the gateway accepts on 8 connections",
        Work::Latency => "the gateway accepts on one connection",
        Work::Archive => "the archiver in a round",
    };
    let connections = if work == Work::Latency { 1 } else { 8 };
    let (cpu, total) = if work == Work::Archive {
        let plain = archive::alone(bench, None)?;
        archive::alone(bench, Some(&data))?;
        // What /usr/bin/time sees of the sampled one is perf's own work too.
        ((plain.cpu, None), None)
    } else {
        let (plain, _) = accept::alone(bench, connections, None)?;
        let (sampled, used) = accept::alone(bench, connections, Some(&data))?;
        ((plain.cpu, Some(sampled.cpu)), Some(used))
    };
    let tally = Tally::of(&data)?;
    println!("\n== profile: {name}");
    tally.print(cpu, total);
    Ok(())
}
