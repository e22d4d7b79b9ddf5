//! A blow at one system call of a program: killed there, or that one call fails. The tracer is `strike.py`.

use super::run;
use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Errors a disk gives.
pub const ERRORS: [(&str, i32); 5] = [("EIO", 5), ("ENOSPC", 28), ("EDQUOT", 122), ("EROFS", 30), ("EMFILE", 24)];

/// What happens at the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL before the kernel does anything.
    Kill,
    /// The same, and only calls that change files count: what is only read is not, nor what goes out on connections.
    KillChange,
    /// The kernel does nothing and gives this error.
    Fail(&'static str, i32),
}

/// What is watched, and where to strike.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    pub blow: Blow,
    /// The n-th call, from 1; 0 only counts.
    pub at: usize,
}

/// A system call on a file, or (where the program is to be killed) on a connection.
#[derive(Debug, Clone)]
pub struct Call {
    /// `open`, `write`, `fdatasync` …; the variants of one call under one name.
    pub kind: String,
    /// The file.
    pub path: String,
}

impl Call {
    /// Whether an error here means that something may not be on the disk: what rests on it must not be promised.
    pub fn puts_on_disk(&self) -> bool {
        matches!(self.kind.as_str(), "write" | "fsync" | "fdatasync" | "rename")
    }
}

impl std::fmt::Display for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.blow {
            Blow::Kill | Blow::KillChange => write!(f, "killed at call {}", self.at),
            Blow::Fail(name, _) => write!(f, "{name} at call {}", self.at),
        }
    }
}

/// A tracer at work. It lets the program go with its value.
pub struct Tracer {
    child: Child,
    log: PathBuf,
}

impl Watch {
    /// The tracer's command line up to the program.
    fn tracer(self, log: &Path, below: &Path) -> Command {
        let mut command = Command::new("python3");
        command.arg(super::root().join("tests/support/strike.py")).arg("--log").arg(log).arg("--below").arg(below);
        match self.blow {
            Blow::Kill => command.args(["--sockets", "--kill"]),
            Blow::KillChange => command.args(["--changes", "--kill"]),
            Blow::Fail(_, errno) => command.args(["--errno", &errno.to_string()]),
        };
        command.args(["--at", &self.at.to_string()]);
        command
    }

    /// Attaches to every thread of a running program; at work when this returns. `below`: the folder that counts.
    pub fn attach(self, pid: u32, log: &Path, below: &Path) -> Result<Tracer> {
        let _ = std::fs::remove_file(log);
        let mut command = self.tracer(log, below);
        command.args(["--pid", &pid.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut tracer = Tracer { child: command.spawn().context("python3")?, log: log.to_owned() };
        let deadline = Instant::now() + Duration::from_secs(30);
        while tracer.lines().first().is_none_or(|line| line != "ready") {
            ensure!(tracer.child.try_wait()?.is_none() && Instant::now() < deadline, "the tracer cannot attach");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(tracer)
    }

    /// The command under the tracer, in `folder`; the exit code is the program's, 137 where it was killed.
    pub fn run(self, command: &Command, folder: &Path, log: &Path, input: &[u8]) -> Result<super::Output> {
        let mut traced = self.tracer(log, folder);
        traced.arg("--").arg(command.get_program()).args(command.get_args()).current_dir(folder);
        run(&mut traced, input)
    }
}

impl Tracer {
    fn lines(&self) -> Vec<String> {
        // A line that is just being written is not there yet.
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.rsplit_once('\n').map(|(whole, _)| whole.lines().map(str::to_owned).collect()).unwrap_or_default()
    }

    /// Whether the blow has fallen.
    pub fn has_struck(&self) -> bool {
        self.lines().last().is_some_and(|line| line == "struck")
    }

    /// Waits for what the program does behind its answers: at most `limit`, and no longer than until the blow.
    pub fn linger(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.has_struck() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets the program go; every call that counted, and whether the last one was struck.
    pub fn end(mut self) -> Result<Seen> {
        let _ = self.child.kill();
        self.child.wait()?;
        Seen::read(&self.log)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a tracer saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub calls: Vec<Call>,
    pub struck: Option<Call>,
}

impl Seen {
    pub fn read(log: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(log).context("the tracer wrote no log")?;
        let call = |line: &str| {
            let mut words = line.splitn(3, ' ').skip(1).map(str::to_owned);
            Some(Call { kind: words.next()?, path: words.next()? })
        };
        let calls: Vec<Call> = text.lines().filter_map(call).collect();
        let struck = text.lines().any(|line| line == "struck").then(|| calls.last().cloned()).flatten();
        Ok(Self { calls, struck })
    }

    /// How many of each kind.
    pub fn by_kind(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        self.calls.iter().for_each(|call| *kinds.entry(call.kind.clone()).or_default() += 1);
        kinds
    }
}

/// Whether programs can be traced here; says so where not, and fails under `CI=true`.
pub fn is_possible() -> Result<bool> {
    let folder = super::folder()?;
    let watch = Watch { blow: Blow::Fail("EIO", 5), at: 1 };
    let mut touch = Command::new("touch");
    touch.arg(folder.path().join("file"));
    let output = watch.run(&touch, folder.path(), &folder.path().join("log"), b"")?;
    if output.code == 1 && output.err.contains("Input/output error") {
        return Ok(true);
    }
    let why = format!("this test needs Linux on x86-64, python3 and the right to trace (ptrace): {}", output.err);
    ensure!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{why}");
    eprintln!("NOT RUN: {why}");
    Ok(false)
}

/// The command as it would find its files on another file system: statfs(2) says this magic number.
pub fn on_file_system(magic: u64, command: &Command, folder: &Path, log: &Path) -> Command {
    let watch = Watch { blow: Blow::Kill, at: 0 };
    let mut traced = watch.tracer(log, folder);
    traced.args(["--statfs", &magic.to_string(), "--"]).arg(command.get_program()).args(command.get_args());
    traced.current_dir(folder);
    traced
}

/// Which of `all` points are tried: all with `POSTKEEP_POINTS=all`, else `usual`, spread evenly behind an offset that
/// the seed gives.
pub fn sample(all: usize, usual: usize, random: &mut super::Random) -> Vec<usize> {
    if all <= usual || std::env::var("POSTKEEP_POINTS").is_ok_and(|points| points == "all") {
        return (0..all).collect();
    }
    spread(0, all, usual, random)
}

/// As [`sample`], with every other point in the last quarter: most of what is promised is promised there.
pub fn sample_to_the_end(all: usize, usual: usize, random: &mut super::Random) -> Vec<usize> {
    let (taken, quarter) = (sample(all, usual, random), all - all / 4);
    if taken.len() == all {
        return taken;
    }
    let mut points = spread(0, quarter, usual / 2, random);
    points.extend(spread(quarter, all, usual - usual / 2, random));
    points
}

fn spread(from: usize, to: usize, count: usize, random: &mut super::Random) -> Vec<usize> {
    let all = to - from;
    let count = count.min(all);
    let offset = random.below(all.max(1) as u64) as usize;
    let mut points: Vec<usize> = (0..count).map(|i| from + (offset + i * all / count) % all).collect();
    points.sort_unstable();
    points
}
