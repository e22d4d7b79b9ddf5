//! perf (Debian's `linux-perf`): samples a program while it works, and reads what it found.
//!
//! * `task-clock`, 997 times in a second of processor time: there is no counter of cycles in most virtual machines, and
//!   `cpu-clock` loses more than half of its samples where threads change as often as the gateway's do. An odd rate
//!   does not fall into step with what a program does every millisecond.
//! * Stacks by the tables of DWARF, from 8 KiB of each sample's stack: the release build and Debian's libc have no frame
//!   pointers, so the cheaper way gives the kernel's frames only, and without callers nobody knows for whom a field
//!   element is multiplied or memory copied. Copying them makes the gateway's reports dearer by a
//!   tenth to a half; it happens within the interrupt that samples, so it is seen in no category and falls to all alike.
//!   What lies deeper than 8 KiB is the runtime's.
//! * Names of functions that stand on their own: asking for inlined ones takes minutes, and the rules need none.

use crate::{
    peers,
    process::{Server, must},
};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
};

/// Samples in a second of processor time.
pub(crate) const FREQUENCY: u32 = 997;
/// Where perf stops by itself.
const LARGEST: &str = "2G";

/// One function that was being executed.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kernel: bool,
    pub(crate) name: String,
}

/// Why nothing can be sampled here.
pub(crate) fn missing() -> Option<String> {
    if let Some(why) = peers::missing(&["perf"], false) {
        return Some(why);
    }
    let root = peers::missing(&[], true).is_none();
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok();
    let level = level.and_then(|text| text.trim().parse::<i32>().ok());
    // perf itself would leave the kernel out without a word.
    if !root && level.is_none_or(|level| level > 1) {
        return Some("perf may not look at the kernel: it wants root, or kernel.perf_event_paranoid at 1".to_owned());
    }
    let symbols = File::open("/proc/kallsyms").map(|file| BufReader::new(file).lines().next());
    if !matches!(symbols, Ok(Some(Ok(line))) if !line.starts_with("0000000000000000 ")) {
        return Some(
            "names of the kernel's functions are hidden: perf wants root, or kernel.kptr_restrict at 0".to_owned(),
        );
    }
    let mut trial = record(Path::new("/dev/null"));
    must(trial.args(["--", "true"])).err().map(|error| {
        let text = error.to_string();
        let said = text.lines().skip(1).map(str::trim).find(|line| !line.is_empty());
        format!("perf cannot sample here: {}", said.unwrap_or_default())
    })
}

/// perf as it is always started; nothing is kept in the user's own folder.
fn record(data: &Path) -> Command {
    let mut command = Command::new("perf");
    command.args([
        "record",
        "--quiet",
        "--no-buildid-cache",
        "--event",
        "task-clock",
        "--freq",
        &FREQUENCY.to_string(),
    ]);
    command.args(["--call-graph", "dwarf,8192", "--max-size", LARGEST, "--output"]).arg(data);
    command
}

/// The command with perf around it, to be run to its end.
pub(crate) fn around(command: &Command, data: &Path) -> Command {
    let mut sampled = record(data);
    sampled.arg("--").arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        sampled.current_dir(folder);
    }
    sampled
}

/// perf beside a program that runs.
pub(crate) struct Recording {
    perf: Server,
    data: PathBuf,
}

impl Recording {
    /// Samples a running program from now on; what it does before this returns is not in it.
    pub(crate) fn begin(pid: u32, data: &Path) -> Result<Self> {
        let beside = |name: &str| data.with_file_name(name);
        let (control, answers) = (beside("perf.control"), beside("perf.answers"));
        must(Command::new("mkfifo").args([&control, &answers]))?;
        let mut command = record(data);
        command.args(["--pid", &pid.to_string(), "--delay", "-1"]);
        // By their names alone, since a comma divides them.
        command.current_dir(data.parent().context("a folder")?).arg("--control=fifo:perf.control,perf.answers");
        let mut perf = Server::start(&mut command, &beside("perf.log"))?;
        // In both directions, or this would wait for a perf that failed; held, or the word would be gone before perf is there.
        let mut control = OpenOptions::new().read(true).write(true).open(&control)?;
        control.write_all(b"enable\n")?;
        let (sender, enabled) = mpsc::channel();
        // A thread, since only that can be left behind where no answer comes.
        std::thread::spawn(move || {
            let mut answer = [0; 4];
            let read = File::open(answers).and_then(|mut answers| answers.read_exact(&mut answer));
            // Nobody waits any more where perf has failed.
            let _ = sender.send(read.map(|()| answer));
        });
        let answer = perf.wait_for("samples", |_| enabled.try_recv().ok())??;
        ensure!(answer == *b"ack\n", "perf answers {answer:?}");
        Ok(Self { perf, data: data.to_owned() })
    }

    /// Ends it, not the program.
    pub(crate) fn end(self) -> Result<PathBuf> {
        self.perf.stop()?;
        Ok(self.data)
    }
}

/// Gives every sample of a file to `each`, one after the other: name of the thread, frames from the innermost outwards.
pub(crate) fn stacks(data: &Path, each: impl FnMut(&str, &[Frame])) -> Result<()> {
    let mut command = Command::new("perf");
    command.args(["script", "--no-inline", "--fields", "comm,tid,ip,sym", "--input"]).arg(data);
    // Where it is set, perf asks other machines for the symbols of every library.
    command.env_remove("DEBUGINFOD_URLS");
    let log = data.with_extension("script");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?).spawn()?;
    let out = child.stdout.take().context("perf's output")?;
    let read = read(BufReader::new(out), each);
    if read.is_err() {
        // It may have ended by itself.
        let _ = child.kill();
    }
    let status = child.wait()?;
    read?;
    ensure!(status.success(), "{command:?} failed:\n{}", fs::read_to_string(&log)?);
    Ok(())
}

/// Reads what `perf script` writes for the fields above: a line with the thread, a line for each frame, an empty line.
pub(crate) fn read(mut text: impl BufRead, mut each: impl FnMut(&str, &[Frame])) -> Result<()> {
    let (mut line, mut thread, mut stack) = (Vec::new(), None::<String>, Vec::new());
    loop {
        line.clear();
        let ended = text.read_until(b'\n', &mut line)? == 0;
        let said = String::from_utf8_lossy(&line);
        let said = said.trim_end();
        if said.is_empty() {
            if let Some(thread) = thread.take() {
                each(&thread, &stack);
            }
            stack.clear();
            if ended {
                return Ok(());
            }
        } else if thread.is_none() {
            // The name may hold spaces, the number behind it does not.
            let (name, _) = said.rsplit_once(char::is_whitespace).with_context(|| format!("no thread: {said:?}"))?;
            thread = Some(name.trim().to_owned());
        } else {
            let (address, name) = said.trim_start().split_once(' ').with_context(|| format!("no frame: {said:?}"))?;
            let address = u64::from_str_radix(address, 16).with_context(|| format!("no frame: {said:?}"))?;
            // What could not be followed any further has an address of ones and no name.
            let kernel = address >> 63 == 1 && address != u64::MAX;
            stack.push(Frame { kernel, name: name.trim().to_owned() });
        }
    }
}
