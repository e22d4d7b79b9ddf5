//! The order of one acceptance and one removal as the disk saw it, and whether this check notices a missing step.
//!
//! A power cut alone does not show every missing step (`docs/durability.md`); this does.

use super::*;
use postkeep_shared::disk::faulty::{Done, FaultyDisk, Operation};

/// One step left out of the protocol: its name, the operation, and the part of the path that tells it.
const MUTANTS: &[(&str, Operation, &str)] = &[
    ("sync of the file", Operation::Sync, "/spool/"),
    ("sync of the directory", Operation::SyncDir, "/new"),
    ("sync of the ledger", Operation::Sync, ".ledger"),
];

fn after(
    done: &[Done],
    from: usize,
    operation: Operation,
    what: &str,
    fits: impl Fn(&str) -> bool,
) -> Result<usize, String> {
    let found = |d: &Done| d.operation == operation && fits(&d.path.to_string_lossy());
    let at = done.iter().skip(from).position(found).ok_or(format!("no {what}"))?;
    Ok(from + at + 1)
}

/// Everything that has to stand between the last octet of a message and its `250`.
fn accepted(done: &[Done], uidl: Uidl) -> Result<(), String> {
    let name = format!("/new/{uidl}");
    let named = after(done, 0, Operation::Rename, "name in new/", |p| p.ends_with(&name))?;
    let before = &done[..named];
    let is_write = |d: &Done| d.operation == Operation::Write && d.path.to_string_lossy().contains("/spool/");
    let written = before.iter().rposition(is_write).ok_or("nothing was written")?;
    after(before, written, Operation::Sync, "sync of the file", |p| p == before[written].path.to_string_lossy())?;
    let folder = after(done, named, Operation::SyncDir, "sync of the directory", |p| p.ends_with("/new"))?;
    let entry = after(done, folder, Operation::Write, "ledger entry", |p| p.ends_with(".ledger"))?;
    after(done, entry, Operation::Sync, "sync of the ledger", |p| p.ends_with(".ledger")).map(drop)
}

/// The ledger knows before the file goes.
fn removed(done: &[Done]) -> Result<(), String> {
    let entry = after(done, 0, Operation::Write, "ledger entry", |p| p.ends_with(".ledger"))?;
    let synced = after(done, entry, Operation::Sync, "sync of the ledger", |p| p.ends_with(".ledger"))?;
    after(done, synced, Operation::Rename, "move to the trash", |p| p.contains("/trash/")).map(drop)
}

/// One message through a spool with or without one step.
async fn observed(mutant: Option<(Operation, &str)>) -> (Result<(), String>, Result<(), String>) {
    let setup = Setup::new();
    let (mailbox, _) = setup.mailbox();
    let disk = FaultyDisk::new(Arc::new(LocalDisk));
    let (spool, _) = setup.open_on(Arc::new(disk.clone()));
    accept(&spool, &mailbox, b"Subject: first\r\n\r\nmakes the folders\r\n").await;
    if let Some((operation, path)) = mutant {
        disk.omit(operation, path);
    }
    drop(disk.take_done());
    let entry = accept(&spool, &mailbox, b"Subject: second\r\n\r\nis watched\r\n").await;
    let accepted = accepted(&disk.take_done(), entry.body.uidl);
    let maildrop = spool.open_session(&mailbox).expect("is free");
    maildrop.remove(&[0]).await.expect("removes");
    let removed = removed(&disk.take_done());
    drop(maildrop);
    spool.close();
    (accepted, removed)
}

#[tokio::test]
async fn each_missing_sync_is_noticed() {
    assert_eq!(observed(None).await, (Ok(()), Ok(())));
    for (name, operation, path) in MUTANTS {
        let (accepted, removed) = observed(Some((*operation, path))).await;
        assert_eq!(accepted, Err(format!("no {name}")), "{name} left out of an acceptance");
        let missed = if *path == ".ledger" { Err(format!("no {name}")) } else { Ok(()) };
        assert_eq!(removed, missed, "{name} left out of a removal");
    }
    println!("order: {} of {} mutants noticed", MUTANTS.len(), MUTANTS.len());
}
