//! No memory in core files: not when a program crashes, not when root has raised the limit before, not in what `gcore`
//! takes of a running one. With a secret in memory each time, and a process that shows the secret can be found.
//!
//! Needs root. The part about crashes needs a kernel that writes core files into the working directory
//! (`kernel.core_pattern` without `|` and `/`), the last one gdb; where something is missing, `NOT RUN` says so.

#[path = "support/scan.rs"]
mod scan;
mod support;

use anyhow::{Context as _, Result, ensure};
use scan::Scanner;
use std::{
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use support::{Access, Archiver, Gateway, Pop3, Server, Smtp, folder, report, run, sha256};

/// The same command with core files of any size allowed.
fn unlimited(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    shell
}

/// A process that is not protected and holds `secret`, in `folder`.
fn unprotected(folder: &Path, secret: &str) -> Result<std::process::Child> {
    let mut python = Command::new("python3");
    // The secret comes by standard input and is kept twice, so that it stands in ordinary memory.
    let code = "import sys, time\nheld = sys.stdin.readline() * 2\nprint('ready', flush=True)\ntime.sleep(600)";
    python.args(["-c", code]).current_dir(folder);
    let mut child = unlimited(&python).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().context("piped")?, format!("{secret}\n").as_bytes())?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().context("piped")?), &mut line)?;
    ensure!(line == "ready\n", "{line:?}");
    Ok(child)
}

