//! Source rules and reverse names over a real resolver and a DNS server on loopback.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each test uses a part of it")]
#[path = "support/dns.rs"]
mod dns;

use dns::{Data, Line, Server};
use postkeep_gateway::{
    config::GatewayConfig,
    sources::{Dns, Facts, Resolver as _, Sources, Times},
    tls::ClientCertificate,
};
use postkeep_shared::mail::MailboxId;
use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

const MAILBOX: MailboxId = MailboxId([7; 16]);

fn line(name: &str, ttl: u32, data: Data) -> Line {
    Line { name: name.into(), ttl, data }
}

fn txt(name: &str, ttl: u32, parts: &[&str]) -> Line {
    line(name, ttl, Data::Txt(parts.iter().map(|&part| part.to_owned()).collect()))
}

fn address(name: &str, ttl: u32, ip: &str) -> Line {
    line(name, ttl, Data::Address(ip.parse().unwrap()))
}

fn zone(ttl: u32) -> Vec<Line> {
    let exchange = |preference, name| line("spf.example", ttl, Data::Mx(preference, name));
    vec![
        txt("spf.example", ttl, &["some other text"]),
        // One record in two strings, cut within a word (RFC 7208 §3.3).
        txt("spf.example", ttl, &["v=spf1 mx incl", "ude:ranges.example -all"]),
        exchange(20, "mx2.example"),
        exchange(10, "mx1.example"),
        address("mx1.example", ttl, "198.51.100.1"),
        address("mx2.example", ttl, "198.51.100.2"),
        address("mx2.example", ttl, "2001:db8::2"),
        txt("ranges.example", ttl, &["v=spf1 ip4:192.0.2.0/24 ip6:2001:db8:1::/48 -all"]),
        line("10.2.0.192.in-addr.arpa", ttl, Data::Ptr("client.example")),
        address("client.example", ttl, "192.0.2.10"),
        line("11.2.0.192.in-addr.arpa", ttl, Data::Ptr("liar.example")),
        address("liar.example", ttl, "192.0.2.99"),
    ]
}

fn config(server: &Server, rest: &str) -> GatewayConfig {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postkeep-gateway.toml");
    let text = format!("hostname = 'gw.example'\n[dns]\nservers = ['{}']\n{rest}", server.address);
    std::fs::write(&file, text).unwrap();
    GatewayConfig::load(&file).unwrap()
}

fn facts(ip: &str) -> Facts {
    Facts { ip: ip.parse().unwrap(), mail_from: "ndr@aurora.example".into(), certificate: ClientCertificate::None }
}

async fn verified(sources: &Sources, ip: &str) -> Option<bool> {
    sources.judge(&MAILBOX, &facts(ip)).await.verified()
}

const RULE: &str = "[sources]\nspf_of = ['spf.example']";

#[tokio::test]
async fn a_record_is_followed_through_the_real_resolver() {
    let server = Server::start(zone(300)).await;
    let config = config(&server, RULE);
    let sources = Sources::open(&config.sources, &config.dns).unwrap();
    sources.warm().await;
    for (ip, wanted) in [
        ("192.0.2.200", true),
        ("::ffff:192.0.2.200", true),
        ("198.51.100.1", true),
        ("198.51.100.2", true),
        ("2001:db8::2", true),
        ("2001:db8:1:ffff::1", true),
        ("203.0.113.1", false),
        ("2001:db8:2::1", false),
    ] {
        assert_eq!(verified(&sources, ip).await, Some(wanted), "{ip}");
    }
    let before = server.questions();
    for _ in 0..200 {
        assert_eq!(verified(&sources, "192.0.2.200").await, Some(true));
    }
    assert_eq!(server.questions(), before, "answers are cached for their TTL");
    // Names were not asked for, and would not be.
    assert_eq!(sources.reverse_name(IpAddr::from([192, 0, 2, 10])).await, None);
    assert_eq!(server.questions(), before);
}

