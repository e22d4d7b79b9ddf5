//! Certificates of SMTP clients: asked for with STARTTLS and with TLS from the first octet, in TLS 1.2 and 1.3; what
//! they prove decides `tls_names`, and no mistake in one costs a message.
#![allow(clippy::unwrap_used)]

use postkeep_gateway::{
    config::GatewayConfig,
    mailbox::{Identity, Mailbox},
    server::{self, Kind, Running},
    spool::Spool,
};
use postkeep_shared::{
    disk::LocalDisk,
    receipt::{Evidence, parse_trace},
    run::ShutdownTrigger,
    tls::provider,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use std::{
    io::Read as _,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, HandshakeKind, RootCertStore, SignatureScheme, SupportedProtocolVersion,
        client::ResolvesClientCert,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
        sign::{CertifiedKey, SigningKey},
        version::{TLS12, TLS13},
    },
};

const NAME: &str = "msgw.archive.example";

/// Who issues certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Authority {
    fn new(name: &str, above: Option<&Self>) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let made = match above {
            Some(above) => params.signed_by(&key, &above.issuer),
            None => params.self_signed(&key),
        }
        .unwrap();
        Self { pem: made.pem(), certificate: made.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn issue(&self, names: &[&str], usage: &[ExtendedKeyUsagePurpose], years: (i32, i32)) -> Shown {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>()).unwrap();
        params.extended_key_usages = usage.to_vec();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        if names.is_empty() {
            params.subject_alt_names = vec![SanType::IpAddress([192, 0, 2, 1].into())];
        }
        let chain = vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()];
        Shown { chain, key: signing_key(&key) }
    }
}

fn signing_key(key: &KeyPair) -> Arc<dyn SigningKey> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    provider().key_provider.load_private_key(key).unwrap()
}

/// What a client shows; nothing checks whether it makes sense.
#[derive(Clone, Debug)]
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
}

