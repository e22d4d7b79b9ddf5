//! The systemd units in `deploy/systemd`: that systemd accepts them, how strict they are, that they forbid nothing which the
//! programs do, and that the programs tell systemd what it waits for.

mod support;

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeSet,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use support::{Archiver, Gateway, Server, folder, program::program, root, run};

/// Out of 100: what `systemd-analyze security` may still find (2.0 of 10).
const EXPOSURE: &str = "20";
const SERVICES: &[&str] = &["postkeep-gateway.service", "postkeep-archiver.service", "postkeep-archiver-run.service"];

fn has(name: &str, package: &str) -> Result<bool> {
    let quiet = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let has = quiet.is_ok_and(|status| status.success());
    if !has {
        eprintln!("NOT RUN: units need {name} (apt-get install {package})");
        ensure!(std::env::var_os("CI").is_none(), "under CI everything runs");
    }
    Ok(has)
}

/// The units with the programs of this build in place of those in /usr/bin.
fn units(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut units = Vec::new();
    for entry in std::fs::read_dir(root().join("deploy/systemd"))? {
        let file = entry?.path();
        let name = file.file_name().context("a name")?.to_owned();
        if !file.extension().is_some_and(|e| e == "service" || e == "timer") {
            continue;
        }
        let mut text = std::fs::read_to_string(&file)?;
        for name in ["postkeep-gateway", "postkeep-archiver"] {
            text = text.replace(&format!("=/usr/bin/{name} "), &format!("={} ", program(name)?.display()));
        }
        // The page is where the package puts it.
        let text: String =
            text.lines().filter(|line| !line.starts_with("Documentation=")).map(|line| format!("{line}\n")).collect();
        let unit = folder.join(name);
        std::fs::write(&unit, text)?;
        units.push(unit);
    }
    ensure!(units.len() == 4, "{units:?}");
    Ok(units)
}

#[test]
fn systemd_accepts_them_and_finds_little_to_say() -> Result<()> {
    if !has("systemd-analyze", "systemd")? {
        return Ok(());
    }
    let folder = folder()?;
    let units = units(folder.path())?;
    let verified = run(Command::new("systemd-analyze").arg("verify").args(&units), b"")?;
    // What other units of this machine lack is not ours.
    let ours: Vec<&str> = verified.err.lines().filter(|line| line.contains("postkeep")).collect();
    ensure!(ours.is_empty(), "{ours:#?}");
    for service in SERVICES {
        let unit = root().join("deploy/systemd").join(service);
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE]).arg(unit);
        let output = run(&mut command, b"")?;
        let score = output.text().lines().find(|l| l.contains("Overall exposure")).unwrap_or_default().to_owned();
        println!("{}", score.trim_start_matches(['→', ' ']));
        output.expect(0)?;
    }
    Ok(())
}

/// System calls that a unit's filter lets through.
fn allowed(unit: &str) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("deploy/systemd").join(unit))?;
    let mut allowed = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (deny, words) = line.strip_prefix('~').map_or((false, line), |words| (true, words));
        for word in words.split(' ') {
            let calls = if word.starts_with('@') { group(word)? } else { BTreeSet::from([word.to_owned()]) };
            if deny {
                allowed = allowed.difference(&calls).cloned().collect();
            } else {
                allowed.extend(calls);
            }
        }
    }
    ensure!(allowed.len() > 100, "{}", allowed.len());
    Ok(allowed)
}

fn group(name: &str) -> Result<BTreeSet<String>> {
    let output = run(Command::new("systemd-analyze").args(["--no-pager", "syscall-filter", name]), b"")?.expect(0)?;
    let mut calls = BTreeSet::new();
    for word in output.text().lines().skip(1).map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if word.starts_with('@') {
            calls.extend(group(word)?);
        } else {
            calls.insert(word.to_owned());
        }
    }
    Ok(calls)
}

/// Every system call in a trace of `strace -f`.
fn called(trace: &Path) -> Result<BTreeSet<String>> {
    let text = String::from_utf8_lossy(&std::fs::read(trace)?).into_owned();
    let name = |line: &str| {
        let call = line.split_once(' ')?.1.trim_start();
        let call = call.strip_prefix("<... ").map_or(call, |rest| rest.split(' ').next().unwrap_or_default());
        let name: String = call.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        (!name.is_empty() && !call.starts_with(['+', '-'])).then_some(name)
    };
    Ok(text.lines().filter_map(name).collect())
}

