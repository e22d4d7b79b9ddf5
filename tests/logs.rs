//! The gateway's log: one line per session and one per message, in and out, with what an operator looks for; nothing a
//! client says can forge a line or reach a terminal, and no password and no word of a message is ever in it.

mod support;

use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};
use support::{Gateway, Pop3, Smtp, folder};

const SECRET: &str = "Wort-im-Brief-4711";

/// Lines with `what` that hold each of `parts`; waits for the first.
fn line(gateway: &Gateway, what: &str, parts: &[&str]) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let log = gateway.server()?.log();
        let found: Vec<&str> =
            log.lines().filter(|l| l.contains(what) && parts.iter().all(|p| l.contains(p))).collect();
        ensure!(found.len() < 2, "more than one line: {found:#?}");
        if let Some(line) = found.first() {
            return Ok((*line).to_owned());
        }
        ensure!(Instant::now() < deadline, "no line `{what}` with {parts:?}:\n{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The value of `key` in a line.
fn value<'a>(line: &'a str, key: &str) -> Result<&'a str> {
    let start = line.find(&format!(" {key}=")).with_context(|| format!("no {key} in {line}"))? + key.len() + 2;
    Ok(line.get(start..).and_then(|rest| rest.split(' ').next()).unwrap_or_default())
}

#[test]
fn sessions_and_messages_are_lines() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let message = format!("Subject: {SECRET}\r\n\r\n{SECRET}\r\n");

    let mut sender = gateway.smtp()?;
    let reply = sender.send("ann@aurora.example", &[&access.address], message.as_bytes())?;
    sender.quit()?;
    let (uidl, ..) = reply.receipts()?.first().context("a receipt")?.clone();
    let accepted = line(&gateway, "smtp accepted", &[&uidl])?;
    for (key, wanted) in [
        ("peer", "127.0.0.1"),
        ("mailbox", access.id.as_str()),
        ("seq", "1"),
        ("size", &message.len().to_string()),
        ("reply", "250"),
        ("tls", "true"),
    ] {
        ensure!(value(&accepted, key)? == wanted, "{key}: {accepted}");
    }
    value(&accepted, "ms")?.parse::<u64>()?;
    let session = line(&gateway, "smtp session", &["messages=1"])?;
    for (key, wanted) in [("peer", "127.0.0.1"), ("tls", "true"), ("certificate", "none"), ("reply", "221")] {
        ensure!(value(&session, key)? == wanted, "{key}: {session}");
    }

    let mut collector = gateway.pop3(&access)?;
    ensure!(collector.retr(1)?.len() > message.len());
    collector.command("TOP 1 0")?;
    drop(collector);
    let given = line(&gateway, "pop3 message given", &[&uidl])?;
    for (key, wanted) in [("peer", "127.0.0.1"), ("mailbox", access.id.as_str()), ("seq", "1")] {
        ensure!(value(&given, key)? == wanted, "{key}: {given}");
    }
    let mut collector = gateway.pop3(&access)?;
    collector.xretr(1)?;
    collector.command("DELE 1")?;
    collector.quit()?;
    let session = line(&gateway, "pop3 session", &["removed=1"])?;
    for (key, wanted) in [("mailbox", access.id.as_str()), ("messages", "1"), ("octets", &message.len().to_string())] {
        ensure!(value(&session, key)? == wanted, "{key}: {session}");
    }

    gateway.stop()?;
    Ok(())
}

#[test]
fn nothing_secret_and_nothing_raw_is_logged() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.configure("\n[log]\nlevel = \"trace\"\n")?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let message = format!("Subject: {SECRET}\r\n\r\n{SECRET}\r\n");
    let mut sender = gateway.smtp()?;
    ensure!(sender.send("ann@aurora.example", &[&access.address], message.as_bytes())?.code == 250);
    sender.quit()?;
    let mut collector = gateway.pop3(&access)?;
    collector.retr(1)?;
    collector.quit()?;
    let mut wrong = Pop3::connect_tls(gateway.address("pop3s")?, &gateway.pin()?)?;
    ensure!(wrong.login(&access.id, "Falsches-Geheimnis").is_err());
    let mut odd = Smtp::connect(gateway.address("smtp")?)?;
    odd.command("EHLO \u{1b}[31mred")?;
    odd.command("RCPT TO:<\u{1b}[2J@other.example>")?;
    odd.quit()?;
    line(&gateway, "smtp session", &["messages=0"])?;
    line(&gateway, "pop3 login refused", &[])?;
    let log = gateway.server()?.log();
    gateway.stop()?;
    for secret in [SECRET, "Falsches-Geheimnis", access.password.as_str()] {
        ensure!(!log.contains(secret), "`{secret}` is in the log");
    }
    ensure!(!log.contains(|c: char| c.is_control() && c != '\n'), "control characters in the log");
    println!("{} lines at level trace: no password, no content, no control character", log.lines().count());
    Ok(())
}
