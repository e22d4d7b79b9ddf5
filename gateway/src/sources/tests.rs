use super::{table::Table, *};
use crate::tls::ClientCertificate;
use postkeep_shared::config::Config;
use std::sync::atomic::Ordering;

const SPF: &str = "
    TXT spf.example v=spf1 include:a.example -all
    TXT a.example v=spf1 ip4:192.0.2.0/24 a:host.example -all
    A host.example 198.51.100.7
    PTR 192.0.2.1 wrong.example
    PTR 192.0.2.1 Mail.Example
    PTR 192.0.2.2 wrong.example
    PTR 192.0.2.3 evil(\r\n).example
    A mail.example 192.0.2.1
    A wrong.example 192.0.2.99
    PTR 2001:db8::1 six.example
    AAAA six.example 2001:db8::1";

fn id(n: u8) -> MailboxId {
    MailboxId([n; 16])
}

fn facts(ip: &str) -> Facts {
    Facts {
        ip: ip.parse().expect("address"),
        mail_from: "ndr@aurora.example".into(),
        certificate: ClientCertificate::None,
    }
}

fn config(text: &str) -> Result<SourcesConfig, String> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("c.toml");
    std::fs::write(&file, text).expect("writes");
    let config = Config::read(&file, "POSTKEEP_TEST_NONE").expect("valid TOML");
    let sources = SourcesConfig::take(&config.root().section("sources"), &config);
    DnsConfig::take(&config.root().section("dns"));
    config.finish().map_err(|e| e.to_string()).map(|()| sources)
}

fn spf_config() -> SourcesConfig {
    config("[sources]\nspf_of = ['spf.example']").expect("valid")
}

fn short(table: &Arc<Table>, config: SourcesConfig, pause: u64, keep: u64) -> Sources {
    let ms = Duration::from_millis;
    let times = Times { query: ms(50), pause: ms(pause), keep: ms(keep) };
    Sources::with_times(config, Arc::clone(table) as Arc<dyn Resolver>, times, ms(120))
}

#[tokio::test]
async fn without_rules_nothing_is_asked() {
    let table = Table::new(SPF);
    let sources = Sources::new(SourcesConfig::default(), Arc::clone(&table) as Arc<dyn Resolver>);
    let judgement = sources.judge(&id(1), &facts("203.0.113.1")).await;
    assert_eq!((judgement.verified(), judgement.refused()), (None, false));
    sources.warm().await;
    assert_eq!(table.asked.load(Ordering::SeqCst), 0);
    let none = Arc::new(Sources::none());
    assert_eq!(none.judge(&id(1), &facts("203.0.113.1")).await.verified(), None);
    assert_eq!(none.reverse_name("192.0.2.1".parse().expect("address")).await, None);
    assert_eq!(none.reverse_of("192.0.2.1".parse().expect("address")).get().await, None);
    let opened = Sources::open(&SourcesConfig::default(), &DnsConfig::default()).expect("needs no DNS");
    assert!(opened.resolver.is_none() && !opened.reverse);
}

#[tokio::test]
async fn records_decide() {
    let table = Table::new(SPF);
    let sources = Sources::new(spf_config(), Arc::clone(&table) as Arc<dyn Resolver>);
    sources.warm().await;
    for (ip, wanted) in [("192.0.2.77", true), ("198.51.100.7", true), ("203.0.113.1", false), ("2001:db8::1", false)] {
        let judgement = sources.judge(&id(1), &facts(ip)).await;
        assert_eq!(judgement.verified(), Some(wanted), "{ip}: {judgement:?}");
        assert!(!judgement.refused(), "label is the default");
    }
    let rule = "spf_of spf.example (a:host.example)".to_owned();
    assert_eq!(sources.judge(&id(1), &facts("198.51.100.7")).await.verdict, Verdict::Verified { rule });
}

