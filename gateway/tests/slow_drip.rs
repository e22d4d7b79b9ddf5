//! Clients that send octet by octet: each meets its deadline and hears the documented `421`, nothing of theirs is kept,
//! and the others never notice. All deadlines are set to three to eight seconds here.
#![allow(clippy::unwrap_used, reason = "a test may end where it finds something else")]

#[allow(dead_code, reason = "each test uses a part of it")]
#[path = "support/rig.rs"]
mod rig;

use postkeep_gateway::server::Kind;
use postkeep_shared::disk::LocalDisk;
use rig::{Client, NAME, Rig, Served};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

const SMTP: &str = "command_timeout = '4s'\ndata_timeout = '4s'\nrate_grace = '4s'\nminimum_rate = 500\n\
                    transaction_timeout = '8s'";
const POP3: &str = "login_timeout = '3s'\nidle_timeout = '3s'";
/// Nobody is kept longer, on a machine with a lot of other work.
const AT_LAST: Duration = Duration::from_secs(60);

const SILENCE: &str = "421 4.4.2 Silent for too long";
const SLOW: &str = "421 4.4.2 Too slow; try again later";

/// What a client sends again and again.
#[derive(Clone, Copy)]
struct Drip {
    what: &'static str,
    /// Sent and answered first, line by line; `RCPT` stands for a recipient.
    first: &'static [&'static str],
    drops: &'static str,
    every: Duration,
    /// The last line the server says.
    ends: &'static str,
    /// Not before.
    after: Duration,
}

const fn drip(
    what: &'static str,
    first: &'static [&'static str],
    drops: &'static str,
    every: u64,
    ends: &'static str,
    after: u64,
) -> Drip {
    Drip { what, first, drops, every: Duration::from_millis(every), ends, after: Duration::from_secs(after) }
}

const ENVELOPE: &[&str] = &["EHLO c.example", "MAIL FROM:<>", "RCPT"];
const DATA: &[&str] = &["EHLO c.example", "MAIL FROM:<>", "RCPT", "DATA"];
const KIB: &str = concat!(
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\r\n",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\r\n",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\r\n"
);

const DRIPS: [Drip; 9] = [
    drip("nothing at all", &[], "", 100, SILENCE, 4),
    drip("a command letter by letter", &["EHLO c.example"], "N", 100, SILENCE, 4),
    drip("a recipient letter by letter", &["EHLO c.example", "MAIL FROM:<>"], "R", 100, SILENCE, 4),
    drip("DATA and then nothing", DATA, "", 100, SILENCE, 4),
    drip("DATA at 50 octets a second", DATA, "x", 20, SLOW, 4),
    drip("DATA in lines of one letter", DATA, "x\r\n", 60, SLOW, 4),
    drip("DATA fast enough and without an end", DATA, KIB, 50, SLOW, 8),
    drip("a transaction of NOOPs", ENVELOPE, "NOOP\r\n", 500, SLOW, 8),
    drip(
        "BDAT at 50 octets a second",
        &["EHLO c.example", "MAIL FROM:<>", "RCPT", "<BDAT 5000 LAST"],
        "x",
        20,
        SLOW,
        4,
    ),
];

async fn plain(served: &Served, kind: Kind) -> Client {
    Client(BufReader::new(Box::new(TcpStream::connect(served.address(kind)).await.unwrap())))
}

/// The last line of a reply.
async fn ask(client: &mut Client, line: &str) -> String {
    client.send(format!("{line}\r\n").as_bytes()).await.unwrap();
    last(client).await
}

async fn last(client: &mut Client) -> String {
    loop {
        let line = client.line().await;
        if line.as_bytes().get(3) != Some(&b'-') {
            return line;
        }
    }
}

/// Drips until the server has had enough: its last line, and when that came.
async fn drop_by_drop(served: &Served, rcpt: &str, drip: Drip) -> (String, Duration) {
    let mut began = Instant::now();
    let mut client = plain(served, Kind::Smtp).await;
    assert!(last(&mut client).await.starts_with("220 "));
    for line in drip.first {
        began = Instant::now();
        match line.strip_prefix('<') {
            Some(unanswered) => client.send(format!("{unanswered}\r\n").as_bytes()).await.unwrap(),
            None => {
                let reply = ask(&mut client, if *line == "RCPT" { rcpt } else { line }).await;
                assert!(reply.starts_with('2') || reply.starts_with('3'), "{}: {line}: {reply}", drip.what);
            }
        }
    }
    // The time of a transaction runs from MAIL, which is a moment earlier.
    let (mut reading, mut writing) = tokio::io::split(client.0.into_inner());
    let sends = async {
        while writing.write_all(drip.drops.as_bytes()).await.is_ok() {
            tokio::time::sleep(drip.every).await;
        }
    };
    let reads = async {
        let mut said = Vec::new();
        // A connection that is reset has said its last line before.
        let mut block = [0; 4096];
        while let Ok(count @ 1..) = reading.read(&mut block).await {
            said.extend_from_slice(&block[..count]);
        }
        String::from_utf8(said).unwrap()
    };
    let said = tokio::select! {
        said = reads => said,
        () = async { sends.await; std::future::pending::<()>().await } => unreachable!(),
        () = tokio::time::sleep(AT_LAST) => panic!("{}: kept for {AT_LAST:?}", drip.what),
    };
    (said.lines().last().unwrap_or_default().to_owned(), began.elapsed())
}

