//! A command killed at its system calls: strace sends SIGKILL at the n-th call of one kind.

use super::{Output, run};
use anyhow::{Context as _, Result};
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

/// Everything that changes or syncs a file or talks to a peer.
const CALLS: [&str; 12] = [
    "openat",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "renameat2",
    "unlink",
    "flock",
    "ftruncate",
    "sendto",
    "recvfrom",
];

/// The n-th call of this name in some thread.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub call: &'static str,
    pub n: usize,
}

/// The points of a run of `command` that is not killed: of each kind of call at most `usual`, evenly spread, or all with
/// `POSTKEEP_POINTS=all`. `None`, after saying so, where strace cannot be used; that is an error under `CI=true`.
pub fn points(command: &Command, input: &[u8], folder: &Path, usual: usize) -> Result<Option<(Output, Vec<Point>)>> {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        anyhow::ensure!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "strace cannot be used");
        eprintln!("NOT RUN: strace cannot be used here");
        return Ok(None);
    }
    let trace = folder.join("strace.out");
    let filter = format!("trace={}", CALLS.join(","));
    let output = traced(command, &["-o", &trace.display().to_string(), "-e", &filter], input)?;
    let text = String::from_utf8_lossy(&std::fs::read(&trace)?).into_owned();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in text.lines() {
        let (thread, rest) = line.split_once(char::is_whitespace).context("a line of strace")?;
        let name = rest.trim_start().split('(').next().unwrap_or_default();
        if let Some(call) = CALLS.iter().find(|call| **call == name) {
            *counts.entry((*call, thread)).or_default() += 1;
        }
    }
    let all = std::env::var("POSTKEEP_POINTS").is_ok_and(|p| p == "all");
    let mut points = Vec::new();
    for call in CALLS {
        let most = counts.iter().filter(|((c, _), _)| *c == call).map(|(_, n)| *n).max().unwrap_or(0);
        let taken = if all { most } else { most.min(usual) };
        // From the end: the first calls of every program only load it.
        points.extend((0..taken).map(|i| Point { call, n: most - i * most / taken }));
    }
    Ok(Some((output, points)))
}

/// Runs `command` and kills it at `point`.
pub fn killed(command: &Command, input: &[u8], point: Point) -> Result<Output> {
    let Point { call, n } = point;
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={n}"));
    traced(command, &["-o", "/dev/null", "-e", &trace, "-e", &inject], input)
}

fn traced(command: &Command, arguments: &[&str], input: &[u8]) -> Result<Output> {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq"]).args(arguments).arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        traced.current_dir(folder);
    }
    run(&mut traced, input)
}