/// Shows it to whoever asks, and counts that.
#[derive(Debug)]
struct Shows(Option<Shown>, Arc<AtomicUsize>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let Shown { chain, key } = self.0.clone()?;
        Some(Arc::new(CertifiedKey::new(chain, key)))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

struct Gateway {
    folder: tempfile::TempDir,
    running: Running,
    trigger: ShutdownTrigger,
    mailboxes: Vec<(Mailbox, Identity)>,
}

impl Gateway {
    /// `rules` with `MBX` for the name of the second of two mailboxes.
    async fn start(authority: &Authority, rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("authority.pem"), &authority.pem).unwrap();
        let data = folder.path().join("data");
        let (spool, _) = Spool::open(&data, NAME, Arc::new(LocalDisk)).unwrap();
        let made = (0..2).map(|_| {
            let (mailbox, password) = spool.mailboxes().create("", None).unwrap();
            let identity = mailbox.unlock(&password.unwrap()).unwrap();
            (mailbox, identity)
        });
        let mailboxes: Vec<_> = made.collect();
        spool.close();
        let file = folder.path().join("postkeep-gateway.toml");
        let text = format!(
            "hostname = '{NAME}'\n[smtp]\nlisten = ['127.0.0.1:0']\nlisten_tls = ['127.0.0.1:0']\n\
             [pop3]\nlisten = []\nlisten_tls = ['127.0.0.1:0']\n{}",
            rules.replace("MBX", &mailboxes[1].0.id.to_string())
        );
        std::fs::write(&file, text).unwrap();
        let (trigger, shutdown) = ShutdownTrigger::new();
        let config = GatewayConfig::load(&file).unwrap();
        let running = server::serve(config, Arc::new(LocalDisk), shutdown).await.unwrap();
        Self { folder, running, trigger, mailboxes }
    }

    fn address(&self, kind: Kind) -> SocketAddr {
        self.running.addresses.iter().find(|(k, _)| *k == kind).unwrap().1
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A configuration of a client and how often it was asked for a certificate.
    fn client(
        &self,
        shown: Option<Shown>,
        version: &'static SupportedProtocolVersion,
    ) -> (TlsConnector, Arc<AtomicUsize>) {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file("data/tls/self-signed.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let resolver = Arc::new(Shows(shown, Arc::clone(&asked)));
        let config = builder.with_root_certificates(roots).with_client_cert_resolver(resolver);
        (TlsConnector::from(Arc::new(config)), asked)
    }

    /// Sends one message to each of two mailboxes; the replies to RCPT, and what kind of handshake it was.
    async fn send(&self, kind: Kind, connector: &TlsConnector) -> ([String; 2], HandshakeKind) {
        let mut tcp = BufReader::new(TcpStream::connect(self.address(kind)).await.unwrap());
        if kind == Kind::Smtp {
            assert!(reply(&mut tcp).await.starts_with("220"));
            assert!(ask(&mut tcp, "EHLO client.example").await.starts_with("250"));
            assert!(ask(&mut tcp, "STARTTLS").await.starts_with("220"));
        }
        let stream = connector.connect(ServerName::try_from(NAME).unwrap(), tcp.into_inner()).await.unwrap();
        let mut stream = BufReader::new(stream);
        if kind == Kind::Smtps {
            assert!(reply(&mut stream).await.starts_with("220"));
        }
        assert!(ask(&mut stream, "EHLO client.example").await.starts_with("250"));
        let mut recipients = [String::new(), String::new()];
        for ((mailbox, _), answer) in self.mailboxes.iter().zip(&mut recipients) {
            ask(&mut stream, "MAIL FROM:<journal@aurora.example>").await;
            *answer = ask(&mut stream, &format!("RCPT TO:<{}@{NAME}>", mailbox.id)).await;
            if answer.starts_with("250") {
                assert!(ask(&mut stream, "DATA").await.starts_with("354"));
                let sent = ask(&mut stream, "Subject: x\r\n\r\nx\r\n.").await;
                assert!(sent.starts_with("250 2.6.0"), "{sent}");
            }
            ask(&mut stream, "RSET").await;
        }
        let handshake = stream.get_ref().get_ref().1.handshake_kind().unwrap();
        ask(&mut stream, "QUIT").await;
        (recipients, handshake)
    }

    /// Stops the gateway; the evidence of everything accepted for a mailbox, in order.
    async fn evidence(self) -> Vec<Vec<Evidence>> {
        let Self { folder, running, trigger, mailboxes } = self;
        trigger.fire();
        running.wait().await.unwrap();
        let (spool, _) = Spool::open(&folder.path().join("data"), NAME, Arc::new(LocalDisk)).unwrap();
        let all = mailboxes.iter().map(|(mailbox, identity)| {
            let drop = spool.open_session(mailbox).unwrap();
            let read = |i| {
                let mut text = Vec::new();
                drop.open(i, identity).unwrap().read_to_end(&mut text).unwrap();
                parse_trace(&text).unwrap().evidence
            };
            (0..drop.list().len()).map(read).collect()
        });
        all.collect()
    }
}

/// The last line of a reply.
async fn reply<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "the server is gone");
        if line.as_bytes().get(3) == Some(&b' ') {
            return line.trim_end().to_owned();
        }
    }
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>, command: &str) -> String {
    stream.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    reply(stream).await
}

/// What a client shows, whether that verifies it, and the names it proves.
type Case = (&'static str, Option<Shown>, bool, Option<&'static str>);

