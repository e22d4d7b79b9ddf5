//! A disk without room and one without inodes: the real gateway on an ext4 image. Collecting empties it, and then mail is
//! taken again without a restart; the trash is given up when space is short, the oldest first.
//!
//! Needs root and loop devices. Without them it says so and passes, except under `CI=true`.

mod support;

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use support::{Access, Gateway, SmallDisk, Smtp, folder, numbered_report, pop3};

fn large(n: usize) -> Vec<u8> {
    let line = format!("{n:076}\r\n");
    [b"Subject: large\r\n\r\n".as_slice(), line.repeat((8 << 20) / line.len()).as_bytes()].concat()
}

/// Sends until refused; number of each message by uidl, and the refusal.
fn send_until_refused(
    gateway: &Gateway,
    to: &str,
    message: fn(usize) -> Vec<u8>,
) -> Result<(BTreeMap<String, usize>, support::smtp::Reply)> {
    let (mut sender, mut sent) = (Smtp::connect(gateway.address("smtp")?)?, BTreeMap::new());
    loop {
        let n = sent.len();
        let reply = sender.send("", &[to], &message(n))?;
        if reply.code != 250 {
            return Ok((sent, reply));
        }
        let (uidl, ..) = reply.receipts()?.into_iter().next().context("a receipt")?;
        sent.insert(uidl, n);
    }
}

/// Collects everything, compares it and removes it.
fn empty(
    gateway: &Gateway,
    access: &Access,
    sent: &BTreeMap<String, usize>,
    message: fn(usize) -> Vec<u8>,
) -> Result<()> {
    let mut collector = gateway.pop3(access)?;
    let listed = collector.uidl()?;
    ensure!(listed.len() == sent.len(), "{} listed, {} acknowledged", listed.len(), sent.len());
    for (number, uidl) in &listed {
        let n = *sent.get(uidl).with_context(|| format!("{uidl} was never acknowledged"))?;
        let (octets, _) = collector.xretr(*number)?;
        pop3::same(uidl, pop3::without_trace(&octets)?, &message(n))?;
        collector.command(&format!("DELE {number}"))?;
    }
    collector.quit()?;
    ensure!(gateway.waiting(&access.id)?.is_empty(), "something stayed in new/");
    Ok(())
}

/// Sends one message, again and again while there is no room: emptying the trash takes a moment.
fn send_soon(gateway: &Gateway, to: &str, message: &[u8]) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let reply = Smtp::connect(gateway.address("smtp")?)?.send("", &[to], message)?;
        match reply.code {
            250 => return Ok(begun.elapsed()),
            452 if begun.elapsed() < Duration::from_secs(20) => std::thread::sleep(Duration::from_millis(100)),
            _ => bail!("after emptying: {reply:?}"),
        }
    }
}

#[test]
fn a_full_disk_can_be_emptied_and_goes_on() -> Result<()> {
    let folder = folder()?;
    let Some(image) = SmallDisk::create(folder.path(), 160, &[])? else { return Ok(()) };
    let mut gateway = Gateway::create(&image.mount)?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let (sent, reply) = send_until_refused(&gateway, &access.address, large)?;
    ensure!(reply.code == 452 && reply.text.starts_with("4.3.1"), "{reply:?}");
    ensure!(sent.len() >= 3, "only {} fit", sent.len());

    // One that was begun while there was room.
    std::fs::remove_dir_all(image.mount.join("lost+found"))?;
    let filler = {
        let mut sender = Smtp::connect(gateway.address("smtp")?)?;
        let reply = sender.command("MAIL FROM:<>")?;
        ensure!(reply.code == 452, "{reply:?}");
        image.fill()?
    };
    println!("full: {} messages of 8 MiB accepted, then 452 4.3.1; the rest taken by another program", sent.len());

    empty(&gateway, &access, &sent, large)
        .with_context(|| gateway.server().map_or_else(|_| String::new(), |s| s.log()))?;
    let waited = send_soon(&gateway, &access.address, &numbered_report(1).0)?;
    println!(
        "emptied at 0 octets free: {0} acknowledged, {0} found, lost 0, duplicated 0; accepts again after {waited:?}",
        sent.len()
    );

    // Room goes away in the middle of a message.
    std::fs::remove_file(&filler)?;
    let mut sender = Smtp::connect(gateway.address("smtp")?)?;
    for (line, code) in [("MAIL FROM:<>", 250), (&format!("RCPT TO:<{}>", access.address), 250), ("DATA", 354)] {
        let reply = sender.command(line)?;
        ensure!(reply.code == code, "{line}: {reply:?}");
    }
    image.fill()?;
    sender.raw(&large(1))?;
    sender.raw(b".\r\n")?;
    let reply = sender.reply()?;
    ensure!(reply.code == 452 && reply.text.starts_with("4.3.1"), "in the middle: {reply:?}");
    println!("full in the middle of a message: 452 4.3.1, read to its end");
    std::fs::remove_file(&filler)?;
    send_soon(&gateway, &access.address, &numbered_report(2).0)?;
    ensure!(gateway.stop()? == 0, "the gateway did not end well");
    gateway.run(&["verify"], b"")?.expect(0)?;
    Ok(())
}

