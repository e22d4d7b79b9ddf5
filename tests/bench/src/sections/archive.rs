//! Line 4: from the gateway into the archive, re-read and deleted there, beside backup programs that take the same
//! reports as files. Line 7: the peaks of both our programs in it.

use super::Bench;
use crate::{
    client::smtp::{Sending, send},
    peers::{
        self,
        backup::{self, Repository, Tool},
    },
    process::{Cost, disk_use},
    product::{Archiver, Gateway, Settings},
    table::{Figures, Table, Target, mebibytes, median, per_thousand},
};
use anyhow::{Context as _, Result, ensure};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce, aead::AeadInOut as _};
use postkeep_bench::{corpus, floor::PartsFloor};
use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Messages that one sync of the floor covers, as a round of the archiver syncs batches.
const BATCH: usize = 16;

/// One program in one round.
struct Run {
    figures: Figures,
    /// Octets kept for one octet of input.
    stored: f64,
}

pub(crate) fn run(bench: &Bench, table: &mut Table) -> Result<()> {
    let folder = crate::fresh(&bench.folder, "archive")?;
    let files = folder.join("reports");
    fs::create_dir(&files)?;
    for (number, report) in bench.reports.iter().enumerate() {
        fs::write(files.join(format!("{number:06}.eml")), report)?;
    }
    let missing = peers::missing(backup::PROGRAMS, false);
    if let Some(why) = &missing {
        table.not_run("restic and borg", why);
    }
    let names = ["archiver, from the gateway", "restic, from files", "borg, from files", "floor: parts, synced by 16"];
    let mut rounds: [Vec<Run>; 4] = Default::default();
    let mut serving = Vec::new();
    for round in 1..=bench.rounds {
        for (cell, runs) in rounds.iter_mut().enumerate() {
            let found = match cell {
                0 => {
                    let (found, gateway) = product(bench, &folder, None)?;
                    serving.push(gateway);
                    found
                }
                1 | 2 if missing.is_some() => continue,
                1 => peer(bench, Tool::Restic, &folder, &files)?,
                2 => peer(bench, Tool::Borg, &folder, &files)?,
                _ => floor(bench, &folder)?,
            };
            eprintln!(
                "round {round}: {}: {:.0} msg/s, stored {:.3}",
                names[cell], found.figures.messages, found.stored
            );
            runs.push(found);
        }
    }
    Table::head("archive: stored, re-read and deleted at the gateway");
    let mut medians = Vec::new();
    let mut stored = Vec::new();
    for (name, runs) in names.iter().zip(&rounds) {
        let figures: Vec<Figures> = runs.iter().map(|run| run.figures.clone()).collect();
        medians.push(Figures::median(&figures));
        stored.push(median(runs.iter().map(|run| run.stored)));
        Table::row(name, &medians[medians.len() - 1]);
    }
    let gateway = Figures::median(&serving);
    Table::row("(the gateway meanwhile)", &gateway);
    println!();
    names
        .iter()
        .zip(&stored)
        .for_each(|(name, stored)| println!("stored octets per octet of input: {stored:.3}  {name}"));
    println!();
    let [own, restic, borg, _] = &medians[..] else { return Ok(()) };
    for (name, peer) in [("restic", restic), ("borg", borg)] {
        let two = Target::AtLeast(2.0);
        table.judge(4, &format!("messages, archiver / {name}"), own.messages / peer.messages, two);
        table.judge(4, &format!("CPU per 1,000, archiver / {name}"), own.cpu / peer.cpu, Target::AtMost(1.0));
    }
    table.judge(4, "stored octets / input", stored[0], Target::AtMost(0.33));
    println!("line 7: peak of the archiver in a round: {:.1} MiB; of the gateway: {:.1} MiB", own.peak, gateway.peak);
    Ok(())
}

/// A round of the archiver alone, for what it costs; while perf samples it, where a file for that is given.
pub(super) fn alone(bench: &Bench, sampling: Option<&Path>) -> Result<Figures> {
    let (run, _) = product(bench, &crate::fresh(&bench.folder, "archive")?, sampling)?;
    Ok(run.figures)
}

