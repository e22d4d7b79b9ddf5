//! The programs under test: found or built, run to their end, or kept running as servers.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock, mpsc},
    time::{Duration, Instant},
};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// The program `name` from the build this test belongs to. Cargo builds binaries only for the package that is
/// tested, so a missing one is built here.
pub fn program(name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let test = std::env::current_exe()?;
    // target/<profile>/deps/<test>
    let folder = test.parent().and_then(Path::parent).context("a test stands in target/<profile>/deps")?;
    let path = folder.join(name);
    if !path.exists() {
        BUILT.get_or_init(|| build(folder).map_err(|e| format!("{e:#}"))).clone().map_err(anyhow::Error::msg)?;
    }
    ensure!(path.exists(), "{} is missing and cargo build did not make it", path.display());
    Ok(path)
}

fn build(folder: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(super::root()).args(["build", "-p", "postkeep-gateway", "-p", "postkeep-archiver", "--bins"]);
    command.arg("--target-dir").arg(folder.parent().context("target folder")?);
    if folder.file_name().is_some_and(|n| n == "release") {
        command.arg("--release");
    }
    ensure!(command.status()?.success(), "cargo build failed");
    Ok(())
}

/// How a command ended.
pub struct Output {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// The one JSON document on standard output.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.out)
            .with_context(|| format!("not one JSON document: {}\n{}", self.text(), self.err))
    }

    /// The JSON documents on standard output, with a list taken as its items.
    pub fn json_stream(&self) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for document in serde_json::Deserializer::from_slice(&self.out).into_iter::<Value>() {
            match document.with_context(|| format!("not JSON: {}\n{}", self.text(), self.err))? {
                Value::Array(items) => all.extend(items),
                document => all.push(document),
            }
        }
        Ok(all)
    }

    /// This output, if the command ended with `code`.
    pub fn expect(self, code: i32) -> Result<Self> {
        ensure!(self.code == code, "exit code {} instead of {code}\n{}\n{}", self.code, self.text(), self.err);
        Ok(self)
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command, input: &[u8]) -> Result<Output> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| shown.clone())?;
    let mut stdin = child.stdin.take().context("piped")?;
    let input = input.to_vec();
    // A command that does not read its input must not block the test.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A running program. Ended with its value.
pub struct Server {
    child: Child,
    addresses: Vec<(String, SocketAddr)>,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts a program and waits until it listens on every address of `kinds`.
    pub fn start(command: &mut Command, kinds: &[&str]) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().context("piped")?;
        let log = Arc::new(Mutex::new(String::new()));
        let (found, addresses) = mpsc::channel();
        let keep = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(address) = listening(&line) {
                    let _ = found.send(address);
                }
                if let Ok(mut log) = keep.lock() {
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        });
        let mut server = Self { child, addresses: Vec::new(), log };
        let deadline = Instant::now() + START_LIMIT;
        while !kinds.iter().all(|kind| server.address(kind).is_ok()) {
            let left = deadline.saturating_duration_since(Instant::now());
            match addresses.recv_timeout(left) {
                Ok(address) => server.addresses.push(address),
                Err(_) => bail!("the program does not listen on {kinds:?}:\n{}", server.log()),
            }
        }
        Ok(server)
    }

    /// The first address of this kind.
    pub fn address(&self, kind: &str) -> Result<SocketAddr> {
        let found = self.addresses.iter().find(|(k, _)| k == kind).map(|(_, address)| *address);
        found.with_context(|| format!("no address of kind {kind}"))
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().map(|log| log.clone()).unwrap_or_default()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Most memory the process ever held, in KiB (`VmHWM`).
    pub fn peak_kib(&self) -> Result<u64> {
        peak_kib(self.pid())
    }

    /// Ends it as an operator would (SIGTERM) and gives the exit code.
    pub fn stop(mut self) -> Result<i32> {
        let status = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status()?;
        ensure!(status.success(), "kill failed");
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code().unwrap_or(-1));
            }
            ensure!(Instant::now() < deadline, "the program does not stop at SIGTERM:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its exit code, where it ends by itself within `limit`; -1 for a signal.
    pub fn ended(&mut self, limit: Duration) -> Result<Option<i32>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status.code().unwrap_or(-1)));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal by name and waits for its end; how it ended and what it had written.
    pub fn signal(mut self, name: &str) -> Result<(std::process::ExitStatus, String)> {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status()?;
        ensure!(status.success(), "kill failed");
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, self.log()));
            }
            ensure!(Instant::now() < deadline, "the program does not end at {name}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it as a crash would (SIGKILL).
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `listening smtp 127.0.0.1:4711`
fn listening(line: &str) -> Option<(String, SocketAddr)> {
    let mut words = line.strip_prefix("listening ")?.split(' ');
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

/// Most memory a process ever held, in KiB.
pub fn peak_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
