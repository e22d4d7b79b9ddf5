use super::*;
use postkeep_shared::receipt::{Event, Flags, parse_trace};

#[tokio::test]
async fn what_was_accepted_comes_out_exactly() {
    let setup = Setup::new();
    let (mailbox, identity) = setup.mailbox();
    let (spool, found) = setup.open();
    assert!(found.problems.is_empty() && found.waiting == 0);
    let big = vec![b'x'; 300_000];
    let contents: [&[u8]; 6] =
        [b"Subject: x\r\n\r\nbody\r\n", b"no line end", b"", b" begins with a blank\r\n", b"bare\nends\r", &big];
    for content in contents {
        accept(&spool, &mailbox, content).await;
    }
    let maildrop = spool.open_session(&mailbox).expect("opens");
    assert!(matches!(spool.open_session(&mailbox), Err(SpoolError::InUse)));
    assert_eq!(maildrop.list().len(), contents.len());
    for (i, content) in contents.iter().enumerate() {
        let entry = &maildrop.list()[i];
        let octets = read(&maildrop, i, &identity).expect("reads");
        assert_eq!(message_of(&octets), *content);
        assert_eq!(octets.len() as u64, entry.xretr_size());
        let trace = parse_trace(&octets).expect("trace header");
        assert_eq!(&trace.receipt, entry);
        assert_eq!(entry.body.size, content.len() as u64);
        let salted = postkeep_shared::mail::Digest::of(&[&trace.evidence.salt, *content].concat());
        assert_eq!(entry.fits(content.len() as u64, salted), Some(true));
        assert_eq!(entry.body.flags.has(Flags::ENDS_WITH_CRLF), content.ends_with(b"\r\n"));
        let mut retr = Vec::new();
        maildrop.open(i, &identity).expect("opens").with_line_end().read_to_end(&mut retr).expect("reads");
        assert_eq!(retr.len() as u64, entry.retr_size());
        assert!(retr.ends_with(b"\r\n"));
    }
    assert!(maildrop.open(99, &identity).is_err());
}

