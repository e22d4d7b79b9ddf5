use super::*;
use postkeep_shared::receipt::{ENTRY_LEN, Flags};
use std::io::Write as _;

async fn filled(setup: &Setup, mailbox: &Mailbox, count: usize) -> Vec<Entry> {
    let (spool, _) = setup.open();
    let mut entries = Vec::new();
    for i in 0..count {
        entries.push(accept(&spool, mailbox, format!("message {i}\r\n").as_bytes()).await);
    }
    spool.close();
    entries
}

fn list(spool: &Spool, mailbox: &Mailbox) -> Vec<Entry> {
    spool.open_session(mailbox).expect("opens").list().to_vec()
}

#[tokio::test]
async fn a_deleted_index_is_rebuilt() {
    let setup = Setup::new();
    let (mailbox, _) = setup.mailbox();
    let entries = filled(&setup, &mailbox, 4).await;
    std::fs::remove_dir_all(setup.data().join("index")).expect("removes");
    let (spool, found) = setup.open();
    assert!(found.problems.is_empty());
    assert_eq!(list(&spool, &mailbox), entries);
}

#[tokio::test]
async fn an_index_of_another_ledger_is_rebuilt() {
    let setup = Setup::new();
    let (mailbox, _) = setup.mailbox();
    let entries = filled(&setup, &mailbox, 2).await;
    let ledger = std::fs::read(setup.ledger(&mailbox)).expect("reads");
    filled(&setup, &mailbox, 1).await;
    // A ledger put back from a backup: shorter than the index knows it.
    std::fs::write(setup.ledger(&mailbox), ledger).expect("writes");
    let (spool, found) = setup.open();
    assert_eq!(found.adopted, 1, "the newest file has no entry any more");
    assert_eq!(list(&spool, &mailbox)[..2], entries);
    assert_eq!(list(&spool, &mailbox).len(), 3);
}

