//! The archiver on a disk without room, without inodes, and read-only: a round ends with exit 1 or 3 and one sentence,
//! nothing is deleted at the gateway, and once the disk is mended the next round files every message exactly once.
//!
//! Needs root and loop devices. Without them it says so and passes, except under `CI=true`.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Command, Stdio},
    time::Duration,
};
use support::{Access, Archiver, Gateway, Random, SmallDisk, folder, message, report, run, sha256};

/// Messages before each round.
const MESSAGES: usize = 4;

/// A gateway on a sound disk and an archiver on a small one.
struct Scene {
    disk: SmallDisk,
    gateway: Gateway,
    access: Access,
    archiver: Archiver,
    random: Random,
    /// SHA-256 of every message that was acknowledged.
    sent: BTreeSet<String>,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new(options: &[&str]) -> Result<Option<Self>> {
        let folder = folder()?;
        let Some(disk) = SmallDisk::create(folder.path(), 256, options)? else { return Ok(None) };
        let mut gateway = Gateway::create(folder.path())?;
        gateway.start()?;
        let access = gateway.create_mailbox()?;
        let archiver = Archiver::collecting(&disk.mount, &gateway, &access)?;
        std::fs::remove_dir_all(disk.mount.join("lost+found"))?;
        let random = Random::seeded().0;
        let mut scene = Self { disk, gateway, access, archiver, random, sent: BTreeSet::new(), _folder: folder };
        // The first round makes the folders.
        scene.send()?;
        scene.works()?;
        Ok(Some(scene))
    }

    /// Some messages, none of them compressible.
    fn send(&mut self) -> Result<()> {
        self.send_with(1_500_000)
    }

    /// The same, one of them of so many octets before base64.
    fn send_with(&mut self, large: usize) -> Result<()> {
        let mut sender = self.gateway.smtp()?;
        for n in 0..MESSAGES {
            let octets = if n == 3 { large } else { 60_000 };
            let noise: Vec<u8> = (0..octets / 8).flat_map(|_| self.random.number().to_le_bytes()).collect();
            let text = data_encoding::BASE64.encode(&noise);
            let lines: Vec<&str> =
                text.as_bytes().chunks(76).filter_map(|line| std::str::from_utf8(line).ok()).collect();
            let (from, to) = ("ann@aurora.example", "bob@aurora.example");
            let id = format!("full-{}", self.sent.len());
            let original = message(&id, from, to, &id, &lines.join("\n"));
            let reply = sender.send(
                "",
                &[&self.access.address],
                &report(from, &[to], &id, &format!("<{id}@aurora.example>"), &original),
            )?;
            ensure!(reply.code == 250, "{reply:?}");
            self.sent.insert(sha256(&original));
        }
        Ok(())
    }

    fn waiting(&self) -> Result<usize> {
        Ok(self.gateway.waiting(&self.access.id)?.len())
    }

    /// A round that cannot be completed: its exit code and the sentence.
    fn fails(&self) -> Result<(i32, String)> {
        let before = self.waiting()?;
        let round = self.archiver.run(&["run", "--once"], b"")?;
        Self::judge(round.code, &round.err)?;
        ensure!(
            self.waiting()? == before,
            "{} of {before} messages left at the gateway\n{}",
            self.waiting()?,
            round.err
        );
        let said = round.err.lines().rfind(|line| line.contains("postkeep-archiver: ") || round.code == 1);
        Ok((round.code, said.context("says nothing")?.to_owned()))
    }

    fn judge(code: i32, said: &str) -> Result<()> {
        ensure!(code == 1 || code == 3, "exit {code}\n{said}");
        ensure!(!said.contains("panicked"), "{said}");
        let sentences = said.lines().filter(|line| line.starts_with("postkeep-archiver: ")).count();
        ensure!(sentences == usize::from(code == 3), "{sentences} sentences with exit {code}\n{said}");
        Ok(())
    }

    /// A round that does all of it; every message is there once.
    fn works(&self) -> Result<()> {
        self.archiver.run(&["run", "--once"], b"")?.expect(0)?;
        ensure!(self.waiting()? == 0, "{} messages stay at the gateway", self.waiting()?);
        let mut archived: BTreeMap<String, usize> = BTreeMap::new();
        for entry in self.archiver.list("bob")? {
            *archived.entry(entry.get("sha256").and_then(Value::as_str).context("sha256")?.to_owned()).or_default() +=
                1;
        }
        let lost = self.sent.iter().filter(|sum| !archived.contains_key(*sum)).count();
        let duplicated = archived.values().filter(|count| **count > 1).count();
        ensure!(
            lost == 0 && duplicated == 0 && archived.len() == self.sent.len(),
            "lost {lost}, duplicated {duplicated}"
        );
        Ok(())
    }

