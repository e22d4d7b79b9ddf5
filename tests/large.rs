//! A message of 200 MiB through both programs: exact, and with bounded memory.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::process::Command;
use support::{Archiver, Gateway, Output, folder, pop3, run, sha256};

const SIZE: usize = 200 * 1024 * 1024;
const LIMIT_KIB: u64 = 128 * 1024;

#[test]
fn memory_stays_bounded() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let original = original();
    let (from, to) = ("ann@aurora.example", "bob@aurora.example");
    let report = support::report(from, &[to], "Large", "<large@aurora.example>", &original);
    ensure!(report.len() >= SIZE);

    let mut sender = gateway.smtp()?;
    let reply = sender.send_data(from, &[&access.address], &report)?;
    ensure!(reply.code == 250, "{reply:?}");
    sender.quit()?;
    let mut collector = gateway.pop3(&access)?;
    let retr = collector.retr(1)?;
    pop3::same("RETR", pop3::without_trace(&retr)?, &report)?;
    drop(retr);
    collector.quit()?;

    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    let (output, collect) = timed(&archiver, &["run", "--once", "--json"])?;
    output.expect(0)?;
    let serve = gateway.server()?.peak_kib()?;
    let listed = archiver.list("bob")?;
    let entry = listed.first().context("bob has no message")?;
    ensure!(entry.get("sha256").and_then(Value::as_str) == Some(&sha256(&original)), "{entry}");
    let id = entry.get("id").and_then(Value::as_str).context("id")?;
    let (shown, show) = timed(&archiver, &["show", id])?;
    pop3::same("show", &shown.expect(0)?.out, &original)?;
    let (verified, verify) = timed(&archiver, &["store", "verify", "--json"])?;
    verified.expect(0)?;

    let mib = |kib: u64| kib / 1024;
    println!(
        "a report of {} MiB, peak memory in MiB: gateway serve {}, archiver run {}, show {}, store verify {}",
        report.len() >> 20,
        mib(serve),
        mib(collect),
        mib(show),
        mib(verify)
    );
    for (what, peak) in [("gateway serve", serve), ("run --once", collect), ("show", show), ("store verify", verify)] {
        ensure!(peak < LIMIT_KIB, "{what} held {peak} KiB");
    }
    Ok(())
}

/// A message whose base64 attachment does not compress.
fn original() -> Vec<u8> {
    let mut random = support::Random::new(7);
    let mut out = b"From: ann@aurora.example\r\nTo: bob@aurora.example\r\nSubject: Large\r\n\
        Message-ID: <large@aurora.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"large\"\r\n\r\n\
        --large\r\nContent-Type: text/plain\r\n\r\nSee the attachment.\r\n--large\r\n\
        Content-Type: application/octet-stream; name=\"large.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        .to_vec();
    while out.len() < SIZE {
        let line: Vec<u8> = (0..57).map(|_| random.number() as u8).collect();
        out.extend_from_slice(data_encoding::BASE64.encode(&line).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"--large--\r\n");
    out
}

/// Runs a command under `/usr/bin/time -v`; its peak memory in KiB.
fn timed(archiver: &Archiver, arguments: &[&str]) -> Result<(Output, u64)> {
    let plain = archiver.command(arguments)?;
    let report = archiver.folder.join("time");
    let mut command = Command::new("/usr/bin/time");
    command.current_dir(&archiver.folder).arg("-v").arg("-o").arg(&report);
    command.arg(plain.get_program()).args(plain.get_args());
    let output = run(&mut command, b"")?;
    let report = std::fs::read_to_string(report)?;
    let line = report.lines().find_map(|l| l.trim().strip_prefix("Maximum resident set size (kbytes): "));
    Ok((output, line.context("no peak in the report of time")?.parse()?))
}