/// Delivers one message after the other until told to stop; how long each took.
async fn honest(served: &Served, rcpt: &str, stop: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let began = Instant::now();
        let mut client = plain(served, Kind::Smtp).await;
        assert!(last(&mut client).await.starts_with("220 "));
        for line in ["EHLO c.example", "MAIL FROM:<>", rcpt, "DATA"] {
            ask(&mut client, line).await;
        }
        let reply = ask(&mut client, "Subject: honest\r\n\r\nx\r\n.").await;
        assert!(reply.starts_with("250 2.6.0 "), "{reply}");
        assert!(ask(&mut client, "QUIT").await.starts_with("221 "));
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    took.sort();
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn smtp_clients_that_drip_are_ended_and_the_others_go_on() {
    let rig = Rig::with(SMTP, POP3, &[]).await;
    let served = rig.serve(Arc::new(LocalDisk)).await;
    let rcpt = |which: usize| format!("RCPT TO:<{}@{NAME}>", rig.access[which].mailbox.id);
    let stop = AtomicBool::new(false);
    // Of each kind several at once, to the first mailbox; honest mail goes to the second.
    let dripping = async {
        let slow = rcpt(0);
        let all = DRIPS.iter().flat_map(|drip| [*drip; 5]).map(|drip| {
            let (served, slow) = (&served, &slow);
            async move { (drip, drop_by_drop(served, slow, drip).await) }
        });
        let ended = futures_util::future::join_all(all).await;
        stop.store(true, Ordering::SeqCst);
        ended
    };
    let (ended, took) = tokio::join!(dripping, async { honest(&served, &rcpt(1), &stop).await });
    for (drip, (said, after)) in &ended {
        assert_eq!(said, drip.ends, "{}", drip.what);
        // A tenth for clocks that are read at different moments.
        assert!(*after >= drip.after.mul_f64(0.9), "{}: after {after:?} already", drip.what);
    }
    for drip in &DRIPS {
        let times = ended.iter().filter(|(of, _)| of.what == drip.what).map(|(_, (_, after))| after);
        println!("{}: {} after at most {:.1} s", drip.what, drip.ends, times.max().unwrap().as_secs_f64());
    }
    assert!(took.len() >= 3, "only {} honest messages", took.len());
    println!("meanwhile {} honest messages, median {:?}, slowest {:?}", took.len(), took[took.len() / 2], took.last());
    assert!(rig.files(0).is_empty(), "nothing of a message without end is kept");
    assert_eq!(rig.files(1).len(), took.len() + 1, "every honest message is there");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pop3_clients_that_drip_are_ended() {
    let rig = Rig::with("", POP3, &[b"Subject: x\r\n\r\nx\r\n"]).await;
    let served = rig.serve(Arc::new(LocalDisk)).await;
    // Before login: in clear, under TLS, and where a handshake should be. After login: a command.
    for (what, tls, login) in [("in clear", false, false), ("under TLS", true, false), ("logged in", true, true)] {
        let client = match (tls, login) {
            (_, true) => rig.login(&served, 0).await,
            (true, _) => {
                let tcp = TcpStream::connect(served.address(Kind::Pop3s)).await.unwrap();
                let mut client = rig.tls(tcp).await.unwrap();
                assert!(client.line().await.starts_with("+OK"));
                client
            }
            _ => {
                let mut client = plain(&served, Kind::Pop3).await;
                assert!(client.line().await.starts_with("+OK"));
                client
            }
        };
        let began = Instant::now();
        let ended = async {
            let (mut reading, mut writing) = tokio::io::split(client.0.into_inner());
            let mut rest = Vec::new();
            tokio::select! {
                _ = reading.read_to_end(&mut rest) => rest,
                () = async {
                    while writing.write_all(b"N").await.is_ok() && writing.flush().await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    std::future::pending::<()>().await;
                } => unreachable!(),
            }
        };
        let rest = tokio::time::timeout(AT_LAST, ended).await.unwrap_or_else(|_| panic!("{what}: kept"));
        let after = began.elapsed();
        assert!(after >= Duration::from_millis(2700), "{what}: after {after:?} already");
        assert!(!rest.starts_with(b"+OK"), "{}", rest.escape_ascii());
        println!("POP3 {what}: ended after {:.1} s", after.as_secs_f64());
        // The mailbox is free again, and nothing is gone.
        let mut next = rig.login(&served, 0).await;
        assert!(next.ask("STAT").await.starts_with("+OK 1 "));
        next.ask("QUIT").await;
    }
    served.stop().await;
}
