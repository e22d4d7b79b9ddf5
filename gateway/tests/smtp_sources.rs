//! What the source rules do to a session: the evidence kept, the recipients put off, and nothing at all without them.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each test uses a part of it")]
#[path = "support/dns.rs"]
mod dns;

use dns::{Data, Line, Server};
use postkeep_gateway::{
    config::GatewayConfig,
    mailbox::{Identity, Mailbox},
    smtp::{self, Context, Settings},
    sources::Sources,
    spool::Spool,
};
use postkeep_shared::{
    disk::LocalDisk,
    receipt::{Flags, Trace, parse_trace},
    run::ShutdownTrigger,
};
use std::{
    io::Read as _,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Gateway {
    _folder: tempfile::TempDir,
    spool: Spool,
    sources: Arc<Sources>,
    mailbox: Mailbox,
    identity: Identity,
}

impl Gateway {
    /// `rules` with `MBX` for the mailbox's name.
    fn start(rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(&folder.path().join("data"), "gw.example", Arc::new(LocalDisk)).unwrap();
        let (mailbox, password) = spool.mailboxes().create("", None).unwrap();
        let identity = mailbox.unlock(&password.unwrap()).unwrap();
        let file = folder.path().join("postkeep-gateway.toml");
        let text = format!("hostname = 'gw.example'\n{}", rules.replace("MBX", &mailbox.id.to_string()));
        std::fs::write(&file, text).unwrap();
        let config = GatewayConfig::load(&file).unwrap();
        let sources = Arc::new(Sources::open(&config.sources, &config.dns).unwrap());
        Self { _folder: folder, spool, sources, mailbox, identity }
    }

    /// One session of a client at `ip`; every line of every reply.
    async fn send(&self, ip: &str, mail_from: &str) -> Vec<String> {
        let settings = Settings {
            hostname: "gw.example".into(),
            domains: vec!["gw.example".into()],
            max_message_size: 1 << 20,
            require_tls: false,
            command_timeout: Duration::from_secs(60),
            data_timeout: Duration::from_secs(60),
            transaction_timeout: Duration::from_secs(600),
            rate_grace: Duration::from_secs(60),
            minimum_rate: 500,
        };
        let (spool, sources) = (self.spool.clone(), Arc::clone(&self.sources));
        let context = Arc::new(Context { spool, settings, tls: None, sources, counters: Arc::default() });
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let (_trigger, shutdown) = ShutdownTrigger::new();
        let peer = SocketAddr::new(ip.parse().unwrap(), 40_000);
        let session = tokio::spawn(smtp::serve(Box::new(server), peer, context, shutdown, None));
        let rcpt = self.mailbox.id;
        let dialogue = format!(
            "EHLO x.example\r\nMAIL FROM:<{mail_from}>\r\nRCPT TO:<{rcpt}@gw.example>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
        );
        // All at once: after a refused DATA the text is taken for wrong commands, up to QUIT.
        client.write_all(dialogue.as_bytes()).await.unwrap();
        let mut replies = String::new();
        client.read_to_string(&mut replies).await.unwrap();
        session.await.unwrap();
        replies.lines().map(str::to_owned).collect()
    }

    /// Trace headers of everything accepted.
    fn accepted(&self) -> Vec<Trace> {
        let drop = self.spool.open_session(&self.mailbox).unwrap();
        let read = |i| {
            let mut text = Vec::new();
            drop.open(i, &self.identity).unwrap().read_to_end(&mut text).unwrap();
            parse_trace(&text).unwrap()
        };
        (0..drop.list().len()).map(read).collect()
    }
}

fn has(replies: &[String], start: &str) -> bool {
    replies.iter().any(|line| line.starts_with(start))
}

#[tokio::test]
async fn without_rules_everything_is_as_before() {
    let gateway = Gateway::start("");
    assert!(has(&gateway.send("203.0.113.1", "x@y.example").await, "250 2.6.0"));
    let accepted = gateway.accepted();
    assert_eq!(accepted.len(), 1);
    assert_eq!((accepted[0].evidence.verified, &accepted[0].evidence.reverse_name), (None, &None));
    assert!(!accepted[0].receipt.body.flags.has(Flags::UNVERIFIED));
}

#[tokio::test]
async fn what_does_not_fit_is_accepted_and_marked() {
    let gateway = Gateway::start("[sources]\nnetworks = ['192.0.2.0/24']\nmail_from = ['@aurora.example']");
    for (ip, mail_from, verified) in [
        ("192.0.2.9", "ndr@aurora.example", true),
        ("203.0.113.1", "ndr@aurora.example", false),
        ("192.0.2.9", "ndr@evil.example", false),
        ("192.0.2.9", "", false),
    ] {
        let replies = gateway.send(ip, mail_from).await;
        assert!(has(&replies, "250 2.6.0"), "{replies:?}");
        let accepted = gateway.accepted();
        let last = accepted.last().unwrap();
        assert_eq!(last.evidence.verified, Some(verified), "{ip} {mail_from}");
        assert_eq!(last.receipt.body.flags.has(Flags::UNVERIFIED), !verified);
    }
}

#[tokio::test]
async fn where_asked_for_it_is_put_off_and_never_refused_for_good() {
    let gateway = Gateway::start("[sources.mailbox.MBX]\nnetworks = ['192.0.2.0/24']\naction = 'refuse'");
    assert!(has(&gateway.send("192.0.2.9", "x@y.example").await, "250 2.6.0"));
    let replies = gateway.send("203.0.113.1", "x@y.example").await;
    assert!(has(&replies, "450 4.7.1 "), "{replies:?}");
    // DATA without a recipient is put off too: a 5xx could be taken for the last word.
    assert!(has(&replies, "451 4.5.1 "), "{replies:?}");
    assert_eq!(gateway.accepted().len(), 1);
}

#[tokio::test]
async fn the_dns_gives_verdict_and_name() {
    let line = |name: &str, data| Line { name: name.into(), ttl: 300, data };
    let server = Server::start(vec![
        line("spf.example", Data::Txt(vec!["v=spf1 ip4:192.0.2.0/24 -all".into()])),
        line("9.2.0.192.in-addr.arpa", Data::Ptr("mail.aurora.example")),
        line("mail.aurora.example", Data::Address([192, 0, 2, 9].into())),
    ])
    .await;
    let rules = format!("[sources]\nspf_of = ['spf.example']\n[dns]\nservers = ['{}']\nreverse = true", server.address);
    let gateway = Gateway::start(&rules);
    assert!(has(&gateway.send("192.0.2.9", "x@y.example").await, "250 2.6.0"));
    assert!(has(&gateway.send("203.0.113.1", "x@y.example").await, "250 2.6.0"));
    let evidence: Vec<_> = gateway.accepted().into_iter().map(|trace| trace.evidence).collect();
    assert_eq!((evidence[0].verified, evidence[0].reverse_name.as_deref()), (Some(true), Some("mail.aurora.example")));
    assert_eq!((evidence[1].verified, evidence[1].reverse_name.as_deref()), (Some(false), None));
}

#[tokio::test]
async fn a_dead_dns_stops_no_mail() {
    let server = Server::start(Vec::new()).await;
    server.silent.store(true, Ordering::SeqCst);
    let reverse = format!("[dns]\nservers = ['{}']\nreverse = true", server.address);
    let started = Instant::now();
    assert!(has(&Gateway::start(&reverse).send("192.0.2.9", "x@y.example").await, "250 2.6.0"));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let gateway = Gateway::start(&format!("[sources]\nspf_of = ['spf.example']\n{reverse}"));
    let started = Instant::now();
    assert!(has(&gateway.send("192.0.2.9", "x@y.example").await, "250 2.6.0"));
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(gateway.accepted()[0].evidence.verified, Some(false));
}