fn product(bench: &Bench, folder: &Path, sampling: Option<&Path>) -> Result<(Run, Figures)> {
    let settings = Settings { connections: 8, mailboxes: 1 };
    let folder = crate::fresh(folder, "round")?;
    let mut gateway = Gateway::new(&folder.join("gateway"), settings)?;
    let (address, recipients) = (gateway.smtp, gateway.recipients.clone());
    send(&Sending { address, recipients, connections: 8, tls: false, messages: Arc::clone(&bench.wire) })?;
    let archiver = Archiver::new(&folder.join("archiver"), &bench.owners())?;
    archiver.collect_from(&gateway)?;
    crate::settle()?;
    let before = gateway.server()?.cpu()?;
    let cost = match sampling {
        Some(data) => archiver.sampled_round(data)?,
        None => archiver.round()?,
    };
    let serving = gateway.server()?.cpu()? - before;
    let report: serde_json::Value = serde_json::from_str(cost.output.lines().next().context("no report")?)?;
    let count = |key: &str| report.get(key).and_then(serde_json::Value::as_u64);
    ensure!(count("collected") == Some(bench.wire.len() as u64), "the round collected {report}");
    ensure!(count("dead_letters") == Some(0) && count("left") == Some(0), "the round left {report}");
    let waiting = fs::read_dir(gateway.spool().join(&gateway.accounts[0].name).join("new"))?.count();
    ensure!(waiting == 0, "{waiting} reports still wait at the gateway");
    let kept = archiver.kept().iter().map(|folder| disk_use(folder).map(|(_, octets)| octets)).sum::<Result<u64>>()?;
    ensure!(kept > 0, "nothing is in the store");
    let run = run_of(bench, &cost, kept);
    let gateway_figures = Figures {
        cpu: per_thousand(serving, bench.wire.len()),
        peak: mebibytes(gateway.server()?.peak()?),
        ..Figures::default()
    };
    gateway.halt()?;
    Ok((run, gateway_figures))
}

fn peer(bench: &Bench, tool: Tool, folder: &Path, files: &Path) -> Result<Run> {
    let repository = Repository::new(tool, &crate::fresh(folder, "peer")?)?;
    crate::settle()?;
    let cost = repository.take(files)?;
    let run = run_of(bench, &cost, disk_use(&repository.path())?.1);
    Ok(run)
}

/// Every unique part through zstd and XChaCha20-Poly1305 into one file, synced after every 16 messages.
fn floor(bench: &Bench, folder: &Path) -> Result<Run> {
    let reports: Vec<_> = corpus::reports(bench.seed, bench.reports.len()).collect();
    let path = crate::fresh(folder, "floor")?.join("parts");
    let mut file = File::create(&path)?;
    let cipher = XChaCha20Poly1305::new(&[7; 32].into());
    let mut parts = PartsFloor::new()?;
    let (began, before) = (Instant::now(), crate::process::own_cpu()?);
    for (number, report) in reports.iter().enumerate() {
        let mut out = Vec::new();
        for (place, mut block) in parts.add(report)?.into_iter().enumerate() {
            let mut nonce = [0; 24];
            nonce[..8].copy_from_slice(&(number as u64).to_le_bytes());
            nonce[8..16].copy_from_slice(&(place as u64).to_le_bytes());
            let tag = cipher.encrypt_inout_detached(&XNonce::from(nonce), &[], block.as_mut_slice().into());
            out.extend_from_slice(&u32::try_from(block.len())?.to_le_bytes());
            out.extend_from_slice(&block);
            out.extend_from_slice(&tag.map_err(|_| anyhow::anyhow!("sealing failed"))?);
        }
        file.write_all(&out)?;
        if (number + 1) % BATCH == 0 {
            file.sync_data()?;
        }
    }
    file.sync_all()?;
    let (wall, cpu) = (began.elapsed(), crate::process::own_cpu()? - before);
    let stored = fs::metadata(&path)?.len();
    let cost = Cost { wall, cpu, peak: 0, output: String::new() };
    let mut run = run_of(bench, &cost, stored);
    run.figures.peak = f64::NAN;
    Ok(run)
}

fn run_of(bench: &Bench, cost: &Cost, kept: u64) -> Run {
    let (count, input) = (bench.reports.len(), bench.reports.iter().map(Vec::len).sum::<usize>());
    let seconds = cost.wall.max(Duration::from_millis(1)).as_secs_f64();
    let figures = Figures {
        messages: count as f64 / seconds,
        megabytes: input as f64 / 1e6 / seconds,
        cpu: per_thousand(cost.cpu, count),
        peak: mebibytes(cost.peak),
        disk: kept as f64 / 1024.0 / count as f64,
        ..Figures::default()
    };
    Run { figures, stored: kept as f64 / input as f64 }
}
