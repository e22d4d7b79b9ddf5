//! `reconcile` of a long ledger: what it takes in time and memory, and that it is green; and the gateway's memory while
//! that many reports came and went.
//!
//! `POSTKEEP_ENTRIES` sets how many reports are accepted, collected and removed (2,000; each makes two entries). Sending
//! and collecting go on side by side in slices, so that no folder grows large.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{process::Command, thread, time::Instant};
use support::{Archiver, Gateway, folder, numbered_report, run};

const USUAL: usize = 2_000;
/// Reports between two rounds.
const SLICE: usize = 5_000;
const CONNECTIONS: usize = 8;
/// Most memory of a command, in MiB.
const MOST: u64 = 512;

/// A value of `/proc/PID/status`, in MiB.
fn mib(pid: u32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

fn send(gateway: &Gateway, address: &str, numbers: std::ops::Range<usize>) -> Result<()> {
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..CONNECTIONS)
            .map(|lane| {
                let numbers = numbers.clone();
                scope.spawn(move || -> Result<()> {
                    let mut smtp = gateway.smtp()?;
                    for n in numbers.skip(lane).step_by(CONNECTIONS) {
                        let reply = smtp.send_data("", &[address], &numbered_report(n).0)?;
                        ensure!(reply.code == 250, "{n}: {reply:?}");
                    }
                    smtp.quit()
                })
            })
            .collect();
        lanes.into_iter().try_for_each(|lane| lane.join().map_err(|_| anyhow::anyhow!("a sender panicked"))?)
    })
}

#[test]
fn reconcile_of_a_long_ledger() -> Result<()> {
    let wanted = std::env::var("POSTKEEP_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(USUAL);
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    let access = gateway.create_mailbox()?;
    gateway.start()?;
    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    let (started, pid) = (Instant::now(), gateway.server()?.pid());
    let mut memory = Vec::new();
    for from in (0..wanted).step_by(SLICE) {
        send(&gateway, &access.address, from..(from + SLICE).min(wanted))?;
        while !gateway.waiting(&access.id)?.is_empty() {
            archiver.run(&["run", "--once"], b"")?.expect(0)?;
        }
        memory.push(mib(pid, "VmRSS")?);
    }
    println!(
        "{wanted} reports came and went in {:.0?}; the gateway's MiB after each {SLICE}: {memory:?}",
        started.elapsed()
    );

    for what in ["first", "again"] {
        let (report, started) = (folder.path().join("time"), Instant::now());
        let plain = archiver.command(&["reconcile", "--json"])?;
        let mut command = Command::new("/usr/bin/time");
        command.current_dir(&archiver.folder).args(["-f", "%M", "-o"]).arg(&report);
        command.arg(plain.get_program()).args(plain.get_args());
        let output = run(&mut command, b"")?.expect(0)?;
        let took = started.elapsed();
        let row = output.json_stream()?.into_iter().next().context("a row")?;
        let count = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or(u64::MAX);
        let peak = std::fs::read_to_string(&report)?.trim().parse::<u64>()? / 1024;
        println!(
            "reconcile, {what}: accepted {}, collected {}, missing {}; {took:.1?}, at most {peak} MiB",
            count("accepted"),
            count("collected"),
            count("missing")
        );
        ensure!(count("accepted") == wanted as u64 && count("collected") == wanted as u64 && count("missing") == 0);
        ensure!(peak < MOST, "{peak} MiB");
    }
    let (first, last) = (memory.first().context("a slice")?, memory.last().context("a slice")?);
    ensure!(*last < first + 64, "the gateway has grown from {first} to {last} MiB");
    ensure!(gateway.stop()? == 0);
    Ok(())
}
