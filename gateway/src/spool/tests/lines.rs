//! Who waits for whom: mailboxes not for each other, transactions to several for nobody for ever.

use super::*;
use postkeep_shared::disk::faulty::FaultyDisk;
use std::{sync::mpsc, time::Duration};
use tokio::{task::JoinSet, time::timeout};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Numbers in the ledger as the maildrop lists them.
fn numbers(spool: &Spool, mailbox: &Mailbox) -> Vec<u64> {
    let maildrop = spool.open_session(mailbox).expect("opens");
    maildrop.list().iter().map(|entry| entry.body.seq).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mailbox_waits_while_another_is_committed() {
    let setup = Setup::new();
    let ((first, _), (second, _)) = (setup.mailbox(), setup.mailbox());
    let disk = FaultyDisk::new(Arc::new(LocalDisk));
    let (spool, _) = setup.open_on(Arc::new(disk.clone()));
    accept(&spool, &first, b"makes the folders").await;
    accept(&spool, &second, b"makes the folders").await;
    // At every single step of a commit.
    for moment in 1.. {
        let (reached, mut is_there) = oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        let incoming = sealed(&spool, &first, b"is held up");
        disk.interrupt(moment, move || {
            // Where nobody listens any more the test has failed already.
            let _ = reached.send(());
            let _ = released.recv();
        });
        let mut held = tokio::spawn({
            let spool = spool.clone();
            async move { spool.commit(vec![incoming]).await }
        });
        tokio::select! {
            biased;
            there = &mut is_there => there.expect("the operation is reached"),
            ended = &mut held => {
                ended.expect("runs").expect("commits");
                assert!(moment > 4, "sync, name, sync of the directory, sync of the ledger: stopped before {moment}");
                break;
            }
        }
        timeout(LONG, accept(&spool, &second, b"passes by")).await.expect("nothing holds it up");
        assert!(!held.is_finished());
        release.send(()).expect("is waited for");
        held.await.expect("runs").expect("commits");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_to_one_and_to_several_all_arrive_once() {
    let setup = Setup::new();
    // More than are kept open.
    let mailboxes: Vec<Mailbox> = (0..6).map(|_| setup.mailbox().0).collect();
    let (spool, _) = setup.open();
    let mut tasks = JoinSet::new();
    for i in 0..180 {
        let spool = spool.clone();
        // One recipient twice as often as two, and two as often as three, in changing order.
        let count = [1, 2, 1, 3, 1, 2, 1].get(i % 7).copied().unwrap_or(1);
        let to: Vec<Mailbox> =
            (0..count).filter_map(|k| mailboxes.get((i * 5 + k * (1 + i % 5)) % 6).cloned()).collect();
        tasks.spawn(async move {
            let messages = to.iter().map(|mailbox| sealed(&spool, mailbox, b"message\r\n")).collect();
            let receipts = spool.commit(messages).await.expect("commits");
            receipts.iter().map(|receipt| receipt.entry().body.mailbox).collect::<Vec<_>>()
        });
    }
    let mut expected: std::collections::BTreeMap<MailboxId, u64> = std::collections::BTreeMap::new();
    while let Some(accepted) = timeout(LONG, tasks.join_next()).await.expect("nobody waits for ever") {
        accepted.expect("runs").into_iter().for_each(|mailbox| *expected.entry(mailbox).or_default() += 1);
    }
    for mailbox in &mailboxes {
        assert_eq!(numbers(&spool, mailbox), (1..=expected[&mailbox.id]).collect::<Vec<u64>>());
    }
    spool.close();
    let (_spool, found) = setup.open();
    assert_eq!((found.waiting, found.adopted, found.problems.len()), (expected.values().sum(), 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_kind_is_kept_waiting_by_a_stream_of_the_other() {
    let setup = Setup::new();
    let mailboxes: Vec<Mailbox> = (0..3).map(|_| setup.mailbox().0).collect();
    let (spool, _) = setup.open();
    for (stream, passing) in [(1, 2), (2, 1)] {
        let mut tasks = JoinSet::new();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        for _ in 0..4 {
            let (spool, to, stop) = (spool.clone(), mailboxes[..stream].to_vec(), Arc::clone(&stop));
            tasks.spawn(async move {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let messages = to.iter().map(|mailbox| sealed(&spool, mailbox, b"stream")).collect();
                    spool.commit(messages).await.expect("commits");
                }
            });
        }
        for _ in 0..20 {
            let messages = mailboxes[..passing].iter().map(|mailbox| sealed(&spool, mailbox, b"passes")).collect();
            timeout(LONG, spool.commit(messages)).await.expect("gets its turn").expect("commits");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        while let Some(ended) = tasks.join_next().await {
            ended.expect("runs");
        }
    }
}
