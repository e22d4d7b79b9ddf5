//! Processes under measurement: started, waited for, their CPU time and memory read from /proc, ended.
//!
//! CPU is that of the whole tree below the process that was started, with children that ended meanwhile; what the
//! kernel does on its own behalf (writing the journal, for one) is nobody's, for every server alike.

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A running server. Ended with its value.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a server whose output goes to the file `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        let err = out.try_clone()?;
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until it says `listening <kind> <address>`, as our own programs do.
    pub(crate) fn listening(&mut self, kind: &str) -> Result<SocketAddr> {
        let begin = format!("listening {kind} ");
        self.wait_for("listens", |server| {
            let text = server.text();
            let line = text.lines().find_map(|line| line.strip_prefix(&begin));
            line.and_then(|address| address.parse().ok())
        })
    }

    /// Waits until something answers on a port that was chosen for it.
    pub(crate) fn answers(&mut self, port: u16) -> Result<SocketAddr> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        self.wait_for("answers", |_| TcpStream::connect(address).is_ok().then_some(address))
    }

    /// Waits until something of it is found; `what` it never does otherwise.
    pub(crate) fn wait_for<T>(&mut self, what: &str, found: impl Fn(&Self) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(found) = found(self) {
                return Ok(found);
            }
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none() && Instant::now() < deadline, "it never {what} ({ended:?}):\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it wrote so far.
    pub(crate) fn text(&self) -> String {
        fs::read(&self.log).map(|octets| String::from_utf8_lossy(&octets).into_owned()).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of it and everything below it.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        tree_cpu(self.pid())
    }

    /// Most memory it held, in octets; of itself alone.
    pub(crate) fn peak(&self) -> Result<u64> {
        status(self.pid(), "VmHWM:")
    }

    /// Memory it holds, in octets; of itself alone.
    pub(crate) fn resident(&self) -> Result<u64> {
        status(self.pid(), "VmRSS:")
    }

    /// Ends it as an operator would.
    pub(crate) fn stop(mut self) -> Result<()> {
        ensure!(Command::new("kill").args(["-TERM", &self.pid().to_string()]).status()?.success(), "kill failed");
        self.wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + STOP_LIMIT;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "it does not end:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already in the good case.
        let _ = Command::new("kill").args(["-TERM", &self.pid().to_string()]).stderr(Stdio::null()).status();
        std::thread::sleep(Duration::from_millis(20));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command that ran to its end cost.
#[derive(Debug, Clone)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// Most memory it held, in octets.
    pub(crate) peak: u64,
    pub(crate) output: String,
}

/// Runs a command to a good end, with /usr/bin/time around it.
pub(crate) fn run(command: &Command, folder: &Path) -> Result<Cost> {
    let times = folder.join("time.txt");
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-f", "%e %U %S %M", "-o"]).arg(&times).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => timed.env(name, value),
            None => timed.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        timed.current_dir(folder);
    }
    let began = Instant::now();
    let output = timed.stdin(Stdio::null()).output().context("cannot start /usr/bin/time")?;
    let wall = began.elapsed();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?} failed:\n{out}\n{err}");
    let text = fs::read_to_string(&times)?;
    let figures: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [_, user, system, peak] = figures[..] else { bail!("/usr/bin/time says {text:?}") };
    let cpu = Duration::from_secs_f64(user + system);
    Ok(Cost { wall, cpu, peak: (peak * 1024.0) as u64, output: out.into_owned() })
}

/// Runs a command that must end well; its output.
pub(crate) fn must(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?} failed:\n{out}\n{err}");
    Ok(out.into_owned())
}

/// A port nobody has now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// CPU time of this process so far.
pub(crate) fn own_cpu() -> Result<Duration> {
    tree_cpu(std::process::id())
}

fn status(pid: u32, field: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Of one process: its parent and the clock ticks it and its waited-for children used.
fn ticks(pid: u32) -> Option<(u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, also spaces and brackets.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |place: usize| fields.get(place).and_then(|field| field.parse::<u64>().ok());
    let used = [11, 12, 13, 14].into_iter().map(number).sum::<Option<u64>>()?;
    Some((u32::try_from(number(1)?).ok()?, used))
}

fn tree_cpu(root: u32) -> Result<Duration> {
    static PER_SECOND: LazyLock<u64> = LazyLock::new(|| {
        let said = Command::new("getconf").arg("CLK_TCK").output().ok();
        said.and_then(|said| String::from_utf8_lossy(&said.stdout).trim().parse().ok()).unwrap_or(100)
    });
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
            && let Some(found) = ticks(pid)
        {
            all.insert(pid, found);
        }
    }
    let below = |mut pid: u32| loop {
        if pid == root {
            return true;
        }
        match all.get(&pid) {
            Some((parent, _)) => pid = *parent,
            None => return false,
        }
    };
    let sum: u64 = all.iter().filter(|(pid, _)| below(**pid)).map(|(_, (_, used))| used).sum();
    Ok(Duration::from_secs_f64(sum as f64 / *PER_SECOND as f64))
}

/// Octets below a folder: as the disk allocates them, and as the files count them.
pub(crate) fn disk_use(folder: &Path) -> Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let (mut allocated, mut octets) = (0, 0);
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let found = entry.metadata()?;
        if found.is_dir() {
            let below = disk_use(&entry.path())?;
            (allocated, octets) = (allocated + below.0, octets + below.1);
        } else {
            (allocated, octets) = (allocated + found.blocks() * 512, octets + found.len());
        }
    }
    Ok((allocated, octets))
}
