//! What the gateway asks of the kernel, in which order: nothing is answered `250` and nothing is removed before
//! everything it rests on is on stable storage. Watched from outside, with strace.

mod support;

use anyhow::{Context as _, Result, ensure};
use std::{collections::BTreeMap, path::Path, process::Command};
use support::{Archiver, Gateway, Server, Smtp, folder, numbered_report, run};

const MESSAGES: usize = 5;

/// A call that came to its end, or one that began to send.
#[derive(Debug)]
struct Call {
    name: String,
    arguments: String,
    result: String,
}

#[test]
fn a_reply_comes_after_every_sync() -> Result<()> {
    let folder = folder()?;
    let gateway = Gateway::create(folder.path())?;
    let access = gateway.create_mailbox()?;
    let trace = folder.path().join("trace");
    let serve = gateway.command(&["serve"])?;
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-y", "-s", "120", "-o"]).arg(&trace);
    traced.args(["-e", "trace=fsync,fdatasync,rename,renameat,renameat2,write,writev,sendto,sendmsg,sync_file_range"]);
    traced.current_dir(&gateway.folder).arg(serve.get_program()).args(serve.get_args());
    let server = Server::start(&mut traced, &["smtp", "pop3", "pop3s"])?;

    // In clear, so that the answers can be read in the trace.
    let mut sender = Smtp::connect(server.address("smtp")?)?;
    let mut uidls = Vec::new();
    for n in 0..MESSAGES {
        let reply = sender.send("", &[&access.address], &numbered_report(n).0)?;
        ensure!(reply.code == 250, "{reply:?}");
        uidls.extend(reply.receipts()?.into_iter().map(|(uidl, ..)| uidl));
    }
    sender.quit()?;
    let pin = gateway.pin()?;
    let mut collector = support::Pop3::connect_tls(server.address("pop3s")?, &pin)?;
    collector.login(&access.id, &access.password)?;
    for number in 1..=MESSAGES {
        collector.command(&format!("DELE {number}"))?;
    }
    collector.quit()?;
    end(server)?;

    let calls = calls(&trace)?;
    for uidl in &uidls {
        accepted_in_order(&calls, uidl).with_context(|| format!("message {uidl}"))?;
        removed_in_order(&calls, uidl).with_context(|| format!("removal of {uidl}"))?;
    }
    let syncs = calls.iter().filter(|c| c.name.starts_with('f')).count();
    println!(
        "order of sync, rename, sync, ledger, 250: {} / {MESSAGES} as promised, {syncs} syncs, all gave 0",
        uidls.len()
    );
    ensure!(calls.iter().filter(|c| c.name.starts_with('f')).all(|c| c.result == "0"), "a sync failed");
    Ok(())
}

/// The archiver speaks TLS, so a DELE cannot be read in the trace; but from the first octet of a pack to the last one that
/// was read back, nothing may be said to the gateway.
#[test]
fn a_deletion_comes_after_every_sync_and_the_read_back() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    let trace = folder.path().join("trace");
    let mut kept = 0;
    // A new pack, and one that another process began.
    for _ in 0..2 {
        for n in kept..kept + MESSAGES {
            let reply = gateway.smtp()?.send("", &[&access.address], &numbered_report(n).0)?;
            ensure!(reply.code == 250, "{reply:?}");
        }
        let round = archiver.command(&["run", "--once"])?;
        let mut traced = Command::new("strace");
        traced.args(["-f", "-qq", "-y", "-s", "16", "-o"]).arg(&trace);
        traced.args(["-e", "trace=fsync,fdatasync,fadvise64,pread64,write,writev,sendto,sendmsg"]);
        traced.current_dir(&archiver.folder).arg(round.get_program()).args(round.get_args());
        run(&mut traced, b"")?.expect(0)?;
        ensure!(gateway.waiting(&access.id)?.is_empty(), "messages stay at the gateway");
        kept_in_order(&calls(&trace)?)?;
        kept += MESSAGES;
    }
    println!("order of pack, its names, record, read-back, DELE: {kept} messages in 2 rounds, as promised");
    ensure!(gateway.stop()? == 0);
    Ok(())
}

