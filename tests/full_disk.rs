//! A disk without room, one without inodes, and one that turns read-only under load: the real gateway on an ext4 image.
//!
//! Needs root and loop devices. Without them it says so and passes, except under `CI=true`.

mod support;

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use support::{Access, Gateway, Smtp, folder, numbered_report, pop3, run};

const SENDERS: usize = 4;

/// An ext4 image on a loop device. Unmounted with its value.
struct Image {
    file: PathBuf,
    mount: PathBuf,
}

impl Image {
    fn create(folder: &Path, mib: u64, options: &[&str]) -> Result<Option<Self>> {
        let image = Self { file: folder.join("small.img"), mount: folder.join("small") };
        std::fs::create_dir(&image.mount)?;
        std::fs::File::create(&image.file)?.set_len(mib << 20)?;
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F", "-m", "0", "-J", "size=4"]).args(options).arg(&image.file);
        let made = run(&mut make, b"").and_then(|output| output.expect(0)).and_then(|_| image.mount());
        match made {
            Ok(()) => Ok(Some(image)),
            Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => Err(error),
            Err(error) => {
                eprintln!("NOT RUN: this test needs root, loop devices and mkfs.ext4: {error:#}");
                Ok(None)
            }
        }
    }

    fn mount(&self) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop,errors=remount-ro"]).arg(&self.file).arg(&self.mount);
        run(&mut mount, b"")?.expect(0).map(drop)
    }

    fn unmount(&self) -> Result<()> {
        for _ in 0..100 {
            if run(Command::new("umount").arg(&self.mount), b"")?.code == 0 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("{} cannot be unmounted", self.mount.display())
    }

    /// What the kernel does when it meets an error: the file system is read-only from now on.
    fn fail(&self) -> Result<()> {
        let found = run(Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&self.mount), b"")?.expect(0)?.text();
        let device = found.trim().rsplit('/').next().context("a device")?.to_owned();
        Ok(std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test")?)
    }

    /// Takes every octet that is left.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.mount.join("filler");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
        for size in [1 << 20, 4096, 1] {
            let block = vec![0; size];
            while file.write_all(&block).is_ok() {}
        }
        // Delayed allocation must not leave anything open; a full disk may say so here.
        let _ = file.sync_all();
        Ok(path)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.mount), b"");
    }
}

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
    let Some(image) = Image::create(folder.path(), 160, &[])? else { return Ok(()) };
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
    let Some(image) = Image::create(folder.path(), 200, &["-N", "1280"])? else { return Ok(()) };
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

#[test]
fn a_disk_that_turns_read_only_under_load_loses_nothing() -> Result<()> {
    let folder = folder()?;
    let Some(image) = Image::create(folder.path(), 200, &[])? else { return Ok(()) };
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

    image.unmount()?;
    let checked = run(Command::new("e2fsck").arg("-fy").arg(&image.file), b"")?;
    ensure!(checked.code <= 1, "e2fsck: {}", checked.text());
    image.mount()?;
    gateway.start()?;
    let acknowledged = seen.acknowledged.into_inner()?;
    let mut collector = gateway.pop3(&access)?;
    let mut found = BTreeSet::new();
    for (number, uidl) in collector.uidl()? {
        let (octets, _) = collector.xretr(number)?;
        if let Some(n) = acknowledged.get(&uidl) {
            pop3::same(&uidl, pop3::without_trace(&octets)?, &numbered_report(*n).0)?;
            ensure!(found.insert(uidl), "listed twice");
        }
    }
    let lost = acknowledged.len() - found.len();
    println!(
        "read-only under load: {} acknowledged, replies then {refusals:?}, to the silent one {last}, exit {code}; \
         {} found, lost {lost}, duplicated 0",
        acknowledged.len(),
        found.len()
    );
    ensure!(lost == 0 && acknowledged.len() > 20);
    collector.quit()?;
    ensure!(gateway.stop()? == 0);
    gateway.run(&["verify"], b"")?.expect(0)?;
    Ok(())
}
