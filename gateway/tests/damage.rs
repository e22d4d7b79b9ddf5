//! Every octet of a small spool file, ledger, mailbox definition and node key changed once, every file cut at every
//! 512 octets (small ones at every 16) and each such tail filled with zeros: `verify` says so every time, no wrong
//! octet is served, and the other messages come out as they are.

use anyhow::{Context as _, Result, ensure};
use postkeep_gateway::{
    mailbox::{Identity, Mailboxes},
    spool::{Folder, Layout, Origin, Spool, open_message},
    verify::Verifier,
};
use postkeep_shared::{
    disk::LocalDisk,
    mail::MailboxId,
    receipt::{Entry, parse_trace},
};
use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// `verify` waits a second before it believes what could be a server at work; many wait together.
const THREADS: usize = 48;

struct Sample {
    folder: tempfile::TempDir,
    id: MailboxId,
    identity: Identity,
    /// What waits, with its octets as XRETR gives them.
    waiting: Vec<(Entry, Vec<u8>)>,
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

impl Sample {
    /// Three messages wait, one was removed.
    async fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let all = Mailboxes::open(folder.path(), Arc::new(LocalDisk))?;
        let (mailbox, password) = all.create("damage", None)?;
        let identity = mailbox.unlock(&password.context("made")?)?;
        let (spool, _) = Spool::open(folder.path(), "gw.example", Arc::new(LocalDisk))?;
        for n in 0..4 {
            let origin = Origin {
                ip: std::net::Ipv4Addr::LOCALHOST.into(),
                reverse_name: None,
                helo: "s.example".into(),
                mail_from: String::new(),
                rcpt_to: "mbx@gw.example".into(),
                tls: None,
                certificate: None,
                verified: None,
                protocol: "ESMTP",
            };
            let mut incoming = spool.begin(&mailbox, &origin)?;
            incoming.write(format!("Subject: {n}\r\n\r\n{}\r\n", "text ".repeat(40)).as_bytes())?;
            spool.commit(vec![incoming]).await?;
        }
        let maildrop = spool.open_session(&mailbox)?;
        maildrop.remove(&[1]).await?;
        drop(maildrop);
        let maildrop = spool.open_session(&mailbox)?;
        let mut waiting = Vec::new();
        for (i, entry) in maildrop.list().iter().enumerate() {
            let mut octets = Vec::new();
            maildrop.open(i, &identity)?.read_to_end(&mut octets)?;
            waiting.push((entry.clone(), octets));
        }
        drop(maildrop);
        spool.close();
        // It is rebuilt at every start; here it would only be copied.
        std::fs::remove_dir_all(Layout::new(folder.path()).index())?;
        Ok(Self { folder, id: mailbox.id, identity, waiting })
    }

    fn message(&self, data: &Path, i: usize) -> Result<PathBuf> {
        let (entry, _) = self.waiting.get(i).context("waits")?;
        Ok(Layout::new(data).message(self.id, Folder::New, entry.body.uidl))
    }
}

fn is_detected(data: &Path) -> bool {
    let Ok(all) = Mailboxes::existing(data, Arc::new(LocalDisk)) else { return true };
    Verifier::new(data, Arc::new(LocalDisk), all).run(None).map_or(true, |outcome| !outcome.problems.is_empty())
}

/// The file with one octet changed, for every octet; cut; and cut with zeros in place of the rest.
/// A comment on the first line is no data and left out.
fn changes(octets: &[u8]) -> Vec<(String, Vec<u8>)> {
    let comment = octets.iter().position(|o| *o == b'\n').filter(|_| octets.starts_with(b"#")).unwrap_or_default();
    let mut all: Vec<(String, Vec<u8>)> = (comment..octets.len())
        .map(|at| {
            let mut changed = octets.to_vec();
            if let Some(octet) = changed.get_mut(at) {
                *octet ^= 1;
            }
            (format!("octet {at} changed"), changed)
        })
        .collect();
    for at in (0..octets.len()).step_by(if octets.len() < 512 * 8 { 16 } else { 512 }) {
        let kept = octets.get(..at).unwrap_or_default().to_vec();
        let mut zeros = kept.clone();
        zeros.resize(octets.len(), 0);
        all.push((format!("cut at {at}"), kept));
        if zeros != octets {
            all.push((format!("zeros from {at}"), zeros));
        }
    }
    all
}