#[test]
fn no_system_call_is_forbidden_that_the_programs_make() -> Result<()> {
    if !has("systemd-analyze", "systemd")? || !has("strace", "strace")? {
        return Ok(());
    }
    let folder = folder()?;
    let gateway = Gateway::create(folder.path())?;
    let access = gateway.create_mailbox()?;
    gateway.configure("[metrics]\nlisten = [\"127.0.0.1:0\"]\n")?;
    let traced = |command: Command, name: &str| {
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-qq", "-s", "0", "-o"])
            .arg(folder.path().join(format!("{name}.trace")))
            .arg(command.get_program());
        strace.args(command.get_args());
        if let Some(at) = command.get_current_dir() {
            strace.current_dir(at);
        }
        strace
    };
    let server = Server::start(&mut traced(gateway.command(&["serve"])?, "gateway"), &["smtp", "pop3s", "metrics"])?;
    let archiver = Archiver::create(folder.path())?;
    let password = archiver.folder.join("m365.password");
    std::fs::write(&password, format!("{}\n", access.password))?;
    support::archiver::restrict(&password)?;
    archiver.configure(&format!(
        "[metrics]\nlisten = [\"127.0.0.1:0\"]\n[[source]]\nname = \"m365\"\nhosts = [\"{}\"]\nmailbox = \"{}\"\n\
         password_file = \"m365.password\"\ntls = {{ verify = \"pin\", pin_sha256 = [\"{}\"] }}\ninterval = \"1s\"\n",
        server.address("pop3s")?,
        access.id,
        gateway.pin()?
    ))?;
    let mut smtp = support::Smtp::connect_tls(server.address("smtp")?, &gateway.pin()?)?;
    let send = |smtp: &mut support::Smtp, n: usize| -> Result<()> {
        let reply = smtp.send_data("", &[&access.address], &support::numbered_report(n).0)?;
        ensure!(reply.code == 250, "{reply:?}");
        Ok(())
    };
    send(&mut smtp, 0)?;
    archiver_once(&archiver, traced(archiver.command(&["run", "--once"])?, "once"))?;
    let collecting = Server::start(&mut traced(archiver.command(&["serve"])?, "archiver"), &["metrics"])?;
    send(&mut smtp, 1)?;
    let deadline = Instant::now() + Duration::from_secs(90);
    while !gateway.waiting(&access.id)?.is_empty() {
        ensure!(Instant::now() < deadline, "not collected:\n{}", collecting.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    for server in [&server, &collecting] {
        for path in ["/metrics", "/healthz", "/readyz"] {
            support::http::get(server.address("metrics")?, path)?;
        }
    }
    smtp.quit()?;
    for server in [collecting, server] {
        // Not strace itself: what it traces.
        let children = format!("/proc/{0}/task/{0}/children", server.pid());
        let traced = std::fs::read_to_string(children)?.trim().to_owned();
        ensure!(Command::new("kill").args(["-HUP", &traced]).status()?.success());
        std::thread::sleep(Duration::from_secs(1));
        ensure!(Command::new("kill").args(["-TERM", &traced]).status()?.success());
        let mut server = server;
        ensure!(server.ended(Duration::from_secs(60))? == Some(0), "{}", server.log());
    }
    for (trace, unit) in ["gateway", "archiver", "once"].iter().zip(SERVICES) {
        let (allowed, called) = (allowed(unit)?, called(&folder.path().join(format!("{trace}.trace")))?);
        let forbidden: Vec<_> = called.difference(&allowed).collect();
        println!("{unit}: {} system calls used, {} allowed", called.len(), allowed.len());
        ensure!(called.len() > 30 && forbidden.is_empty(), "{unit} forbids {forbidden:?}");
    }
    Ok(())
}

fn archiver_once(archiver: &Archiver, mut command: Command) -> Result<()> {
    command.current_dir(&archiver.folder);
    run(&mut command, b"")?.expect(0).map(drop)
}

/// What a program says to the socket of a service manager, until it says `last`.
fn heard(manager: &UnixDatagram, last: &str) -> Result<Vec<String>> {
    manager.set_read_timeout(Some(Duration::from_secs(60)))?;
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let length = manager.recv(&mut buffer).with_context(|| format!("waiting for {last}, heard {said:?}"))?;
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        said.extend(text.lines().map(str::to_owned));
        if said.iter().any(|line| line == last) {
            return Ok(said);
        }
    }
}

#[test]
fn both_programs_tell_systemd_how_they_are() -> Result<()> {
    let folder = folder()?;
    let gateway = Gateway::create(folder.path())?;
    let archiver = Archiver::create(folder.path())?;
    let password = archiver.folder.join("p");
    std::fs::write(&password, "no matter\n")?;
    support::archiver::restrict(&password)?;
    archiver.configure(
        "[[source]]\nname = \"s\"\nkind = \"pop3\"\nhosts = [\"127.0.0.1:1\"]\nmailbox = \"x\"\npassword_file = \"p\"\n",
    )?;
    for (name, mut command) in [("gateway", gateway.command(&["serve"])?), ("archiver", archiver.command(&["serve"])?)]
    {
        let socket = folder.path().join(format!("{name}.notify"));
        let manager = UnixDatagram::bind(&socket)?;
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000");
        let server = Server::start(&mut command, &[])?;
        heard(&manager, "READY=1")?;
        let beats = Instant::now();
        for _ in 0..3 {
            heard(&manager, "WATCHDOG=1")?;
        }
        let beats = beats.elapsed();
        ensure!(beats < Duration::from_secs(10), "{beats:?}");
        ensure!(Command::new("kill").args(["-HUP", &server.pid().to_string()]).status()?.success());
        let reloading = heard(&manager, "RELOADING=1")?;
        let more = if reloading.iter().any(|l| l.starts_with("MONOTONIC_USEC=")) {
            reloading
        } else {
            heard(&manager, "READY=1")?
        };
        ensure!(more.iter().any(|l| l.starts_with("MONOTONIC_USEC=")), "{more:?}");
        if !more.iter().any(|l| l == "READY=1") {
            heard(&manager, "READY=1")?;
        }
        ensure!(Command::new("kill").args(["-TERM", &server.pid().to_string()]).status()?.success());
        heard(&manager, "STOPPING=1")?;
        let mut server = server;
        ensure!(server.ended(Duration::from_secs(60))? == Some(0), "{}", server.log());
        println!("{name}: READY, WATCHDOG, RELOADING, READY, STOPPING");
    }
    Ok(())
}
