//! `kill -9` of the archiver at random moments of its rounds, while a sender keeps the gateway filled.
//!
//! In the end every acknowledged report must be archived exactly once, and the books must balance. Half of the kills come
//! at any moment from the start of the process on, the other half once the store is open; a start is over with the line
//! `store is open` in the log. `POSTKEEP_SEED` repeats a run, `POSTKEEP_KILLS` sets its length. The gateway is the real
//! program from the same build.

#[path = "../../tests/support/mod.rs"]
mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
    process::{ChildStderr, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use support::{Access, Archiver, Gateway, Random, folder, numbered_report, sha256};

const KILLS: u64 = 200;
/// Longest life of a round in milliseconds at first, from its start or from the open store on. It follows the machine: a
/// round that is killed makes it a little longer, one that ended before a little shorter, so that a fifth of the rounds
/// ends and the kills fall everywhere between the first octet and the last.
const LONGEST: u64 = 500;
/// A start must be over by then; the slowest of a run must stay below [`START`].
const PATIENCE: Duration = Duration::from_secs(60);
const START: Duration = Duration::from_secs(5);
/// The sender waits while more messages than this wait at the gateway: a long run must not fill the disk.
const BACKLOG: usize = 60;

/// What came of the kills.
#[derive(Default)]
struct Killed {
    /// Rounds that ended before their moment came.
    ended: u64,
    /// Starts that came to their end, all with their time.
    starts: u64,
    slowest: Duration,
}

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
    let (killed, acknowledged) = std::thread::scope(|scope| -> Result<_> {
        let sender = scope.spawn(|| send(&gateway, &access, &stop));
        let killed = kill_rounds(&archiver, &mut random, kills);
        stop.store(true, Ordering::Relaxed);
        let acknowledged = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        Ok((killed.with_context(|| format!("seed {seed}"))?, acknowledged))
    })?;

    let mut rounds = 0;
    while !gateway.waiting(&access.id)?.is_empty() {
        let round = archiver.run(&["run", "--once", "--json"], b"")?;
        ensure!(round.code == 0, "seed {seed}: the round after the kills: exit {} {}", round.code, round.err);
        rounds += 1;
        ensure!(rounds < 1000, "seed {seed}: {} messages stay at the gateway", gateway.waiting(&access.id)?.len());
    }
    let Killed { ended, starts, slowest } = killed;
    println!(
        "kill -9, archiver: seed {seed}, kills {kills} ({ended} more rounds had ended before), starts timed {starts}, \
         slowest start {slowest:.2?}, {:.0?} in all",
        started.elapsed()
    );
    ensure!(acknowledged.len() as u64 > kills / 10, "hardly any load: {} acknowledged", acknowledged.len());
    check(&archiver, &acknowledged, seed).with_context(|| format!("seed {seed}"))?;
    ensure!(slowest < START, "a start took {slowest:.1?}");
    Ok(())
}

/// Sends until told to stop; number and SHA-256 of the original of every acknowledged report.
fn send(gateway: &Gateway, access: &Access, stop: &AtomicBool) -> Result<BTreeMap<String, usize>> {
    let waiting = gateway.data().join("spool").join(&access.id).join("new");
    let backlog = || std::fs::read_dir(&waiting).map_or(0, Iterator::count);
    let mut acknowledged = BTreeMap::new();
    let mut sender = gateway.smtp()?;
    for n in 0.. {
        if n % 20 == 0 {
            sender.quit()?;
            while backlog() > BACKLOG && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
            }
            sender = gateway.smtp()?;
        }
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

/// Starts rounds and kills each, until `kills` were killed at work.
fn kill_rounds(archiver: &Archiver, random: &mut Random, kills: u64) -> Result<Killed> {
    let (mut killed, mut all, mut longest) = (0, Killed::default(), LONGEST as f64);
    while killed < kills {
        let start = Instant::now();
        let mut command = archiver.command(&["run", "--once"])?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let opened = watch(child.stderr.take().context("piped")?, start);
        let mut took = None;
        if random.below(2) == 0 {
            took = opened.recv_timeout(PATIENCE).ok();
            ensure!(took.is_some() || child.try_wait()?.is_some(), "a start is not over after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(random.below(longest as u64)));
        if child.try_wait()?.is_none() {
            killed += 1;
            longest = (longest * 1.05).min(10_000.0);
            if killed % 500 == 0 {
                println!(
                    "{killed} kills, {} rounds ended, within {longest:.0} ms, slowest start {:.2?}",
                    all.ended, all.slowest
                );
            }
        } else {
            all.ended += 1;
            longest = (longest * 0.8).max(20.0);
        }
        child.kill()?;
        child.wait()?;
        if let Some(took) = took.or_else(|| opened.recv_timeout(PATIENCE).ok()) {
            all.starts += 1;
            all.slowest = all.slowest.max(took);
        }
        ensure!(all.ended < 20 * kills, "rounds end before they can be killed");
    }
    Ok(all)
}

/// Tells once how long after `start` the store was open; hangs up at the end of the process.
fn watch(log: ChildStderr, start: Instant) -> mpsc::Receiver<Duration> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut log = BufReader::new(log);
        let mut line = Vec::new();
        while log.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            if String::from_utf8_lossy(&line).contains("store is open") {
                let _ = tell.send(start.elapsed());
                drop(tell);
                // Read to its end, so that the process is not stopped by a broken pipe.
                let _ = log.read_to_end(&mut line);
                return;
            }
            line.clear();
        }
    });
    told
}

fn check(archiver: &Archiver, acknowledged: &BTreeMap<String, usize>, seed: u64) -> Result<()> {
    let mut archived: BTreeMap<(String, String), usize> = BTreeMap::new();
    for entry in archiver.list("bob")? {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned).context("list --json");
        *archived.entry((text("folder")?, text("sha256")?)).or_default() += 1;
    }
    let sums: std::collections::BTreeSet<&String> = archived.keys().map(|(_, sum)| sum).collect();
    let lost = acknowledged.keys().filter(|sum| !sums.contains(sum)).count();
    let duplicated = archived.values().filter(|count| **count > 1).count();
    let (code, numbers) = archiver.reconcile()?;
    let (verified, verdict) = archiver.verify()?;
    println!(
        "seed {seed}: acknowledged {}, found {}, lost {lost}, duplicated {duplicated}, reconcile exit {code}, store verify \
         exit {verified}",
        acknowledged.len(),
        acknowledged.len() - lost
    );
    println!("reconcile: {numbers:?}");
    ensure!(lost == 0 && duplicated == 0);
    ensure!(archived.len() == acknowledged.len(), "something was archived that was not acknowledged");
    ensure!(code == 0, "{numbers:?}");
    ensure!(verified == 0, "{verdict}");
    ensure!(acknowledged.len() > 100, "hardly any load");
    Ok(())
}