fn cases(authority: &Authority) -> Vec<Case> {
    use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
    let now = (2020, 2999);
    let right = ["mail.aurora.example"];
    let good = authority.issue(&right, &[ClientAuth], now);
    let below = Authority::new("below", Some(authority));
    let mut by_another = below.issue(&right, &[], now);
    by_another.chain.push(below.certificate.clone());
    let foreign = Authority::new("somebody else", None);
    let stolen = Shown { key: signing_key(&KeyPair::generate().unwrap()), ..good.clone() };
    let garbage = Shown { chain: vec![CertificateDer::from(vec![0x30, 3, 1, 1, 1])], ..good.clone() };
    let two = authority.issue(&["other.example", "MAIL.aurora.example"], &[ClientAuth, ServerAuth], now);
    vec![
        ("the right name", Some(good), true, Some("mail.aurora.example")),
        ("the right name among others", Some(two), true, Some("other.example,mail.aurora.example")),
        ("any purpose", Some(authority.issue(&right, &[], now)), true, Some(right[0])),
        ("a server's certificate", Some(authority.issue(&right, &[ServerAuth], now)), true, Some(right[0])),
        ("over an intermediate", Some(by_another), true, Some(right[0])),
        ("fits a wildcard", Some(authority.issue(&["a.relay.example"], &[], now)), true, Some("a.relay.example")),
        ("has a wildcard", Some(authority.issue(&["*.aurora.example"], &[], now)), true, Some("*.aurora.example")),
        ("a wrong name", Some(authority.issue(&["evil.example"], &[], now)), false, Some("evil.example")),
        (
            "two below the wildcard",
            Some(authority.issue(&["a.b.relay.example"], &[], now)),
            false,
            Some("a.b.relay.example"),
        ),
        ("an untrusted issuer", Some(foreign.issue(&right, &[ClientAuth], now)), false, None),
        ("expired", Some(authority.issue(&right, &[ClientAuth], (2020, 2021))), false, None),
        ("not yet valid", Some(authority.issue(&right, &[ClientAuth], (2998, 2999))), false, None),
        ("for another purpose", Some(authority.issue(&right, &[CodeSigning], now)), false, None),
        ("no name", Some(authority.issue(&[], &[ClientAuth], now)), false, None),
        ("without its key", Some(stolen), false, None),
        ("no certificate at all", Some(garbage), false, None),
        ("none", None, false, None),
    ]
}

const RULES: &str = "[sources]\nclient_ca_file = 'authority.pem'\n\
                     tls_names = ['mail.aurora.example', '*.relay.example']\n\
                     [sources.mailbox.MBX]\naction = 'refuse'\n";

#[tokio::test]
async fn names_decide_and_no_certificate_ends_a_handshake() {
    let authority = Authority::new("authority", None);
    let gateway = Gateway::start(&authority, RULES).await;
    let mut sent = Vec::new();
    for (what, shown, fits, names) in cases(&authority) {
        for version in [&TLS12, &TLS13] {
            for kind in [Kind::Smtp, Kind::Smtps] {
                let (connector, asked) = gateway.client(shown.clone(), version);
                let ([label, refuse], _) = gateway.send(kind, &connector).await;
                assert_eq!(asked.load(Ordering::SeqCst), 1, "{what}: asked once");
                assert!(label.starts_with("250"), "{what}: {label}");
                assert!(refuse.starts_with(if fits { "250" } else { "450 4.7.1" }), "{what} {kind}: {refuse}");
                sent.push((what, fits, names));
            }
        }
    }
    let evidence = gateway.evidence().await;
    assert_eq!(evidence[0].len(), sent.len());
    for (evidence, (what, fits, names)) in evidence[0].iter().zip(&sent) {
        assert_eq!((evidence.verified, evidence.certificate.as_deref()), (Some(*fits), *names), "{what}");
    }
    assert_eq!(evidence[1].len(), sent.iter().filter(|(_, fits, _)| *fits).count());
    println!("{} sessions with {} certificates, each as it should be", sent.len(), sent.len() / 4);
}

