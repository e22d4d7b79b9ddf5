//! `kill -9` of the archiver at random moments of its rounds, while a sender keeps the gateway filled.
//!
//! In the end every acknowledged report must be archived exactly once, and the books must balance. `POSTKEEP_SEED` repeats
//! a run, `POSTKEEP_KILLS` sets its length. The gateway is the real program from the same build.

#[path = "../../tests/support/mod.rs"]
mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use support::{Access, Archiver, Gateway, Random, folder, numbered_report, sha256};

const KILLS: u64 = 200;
/// Longest life of one round in milliseconds; most rounds take longer.
const LONGEST: u64 = 250;

#[test]
fn what_was_acknowledged_is_archived_once() -> Result<()> {
    let kills = std::env::var("POSTKEEP_KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(KILLS);
    let (mut random, seed) = Random::seeded();
    println!("seed {seed}, {kills} kills");
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    let started = Instant::now();

    let stop = AtomicBool::new(false);
    let (ended, acknowledged) = std::thread::scope(|scope| -> Result<_> {
        let sender = scope.spawn(|| send(&gateway, &access, &stop));
        let ended = kill_rounds(&archiver, &mut random, kills);
        stop.store(true, Ordering::Relaxed);
        let acknowledged = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        Ok((ended?, acknowledged))
    })?;

    let mut rounds = 0;
    while !gateway.waiting(&access.id)?.is_empty() {
        let round = archiver.run(&["run", "--once", "--json"], b"")?;
        ensure!(round.code == 0, "seed {seed}: the round after the kills: exit {} {}", round.code, round.err);
        rounds += 1;
        ensure!(rounds < 1000, "seed {seed}: {} messages stay at the gateway", gateway.waiting(&access.id)?.len());
    }
    check(&archiver, &acknowledged, seed).with_context(|| format!("seed {seed}"))?;
    println!("killed {kills} rounds at work, {ended} more had ended before, {:.0?} in all", started.elapsed());
    Ok(())
}

/// Sends until told to stop; number and SHA-256 of the original of every acknowledged report.
fn send(gateway: &Gateway, access: &Access, stop: &AtomicBool) -> Result<BTreeMap<String, usize>> {
    let mut acknowledged = BTreeMap::new();
    let mut sender = gateway.smtp()?;
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (report, original) = numbered_report(n);
        let reply = sender.send("", &[&access.address], &report)?;
        ensure!(reply.code == 250, "{reply:?}");
        acknowledged.insert(sha256(&original), n);
        std::thread::sleep(Duration::from_millis(15));
    }
    Ok(acknowledged)
}

/// Starts rounds and kills each, until `kills` were killed at work; how many ended before their moment came.
fn kill_rounds(archiver: &Archiver, random: &mut Random, kills: u64) -> Result<u64> {
    let (mut killed, mut ended) = (0, 0);
    while killed < kills {
        let mut command = archiver.command(&["run", "--once"])?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(random.below(LONGEST)));
        if child.try_wait()?.is_none() {
            killed += 1;
        } else {
            ended += 1;
        }
        child.kill()?;
        child.wait()?;
        ensure!(ended < 20 * kills, "rounds end before they can be killed");
    }
    Ok(ended)
}

fn check(archiver: &Archiver, acknowledged: &BTreeMap<String, usize>, seed: u64) -> Result<()> {
    let mut archived: BTreeMap<(String, String), usize> = BTreeMap::new();
    for entry in archiver.list("bob")? {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned).context("list --json");
        *archived.entry((text("folder")?, text("sha256")?)).or_default() += 1;
    }
    let sums: std::collections::BTreeSet<&String> = archived.keys().map(|(_, sum)| sum).collect();
    let lost = acknowledged.keys().filter(|sum| !sums.contains(sum)).count();
    let twice = archived.values().filter(|count| **count > 1).count();
    let (code, numbers) = archiver.reconcile()?;
    let (verified, verdict) = archiver.verify()?;
    println!(
        "seed {seed}: acknowledged {}, archived {}, lost {lost}, twice {twice}, reconcile exit {code}, store verify exit {verified}",
        acknowledged.len(),
        archived.len()
    );
    println!("reconcile: {numbers:?}");
    ensure!(lost == 0 && twice == 0);
    ensure!(archived.len() == acknowledged.len(), "something was archived that was not acknowledged");
    ensure!(code == 0, "{numbers:?}");
    ensure!(verified == 0, "{verdict}");
    ensure!(acknowledged.len() > 100, "hardly any load");
    Ok(())
}