/// Files in `folder` that look like core files.
fn cores(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("core") && entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// A gateway and an archiver, and a secret that both have had in memory.
struct Scene {
    gateway: Gateway,
    archiver: Archiver,
    access: Access,
    mark: String,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Result<Self> {
        let folder = folder()?;
        let mut gateway = Gateway::create(folder.path())?;
        let access = gateway.create_mailbox()?;
        gateway.start()?;
        let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
        gateway.stop()?;
        let mark = sha256(access.password.as_bytes())[..24].replace(|c: char| c.is_ascii_digit(), "k");
        Ok(Self { gateway, archiver, access, mark, folder })
    }

    fn scanner(&self) -> Scanner {
        let mut scanner = Scanner::default();
        scanner.add("mark", &self.mark);
        scanner.add("password", &self.access.password);
        scanner
    }

    /// A gateway that has just taken and shown the mark, with half a message and an open session besides.
    fn gateway(&self) -> Result<(Server, Smtp, Pop3)> {
        let serve = unlimited(&self.gateway.command(&["serve"])?);
        let server = Server::start(&mut { serve }, &["smtp", "pop3s"])?;
        self.send(&server)?;
        let mut half = Smtp::connect(server.address("smtp")?)?;
        for line in ["MAIL FROM:<>".to_owned(), format!("RCPT TO:<{}>", self.access.address), "DATA".to_owned()] {
            half.command(&line)?;
        }
        half.raw(format!("Subject: {}\r\n\r\n{0}\r\n", self.mark).repeat(100).as_bytes())?;
        let mut session = Pop3::connect_tls(server.address("pop3s")?, &self.gateway.pin()?)?;
        session.login(&self.access.id, &self.access.password)?;
        let (octets, _) = session.xretr(1)?;
        ensure!(support::find(&octets, self.mark.as_bytes()).is_some(), "the mark did not come out");
        Ok((server, half, session))
    }

    fn send(&self, server: &Server) -> Result<()> {
        let original = support::message("mark", "ann@aurora.example", "bob@aurora.example", &self.mark, &self.mark);
        let octets = report("ann@aurora.example", &["bob@aurora.example"], &self.mark, "<mark@x>", &original);
        let reply = Smtp::connect(server.address("smtp")?)?.send("", &[&self.access.address], &octets)?;
        ensure!(reply.code == 250, "{reply:?}");
        Ok(())
    }

    /// An archiver that serves and has just collected the mark.
    fn archiver(&mut self) -> Result<Server> {
        self.gateway.start()?;
        self.archiver.collect_from(&self.gateway, &self.access)?;
        self.send(self.gateway.server()?)?;
        let serve = unlimited(&self.archiver.command(&["serve"])?);
        let server = Server::start(&mut { serve }, &[])?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.gateway.waiting(&self.access.id)?.is_empty() {
            ensure!(Instant::now() < deadline, "nothing is collected:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

#[test]
fn a_crash_leaves_no_core_file() -> Result<()> {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let mut scene = Scene::new()?;
    let here = scene.folder.path().join("unprotected");
    std::fs::create_dir(&here)?;
    let mut child = unprotected(&here, &scene.mark)?;
    run(Command::new("kill").args(["-ABRT", &child.id().to_string()]), b"")?.expect(0)?;
    let status = child.wait()?;
    let found = cores(&here)?;
    let Some(core) = found.first().filter(|_| !pattern.contains(['|', '/'])) else {
        eprintln!("NOT RUN: this system writes no core files into the working directory (core_pattern {pattern:?})");
        return Ok(());
    };
    ensure!(status.core_dumped());
    let (hits, octets) = scene.scanner().file(core)?;
    ensure!(!hits.is_empty(), "the mark is not found in the core file of an unprotected process");
    println!("unprotected process: core file of {octets} octets, {} hits", hits.len());

    let (mut ended, mut lifted) = (0, 0);
    for signal in ["ABRT", "QUIT", "ILL"] {
        for raised in [false, true] {
            let gateway = scene.gateway()?;
            lifted += usize::from(dies(gateway.0, signal, raised, &scene.gateway.folder)?);
            let archiver = scene.archiver()?;
            lifted += usize::from(dies(archiver, signal, raised, &scene.archiver.folder)?);
            scene.gateway.stop()?;
            ended += 2;
        }
    }
    println!(
        "core files: {ended} crashes (ABRT, QUIT, ILL) under ulimit -c unlimited, in {lifted} of them the limit was \
         raised once more by root, 0 core files"
    );
    ensure!(ended == 12);
    Ok(())
}

/// Ends a program as a crash does; with `raised`, root allows core files of any size before. Whether it could: not
/// every root may (CAP_SYS_RESOURCE).
fn dies(server: Server, signal: &str, raised: bool, folder: &Path) -> Result<bool> {
    let pid = server.pid().to_string();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let limit = limits.lines().find(|line| line.starts_with("Max core file size")).context("the limit")?;
    ensure!(limit.split_whitespace().nth(4) == Some("0"), "{limit}");
    let prlimit = |_| run(Command::new("prlimit").args(["--core=unlimited", "--pid", &pid]), b"");
    let lifted = raised.then_some(()).map(prlimit).transpose()?.is_some_and(|output| output.code == 0);
    let (status, log) = server.signal(signal)?;
    ensure!(status.signal().is_some(), "{status:?}\n{log}");
    ensure!(!status.core_dumped(), "{signal}, raised {raised}: a core file was written");
    ensure!(cores(folder)?.is_empty(), "{signal}, raised {raised}: {:?}", cores(folder)?);
    Ok(lifted)
}

#[test]
fn gcore_gets_no_memory() -> Result<()> {
    let mut scene = Scene::new()?;
    let scanner = scene.scanner();
    let take = |pid: u32, name: &str| -> Result<Option<PathBuf>> {
        let prefix = scene.folder.path().join(name);
        let took = run(Command::new("gcore").arg("-o").arg(&prefix).arg(pid.to_string()), b"");
        let file = prefix.with_extension(pid.to_string());
        Ok(took.ok().filter(|_| file.exists()).map(|_| file))
    };
    let mut child = unprotected(scene.folder.path(), &scene.mark)?;
    let control = take(child.id(), "unprotected");
    child.kill()?;
    child.wait()?;
    let Some(control) = control? else {
        eprintln!("NOT RUN: gcore (gdb) is missing or may not trace");
        return Ok(());
    };
    let (hits, octets) = in_memory(&scanner, &control)?;
    ensure!(hits > 0, "the mark is not found in the memory of an unprotected process");
    println!("gcore of an unprotected process: {octets} octets, {hits} hits");

    let gateway = scene.gateway()?;
    let file = take(gateway.0.pid(), "gateway")?.context("gcore of the gateway")?;
    let (hits, octets) = in_memory(&scanner, &file)?;
    println!("gcore of the gateway, logged in, half a message received: {octets} octets, {hits} hits");
    ensure!(hits == 0);
    gateway.0.kill()?;

    let archiver = scene.archiver()?;
    let prefix = scene.folder.path().join("archiver-core");
    run(Command::new("gcore").arg("-o").arg(&prefix).arg(archiver.pid().to_string()), b"")?;
    let (hits, octets) = in_memory(&scanner, &prefix.with_extension(archiver.pid().to_string()))?;
    println!("gcore of the archiver after a round: {octets} octets, {hits} hits");
    ensure!(hits == 0);
    archiver.kill()?;
    scene.gateway.stop()?;
    Ok(())
}

/// Hits in what a core file holds of memory, that is, in its segments; and its size. The registers of each thread stand
/// in its notes: nothing keeps them out, and what was copied last may be in them.
fn in_memory(scanner: &Scanner, core: &Path) -> Result<(usize, u64)> {
    let (hits, octets) = scanner.file(core)?;
    let listed = run(Command::new("readelf").args(["-lW"]).arg(core), b"")?.expect(0)?.text();
    let number = |word: Option<&str>| {
        let word = word.and_then(|word| word.strip_prefix("0x")).context("readelf")?;
        Ok::<_, anyhow::Error>(u64::from_str_radix(word, 16)?)
    };
    let mut segments = Vec::new();
    for line in listed.lines().filter(|line| line.trim_start().starts_with("LOAD")) {
        let mut words = line.split_whitespace().skip(1);
        let offset = number(words.next())?;
        segments.push(offset..offset + number(words.nth(2))?);
    }
    let inside = hits.iter().filter(|hit| segments.iter().any(|segment| segment.contains(&hit.offset)));
    Ok((inside.count(), octets))
}