#[tokio::test]
async fn answers_are_asked_again_after_their_ttl_and_kept_through_trouble() {
    let server = Server::start(zone(1)).await;
    let config = config(&server, RULE);
    let times = Times { query: Duration::from_millis(700), pause: Duration::from_millis(1), ..Times::default() };
    let dns = Arc::new(Dns::new(&config.dns).unwrap());
    let sources = Sources::with_times(config.sources, dns, times, Duration::from_secs(5));
    assert_eq!(verified(&sources, "192.0.2.1").await, Some(true));
    let expired = || tokio::time::sleep(Duration::from_millis(2100));

    server.silent.store(true, Ordering::SeqCst);
    expired().await;
    let started = Instant::now();
    assert_eq!(verified(&sources, "192.0.2.1").await, Some(true), "silence");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    server.silent.store(false, Ordering::SeqCst);

    server.sick.store(true, Ordering::SeqCst);
    assert_eq!(verified(&sources, "192.0.2.1").await, Some(true), "server failure");
    server.sick.store(false, Ordering::SeqCst);

    for line in server.table.lock().unwrap().iter_mut().filter(|line| line.name == "ranges.example") {
        line.data = Data::Txt(vec!["v=spf1 ip4:203.0.113.0/24 -all".into()]);
    }
    expired().await;
    assert_eq!(verified(&sources, "203.0.113.9").await, Some(true), "the new record counts");
    assert_eq!(verified(&sources, "192.0.2.1").await, Some(false), "the old one does not");
}

#[tokio::test]
async fn names_and_what_is_none() {
    let server = Server::start(zone(300)).await;
    let config = config(&server, "reverse = true");
    let sources = Sources::open(&config.sources, &config.dns).unwrap();
    assert_eq!(sources.reverse_name(IpAddr::from([192, 0, 2, 10])).await.as_deref(), Some("client.example"));
    assert_eq!(sources.reverse_name(IpAddr::from([192, 0, 2, 11])).await, None, "does not point back");
    assert_eq!(sources.reverse_name(IpAddr::from([192, 0, 2, 12])).await, None, "has no name");
    // The library answers for 127.0.0.0/8 itself (RFC 6761 §6.3), with a name that says nothing.
    assert_eq!(sources.reverse_name(IpAddr::from([127, 0, 0, 1])).await, None);
    let dns = Dns::new(&config.dns).unwrap();
    assert_eq!(dns.mx("spf.example").await.unwrap(), ["mx1.example", "mx2.example"]);
    assert!(dns.txt("none.example").await.unwrap().is_empty(), "no such name");
    assert!(dns.mx("mx1.example").await.unwrap().is_empty(), "no such record");
    server.sick.store(true, Ordering::SeqCst);
    assert!(dns.txt("other.example").await.is_err(), "trouble is not emptiness");
}

#[tokio::test]
async fn a_dead_dns_is_bounded() {
    let server = Server::start(zone(300)).await;
    server.silent.store(true, Ordering::SeqCst);
    let config = config(&server, &format!("reverse = true\n{RULE}"));
    let sources = Arc::new(Sources::open(&config.sources, &config.dns).unwrap());
    let started = Instant::now();
    assert_eq!(sources.reverse_name(IpAddr::from([192, 0, 2, 10])).await, None);
    // Two seconds, and room for a machine with other work; a name without a bound would take the resolver's own 25.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    let started = Instant::now();
    assert_eq!(sources.reverse_of(IpAddr::from([192, 0, 2, 10])).get().await, None);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    let started = Instant::now();
    assert_eq!(verified(&sources, "192.0.2.1").await, Some(false));
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[tokio::test]
async fn without_rules_the_dns_is_left_alone() {
    let server = Server::start(zone(300)).await;
    let config = config(&server, "[sources]\nnetworks = ['192.0.2.0/24']");
    let sources = Sources::open(&config.sources, &config.dns).unwrap();
    sources.warm().await;
    assert_eq!(verified(&sources, "192.0.2.1").await, Some(true));
    assert_eq!(verified(&sources, "203.0.113.1").await, Some(false));
    assert_eq!(server.questions(), 0);
}