#[tokio::test]
async fn a_torn_tail_is_kept_aside_and_cut() {
    for tail in [vec![0; 700], vec![7; 100], vec![0; ENTRY_LEN * 3], vec![1]] {
        let setup = Setup::new();
        let (mailbox, identity) = setup.mailbox();
        let entries = filled(&setup, &mailbox, 2).await;
        let mut file = std::fs::OpenOptions::new().append(true).open(setup.ledger(&mailbox)).expect("opens");
        file.write_all(&tail).expect("writes");
        drop(file);
        let (spool, found) = setup.open();
        assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
        assert_eq!(found.problems[0].kind, ProblemKind::TornTail);
        let kept = LocalDisk.list(&setup.data().join("ledger/quarantine")).expect("lists");
        assert_eq!((kept.len(), kept[0].len), (1, tail.len() as u64));
        assert_eq!(list(&spool, &mailbox), entries);
        let next = accept(&spool, &mailbox, b"third").await;
        assert_eq!((next.body.seq, next.body.prev), (3, entries[1].hash()));
        assert!(read(&spool.open_session(&mailbox).expect("opens"), 2, &identity).is_ok());
        drop(spool);
        let (_, found) = setup.open();
        assert!(found.problems.is_empty());
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_never_cut() {
    let setup = Setup::new();
    let (mailbox, _) = setup.mailbox();
    let entries = filled(&setup, &mailbox, 4).await;
    let mut ledger = std::fs::read(setup.ledger(&mailbox)).expect("reads");
    ledger[64 + ENTRY_LEN + 100] ^= 1;
    std::fs::write(setup.ledger(&mailbox), &ledger).expect("writes");
    std::fs::remove_dir_all(setup.data().join("index")).expect("removes");
    let (spool, found) = setup.open();
    assert_eq!((found.problems[0].kind, found.problems[0].seq), (ProblemKind::DamagedEntry, Some(2)));
    assert_eq!(found.adopted, 1, "the file of the damaged entry stays available");
    let now = list(&spool, &mailbox);
    assert_eq!(now[..3], [entries[0].clone(), entries[2].clone(), entries[3].clone()]);
    assert_eq!((now[3].body.seq, now[3].body.uidl), (5, entries[1].body.uidl));
    let after = std::fs::read(setup.ledger(&mailbox)).expect("reads");
    assert_eq!(after[..ledger.len()], ledger);
}

#[tokio::test]
async fn a_file_without_entry_is_adopted_and_listed_exactly() {
    let setup = Setup::new();
    let (mailbox, identity) = setup.mailbox();
    let entries = filled(&setup, &mailbox, 2).await;
    // As if killed between rename and ledger append.
    let ledger = std::fs::read(setup.ledger(&mailbox)).expect("reads");
    std::fs::write(setup.ledger(&mailbox), &ledger[..64 + ENTRY_LEN]).expect("writes");
    let (spool, found) = setup.open();
    assert_eq!((found.adopted, found.waiting), (1, 2));
    let maildrop = spool.open_session(&mailbox).expect("opens");
    let entry = maildrop.list()[1].clone();
    assert_eq!(entry.body.uidl, entries[1].body.uidl);
    assert!(entry.body.flags.has(Flags::RECOVERED) && !entry.is_measured());
    assert_eq!(entry.body.sealed_content, entries[1].body.sealed_content);
    assert_eq!(entry.body.sealed_sha256, entries[1].body.sealed_sha256);
    let octets = read(&maildrop, 1, &identity).expect("reads");
    assert_eq!(octets.len() as u64, entry.xretr_size());
    assert_eq!(message_of(&octets), b"message 1\r\n");
    let mut retr = Vec::new();
    maildrop.open(1, &identity).expect("opens").with_line_end().read_to_end(&mut retr).expect("reads");
    assert_eq!(retr.len() as u64, entry.retr_size());
}

#[tokio::test]
async fn strays_go_to_quarantine_and_missing_files_are_named() {
    let setup = Setup::new();
    let (mailbox, identity) = setup.mailbox();
    let entries = filled(&setup, &mailbox, 3).await;
    let layout = Layout::new(setup.data());
    std::fs::write(layout.folder(mailbox.id, Folder::Tmp).join("unfinished"), b"half").expect("writes");
    std::fs::write(layout.folder(mailbox.id, Folder::New).join("note.txt"), b"note").expect("writes");
    std::fs::write(setup.message(&mailbox, Folder::New, Uidl::now()), b"age-encryption.org/v1\n-> ").expect("writes");
    std::fs::remove_file(setup.message(&mailbox, Folder::New, entries[1].body.uidl)).expect("removes");
    let (spool, found) = setup.open();
    assert_eq!(found.quarantined, 3);
    assert_eq!(setup.names(&mailbox, Folder::Quarantine).len(), 3);
    let missing = found.problems.iter().find(|p| p.kind == ProblemKind::MissingFile).expect("named");
    assert_eq!((missing.seq, missing.uidl), (Some(2), Some(entries[1].body.uidl)));
    let maildrop = spool.open_session(&mailbox).expect("opens");
    assert_eq!(maildrop.list().iter().map(|e| e.body.seq).collect::<Vec<_>>(), [1, 3]);
    assert!(read(&maildrop, 1, &identity).is_ok());
}

#[tokio::test]
async fn a_removed_message_does_not_come_back() {
    let setup = Setup::new();
    let (mailbox, _) = setup.mailbox();
    let entries = filled(&setup, &mailbox, 2).await;
    let path = setup.message(&mailbox, Folder::New, entries[0].body.uidl);
    let octets = std::fs::read(&path).expect("reads");
    let (spool, _) = setup.open();
    spool.open_session(&mailbox).expect("opens").remove(&[0]).await.expect("removes");
    spool.close();
    // As if killed between the ledger's sync and the rename to the trash.
    std::fs::write(&path, octets).expect("writes");
    let (spool, found) = setup.open();
    assert_eq!((found.adopted, found.waiting), (0, 1));
    assert_eq!(list(&spool, &mailbox), entries[1..]);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_trash_is_emptied_after_seven_days_only() {
    let setup = Setup::new();
    let (mailbox, _) = setup.mailbox();
    filled(&setup, &mailbox, 1).await;
    let trash = Layout::new(setup.data()).folder(mailbox.id, Folder::Trash);
    let day = 24 * 3600 * 1000;
    let now = postkeep_shared::run::now_ms();
    std::fs::write(trash.join(format!("{}.{}", Uidl::now(), now - 8 * day)), b"old").expect("writes");
    std::fs::write(trash.join(format!("{}.{}", Uidl::now(), now - 6 * day)), b"young").expect("writes");
    std::fs::write(trash.join("other"), b"by its modification time").expect("writes");
    let (spool, _) = setup.open();
    spool.close();
    assert_eq!(setup.names(&mailbox, Folder::Trash).len(), 2);
}