/// Makes every change to one file in copies of the data directory and asks `verify` and `also` about each.
fn every_change(
    what: &str,
    sample: &Sample,
    file: &Path,
    also: impl Fn(&Path, usize) -> Result<()> + Sync,
) -> Result<()> {
    let inside = file.strip_prefix(sample.folder.path())?;
    let changes = changes(&std::fs::read(file)?);
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let work = || -> Result<()> {
                    let folder = tempfile::tempdir()?;
                    copy(sample.folder.path(), folder.path())?;
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some((name, octets)) = changes.get(at) else { return Ok(()) };
                        std::fs::write(folder.path().join(inside), octets)?;
                        if !is_detected(folder.path()) {
                            missed.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.push(name.clone());
                        }
                        also(folder.path(), at).with_context(|| name.clone())?;
                    }
                };
                if let Err(error) = work()
                    && let Ok(mut missed) = missed.lock()
                {
                    missed.push(format!("{error:#}"));
                }
            });
        }
    });
    let missed = missed.into_inner()?;
    println!("{what}: {} changes, {} detected, 0 wrong octets served", changes.len(), changes.len() - missed.len());
    ensure!(missed.is_empty(), "{what}: {missed:?}");
    Ok(())
}

#[tokio::test]
async fn every_change_of_a_spool_file_is_found() -> Result<()> {
    let sample = Sample::new().await?;
    let file = sample.message(sample.folder.path(), 1)?;
    every_change("spool file", &sample, &file, |data, _| {
        for (i, (entry, octets)) in sample.waiting.iter().enumerate() {
            let mut out = Vec::new();
            let read = open_message(&LocalDisk, &sample.message(data, i)?, entry, &sample.identity)
                .map(|mut reader| reader.read_to_end(&mut out));
            if i == 1 {
                ensure!(!matches!(read, Ok(Ok(_))), "served to its end");
                ensure!(out.len() < octets.len() && octets.starts_with(&out), "wrong octets served");
            } else {
                ensure!(out == *octets, "another message suffered");
            }
        }
        Ok(())
    })
}

#[tokio::test]
async fn every_change_of_a_ledger_is_found() -> Result<()> {
    let sample = Sample::new().await?;
    let file = Layout::new(sample.folder.path()).ledger(sample.id);
    every_change("ledger", &sample, &file, |data, n| {
        // A start writes: in a copy of its own, and not for every octet.
        if n % 64 != 0 {
            return Ok(());
        }
        let folder = tempfile::tempdir()?;
        copy(data, folder.path())?;
        let Ok((spool, _)) = Spool::open(folder.path(), "gw.example", Arc::new(LocalDisk)) else { return Ok(()) };
        let mailbox = spool.mailboxes().lookup(&sample.id)?.context("is there")?;
        let maildrop = spool.open_session(&mailbox)?;
        for (i, entry) in maildrop.list().iter().enumerate() {
            let mut out = Vec::new();
            let read = maildrop.open(i, &sample.identity).map(|mut reader| reader.read_to_end(&mut out));
            let (_, octets) =
                sample.waiting.iter().find(|(e, _)| e.body.uidl == entry.body.uidl).context("was sent")?;
            // The receipt field differs where the file had to be adopted.
            let content = |octets: &[u8]| -> Result<Vec<u8>> {
                Ok(octets.get(parse_trace(octets)?.len..).context("inside")?.to_vec())
            };
            if matches!(read, Ok(Ok(_))) {
                ensure!(content(&out)? == content(octets)?, "wrong octets served");
            }
        }
        Ok(())
    })
}

#[tokio::test]
async fn every_change_of_a_mailbox_definition_is_found() -> Result<()> {
    let sample = Sample::new().await?;
    let file = sample.folder.path().join(format!("mailboxes/{}.toml", sample.id));
    every_change("mailbox definition", &sample, &file, |_, _| Ok(()))
}

#[tokio::test]
async fn every_change_of_the_node_key_is_found() -> Result<()> {
    let sample = Sample::new().await?;
    let file = sample.folder.path().join("node.key");
    every_change("node key", &sample, &file, |_, _| Ok(()))
}
