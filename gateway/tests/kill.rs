//! `kill -9` of the gateway at random moments, with senders and a collector at work.
//!
//! What was answered `250` must come out exactly once and exactly; what was not answered may come out once or not at
//! all; what left at an acknowledged QUIT must not come back. `POSTKEEP_SEED` repeats a run, `POSTKEEP_KILLS` sets its
//! length.

#[path = "../../tests/support/mod.rs"]
mod support;

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use support::{Access, Gateway, Random, folder, numbered_report, pop3};

const KILLS: u64 = 200;
const SENDERS: usize = 3;
/// A start after a kill is over by then: a tenth of a second usually, the rest is for machines with other work.
const START: Duration = Duration::from_secs(5);
/// Longest life of a gateway in milliseconds at first. It follows the machine: a life in which a collection was
/// acknowledged makes it shorter, one without longer, so that a quarter of the lives sees one.
const LONGEST: u64 = 250;
/// Senders wait while more messages than this wait to be collected: a long run must not fill the disk.
const BACKLOG: usize = 500;

/// What the clients saw.
#[derive(Default)]
struct Seen {
    next: AtomicUsize,
    /// uidl of every acknowledged message and its number.
    acknowledged: Mutex<BTreeMap<String, usize>>,
    /// uidl of every message that came out, with its number.
    collected: Mutex<BTreeMap<String, usize>>,
    /// Those whose removal was acknowledged.
    removed: Mutex<BTreeSet<String>>,
    faults: Mutex<Vec<String>>,
}

impl Seen {
    fn fault(&self, text: String) {
        if let Ok(mut faults) = self.faults.lock() {
            faults.push(text);
        }
    }

    /// Sends until the connection breaks.
    fn send(&self, gateway: &Gateway, access: &Access) -> Result<()> {
        let waiting = gateway.data().join("spool").join(&access.id).join("new");
        let mut sender = gateway.smtp()?;
        loop {
            while std::fs::read_dir(&waiting).map_or(0, Iterator::count) > BACKLOG {
                // Long enough for the collector, short enough to see the end of the gateway.
                std::thread::sleep(Duration::from_millis(20));
                ensure!(sender.command("RSET")?.code == 250, "RSET");
            }
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let (report, _) = numbered_report(n);
            let reply = if n.is_multiple_of(4) {
                sender.send_bdat("", &[&access.address], &report)?
            } else {
                sender.send_data("", &[&access.address], &report)?
            };
            if reply.code == 250 {
                let (uidl, ..) = reply.receipts()?.into_iter().next().context("no receipt")?;
                self.acknowledged.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.insert(uidl, n);
            } else if reply.code / 100 != 4 {
                self.fault(format!("message {n}: {reply:?}"));
            }
        }
    }

    /// Collects up to `limit` messages in one session, removes them, and gives how many.
    fn collect(&self, gateway: &Gateway, access: &Access, limit: usize) -> Result<usize> {
        let mut collector = gateway.pop3(access)?;
        let mut removing = Vec::new();
        for (number, uidl) in collector.uidl()?.into_iter().take(limit) {
            let (message, _) = collector.xretr(number)?;
            self.came_out(&uidl, &message);
            collector.command(&format!("DELE {number}"))?;
            removing.push(uidl);
        }
        collector.quit()?;
        let count = removing.len();
        self.removed.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.extend(removing);
        Ok(count)
    }

    fn came_out(&self, uidl: &str, message: &[u8]) {
        if self.removed.lock().is_ok_and(|r| r.contains(uidl)) {
            self.fault(format!("{uidl} came back after its removal was acknowledged"));
        }
        match pop3::without_trace(message).ok().and_then(number_of) {
            Some(n) if pop3::without_trace(message).is_ok_and(|m| m == numbered_report(n).0) => {
                if let Ok(mut collected) = self.collected.lock() {
                    collected.insert(uidl.to_owned(), n);
                }
            }
            _ => self.fault(format!("{uidl} came out changed")),
        }
    }
}

