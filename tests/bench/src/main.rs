//! Postkeep beside floors and peers: one section for each line of what has to be shown.
//!
//! ```text
//! cargo run --release -p postkeep-bench -- accept|drain|archive|latency|growth|large|memory|essential|all
//! cargo run --release -p postkeep-bench -- profile [accept|latency|archive]
//! ```
//! Servers listen on the loopback and live below one folder. Postfix and Dovecot want root; what cannot run here is
//! named and counts as not shown. The exit code is 0 when every figure was measured and meets its target, else 1.

mod client;
mod count;
mod floors;
mod peers;
mod process;
mod product;
mod profile;
mod sections;
mod steps;
mod table;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use postkeep_bench::corpus::{self, Sizes};
use sections::{Bench, profile::Work};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};
use table::Table;

/// Postkeep beside floors and peers.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Rounds in which the cells alternate; medians are printed.
    #[arg(long, default_value_t = 3, global = true)]
    rounds: usize,
    /// Reports of the corpus.
    #[arg(long, default_value_t = corpus::COUNT, global = true)]
    count: usize,
    /// Seed of the corpus.
    #[arg(long, default_value_t = corpus::SEED, global = true)]
    seed: u64,
    /// Messages waiting or stored at most in `growth`.
    #[arg(long, default_value_t = 1_000_000, global = true)]
    most: usize,
    /// In `accept`: only cells whose names contain this; in `growth`: only `waiting` or `stored`.
    #[arg(long, default_value = "", global = true)]
    only: String,
    /// Give Postfix with Dovecot the whole corpus instead of every fourth report.
    #[arg(long, global = true)]
    whole: bool,
    /// Do not sample our programs where they missed a target.
    #[arg(long, global = true)]
    no_profile: bool,
    /// Where servers keep their data: a file system as the product would use.
    #[arg(long, default_value = "target/bench", global = true)]
    folder: PathBuf,
}

#[derive(Subcommand, Clone, PartialEq, Eq)]
enum What {
    /// Lines 1 and 2: accepting, and its CPU.
    Accept,
    /// Line 3: collecting.
    Drain,
    /// Line 4 and the peaks of line 7: archiving.
    Archive,
    /// Line 5: one connection.
    Latency,
    /// Line 6: with what waits and what is stored. Takes long.
    Growth,
    /// Line 6: a report of 250 MiB.
    Large,
    /// Line 7: idle connections.
    Memory,
    /// What our programs use their processor time for; printed by the other sections too where a target is missed.
    Profile {
        /// All of them, unless one is named.
        work: Option<Work>,
    },
    /// Everything but `growth`.
    Essential,
    /// Everything.
    All,
    /// Counts the instructions of the pure parts under callgrind.
    Count {
        /// Write what was found as what is expected from now on.
        #[arg(long)]
        write: bool,
    },
    /// Writes the corpus as files.
    Corpus {
        /// Where to.
        to: PathBuf,
    },
    /// Serves as a floor until it is ended.
    #[command(hide = true)]
    Floor {
        /// none, crypt, file, sealed or log
        kind: floors::Kind,
        /// Where to.
        to: PathBuf,
    },
}

type Section = fn(&Bench, &mut Table) -> Result<()>;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match &arguments.what {
        What::Corpus { to } => return write_corpus(to, arguments.seed, arguments.count).map(|()| ExitCode::SUCCESS),
        What::Count { write } => {
            return Ok(if count::run(*write)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        What::Floor { kind, to } => return floors::serve(*kind, to).map(|()| ExitCode::SUCCESS),
        _ => {}
    }
    let sections: &[(What, Section)] = &[
        (What::Accept, sections::accept::run),
        (What::Drain, sections::drain::run),
        (What::Archive, sections::archive::run),
        (What::Latency, sections::latency::run),
        (What::Memory, sections::memory::run),
        (What::Large, sections::large::run),
        (What::Growth, sections::growth::run),
    ];
    let began = Instant::now();
    let Arguments { what, rounds, count, seed, most, only, whole, no_profile, folder } = arguments;
    fs::create_dir_all(&folder)?;
    let folder = fresh(&folder.canonicalize()?, &std::process::id().to_string())?;
    let mut bench = Bench::new(folder.clone(), rounds.max(1), count, seed);
    (bench.most, bench.only, bench.whole) = (most, only, whole);
    let mut table = Table::default();
    machine();
    for (section, run) in sections {
        let wanted = match what {
            What::All => true,
            What::Essential => *section != What::Growth,
            _ => *section == what,
        };
        if wanted {
            run(&bench, &mut table)?;
        }
    }
    if let What::Profile { work } = what {
        sections::profile::run(&bench, &mut table, work)?;
    }
    let good = table.end();
    if !no_profile {
        sections::profile::explain(&bench, &table)?;
    }
    fs::remove_dir_all(&folder)?;
    println!("{} rounds in {} s", bench.rounds, began.elapsed().as_secs());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What it runs on, since no figure means anything without.
fn machine() {
    let said = |file: &str, field: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default().to_owned();
        line.split_once(':').map_or(line.clone(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!(
        "{cores} cores, {}, {} of memory, kernel {}, load {}",
        said("/proc/cpuinfo", "model name"),
        said("/proc/meminfo", "MemTotal"),
        fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
    );
}

/// A folder nobody has used. Nothing is deleted before the end: a file system like ext4 looks at every inode that was
/// deleted in the last minutes before it gives one out, and the next cell would pay for the one before.
fn fresh(below: &Path, name: &str) -> Result<PathBuf> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let folder = below.join(format!("{}-{name}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Waits until what was written so far is on the disk, so that no cell waits for the one before.
fn settle() -> Result<()> {
    process::must(&mut std::process::Command::new("sync")).map(drop)
}

fn write_corpus(folder: &Path, seed: u64, count: usize) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut sizes = Vec::new();
    for report in corpus::reports(seed, count) {
        let path = folder.join(format!("{:06}.eml", report.number));
        fs::write(&path, &report.octets).with_context(|| format!("cannot write {}", path.display()))?;
        sizes.push(report.octets.len());
    }
    println!("{:?}", Sizes::of(sizes));
    Ok(())
}
