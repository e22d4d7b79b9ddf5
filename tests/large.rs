//! A message of 200 MiB, one with 100,000 recipients and one with headers of 1 MiB through both programs: exact, nothing
//! dropped, and with bounded memory.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::process::Command;
use support::{Archiver, Gateway, Output, folder, pop3, run, sha256};

const SIZE: usize = 200 * 1024 * 1024;
const LIMIT_KIB: u64 = 128 * 1024;
/// A report's envelope is in memory whole: about 2 KiB for each recipient.
const MANY_LIMIT_KIB: u64 = 256 * 1024;

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

const RECIPIENTS: usize = 100_000;

#[test]
fn a_hundred_thousand_recipients_are_all_there() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    let original = support::message("all", "ann@aurora.example", "all@aurora.example", "To all", "Hello");
    // Every 20,000th is an owner, the others are of an own domain and nobody's.
    let owners = ["bob", "carl", "dora", "erik"];
    let name = |n: usize| match n % 20_000 {
        0 if n > 0 => format!("{}@aurora.example", owners[n / 20_000 - 1]),
        _ => format!("member-{n:06}@aurora.example"),
    };
    let recipients: Vec<String> = (0..RECIPIENTS).map(name).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let id = "<all@aurora.example>";
    let report = support::report("ann@aurora.example", &recipients, "To all", id, &original);
    ensure!(gateway.smtp()?.send("", &[&access.address], &report)?.code == 250);

    let (output, collect) = timed(&archiver, &["run", "--once", "--json"])?;
    output.expect(0)?;
    for owner in owners.iter().chain(&["ann"]) {
        ensure!(archiver.list(owner)?.len() == 1, "{owner}");
    }
    let listed = archiver.list("bob")?;
    let id = listed.first().and_then(|entry| entry.get("id")).and_then(Value::as_str).context("id")?;
    let (output, envelope) = timed(&archiver, &["envelope", id, "--json"])?;
    let envelopes = output.expect(0)?.json()?;
    let count = |key: &str| envelopes.pointer(&format!("/0/{key}")).and_then(Value::as_array).map_or(0, Vec::len);
    let (all, unowned) = (count("recipients"), count("unowned"));
    // All of them get an owner: one more appearance, and nobody is without owner.
    let table: String =
        (0..RECIPIENTS).filter(|n| n % 20_000 != 0 || *n == 0).map(|n| format!("{};", name(n))).collect();
    std::fs::write(archiver.folder.join("all.csv"), format!("name,addresses\nall,\"{table}\"\n"))?;
    archiver.run(&["owner", "import", "all.csv"], b"")?.expect(0)?;
    let (output, refile) = timed(&archiver, &["owner", "refile", "--json"])?;
    let refiled = output.expect(0)?.json()?;
    ensure!(archiver.list("all")?.len() == 1, "{refiled}");
    ensure!(archiver.verify()?.0 == 0);
    println!(
        "one report with {all} recipients ({} octets), {unowned} of them without owner until they got one: {refiled}; peak \
         memory in MiB: gateway serve {}, run {}, envelope {}, refile {}",
        report.len(),
        gateway.server()?.peak_kib()? / 1024,
        collect / 1024,
        envelope / 1024,
        refile / 1024
    );
    ensure!(all == RECIPIENTS && unowned == RECIPIENTS - 4, "{all} recipients, {unowned} without owner");
    ensure!(refiled.get("served").and_then(Value::as_u64) == Some(unowned as u64), "{refiled}");
    for (what, peak) in [("run", collect), ("envelope", envelope), ("refile", refile)] {
        ensure!(peak < MANY_LIMIT_KIB, "{what} held {peak} KiB");
    }
    Ok(())
}

#[test]
fn headers_of_a_mebibyte_are_read_whole() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    let line = format!("X-Trace: {}\r\n", "t".repeat(900));
    let trace = line.repeat((1024 * 1024 - 2000) / line.len());
    // What counts stands at the end of both headers.
    let original =
        [trace.as_bytes(), &support::message("wide", "ann@aurora.example", "bob@aurora.example", "Wide", "Hello")]
            .concat();
    let plain =
        support::report("ann@aurora.example", &["bob@aurora.example"], "Wide", "<wide@aurora.example>", &original);
    let report = [trace.as_bytes(), &plain].concat();
    ensure!(gateway.smtp()?.send("", &[&access.address], &report)?.code == 250);
    let (output, collect) = timed(&archiver, &["run", "--once", "--json"])?;
    let round = output.expect(0)?.json_stream()?.into_iter().next().context("a source")?;
    ensure!(round.get("filed") == Some(&Value::from(1)), "{round}");
    let listed = archiver.list("bob")?;
    let entry = listed.first().context("bob has no message")?;
    ensure!(entry.get("subject").and_then(Value::as_str) == Some("Wide"), "{entry}");
    ensure!(entry.get("sha256").and_then(Value::as_str) == Some(&sha256(&original)), "{entry}");
    println!(
        "a report of {} KiB with two headers of {} KiB: filed, exact; peak memory in MiB: gateway serve {}, run {}",
        report.len() >> 10,
        trace.len() >> 10,
        gateway.server()?.peak_kib()? / 1024,
        collect / 1024
    );
    ensure!(collect < LIMIT_KIB, "run held {collect} KiB");
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