/// The number in `Subject: Number N`.
fn number_of(report: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(report.get(..1000.min(report.len()))?).into_owned();
    text.lines().find_map(|l| l.strip_prefix("Subject: Number "))?.trim().parse().ok()
}

#[test]
fn nothing_acknowledged_is_lost() -> Result<()> {
    let kills = std::env::var("POSTKEEP_KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(KILLS);
    let (mut random, seed) = Random::seeded();
    println!("seed {seed}, {kills} kills");
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    let access = gateway.create_mailbox()?;
    let seen = Seen::default();
    let (started, mut slowest, mut longest) = (Instant::now(), Duration::ZERO, LONGEST as f64);
    for kill in 0..kills {
        if kill > 0 && kill.is_multiple_of(500) {
            println!("{kill} kills, within {longest:.0} ms, slowest start {slowest:.2?}, {:.0?}", started.elapsed());
        }
        let start = Instant::now();
        gateway.start().with_context(|| format!("seed {seed}: no start after a kill"))?;
        slowest = slowest.max(start.elapsed());
        let moment = Duration::from_millis(random.below(longest as u64));
        let before = seen.removed.lock().map_or(0, |r| r.len());
        under_load(&gateway, &access, &seen, moment)?;
        let collected = seen.removed.lock().map_or(0, |r| r.len()) > before;
        longest = if collected { (longest * 0.9).max(100.0) } else { (longest * 1.03).min(5000.0) };
        gateway.kill()?;
    }

    gateway.start()?;
    while seen.collect(&gateway, &access, 500)? > 0 {}
    ensure!(gateway.stop()? == 0);
    let verdict = gateway.run(&["verify", "--json"], b"")?;
    report(&seen, kills, seed, started.elapsed(), slowest)?;
    ensure!(verdict.code == 0, "verify: {} {}", verdict.text(), verdict.err);
    Ok(())
}

/// Lets senders and a collector work for `moment`. They end when the connection does.
fn under_load(gateway: &Gateway, access: &Access, seen: &Seen, moment: Duration) -> Result<()> {
    let stop = AtomicBool::new(false);
    let pid = gateway.server()?.pid().to_string();
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| seen.send(gateway, access));
        }
        scope.spawn(|| {
            while seen.collect(gateway, access, 20).is_ok() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        std::thread::sleep(moment);
        stop.store(true, Ordering::Relaxed);
        let status = std::process::Command::new("kill").args(["-KILL", &pid]).status();
        ensure!(status.is_ok_and(|s| s.success()), "the gateway ended before it was killed");
        Ok(())
    })
}

fn report(seen: &Seen, kills: u64, seed: u64, took: Duration, slowest: Duration) -> Result<()> {
    let acknowledged = seen.acknowledged.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
    let collected = seen.collected.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
    let faults = seen.faults.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
    let lost: Vec<_> = acknowledged.iter().filter(|(uidl, n)| collected.get(*uidl) != Some(*n)).collect();
    let numbers: BTreeSet<_> = collected.values().collect();
    let twice = collected.len() - numbers.len();
    println!(
        "kill -9, gateway: seed {seed}, kills {kills}, sent {}, acknowledged {}, found {}, removals acknowledged {}, \
         lost {}, duplicated {twice}, faults {}, slowest start {slowest:.2?}, {took:.0?} in all",
        seen.next.load(Ordering::Relaxed),
        acknowledged.len(),
        acknowledged.len() - lost.len(),
        seen.removed.lock().map_or(0, |r| r.len()),
        lost.len(),
        faults.len()
    );
    ensure!(lost.is_empty() && twice == 0 && faults.is_empty(), "seed {seed}: lost {lost:?}, faults {faults:?}");
    ensure!(slowest < START, "a start took {slowest:.1?}");
    ensure!(acknowledged.len() as u64 > kills, "hardly any load: {} acknowledged", acknowledged.len());
    Ok(())
}