#[tokio::test]
async fn trouble_does_not_unverify_what_is_known() {
    let table = Table::new(SPF);
    // A pause of nothing: every judgement asks and fails.
    let sources = short(&table, spf_config(), 0, 60_000);
    let good = facts("198.51.100.7");
    assert_eq!(sources.judge(&id(1), &good).await.verified(), Some(true));
    table.down.store(1, Ordering::SeqCst);
    assert_eq!(sources.judge(&id(1), &good).await.verified(), Some(true), "server failure");
    table.down.store(0, Ordering::SeqCst);
    table.delay.store(60_000, Ordering::SeqCst);
    let started = Instant::now();
    // Three names wait 50 ms each, more than the 120 ms of a judgement.
    assert_eq!(sources.judge(&id(1), &good).await.verified(), Some(true), "silence");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(sources.judge(&id(1), &facts("203.0.113.1")).await.verified(), Some(false));
}

#[tokio::test]
async fn an_outage_costs_one_wait() {
    let table = Table::new(SPF);
    let sources = short(&table, spf_config(), 60_000, 60_000);
    assert_eq!(sources.judge(&id(1), &facts("198.51.100.7")).await.verified(), Some(true));
    table.delay.store(60_000, Ordering::SeqCst);
    for _ in 0..100 {
        assert_eq!(sources.judge(&id(1), &facts("198.51.100.7")).await.verified(), Some(true));
    }
    assert_eq!(table.asked.load(Ordering::SeqCst), 4, "three answers and one that did not come");
}

#[tokio::test]
async fn without_anything_known_it_is_undecided_and_bounded() {
    let table = Table::new(SPF);
    table.delay.store(60_000, Ordering::SeqCst);
    let refuse = config("[sources]\nspf_of = ['spf.example', 'a.example']\naction = 'refuse'").expect("valid");
    let sources = short(&table, refuse, 60_000, 60_000);
    let started = Instant::now();
    let judgement = sources.judge(&id(1), &facts("198.51.100.7")).await;
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(judgement.refused());
    match judgement.verdict {
        Verdict::Unverified { reason } => assert!(reason.contains("could not be looked up"), "{reason}"),
        other => panic!("{other:?}"),
    }
    // What is not known is asked in spite of the pause, so the rule works again with the DNS.
    table.delay.store(0, Ordering::SeqCst);
    assert_eq!(sources.judge(&id(1), &facts("198.51.100.7")).await.verified(), Some(true));
}

