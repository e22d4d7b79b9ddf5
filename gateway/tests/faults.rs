//! Every error of every disk operation, one at a time: EIO, ENOSPC, EDQUOT, EROFS and EMFILE at the n-th create, write,
//! sync, rename, directory sync and remove of one accept, one removal, one start and one password change.
//!
//! What was promised must be there afterwards, what was not promised may be there, nothing is lost or comes twice, and
//! the error is the one that becomes the right reply (`docs/replies.md`).

use anyhow::{Context as _, Result, bail, ensure};
use postkeep_gateway::{
    mailbox::{Identity, Mailbox, Mailboxes},
    smtp::Trouble,
    spool::{Folder, Layout, Origin, Spool, SpoolError},
};
use postkeep_shared::{
    crypt::Password,
    disk::{
        Disk, LocalDisk,
        faulty::{FaultyDisk, Operation},
    },
    mail::MailboxId,
};
use std::{collections::BTreeMap, io::Read as _, path::Path, sync::Arc};

const ERRORS: [(&str, i32); 5] = [("EIO", 5), ("ENOSPC", 28), ("EDQUOT", 122), ("EROFS", 30), ("EMFILE", 24)];
const FULL: [i32; 2] = [28, 122];
const EMFILE: i32 = 24;
const OPERATIONS: [Operation; 6] =
    [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir, Operation::Remove];

/// A data directory to begin with, copied for every trial.
struct Start {
    folder: tempfile::TempDir,
    id: MailboxId,
    identity: Identity,
}

/// One trial's data directory on a disk that will fail.
struct Trial {
    folder: tempfile::TempDir,
    disk: FaultyDisk,
}

/// One error at one place.
#[derive(Clone, Copy)]
struct Point {
    operation: Operation,
    n: u32,
    name: &'static str,
    errno: i32,
}

impl Start {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let all = Mailboxes::open(folder.path(), Arc::new(LocalDisk))?;
        let (mailbox, password) = all.create("test", None)?;
        let identity = mailbox.unlock(&password.context("made")?)?;
        Ok(Self { folder, id: mailbox.id, identity })
    }

    fn trial(&self) -> Result<Trial> {
        let folder = tempfile::tempdir()?;
        copy(self.folder.path(), folder.path())?;
        Ok(Trial { folder, disk: FaultyDisk::new(Arc::new(LocalDisk)) })
    }

    /// What comes out after a start on a sound disk.
    fn after(&self, trial: &Trial) -> Result<Vec<Vec<u8>>> {
        let (spool, _) = Spool::open(trial.folder.path(), "gw.example", Arc::new(LocalDisk))?;
        let maildrop = spool.open_session(&mailbox(&spool, self.id)?)?;
        let mut messages = Vec::new();
        for i in 0..maildrop.list().len() {
            let mut octets = Vec::new();
            maildrop.open(i, &self.identity)?.read_to_end(&mut octets)?;
            let trace = postkeep_shared::receipt::parse_trace(&octets)?;
            messages.push(octets.split_off(trace.len));
        }
        Ok(messages)
    }
}