fn kept_in_order(calls: &[Call]) -> Result<()> {
    let is_write = |c: &Call, of: &str| c.name == "write" && c.arguments.contains(of);
    let written = calls.iter().rposition(|c| is_write(c, ".pack>")).context("no pack was written")?;
    let recorded = calls.iter().rposition(|c| is_write(c, ".rec>")).context("no record was written")?;
    let synced = next(calls, written, "sync of the pack", |c| is_sync(c, ".pack>"))?;
    let named =
        next(calls, 0, "sync of the pack's folder", |c| is_sync(c, "/packs/") && !c.arguments.contains(".pack>"))?;
    let above = next(calls, 0, "sync of the folder of packs", |c| is_sync(c, "/packs>"))?;
    next(calls, 0, "sync of the folder of records", |c| is_sync(c, "/records>"))?;
    ensure!(synced.max(named).max(above) < recorded, "the record was written before its pack was on the disk");
    let committed = next(calls, recorded, "sync of the record", |c| is_sync(c, ".rec>"))?;
    for file in [".rec>", ".pack>"] {
        let dropped = next(calls, committed, "dropped cache", |c| c.name == "fadvise64" && c.arguments.contains(file))?;
        next(calls, dropped, "read-back", |c| c.name == "pread64" && c.arguments.contains(file))?;
    }
    let read =
        calls.iter().rposition(|c| c.name == "pread64" && c.arguments.contains(".pack>")).context("read-back")?;
    ensure!(calls.iter().filter(|c| is_sync(c, "<")).all(|c| c.result == "0"), "a sync failed");
    // Whatever is asked for was asked for before the first octet came; what follows is DELE.
    let is_said = |c: &Call| c.name != "pread64" && (c.arguments.contains("<TCP:") || c.arguments.contains("<socket:"));
    let between = calls.get(written..read).unwrap_or_default().iter().filter(|c| is_said(c)).count();
    ensure!(between == 0, "{between} times something was said between the pack and the read-back");
    next(calls, read, "DELE", is_said).map(drop)
}

/// Ends the traced program, not the tracer.
fn end(server: Server) -> Result<()> {
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid()))?;
    let child = children.split_whitespace().next().context("strace has no child")?;
    run(Command::new("kill").args(["-TERM", child]), b"")?.expect(0)?;
    for _ in 0..600 {
        if !Path::new(&format!("/proc/{child}")).exists() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    anyhow::bail!("the gateway does not end under strace")
}

/// Syncs and renames stand where they ended, sends where they began.
fn calls(trace: &Path) -> Result<Vec<Call>> {
    let text = String::from_utf8_lossy(&std::fs::read(trace)?).into_owned();
    let mut open: BTreeMap<&str, (String, String)> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((process, rest)) = line.split_once(char::is_whitespace) else { continue };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            if let Some((name, arguments)) = open.remove(process) {
                calls.push(Call { name, arguments, result: result(resumed) });
            }
            continue;
        }
        let Some((name, arguments)) = rest.split_once('(') else { continue };
        let is_send = name.contains("write") || name.starts_with("send");
        if is_send || !arguments.ends_with("<unfinished ...>") {
            calls.push(Call { name: name.into(), arguments: arguments.into(), result: result(arguments) });
        } else {
            open.insert(process, (name.into(), arguments.into()));
        }
    }
    Ok(calls)
}

fn result(text: &str) -> String {
    text.rsplit_once(" = ").map(|(_, result)| result.trim().to_owned()).unwrap_or_default()
}

/// The first call from `from` on that fits.
fn next(calls: &[Call], from: usize, what: &str, fits: impl Fn(&Call) -> bool) -> Result<usize> {
    let found = calls.iter().skip(from).position(fits).map(|at| at + from);
    found.with_context(|| format!("no {what} after call {from}"))
}

fn is_sync(call: &Call, of: &str) -> bool {
    call.name.ends_with("sync") && call.arguments.contains(of)
}

fn accepted_in_order(calls: &[Call], uidl: &str) -> Result<()> {
    let answer = next(calls, 0, "250", |c| c.arguments.contains("250 2.6.0") && c.arguments.contains(uidl))?;
    let renamed = next(calls, 0, "rename to new", |c| {
        c.name.starts_with("rename") && c.arguments.contains("new") && c.arguments.contains(uidl)
    })?;
    let call = calls.get(renamed).context("the rename")?;
    // renameat2(5</…/tmp>, "name", 6</…/new>, "uidl") or rename("/…/tmp/name", "/…/new/uidl")
    let source = call.arguments.split('"').nth(1).and_then(|s| s.rsplit('/').next()).context("source name")?;
    let written = next(calls, 0, "sync of the file", |c| is_sync(c, source))?;
    let folder = next(calls, renamed, "sync of the folder", |c| is_sync(c, "/new>"))?;
    let ledger = next(calls, renamed, "sync of the ledger", |c| is_sync(c, ".ledger>"))?;
    ensure!(written < renamed, "the file was renamed before it was synced");
    ensure!(folder < ledger, "the ledger was synced before the folder");
    ensure!(ledger < answer, "250 was sent before the ledger was synced");
    Ok(())
}

fn removed_in_order(calls: &[Call], uidl: &str) -> Result<()> {
    let answer = next(calls, 0, "250", |c| c.arguments.contains("250 2.6.0") && c.arguments.contains(uidl))?;
    let gone = next(calls, answer, "move to the trash", |c| {
        c.name.starts_with("rename") && c.arguments.contains("trash") && c.arguments.contains(uidl)
    })?;
    // The last ledger sync before the removal must be later than the login, that is, than the last 250.
    let last = calls.iter().rposition(|c| c.arguments.contains("250 2.6.0")).context("250")?;
    let ledger = next(calls, last, "sync of the ledger", |c| is_sync(c, ".ledger>"))?;
    ensure!(ledger < gone, "the file was moved before its removal was in the ledger");
    Ok(())
}