#[tokio::test]
async fn a_reopened_spool_lists_the_same_and_removed_messages_are_gone() {
    let setup = Setup::new();
    let (mailbox, identity) = setup.mailbox();
    let (spool, _) = setup.open();
    for i in 0..5 {
        accept(&spool, &mailbox, format!("message {i}\r\n").as_bytes()).await;
    }
    let maildrop = spool.open_session(&mailbox).expect("opens");
    let before = maildrop.list().to_vec();
    maildrop.remove(&[3, 1, 3]).await.expect("removes");
    maildrop.remove(&[1]).await.expect("is removed already");
    assert_eq!(maildrop.list(), before, "a snapshot stays as it was");
    let ledger: Vec<Entry> = maildrop.ledger(1).expect("reads").collect::<Result<_, _>>().expect("reads");
    drop(maildrop);
    spool.close();

    assert_eq!(ledger.len(), 7);
    assert_eq!(ledger[5].body.event, Event::Removed);
    assert_eq!((ledger[5].body.refers_to, ledger[6].body.refers_to), (2, 4));
    assert!(ledger.windows(2).all(|pair| pair[1].body.prev == pair[0].hash()));
    assert!(ledger.iter().all(|entry| entry.verify().is_ok()));
    assert_eq!(setup.names(&mailbox, Folder::New).len(), 3);
    assert_eq!(setup.names(&mailbox, Folder::Trash).len(), 2);

    let (spool, found) = setup.open();
    assert_eq!((found.waiting, found.adopted, found.problems.len()), (3, 0, 0));
    let maildrop = spool.open_session(&mailbox).expect("opens");
    let left: Vec<Entry> = [0, 2, 4].iter().map(|i| before[*i].clone()).collect();
    assert_eq!(maildrop.list(), left);
    assert_eq!(message_of(&read(&maildrop, 1, &identity).expect("reads")), b"message 2\r\n");
    let later: Vec<u64> = maildrop.ledger(6).expect("reads").map(|entry| entry.expect("reads").body.seq).collect();
    assert_eq!(later, [6, 7]);
    assert_eq!(maildrop.ledger(u64::MAX).expect("reads").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_while_it_closes_is_kept_or_refused() {
    let (mut kept_in_all, mut refused_in_all) = (0, 0);
    for round in 0..12 {
        let setup = Setup::new();
        let (mailbox, _) = setup.mailbox();
        let (spool, _) = setup.open();
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..24 {
            let (spool, mailbox) = (spool.clone(), mailbox.clone());
            tasks.spawn(async move {
                tokio::time::sleep(std::time::Duration::from_millis(i / 2)).await;
                spool.commit(vec![sealed(&spool, &mailbox, b"message\r\n")]).await
            });
        }
        tokio::time::sleep(std::time::Duration::from_millis(round)).await;
        tokio::task::spawn_blocking(move || spool.close()).await.expect("closes");
        let mut kept = 0;
        while let Some(ended) = tasks.join_next().await {
            match ended.expect("no panic") {
                Ok(_) => kept += 1,
                Err(SpoolError::Failed(reason)) => assert_eq!(reason, "the gateway is stopping"),
                Err(error) => panic!("{error}"),
            }
        }
        let (spool, found) = setup.open();
        assert_eq!((found.waiting, found.adopted, found.problems.len()), (kept, 0, 0));
        assert_eq!(setup.names(&mailbox, Folder::Tmp).len(), 0, "what was refused is gone");
        assert!(spool.failed().borrow().is_none());
        (kept_in_all, refused_in_all) = (kept_in_all + kept, refused_in_all + 24 - kept);
    }
    println!("closed while messages came: {kept_in_all} kept, {refused_in_all} refused");
    assert!(refused_in_all > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_messages_each_get_their_own_number() {
    let setup = Setup::new();
    let (mailbox, _) = setup.mailbox();
    let (spool, _) = setup.open();
    let tasks: Vec<_> = (0..50)
        .map(|i| {
            let (spool, mailbox) = (spool.clone(), mailbox.clone());
            tokio::spawn(async move { accept(&spool, &mailbox, format!("{i}\r\n").as_bytes()).await.body.seq })
        })
        .collect();
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.push(task.await.expect("runs"));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=50).collect::<Vec<u64>>());
    assert_eq!(spool.open_session(&mailbox).expect("opens").list().len(), 50);
}

#[tokio::test]
async fn several_mailboxes_get_one_message_in_one_commit() {
    let setup = Setup::new();
    let ((first, first_key), (second, second_key)) = (setup.mailbox(), setup.mailbox());
    let (spool, _) = setup.open();
    let messages = vec![sealed(&spool, &first, b"both\r\n"), sealed(&spool, &second, b"both\r\n")];
    let receipts = spool.commit(messages).await.expect("commits");
    assert_eq!(receipts[0].entry().body.mailbox, first.id);
    assert_eq!(receipts[1].entry().body.mailbox, second.id);
    for (mailbox, identity, other) in [(&first, &first_key, &second_key), (&second, &second_key, &first_key)] {
        let maildrop = spool.open_session(mailbox).expect("opens");
        assert_eq!(message_of(&read(&maildrop, 0, identity).expect("reads")), b"both\r\n");
        assert!(matches!(maildrop.open(0, other), Err(SpoolError::WrongKey { .. })));
    }
}

#[tokio::test]
async fn a_message_that_is_dropped_leaves_nothing() {
    let setup = Setup::new();
    let (mailbox, _) = setup.mailbox();
    let (spool, _) = setup.open();
    drop(sealed(&spool, &mailbox, b"half"));
    assert!(setup.names(&mailbox, Folder::Tmp).is_empty());
    assert!(spool.open_session(&mailbox).expect("opens").list().is_empty());
}

#[tokio::test]
async fn no_plaintext_is_on_disk() {
    let setup = Setup::new();
    let (mailbox, _) = setup.mailbox();
    let (spool, _) = setup.open();
    accept(&spool, &mailbox, b"Subject: sentinel-4711\r\n\r\nsentinel-4711\r\n").await;
    spool.close();
    let mut folders = vec![setup.data().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in LocalDisk.list(&folder).expect("lists") {
            let path = folder.join(&entry.name);
            if entry.is_dir {
                folders.push(path);
            } else {
                let octets = std::fs::read(&path).expect("reads");
                assert_eq!(memchr::memmem::find(&octets, b"sentinel-4711"), None, "{}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn a_changed_password_leaves_waiting_messages_readable() {
    let setup = Setup::new();
    let (mailbox, _) = setup.mailbox();
    let (spool, _) = setup.open();
    let old = Password::received(PASSWORD);
    let (mailbox, _) = {
        let _ = mailbox;
        spool.mailboxes().create("", Some(&old)).expect("makes")
    };
    for i in 0..3 {
        accept(&spool, &mailbox, format!("{i}").as_bytes()).await;
    }
    let new = Password::received(b"another password");
    spool.mailboxes().passwd(&mailbox.id, &old, &new).expect("changes");
    let mailbox = spool.mailboxes().lookup(&mailbox.id).expect("reads").expect("there");
    assert!(mailbox.unlock(&old).is_err());
    let identity = mailbox.unlock(&new).expect("unlocks");
    let maildrop = spool.open_session(&mailbox).expect("opens");
    for i in 0..3 {
        assert_eq!(message_of(&read(&maildrop, i, &identity).expect("reads")), format!("{i}").as_bytes());
    }
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let setup = Setup::new();
    let (spool, _) = setup.open();
    let second = Spool::open(setup.data(), "gw.example", Arc::new(LocalDisk));
    assert!(matches!(second, Err(SpoolError::Locked(_))));
    drop(spool);
    assert!(Spool::open(setup.data(), "gw.example", Arc::new(LocalDisk)).is_ok());
}
