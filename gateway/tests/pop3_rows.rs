//! Rows of the POP3 server that need a real spool: a full disk at QUIT, files that are not what their entry says, many
//! wrong passwords. (The other rows: `dialogues/pop3.txt`.)
#![allow(clippy::unwrap_used, reason = "a test may end where it finds something else")]

#[allow(dead_code, reason = "each test uses a part of it")]
#[path = "support/rig.rs"]
mod rig;

use postkeep_gateway::{
    pop3::{Credentials, LoginFailure, login::Gate},
    spool::Spool,
};
use postkeep_shared::{
    crypt::Password,
    disk::{
        LocalDisk,
        faulty::{FaultyDisk, Operation},
    },
};
use rig::Rig;
use std::{io::ErrorKind, os::unix::fs::MetadataExt as _, sync::Arc, time::Duration, time::Instant};
use tokio::io::AsyncReadExt as _;

const MESSAGES: [&[u8]; 3] =
    [b"Subject: one\r\n\r\n1\r\n", b"Subject: two\r\n\r\n2\r\n", b"Subject: three\r\n\r\n3\r\n"];

/// 5.2/23: the ledger has 1 MiB of room that was taken before; when even that is gone nothing is removed, now or after
/// the next start.
#[tokio::test(flavor = "multi_thread")]
async fn quit_on_a_full_disk_removes_nothing_and_says_so() {
    let rig = Rig::new("", &MESSAGES).await;
    for operation in [Operation::Write, Operation::Sync] {
        let disk = FaultyDisk::new(Arc::new(LocalDisk));
        let served = rig.serve(Arc::new(disk.clone())).await;
        let mut client = rig.login(&served, 0).await;
        assert_eq!(client.ask("DELE 1").await, "+OK marked");
        disk.fail(operation, 1, ErrorKind::StorageFull);
        assert_eq!(client.ask("QUIT").await, "-ERR [SYS/TEMP] nothing removed; try again later");
        assert!(disk.has_failed(), "{operation:?} was needed");
        assert_eq!(rig.files(0).len(), 3, "{operation:?}");
        // A ledger that could not be written is not written any more; the next start finds everything there.
        served.trigger.fire();
        let _ended = served.running.wait().await;
        let served = rig.serve(Arc::new(LocalDisk)).await;
        let mut client = rig.login(&served, 0).await;
        assert!(client.ask("STAT").await.starts_with("+OK 3 "), "{operation:?}");
        drop(client);
        served.stop().await;
    }
    // The room that is kept for this: a removal is one entry of 276 octets.
    let served = rig.serve(Arc::new(LocalDisk)).await;
    let mut client = rig.login(&served, 0).await;
    client.ask("DELE 1").await;
    assert_eq!(client.ask("QUIT").await, "+OK bye");
    let reserved = std::fs::metadata(rig.ledger(0)).unwrap().blocks() * 512;
    assert!(reserved >= 1 << 20, "only {reserved} octets are allocated");
    assert_eq!(rig.files(0).len(), 2);
    served.stop().await;
}

/// 5.2/24 5.2/25: one flipped bit; a file of another mailbox; another message's file: dropped without an end, and the
/// other messages are served.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_the_message_is_never_served() {
    let rig = Rig::new("", &MESSAGES).await;
    let (mine, others) = (rig.files(0), rig.files(1));
    let good = std::fs::read(&mine[0]).unwrap();
    let mut flipped = good.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let served = rig.serve(Arc::new(LocalDisk)).await;
    for (what, octets) in [
        ("one flipped bit", flipped),
        ("another mailbox's file", std::fs::read(&others[0]).unwrap()),
        ("another message's file", std::fs::read(&mine[1]).unwrap()),
        ("cut short", good[..good.len() - 20].to_vec()),
        ("octets behind its end", [good.as_slice(), b"x"].concat()),
        ("empty", Vec::new()),
    ] {
        std::fs::write(&mine[0], octets).unwrap();
        for command in ["RETR 1", "TOP 1 0", "XRETR 1"] {
            let mut client = rig.login(&served, 0).await;
            assert!(client.ask("RETR 2").await.starts_with("+OK"));
            while client.line().await != "." {}
            client.send(format!("{command}\r\n").as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            let end = client.0.read_to_end(&mut rest).await;
            // TLS without close_notify: a client cannot take the part for the whole.
            assert!(end.is_err(), "{what}, {command}: {}", rest.escape_ascii());
            assert!(!rest.ends_with(b"\r\n.\r\n"), "{what}, {command}");
            wait_until_free(&rig, &served).await;
        }
    }
    std::fs::write(&mine[0], good).unwrap();
    served.stop().await;
}