impl Trial {
    fn open(&self) -> Result<Spool, SpoolError> {
        Spool::open(self.folder.path(), "gw.example", Arc::new(self.disk.clone()) as Arc<dyn Disk>)
            .map(|(spool, _)| spool)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn mailbox(spool: &Spool, id: MailboxId) -> Result<Mailbox> {
    spool.mailboxes().lookup(&id)?.context("the mailbox is there")
}

fn origin() -> Origin {
    Origin {
        ip: std::net::Ipv4Addr::LOCALHOST.into(),
        reverse_name: None,
        helo: "sender.example".into(),
        mail_from: String::new(),
        rcpt_to: "mbx@gw.example".into(),
        tls: None,
        certificate: None,
        verified: None,
        protocol: "ESMTP",
    }
}

fn content(n: u8) -> Vec<u8> {
    let mut content = vec![b'a' + n; 150_000];
    content.extend_from_slice(b"\r\n");
    content
}

async fn accept(spool: &Spool, id: MailboxId, content: &[u8]) -> Result<(), SpoolError> {
    let mailbox = spool.mailboxes().lookup(&id)?.ok_or(SpoolError::NoSuchMessage)?;
    let mut incoming = spool.begin(&mailbox, &origin())?;
    content.chunks(64 * 1024).try_for_each(|piece| incoming.write(piece))?;
    spool.commit(vec![incoming]).await.map(drop)
}

/// How often each of the operations that can fail happens in what was just done; the disk notes others, such as reads.
fn count(disk: &FaultyDisk) -> BTreeMap<usize, u32> {
    let mut counts = BTreeMap::new();
    for at in disk.take_done().iter().filter_map(|done| OPERATIONS.iter().position(|o| *o == done.operation)) {
        *counts.entry(at).or_default() += 1;
    }
    counts
}

/// Every error at every place; also one past the last, where nothing may fail.
fn points(counts: &BTreeMap<usize, u32>) -> Vec<Point> {
    let mut points = Vec::new();
    for (at, operation) in OPERATIONS.into_iter().enumerate() {
        for n in 1..=counts.get(&at).copied().unwrap_or_default() {
            points.extend(ERRORS.map(|(name, errno)| Point { operation, n, name, errno }));
        }
    }
    points
}

fn say(what: &str, counts: &BTreeMap<usize, u32>, points: usize, promised: u32, refused: u32) {
    let places: Vec<String> =
        counts.iter().filter_map(|(at, n)| Some(format!("{n} {:?}", OPERATIONS.get(*at)?))).collect();
    println!(
        "{what}: {} | points covered {points} ({} errors each) | promised {promised}, refused {refused} | lost 0, duplicated 0",
        places.join(", "),
        ERRORS.len()
    );
}

/// Whether the reply is the one of the table, and storage stops where it must.
fn fits(point: Point, error: &SpoolError, stopped: bool) -> Result<()> {
    let is_sync = matches!(point.operation, Operation::Sync | Operation::SyncDir);
    let (got, expected) = match (Trouble::from(error), point.errno) {
        (got, errno) if FULL.contains(&errno) => (got, Trouble::Full),
        // Nothing is broken; only where something open fails with it, nobody knows what that means.
        (got @ (Trouble::Other | Trouble::Stopped), EMFILE) if !is_sync => (got, got),
        (got, _) => (got, Trouble::Stopped),
    };
    ensure!(got == expected, "{expected:?} was expected: {error}");
    ensure!(stopped || !(is_sync || expected == Trouble::Stopped), "storage goes on after: {error}");
    Ok(())
}

#[tokio::test]
async fn nothing_is_accepted_that_the_disk_refused() -> Result<()> {
    let start = Start::new()?;
    let dry = start.trial()?;
    let spool = dry.open()?;
    drop(dry.disk.take_done());
    accept(&spool, start.id, &content(1)).await?;
    let counts = count(&dry.disk);
    drop(spool);
    let (mut promised, mut refused) = (0, 0);
    let points = points(&counts);
    for point in &points {
        let at = || format!("{} at {:?} {}", point.name, point.operation, point.n);
        let trial = start.trial()?;
        let spool = trial.open()?;
        trial.disk.fail_with_errno(point.operation, point.n, point.errno);
        let mut kept = Vec::new();
        let answer = accept(&spool, start.id, &content(1)).await;
        ensure!(trial.disk.has_failed(), "{}: never came to it", at());
        let stopped = spool.failed().borrow().is_some();
        match &answer {
            Ok(()) => bail!("{}: accepted all the same", at()),
            Err(error) => fits(*point, error, stopped).with_context(at)?,
        }
        refused += 1;
        if stopped {
            ensure!(accept(&spool, start.id, &content(2)).await.is_err(), "{}: accepted after the stop", at());
        } else {
            accept(&spool, start.id, &content(2)).await.with_context(at)?;
            kept.push(content(2));
            promised += 1;
        }
        drop(spool);
        let found = start.after(&trial).with_context(at)?;
        let of = |n| found.iter().filter(|message| **message == content(n)).count();
        ensure!(of(2) == kept.len() && of(1) <= 1 && of(1) + of(2) == found.len(), "{}: {} found", at(), found.len());
    }
    say("accept", &counts, points.len(), promised, refused);
    Ok(())
}

#[tokio::test]
async fn nothing_is_called_removed_that_the_ledger_does_not_say() -> Result<()> {
    let start = Start::new()?;
    let (spool, _) = Spool::open(start.folder.path(), "gw.example", Arc::new(LocalDisk))?;
    accept(&spool, start.id, &content(1)).await?;
    accept(&spool, start.id, &content(2)).await?;
    drop(spool);
    let dry = start.trial()?;
    let spool = dry.open()?;
    drop(dry.disk.take_done());
    spool.open_session(&mailbox(&spool, start.id)?)?.remove(&[0]).await?;
    let counts = count(&dry.disk);
    drop(spool);
    let (mut promised, mut refused) = (0, 0);
    let points = points(&counts);
    for point in &points {
        let at = || format!("{} at {:?} {}", point.name, point.operation, point.n);
        let trial = start.trial()?;
        let spool = trial.open()?;
        let maildrop = spool.open_session(&mailbox(&spool, start.id)?)?;
        trial.disk.fail_with_errno(point.operation, point.n, point.errno);
        let answer = maildrop.remove(&[0]).await;
        ensure!(trial.disk.has_failed(), "{}: never came to it", at());
        let layout = Layout::new(trial.folder.path());
        let file = layout.message(start.id, Folder::New, maildrop.list().first().context("two wait")?.body.uidl);
        match &answer {
            // Only the move to the trash may fail unheard: the ledger knows, the next start does it.
            Ok(()) => ensure!(point.operation == Operation::Rename, "{}: called removed", at()),
            Err(_) => ensure!(file.exists(), "{}: moved without a word in the ledger", at()),
        }
        let is_sync = matches!(point.operation, Operation::Sync | Operation::SyncDir);
        ensure!(!is_sync || spool.failed().borrow().is_some(), "{}: storage goes on", at());
        drop((maildrop, spool));
        let found = start.after(&trial).with_context(at)?;
        ensure!(found.last() == Some(&content(2)), "{}: the other message is gone", at());
        match answer {
            Ok(()) => {
                ensure!(found.len() == 1, "{}: came back after a promised removal", at());
                promised += 1;
            }
            // Not promised: there or, when the entry reached the file, in the trash.
            Err(_) => refused += 1,
        }
    }
    say("removal", &counts, points.len(), promised, refused);
    Ok(())
}

#[tokio::test]
async fn a_start_on_a_failing_disk_loses_nothing() -> Result<()> {
    let start = Start::new()?;
    let (spool, _) = Spool::open(start.folder.path(), "gw.example", Arc::new(LocalDisk))?;
    accept(&spool, start.id, &content(1)).await?;
    accept(&spool, start.id, &content(2)).await?;
    let maildrop = spool.open_session(&mailbox(&spool, start.id)?)?;
    let uidl = maildrop.list().first().context("two wait")?.body.uidl;
    drop((maildrop, spool));
    // A crash: the index is old, the last entry is torn, a message was half written, one has no entry.
    let layout = Layout::new(start.folder.path());
    std::fs::remove_dir_all(layout.index())?;
    let ledger = std::fs::read(layout.ledger(start.id))?;
    let torn = ledger.get(..ledger.len() - 100).context("long enough")?;
    std::fs::write(layout.ledger(start.id), torn)?;
    let half = layout.folder(start.id, Folder::Tmp).join("half");
    std::fs::write(&half, b"half a message")?;
    let dry = start.trial()?;
    drop(dry.open()?);
    let counts = count(&dry.disk);
    let (mut opened, mut refused) = (0, 0);
    let points = points(&counts);
    for point in &points {
        let at = || format!("{} at {:?} {}", point.name, point.operation, point.n);
        let trial = start.trial()?;
        trial.disk.fail_with_errno(point.operation, point.n, point.errno);
        match trial.open() {
            Ok(spool) => drop((spool, opened += 1)),
            Err(_) => refused += 1,
        }
        let found = start.after(&trial).with_context(at)?;
        ensure!(found == [content(1), content(2)], "{}: {} of 2 messages after {uidl}", at(), found.len());
    }
    say("start", &counts, points.len(), opened, refused);
    Ok(())
}

#[test]
fn a_password_change_leaves_the_old_or_the_new_one() -> Result<()> {
    let (old, new) = (Password::generate(), Password::received(b"the new password"));
    let start = tempfile::tempdir()?;
    let (before, _) = Mailboxes::open(start.path(), Arc::new(LocalDisk))?.create("test", Some(&old))?;
    let file = format!("mailboxes/{}.toml", before.id);
    let dry = FaultyDisk::new(Arc::new(LocalDisk));
    let folder = tempfile::tempdir()?;
    copy(start.path(), folder.path())?;
    let all = Mailboxes::open(folder.path(), Arc::new(dry.clone()))?;
    drop(dry.take_done());
    all.passwd(&before.id, &old, &new)?;
    let counts = count(&dry);
    let (mut promised, mut refused) = (0, 0);
    let points = points(&counts);
    for point in &points {
        let at = || format!("{} at {:?} {}", point.name, point.operation, point.n);
        let folder = tempfile::tempdir()?;
        copy(start.path(), folder.path())?;
        let disk = FaultyDisk::new(Arc::new(LocalDisk));
        let all = Mailboxes::open(folder.path(), Arc::new(disk.clone()))?;
        disk.fail_with_errno(point.operation, point.n, point.errno);
        let answer = all.passwd(&before.id, &old, &new);
        ensure!(disk.has_failed() && answer.is_err(), "{}: called changed", at());
        refused += 1;
        let same = std::fs::read(folder.path().join(&file))? == std::fs::read(start.path().join(&file))?;
        let now = all.lookup(&before.id).with_context(at)?.context("the mailbox is there")?;
        // The file as it was opens with the old password; that was tried when it was made.
        ensure!(same || now.unlock(&new).is_ok(), "{}: neither password opens the mailbox", at());
        promised += u32::from(!same);
    }
    say("password change", &counts, points.len(), promised, refused);
    Ok(())
}