    /// What waits at the end of a test: the books balance, the store is sound.
    fn ends(&mut self) -> Result<()> {
        let (balance, numbers) = self.archiver.reconcile()?;
        ensure!(balance == 0, "{numbers:?}");
        let (verified, verdict) = self.archiver.verify()?;
        ensure!(verified == 0, "{verdict}");
        ensure!(self.gateway.stop()? == 0);
        Ok(())
    }
}

#[test]
fn a_full_disk_stops_the_round_and_costs_nothing() -> Result<()> {
    let Some(mut scene) = Scene::new(&[])? else { return Ok(()) };
    let mut codes = Vec::new();
    // From the first octet on, and at some place within the round; the last with a message that is larger than what is
    // kept in memory, and goes to a temporary file first.
    for (leave, large) in
        [(0, 1_500_000), (100_000, 1_500_000), (400_000, 1_500_000), (1_600_000, 1_500_000), (20_000_000, 42_000_000)]
    {
        scene.send_with(large)?;
        let filler = if leave == 0 { scene.disk.fill()? } else { leave_only(&scene.disk, leave)? };
        let (code, said) = scene.fails().with_context(|| format!("{leave} octets left"))?;
        println!("{leave} octets left: exit {code}, {said}");
        codes.push(code);
        std::fs::remove_file(filler)?;
        scene.works().with_context(|| format!("after {leave} octets were left"))?;
    }
    println!(
        "archiver on a full disk: {} rounds stopped (exit {codes:?}), nothing deleted at the gateway; with room again: \
         acknowledged {1}, found {1}, lost 0, duplicated 0",
        codes.len(),
        scene.sent.len()
    );
    scene.ends()
}

/// Takes all but about `leave` octets.
fn leave_only(disk: &SmallDisk, leave: u64) -> Result<std::path::PathBuf> {
    let path = disk.fill()?;
    let file = std::fs::OpenOptions::new().write(true).open(&path)?;
    let len = file.metadata()?.len();
    file.set_len(len.checked_sub(leave).context("the disk is too small")?)?;
    file.sync_all()?;
    Ok(path)
}

#[test]
fn a_full_inode_table_stops_the_round_and_costs_nothing() -> Result<()> {
    let Some(mut scene) = Scene::new(&["-N", "256"])? else { return Ok(()) };
    scene.send()?;
    let fillers = scene.disk.mount.join("fillers");
    std::fs::create_dir(&fillers)?;
    let mut made = 0;
    while std::fs::File::create(fillers.join(made.to_string())).is_ok() {
        made += 1;
    }
    let (code, said) = scene.fails()?;
    std::fs::remove_dir_all(&fillers)?;
    scene.works()?;
    println!(
        "archiver without inodes: exit {code}, {said}; nothing deleted at the gateway; with inodes again: acknowledged {0}, \
         found {0}, lost 0, duplicated 0",
        scene.sent.len()
    );
    scene.ends()
}

#[test]
fn a_read_only_disk_stops_the_round_and_costs_nothing() -> Result<()> {
    let Some(mut scene) = Scene::new(&[])? else { return Ok(()) };
    scene.send()?;
    scene.disk.remount("ro")?;
    let (code, said) = scene.fails()?;
    scene.disk.remount("rw")?;
    scene.works()?;
    println!("archiver on a read-only disk: exit {code}, {said}");

    // It turns read-only while rounds are at work; at different moments.
    let mut codes = Vec::new();
    for moment in [100, 300] {
        scene.send()?;
        let mut command = scene.archiver.command(&["run", "--once"])?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        std::thread::sleep(Duration::from_millis(moment));
        scene.disk.fail()?;
        let output = child.wait_with_output()?;
        let (code, said) = (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned());
        if code != 0 {
            Scene::judge(code, &said).with_context(|| format!("at {moment} ms"))?;
        }
        codes.push(code);
        scene.disk.unmount()?;
        let checked = run(Command::new("e2fsck").arg("-fy").arg(&scene.disk.file), b"")?;
        ensure!(checked.code <= 1, "e2fsck: {}", checked.text());
        scene.disk.mount()?;
        scene.works().with_context(|| format!("after the disk failed at {moment} ms"))?;
    }
    println!(
        "archiver on a disk that turns read-only in a round: exit {codes:?}; mended: acknowledged {0}, found {0}, lost 0, \
         duplicated 0",
        scene.sent.len()
    );
    scene.ends()
}
