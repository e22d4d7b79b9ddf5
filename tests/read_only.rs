//! A file system that turns read-only under load: `451`, then `421`, and the gateway ends. Started again on it, it goes on
//! serving what waits over POP3 and takes and removes nothing; after the disk was mended nothing is lost.
//!
//! Needs root and loop devices. Without them it says so and passes, except under `CI=true`.

mod support;

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use support::{Access, Gateway, SmallDisk, Smtp, folder, numbered_report, pop3, run};

const SENDERS: usize = 4;

/// What the senders saw.
#[derive(Default)]
struct Seen {
    next: AtomicUsize,
    acknowledged: Mutex<BTreeMap<String, usize>>,
    refusals: Mutex<BTreeMap<u16, u64>>,
}

/// Sends until a connection ends or cannot be had.
fn send(seen: &Seen, address: std::net::SocketAddr, to: &str) -> Result<()> {
    let mut sender = Smtp::connect(address)?;
    loop {
        let n = seen.next.fetch_add(1, Ordering::SeqCst);
        let reply = sender.send("", &[to], &numbered_report(n).0)?;
        if reply.code == 250 {
            let (uidl, ..) = reply.receipts()?.into_iter().next().context("a receipt")?;
            seen.acknowledged.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.insert(uidl, n);
        } else {
            *seen.refusals.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.entry(reply.code).or_default() += 1;
        }
    }
}

/// Reads what waits and compares it; the uidls of what was acknowledged. `remove`: marks everything for removal, and QUIT
/// must refuse it.
fn collected(
    gateway: &Gateway,
    access: &Access,
    acknowledged: &BTreeMap<String, usize>,
    remove: bool,
) -> Result<BTreeSet<String>> {
    let mut collector = gateway.pop3(access)?;
    let mut found = BTreeSet::new();
    for (number, uidl) in collector.uidl()? {
        let (octets, _) = collector.xretr(number)?;
        if let Some(n) = acknowledged.get(&uidl) {
            pop3::same(&uidl, pop3::without_trace(&octets)?, &numbered_report(*n).0)?;
            ensure!(found.insert(uidl), "listed twice");
        }
        if remove {
            collector.command(&format!("DELE {number}"))?;
        }
    }
    match (collector.quit(), remove) {
        (Ok(()), false) => Ok(found),
        (Err(error), true) if error.to_string().starts_with("-ERR [SYS/TEMP] nothing removed") => Ok(found),
        (ended, _) => anyhow::bail!("QUIT: {ended:?}"),
    }
}

/// On a disk that cannot be written to: how many messages can be read.
fn served_but_not_changed(gateway: &Gateway, access: &Access, acknowledged: &BTreeMap<String, usize>) -> Result<usize> {
    for _ in 0..2 {
        let found = collected(gateway, access, acknowledged, true)?;
        ensure!(found.len() == acknowledged.len(), "{} of {} can be read", found.len(), acknowledged.len());
    }
    let reply = Smtp::connect(gateway.address("smtp")?)?.command("MAIL FROM:<>")?;
    ensure!(reply.code == 451 && reply.text.starts_with("4.3.0"), "{reply:?}");
    Ok(acknowledged.len())
}

#[test]
fn a_disk_mounted_read_only_is_served_from() -> Result<()> {
    let folder = folder()?;
    let Some(image) = SmallDisk::create(folder.path(), 200, &[])? else { return Ok(()) };
    let mut gateway = Gateway::create(&image.mount)?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let mut acknowledged = BTreeMap::new();
    for n in 0..5 {
        let reply = gateway.smtp()?.send("", &[&access.address], &numbered_report(n).0)?;
        acknowledged.insert(reply.receipts()?.into_iter().next().context("a receipt")?.0, n);
    }
    ensure!(gateway.stop()? == 0);
    image.remount("ro")?;
    gateway.start()?;
    let read = served_but_not_changed(&gateway, &access, &acknowledged)?;
    // One at a time all the same.
    let second = run(&mut gateway.command(&["serve"])?, b"")?;
    ensure!(second.code == 3 && second.err.contains("is in use by another"), "{} {}", second.code, second.err);
    ensure!(gateway.stop()? == 3);
    image.remount("rw")?;
    gateway.start()?;
    let found = collected(&gateway, &access, &acknowledged, false)?.len();
    println!(
        "mounted read-only: {read} of {} read, MAIL 451, QUIT -ERR, exit 3; writable again: {found} found, lost 0",
        acknowledged.len()
    );
    ensure!(found == acknowledged.len());
    let reply = gateway.smtp()?.send("", &[&access.address], &numbered_report(9).0)?;
    ensure!(reply.code == 250, "{reply:?}");
    ensure!(gateway.stop()? == 0);
    gateway.run(&["verify"], b"")?.expect(0)?;
    Ok(())
}

#[test]
fn a_disk_that_turns_read_only_under_load_loses_nothing() -> Result<()> {
    let folder = folder()?;
    let Some(image) = SmallDisk::create(folder.path(), 200, &[])? else { return Ok(()) };
    let mut gateway = Gateway::create(&image.mount)?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let (seen, address) = (Seen::default(), gateway.address("smtp")?);
    // One that stays silent meanwhile.
    let mut idle = Smtp::connect(address)?;
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..SENDERS {
            // The end of the connection is what ends it.
            scope.spawn(|| drop(send(&seen, address, &access.address)));
        }
        std::thread::sleep(Duration::from_secs(3));
        image.fail()
    })?;
    let last = idle.command("NOOP").or_else(|_| idle.reply()).map_or(0, |reply| reply.code);
    let log = gateway.server()?.log();
    let code = gateway.stop()?;
    ensure!(code == 3, "exit {code} instead of 3\n{log}");
    let refusals = seen.refusals.into_inner()?;
    ensure!(refusals.keys().all(|code| matches!(code, 421 | 451)), "{refusals:?}");
    ensure!(refusals.contains_key(&451), "nobody heard 451: {refusals:?}\n{log}");

    let acknowledged = seen.acknowledged.into_inner()?;
    gateway.start()?;
    let read = served_but_not_changed(&gateway, &access, &acknowledged)?;
    let log = gateway.server()?.log();
    ensure!(log.contains("ALARM") && log.contains("mail can be collected"), "nobody is told:\n{log}");
    ensure!(gateway.stop()? == 3, "an order to stop hides that the disk is not fit");

    image.unmount()?;
    let checked = run(Command::new("e2fsck").arg("-fy").arg(&image.file), b"")?;
    ensure!(checked.code <= 1, "e2fsck: {}", checked.text());
    image.mount()?;
    gateway.start()?;
    let found = collected(&gateway, &access, &acknowledged, false)?;
    let lost = acknowledged.len() - found.len();
    println!(
        "read-only under load: {} acknowledged, replies then {refusals:?}, to the silent one {last}, exit {code}; started \
         again as it was: {read} read, MAIL 451, QUIT -ERR, exit 3; after the repair {} found, lost {lost}, duplicated 0",
        acknowledged.len(),
        found.len()
    );
    ensure!(lost == 0 && acknowledged.len() > 20);
    ensure!(gateway.stop()? == 0);
    gateway.run(&["verify"], b"")?.expect(0)?;
    Ok(())
}
