//! A client that asks and does not read: alone in its program, since memory is measured.
#![allow(clippy::unwrap_used, reason = "a test may end where it finds something else")]

#[allow(dead_code, reason = "each test uses a part of it")]
#[path = "support/rig.rs"]
mod rig;

use postkeep_shared::disk::LocalDisk;
use std::{sync::Arc, time::Duration, time::Instant};

/// 5.2/18: 100,000 pipelined RETR and nobody reads: the server takes no more than it can answer, grows by less than
/// 1 MiB, and closes after `pop3.idle_timeout` (ten minutes unless set; here two seconds).
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_retr_unread() {
    let large = [b"Subject: large\r\n\r\n".as_slice(), &vec![b'x'; 8_000_000]].concat();
    let rig = rig::Rig::new("idle_timeout = '2s'", &[&large]).await;
    let served = rig.serve(Arc::new(LocalDisk)).await;
    let flood = "RETR 1\r\n".repeat(100_000);
    let (mut grown, mut closed) = (0, Duration::ZERO);
    // The first round only makes every buffer that is kept for the next one.
    for round in 0..2 {
        let mut client = rig.login(&served, 0).await;
        let before = resident();
        let started = Instant::now();
        let mut sent = 0;
        for piece in flood.as_bytes().chunks(4096) {
            match tokio::time::timeout(Duration::from_secs(20), client.send(piece)).await {
                Ok(Ok(())) => sent += piece.len(),
                Ok(Err(_)) => break,
                Err(_) => panic!("the server neither reads nor closes"),
            }
            grown = resident().saturating_sub(before);
        }
        // What the kernel holds is taken; from here on only the deadline ends it.
        while started.elapsed() < Duration::from_secs(20) && client.send(b"RETR 1\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            grown = grown.max(resident().saturating_sub(before));
        }
        closed = started.elapsed();
        grown = grown.max(resident().saturating_sub(before));
        println!("round {round}: {sent} octets taken, grown by {grown} KiB, closed after {closed:?}");
        drop(client);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(grown < 1024, "grown by {grown} KiB for gigabytes of answers");
    assert!((Duration::from_secs(1)..Duration::from_secs(20)).contains(&closed), "closed by its deadline: {closed:?}");
    served.stop().await;
}

/// KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