#[tokio::test]
async fn old_answers_are_given_up_at_last() {
    let table = Table::new(SPF);
    let sources = short(&table, spf_config(), 0, 30);
    assert_eq!(sources.judge(&id(1), &facts("198.51.100.7")).await.verified(), Some(true));
    table.down.store(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(sources.judge(&id(1), &facts("198.51.100.7")).await.verified(), Some(false));
}

#[tokio::test]
async fn names_are_confirmed_both_ways() {
    let table = Table::new(SPF);
    let sources = Arc::new(Sources::new(SourcesConfig::default(), Arc::clone(&table) as Arc<dyn Resolver>));
    for (ip, name) in [
        ("192.0.2.1", Some("mail.example")),
        ("::ffff:192.0.2.1", Some("mail.example")),
        ("192.0.2.2", None),
        ("192.0.2.3", None),
        ("192.0.2.4", None),
        ("2001:db8::1", Some("six.example")),
    ] {
        let ip: IpAddr = ip.parse().expect("address");
        assert_eq!(sources.reverse_name(ip).await.as_deref(), name, "{ip}");
        assert_eq!(sources.reverse_of(ip).get().await.as_deref(), name, "{ip}");
    }
}

#[tokio::test]
async fn a_slow_name_holds_nobody_up() {
    let table = Table::new(SPF);
    let sources = Arc::new(Sources::new(SourcesConfig::default(), Arc::clone(&table) as Arc<dyn Resolver>));
    // Two questions: the name is there after 1.2 seconds; whoever waits for it sees it.
    table.delay.store(600, Ordering::SeqCst);
    let mut name = sources.reverse_of("192.0.2.1".parse().expect("address"));
    assert_eq!(name.get().await, None);
    assert_eq!(name.get().await, None);
    let started = Instant::now();
    while name.get().await.is_none() && started.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(name.get().await.as_deref(), Some("mail.example"), "there for a later message");
    assert_eq!(name.get().await.as_deref(), Some("mail.example"));
}

#[test]
fn mailboxes_override_key_by_key() {
    let sources = config(
        "[sources]\nnetworks = ['192.0.2.0/24']\nmail_from = ['@aurora.example']\n\
         [sources.mailbox.\"MBX-01010101010101010101010101010101\"]\nmail_from = ['x@y.example']\naction = 'refuse'\n\
         [sources.mailbox.mbx-02020202020202020202020202020202]\nnetworks = []\nmail_from = []\n",
    )
    .expect("valid");
    let own = sources.of(&id(1));
    assert_eq!(own.networks, sources.global.networks);
    assert_eq!(own.mail_from, [Sender::Address("x@y.example".into())]);
    assert_eq!((own.action, sources.global.action), (Action::Refuse, Action::Label));
    assert!(sources.of(&id(2)).is_empty());
    assert_eq!(sources.of(&id(3)), &sources.global);
    assert!(sources.warnings.is_empty(), "{:?}", sources.warnings);
}

#[test]
fn mistakes_and_warnings() {
    for (text, wanted) in [
        ("[sources]\nnetworks = ['192.0.2.7/24']", "sources.networks: `192.0.2.7/24` has bits behind its prefix"),
        ("[sources]\nnetworks = '10.0.0.0/8, x'", "sources.networks: `x` is not a network"),
        ("[sources]\nnetworks = []", "sources.networks: is empty"),
        ("[sources]\nspf_of = ['v=spf1 -all']", "sources.spf_of: `v=spf1 -all` is not a domain name"),
        ("[sources]\ntls_names = ['*.example']", "sources.tls_names: `*.example` is not a domain name"),
        ("[sources]\ntls_names = ['a.*.example']", "sources.tls_names: `a.*.example` is not a domain name"),
        ("[sources]\ntls_names = ['*']", "sources.tls_names: `*` is not a domain name"),
        ("[sources]\nclient_ca_file = 5", "sources.client_ca_file: must be a text"),
        (
            "[sources.mailbox.mbx-02020202020202020202020202020202]\nclient_ca_file = 'x'",
            "sources.mailbox.mbx-02020202020202020202020202020202.client_ca_file: unknown key",
        ),
        ("[sources]\nmail_from = ['aurora.example']", "sources.mail_from: `aurora.example` is not a sender"),
        ("[sources]\naction = 'reject'", "sources.action: `reject` is not one of: label, refuse"),
        ("[sources]\naction = 'refuse'", "sources.action: there is no rule"),
        ("[sources]\nnetwork = ['10.0.0.0/8']", "sources.network: unknown key; did you mean `networks`?"),
        ("[sources.mailbox.ann]\nnetworks = ['10.0.0.0/8']", "sources.mailbox.ann: is not a mailbox"),
        (
            "[sources.mailbox.mbx-02020202020202020202020202020202]\nspf = ['x']",
            "sources.mailbox.mbx-02020202020202020202020202020202.spf: unknown key; did you mean `spf_of`?",
        ),
        ("[dns]\nservers = []", "dns.servers: is empty"),
        ("[dns]\nservers = ['dns.example']", "dns.servers: `dns.example` is not the address of a server"),
        ("[dns]\nservers = ['127.0.0.1:0']", "dns.servers: `127.0.0.1:0` is not the address of a server"),
        ("[dns]\nreverse = 'maybe'", "dns.reverse: must be true or false"),
    ] {
        let error = config(text).expect_err(text);
        assert!(error.contains(wanted), "{text}: {error}");
    }
    for (text, wanted) in [
        ("[sources]\nnetworks = ['0.0.0.0/0']", "sources.networks: 0.0.0.0/0 is every address"),
        ("[sources]\nspf_of = ['spf.protection.outlook.com']", "fits every customer of that service"),
        ("[sources]\ntls_names = ['mail.protection.outlook.com']", "fits every customer of that service"),
        ("[sources]\ntls_names = ['*.mail.protection.outlook.com']", "fits every customer of that service"),
        (
            "[sources.mailbox.mbx-02020202020202020202020202020202]\nspf_of = ['_spf.google.com']",
            "sources.mailbox.mbx-02020202020202020202020202020202: spf_of _spf.google.com fits every customer",
        ),
    ] {
        let sources = config(text).expect(text);
        assert_eq!(sources.warnings.len(), 1, "{text}");
        assert!(sources.warnings[0].contains(wanted), "{text}: {:?}", sources.warnings);
    }
    config("[dns]\nservers = ['127.0.0.1', '[::1]:5353', '::1']").expect("valid");
}