#[test]
fn a_full_inode_table_can_be_emptied_and_goes_on() -> Result<()> {
    let folder = folder()?;
    let Some(image) = SmallDisk::create(folder.path(), 200, &["-N", "1280"])? else { return Ok(()) };
    let mut gateway = Gateway::create(&image.mount)?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let message = |n| numbered_report(n).0;
    let (sent, reply) = send_until_refused(&gateway, &access.address, message)?;
    ensure!(reply.code == 452 && reply.text.starts_with("4.3.1"), "{reply:?}");
    ensure!(sent.len() > 10, "only {} fit", sent.len());
    let fillers = image.mount.join("fillers");
    std::fs::create_dir(&fillers)?;
    let mut made = 0;
    while std::fs::File::create(fillers.join(made.to_string())).is_ok() {
        made += 1;
    }
    empty(&gateway, &access, &sent, message)?;
    std::fs::remove_dir_all(&fillers)?;
    send_soon(&gateway, &access.address, &message(1))?;
    println!(
        "inodes: {0} acknowledged, then 452 4.3.1; {made} more taken by another program; {0} found and removed, lost 0, \
         duplicated 0; accepts again",
        sent.len()
    );
    ensure!(gateway.stop()? == 0, "the gateway did not end well");
    gateway.run(&["verify"], b"")?.expect(0)?;
    Ok(())
}

fn half_of_large(n: usize) -> Vec<u8> {
    large(n).split_off(4 << 20)
}

/// Names in the trash, in the order in which they came there.
fn trash(gateway: &Gateway, access: &Access) -> Result<Vec<String>> {
    let folder = gateway.data().join("spool").join(&access.id).join("trash");
    let mut names: Vec<String> = support::files_below(&folder)?
        .iter()
        .filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .collect();
    names.sort_by_key(|name| name.split_once('.').map(|(_, ms)| ms.to_owned()));
    Ok(names)
}

#[test]
fn the_trash_is_given_up_oldest_first_when_space_is_short() -> Result<()> {
    const FILES: usize = 6;
    let folder = folder()?;
    let Some(image) = SmallDisk::create(folder.path(), 200, &[])? else { return Ok(()) };
    let mut gateway = Gateway::create(&image.mount)?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    for n in 0..FILES {
        let reply = Smtp::connect(gateway.address("smtp")?)?.send_bdat("", &[&access.address], &half_of_large(n))?;
        ensure!(reply.code == 250, "{reply:?}");
        let (uidl, ..) = reply.receipts()?.into_iter().next().context("a receipt")?;
        empty(&gateway, &access, &[(uidl, n)].into(), half_of_large)?;
    }
    let before = trash(&gateway, &access)?;
    ensure!(before.len() == FILES, "{before:?}");
    // With room nothing is given up.
    ensure!(gateway.stop()? == 0);
    gateway.start()?;
    ensure!(gateway.stop()? == 0);
    ensure!(trash(&gateway, &access)? == before, "given up although there is room");

    let tenth = image.size()? / 10;
    image.fill_up_to(tenth - (7 << 20))?;
    let short = image.free()?;
    gateway.start()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while image.free()? < tenth {
        ensure!(Instant::now() < deadline, "{} octets free, a tenth is {tenth}", image.free()?);
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(gateway.address("smtp").is_ok());
    let log = gateway.server()?.log();
    ensure!(gateway.stop()? == 0);
    let after = trash(&gateway, &access)?;
    let given_up = before.len() - after.len();
    ensure!(before.ends_with(&after) && given_up > 0 && !after.is_empty(), "{before:?} became {after:?}");
    // Each file with an alarm that names it.
    for name in &before[..given_up] {
        ensure!(log.lines().any(|l| l.contains("ALARM") && l.contains(name)), "no alarm for {name}:\n{log}");
    }
    println!(
        "trash: {FILES} files, {short} octets free of a tenth of {tenth}; {given_up} given up, the oldest first, each with an \
         alarm; {} stay; {} free now",
        after.len(),
        image.free()?
    );
    gateway.run(&["verify"], b"")?.expect(0)?;
    Ok(())
}