/// The mailbox is given back a moment after its connection was dropped.
async fn wait_until_free(rig: &Rig, served: &rig::Served) {
    for _ in 0..100 {
        let tcp = tokio::net::TcpStream::connect(served.address(postkeep_gateway::server::Kind::Pop3s)).await.unwrap();
        let mut client = rig.tls(tcp).await.unwrap();
        client.line().await;
        client.ask(&format!("USER {}", rig.access[0].mailbox.id)).await;
        if client.ask(&format!("PASS {}", rig.access[0].password)).await.starts_with("+OK") {
            client.ask("QUIT").await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the mailbox stays in use");
}

/// 5.2/03 5.2/30: 1,000 wrong passwords from 100 addresses at once: the work is bounded, addresses and mailbox are slowed
/// down, and the right password from elsewhere gets in. (product.md: the mailbox is never locked.)
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_wrong_passwords_do_not_keep_the_right_one_out() {
    let rig = Rig::new("", &MESSAGES).await;
    let data = rig.folder.path().join("data");
    let (spool, _) = Spool::open(&data, rig::NAME, Arc::new(LocalDisk)).unwrap();
    let gate = Arc::new(Gate::default());
    let name = rig.access[0].mailbox.id.to_string();
    let with =
        |password: &[u8]| Credentials { user: name.clone().into_bytes(), password: Password::received(password) };
    let started = Instant::now();
    let mut tries = tokio::task::JoinSet::new();
    for n in 0..1000_u32 {
        let (gate, spool, credentials) = (Arc::clone(&gate), spool.clone(), with(b"not the right password"));
        let address = std::net::Ipv4Addr::new(198, 51, 100, (n % 100) as u8);
        tries.spawn(async move { gate.login(address.into(), credentials, &spool).await.err() });
    }
    let right = async {
        loop {
            match gate.login([192, 0, 2, 9].into(), with(rig.access[0].password.as_bytes()), &spool).await {
                Ok(_) => return started.elapsed(),
                // What the client is told to do.
                Err(failure) => assert_eq!(failure, LoginFailure::Busy),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let took = tokio::time::timeout(Duration::from_secs(10), right).await.expect("the right password within 10 s");
    let (mut wrong, mut busy) = (0, 0);
    while let Some(ended) = tries.join_next().await {
        match ended.unwrap() {
            Some(LoginFailure::Wrong) => wrong += 1,
            Some(LoginFailure::Busy) => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    println!("1000 wrong passwords: {wrong} computed, {busy} told to come later; the right one in after {took:?}");
    assert!(wrong + busy == 1000 && wrong > 0);
    // An address that failed waits before its next attempt costs anything.
    let again = Instant::now();
    for n in 0..100_u8 {
        let short = Duration::from_millis(20);
        let credentials = with(b"still not the right one");
        let waits = tokio::time::timeout(short, gate.login([198, 51, 100, n].into(), credentials, &spool)).await;
        if waits.is_err() {
            println!("an address that failed is made to wait ({:?})", again.elapsed());
            spool.close();
            return;
        }
    }
    panic!("no address was slowed down");
}