#[tokio::test]
async fn a_mailbox_has_names_of_its_own_and_the_names_are_kept_without_rules() {
    let authority = Authority::new("authority", None);
    let now = (2020, 2999);
    let rules = "[sources]\nclient_ca_file = 'authority.pem'\n\
                 [sources.mailbox.MBX]\ntls_names = ['two.example']\naction = 'refuse'";
    let gateway = Gateway::start(&authority, rules).await;
    for (name, second) in [("one.example", "450 4.7.1"), ("two.example", "250")] {
        let (connector, _) = gateway.client(Some(authority.issue(&[name], &[], now)), &TLS13);
        let ([first, answer], _) = gateway.send(Kind::Smtp, &connector).await;
        assert!(first.starts_with("250") && answer.starts_with(second), "{name}: {first} {answer}");
    }
    let evidence = gateway.evidence().await;
    let seen = |which: usize| -> Vec<_> {
        evidence[which].iter().map(|e| (e.verified, e.certificate.clone().unwrap())).collect()
    };
    assert_eq!(seen(0), [(None, "one.example".to_owned()), (None, "two.example".to_owned())]);
    assert_eq!(seen(1), [(Some(true), "two.example".to_owned())]);
}

#[tokio::test]
async fn a_certificate_is_proved_in_every_handshake_anew() {
    let authority = Authority::new("authority", None);
    let gateway = Gateway::start(&authority, RULES).await;
    for version in [&TLS12, &TLS13] {
        let shown = authority.issue(&["mail.aurora.example"], &[], (2020, 2999));
        let (connector, asked) = gateway.client(Some(shown), version);
        for round in 1..=3 {
            // A client that could resume would.
            let (_, handshake) = gateway.send(Kind::Smtp, &connector).await;
            assert_ne!(handshake, HandshakeKind::Resumed);
            assert_eq!(asked.load(Ordering::SeqCst), round);
        }
    }
    // Other authorities from now on, as after SIGHUP.
    let other = Authority::new("another", None);
    std::fs::write(gateway.file("authority.pem"), &other.pem).unwrap();
    gateway.running.authorities.reload().unwrap();
    let (connector, _) = gateway.client(Some(other.issue(&["mail.aurora.example"], &[], (2020, 2999))), &TLS13);
    assert!(gateway.send(Kind::Smtp, &connector).await.0[1].starts_with("250"));
    let (connector, _) = gateway.client(Some(authority.issue(&["mail.aurora.example"], &[], (2020, 2999))), &TLS13);
    assert!(gateway.send(Kind::Smtp, &connector).await.0[1].starts_with("450 4.7.1"));
    // A file without one keeps those there are.
    std::fs::write(gateway.file("authority.pem"), "").unwrap();
    let error = gateway.running.authorities.reload().unwrap_err().to_string();
    assert!(error.contains("authority.pem: holds no certificate"), "{error}");
    let (connector, _) = gateway.client(Some(other.issue(&["mail.aurora.example"], &[], (2020, 2999))), &TLS13);
    assert!(gateway.send(Kind::Smtp, &connector).await.0[1].starts_with("250"));
}

#[tokio::test]
async fn pop3_asks_for_none() {
    let authority = Authority::new("authority", None);
    let gateway = Gateway::start(&authority, RULES).await;
    let shown = authority.issue(&["mail.aurora.example"], &[], (2020, 2999));
    let (connector, asked) = gateway.client(Some(shown), &TLS13);
    let tcp = TcpStream::connect(gateway.address(Kind::Pop3s)).await.unwrap();
    let stream = connector.connect(ServerName::try_from(NAME).unwrap(), tcp).await.unwrap();
    let mut greeting = String::new();
    BufReader::new(stream).read_line(&mut greeting).await.unwrap();
    assert!(greeting.starts_with("+OK"), "{greeting}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_missing_file_of_authorities_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postkeep-gateway.toml");
    let text = "hostname = 'a.example'\n[smtp]\nlisten = ['127.0.0.1:0']\n[pop3]\nlisten = []\nlisten_tls = []\n\
                [sources]\nclient_ca_file = 'nowhere.pem'";
    std::fs::write(&file, text).unwrap();
    let (_trigger, shutdown) = ShutdownTrigger::new();
    let failure =
        server::serve(GatewayConfig::load(&file).unwrap(), Arc::new(LocalDisk), shutdown).await.err().unwrap();
    assert!(failure.text.contains("nowhere.pem"), "{failure}");
}
