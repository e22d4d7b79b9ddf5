//! Commands in clear behind STARTTLS and STLS (CVE-2011-0411 and its kin), 1,000 tries each way against the real server:
//! in the same segment, and in one that follows. None is ever executed, in clear or inside TLS.
#![allow(clippy::unwrap_used, reason = "a test may end where it finds something else")]

#[allow(dead_code, reason = "each test uses a part of it")]
#[path = "support/rig.rs"]
mod rig;

use postkeep_gateway::server::Kind;
use postkeep_shared::disk::LocalDisk;
use rig::{Rig, Served};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const TRIES: usize = 1000;
/// Tries at once.
const AT_ONCE: usize = 20;

/// What is tried on one protocol.
#[derive(Clone, Copy)]
struct Attack {
    opening: &'static str,
    start: &'static str,
    granted: &'static str,
    /// Anything that an executed command would answer with, and nothing else does.
    executed: &'static [&'static str],
    injected: &'static [&'static str],
}

const SMTP: Attack = Attack {
    opening: "EHLO client.example\r\n",
    start: "STARTTLS\r\n",
    granted: "220 2.0.0",
    executed: &["250 2.1.0", "250 2.0.0", "221 ", "214 ", "INJECTED"],
    injected: &[
        "NOOP INJECTED\r\n",
        "EHLO INJECTED\r\nMAIL FROM:<x@y>\r\n",
        "RSET\r\n",
        "HELP\r\n",
        "QUIT\r\n",
        "MAIL FROM:<a@b>\r\nRSET\r\nQUIT\r\n",
        "STARTTLS\r\n",
        "\r\n",
        "N",
    ],
};

const POP3: Attack = Attack {
    opening: "",
    start: "STLS\r\n",
    granted: "+OK begin TLS",
    executed: &["+OK send PASS", "+OK bye", "+OK capabilities", "+OK UTF8", "-ERR"],
    injected: &[
        "USER INJECTED\r\n",
        "CAPA\r\n",
        "QUIT\r\n",
        "UTF8\r\n",
        "USER x\r\nPASS y\r\n",
        "STLS\r\n",
        "XYZZY\r\n",
        "\r\n",
        "N",
    ],
};

async fn read_some(tcp: &mut TcpStream, until: &str) -> String {
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&got).contains(until) {
        match tcp.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => got.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8_lossy(&got).into_owned()
}

/// One try; what the server said from the start command on, to the end of the connection.
async fn inject(address: SocketAddr, attack: Attack, n: usize, same_segment: bool) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    read_some(&mut tcp, "\r\n").await;
    if !attack.opening.is_empty() {
        tcp.write_all(attack.opening.as_bytes()).await.unwrap();
        read_some(&mut tcp, "250 STARTTLS\r\n").await;
    }
    let injected = attack.injected[n % attack.injected.len()];
    let mut said = String::new();
    if same_segment {
        tcp.write_all(format!("{}{injected}", attack.start).as_bytes()).await.unwrap();
    } else {
        tcp.write_all(attack.start.as_bytes()).await.unwrap();
        // Half of them do not wait for the answer.
        if n.is_multiple_of(2) {
            said = read_some(&mut tcp, "\r\n").await;
            assert!(said.starts_with(attack.granted), "{said}");
        } else {
            tokio::task::yield_now().await;
        }
        // The server may have closed already: that is the answer.
        let _ = tcp.write_all(injected.as_bytes()).await;
    }
    // A lone octet is the beginning of nothing; ended by us, else by the server's deadline.
    let _ = tcp.shutdown().await;
    said += &tokio::time::timeout(Duration::from_secs(30), read_some(&mut tcp, "\u{0}")).await.unwrap_or_default();
    said
}

async fn tries(rig: &Rig, served: &Served, kind: Kind, attack: Attack) {
    let address = served.address(kind);
    for same_segment in [true, false] {
        let (mut executed, mut granted) = (0, 0);
        for first in (0..TRIES).step_by(AT_ONCE) {
            let mut all = tokio::task::JoinSet::new();
            for n in first..first + AT_ONCE {
                all.spawn(inject(address, attack, n, same_segment));
            }
            for said in all.join_all().await {
                executed += u32::from(attack.executed.iter().any(|mark| said.contains(mark)));
                granted += u32::from(said.contains(attack.granted));
            }
        }
        let how = if same_segment { "in the same segment" } else { "in the following segment" };
        println!(
            "{kind}, {}: {TRIES} injected {how}, {granted} handshakes granted, {executed} executed",
            attack.start.trim()
        );
        assert_eq!(executed, 0);
        assert!(!same_segment || granted == 0, "what follows in one segment is seen before the answer");
    }
    // Inside TLS nothing said before counts, and the server is as well as ever.
    let mut tcp = TcpStream::connect(address).await.unwrap();
    read_some(&mut tcp, "\r\n").await;
    tcp.write_all(b"CAPA\r\nEHLO x\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    tcp.write_all(attack.start.as_bytes()).await.unwrap();
    read_some(&mut tcp, attack.granted).await;
    let mut client = rig.tls(tcp).await.unwrap();
    let (ask, answer) = if kind == Kind::Smtp { ("MAIL FROM:<a@b>", "503") } else { ("PASS x", "-ERR send USER") };
    let answered = client.ask(ask).await;
    assert!(answered.starts_with(answer), "{answered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn starttls_injection() {
    let rig = Rig::new("", &[]).await;
    let served = rig.serve(Arc::new(LocalDisk)).await;
    tries(&rig, &served, Kind::Smtp, SMTP).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stls_injection() {
    let rig = Rig::new("", &[]).await;
    let served = rig.serve(Arc::new(LocalDisk)).await;
    tries(&rig, &served, Kind::Pop3, POP3).await;
    served.stop().await;
}
