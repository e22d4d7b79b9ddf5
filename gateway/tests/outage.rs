//! The authority is away for forty days, by an injected clock: alarms on their days, a handshake at every step, and a
//! new certificate soon after it is back.
#![allow(clippy::unwrap_used, reason = "a test may end where it finds something else")]

use postkeep_gateway::{
    config::{CertificateSource, TlsConfig},
    tls::{
        Certificates, Facts, Protocol,
        acme::{AcmeSettings, IssueError, Issued, Issuer, Request, Store},
        clock::Clock,
        upkeep::{Renewal, Upkeep},
    },
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    tls::{VERSIONS, provider},
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
};
use time::OffsetDateTime;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

const NAME: &str = "msgw.archive.example";
const DAY: i64 = 86_400;
const START: i64 = 1_800_000_000;

#[derive(Default)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Makes certificates of 90 days, except for a while.
struct Authority {
    clock: Arc<TestClock>,
    away: (i64, i64),
    asked: AtomicU32,
    lifetime: i64,
    names: Vec<String>,
}

#[async_trait::async_trait]
impl Issuer for Authority {
    async fn issue(&self, key: &str, _names: &[String]) -> Result<Issued, IssueError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let now = self.clock.now();
        if (self.away.0..self.away.1).contains(&now) {
            return Err(IssueError::new("directory: connection refused".into()));
        }
        let key = rcgen::KeyPair::from_pem(key).unwrap();
        let authority = rcgen::Issuer::new(rcgen::CertificateParams::default(), rcgen::KeyPair::generate().unwrap());
        let mut params = rcgen::CertificateParams::new(self.names.clone()).unwrap();
        params.not_before = OffsetDateTime::from_unix_timestamp(now).unwrap();
        params.not_after = OffsetDateTime::from_unix_timestamp(now + self.lifetime).unwrap();
        let chain = params.signed_by(&key, &authority).unwrap().pem();
        Ok(Issued { chain, account: "https://acme.example/account/1".into() })
    }
}

/// Takes any certificate whose key signs: what is judged here is whether there is a service at all.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 was offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A handshake as a sender does it, and the certificate it got.
async fn served(certificates: &Certificates) -> Facts {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS).unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anything));
    let connector = TlsConnector::from(Arc::new(builder.with_no_client_auth()));
    let acceptor = certificates.acceptor(Protocol::Smtp).unwrap();
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let name = ServerName::try_from(NAME).unwrap();
    let (server, client) = tokio::join!(acceptor.accept(Box::new(ours)), connector.connect(name, theirs));
    server.unwrap();
    Facts::of(&client.unwrap().get_ref().1.peer_certificates().unwrap()[0]).unwrap()
}

struct Rig {
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
    authority: Arc<Authority>,
}

impl Rig {
    fn new(away: (i64, i64), lifetime: i64, names: &[&str]) -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(START)));
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        let away = (START + away.0, START + away.1);
        let asked = AtomicU32::new(0);
        let authority = Arc::new(Authority { clock: Arc::clone(&clock), away, asked, lifetime, names });
        Self { folder: tempfile::tempdir().unwrap(), clock, authority }
    }

    fn store(&self) -> Store {
        Store::new(self.folder.path(), "https://acme.example/directory", Arc::new(LocalDisk))
    }

    /// A start of the gateway.
    fn start(&self) -> (Arc<Certificates>, Upkeep) {
        let settings = AcmeSettings {
            directory: "https://acme.example/directory".into(),
            contact: vec!["mailto:admin@archive.example".into()],
            directory_ca: None,
            binding: None,
            names: vec![NAME.into()],
            tls_listen: Vec::new(),
            http_listen: Vec::new(),
        };
        let config = TlsConfig { source: CertificateSource::Acme(Box::new(settings)) };
        let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let certificates =
            Certificates::load_at(&config, self.folder.path(), &[NAME.into()], disk, Arc::clone(&clock)).unwrap();
        let certificates = Arc::new(certificates);
        let renewal = Renewal {
            issuer: Arc::clone(&self.authority) as Arc<dyn Issuer>,
            store: self.store(),
            names: vec![NAME.into()],
            directory: "https://acme.example/directory".into(),
            chance: || 0.5,
        };
        (Arc::clone(&certificates), Upkeep::new(certificates, Some(renewal), clock))
    }

    fn day(&self) -> i64 {
        (self.clock.now() - START) / DAY
    }
}

#[tokio::test]
async fn forty_days_without_an_authority() {
    // It goes away when the first renewal is due: a third before the end.
    let rig = Rig::new((60 * DAY - 1, 100 * DAY), 90 * DAY, &[NAME]);
    let (mut certificates, mut upkeep) = rig.start();
    assert_eq!(served(&certificates).await.issuer, "itself (self-signed)", "SMTP does not wait for an authority");
    let step = upkeep.step().await;
    step.order.unwrap().unwrap();
    let first = served(&certificates).await;
    assert_eq!(step.next - START, 60 * DAY, "renewal with a third of its life left");
    let (mut alarms, mut handshakes, mut failures, mut back) = (Vec::new(), 2, 0, None);
    let (mut next, mut restarted) = (step.next, false);
    while back.is_none() {
        rig.clock.0.store(next, Ordering::SeqCst);
        // A restart in the middle goes on with the back-off and the same certificate, and says again what it knows.
        let restart = rig.day() == 80 && !restarted;
        if restart {
            (restarted, (certificates, upkeep)) = (true, rig.start());
        }
        let step = upkeep.step().await;
        next = step.next;
        assert!(next > rig.clock.now(), "time goes on");
        match step.alarm {
            Some(alarm) if restart => assert_eq!(alarm.days_left, 9),
            Some(alarm) => alarms.push((rig.day(), alarm.days_left)),
            None => assert!(!restart),
        }
        match step.order {
            Some(Ok(())) => back = Some(rig.clock.now() - START),
            Some(Err(_)) => failures += 1,
            None => {}
        }
        let now = served(&certificates).await;
        handshakes += 1;
        assert_eq!(now.public_key_sha256, first.public_key_sha256, "the key stays");
        assert_eq!(now == first, back.is_none());
    }
    let late = (back.unwrap() - 100 * DAY) / 60;
    println!(
        "outage of 40 days: {failures} failed orders, {handshakes} handshakes, 0 failed; new certificate {late} minutes \
         after the authority was back; alarms (day, days left): {alarms:?}"
    );
    let expected: Vec<(i64, i64)> =
        [(69, 21), (76, 14), (83, 7), (87, 3)].into_iter().chain((0..=10).map(|n| (90 + n, -n))).collect();
    assert_eq!(alarms, expected);
    assert!(late <= 8 * 60, "{late} minutes");
    assert!((100..300).contains(&failures), "{failures} orders in 40 days");
}

#[tokio::test]
async fn a_restart_asks_nobody_and_a_request_does() {
    let rig = Rig::new((0, 0), 90 * DAY, &[NAME]);
    let (_, mut upkeep) = rig.start();
    upkeep.step().await.order.unwrap().unwrap();
    let asked = || rig.authority.asked.load(Ordering::SeqCst);
    assert_eq!(asked(), 1);
    for _ in 0..5 {
        let (certificates, mut upkeep) = rig.start();
        assert!(upkeep.step().await.order.is_none());
        assert_eq!(certificates.serving().source, "acme");
    }
    assert_eq!(asked(), 1);
    let (certificates, mut upkeep) = rig.start();
    let before = served(&certificates).await.public_key_sha256;
    rig.store().ask(Request::Renew).unwrap();
    upkeep.step().await.order.unwrap().unwrap();
    assert_eq!(served(&certificates).await.public_key_sha256, before);
    // The key can be published before it is used (RFC 7671 §8.4).
    let announced = postkeep_gateway::tls::acme::public_key_sha256(&rig.store().next_key().unwrap()).unwrap();
    rig.store().ask(Request::NewKey).unwrap();
    upkeep.step().await.order.unwrap().unwrap();
    assert_eq!(served(&certificates).await.public_key_sha256, announced);
    assert_ne!(announced, before);
    assert!(upkeep.step().await.order.is_none(), "a request is done once");
}

#[tokio::test]
async fn back_off_survives_a_restart_and_ends_for_another_wish() {
    let rig = Rig::new((0, 40 * DAY), 90 * DAY, &[NAME]);
    let (certificates, mut upkeep) = rig.start();
    for _ in 0..4 {
        let step = upkeep.step().await;
        step.order.unwrap().unwrap_err();
        rig.clock.0.store(step.next, Ordering::SeqCst);
    }
    let next = upkeep.step().await.next;
    let (again, mut upkeep) = rig.start();
    assert!(upkeep.step().await.order.is_none());
    assert_eq!(upkeep.step().await.next, next);
    assert_eq!(served(&again).await, served(&certificates).await, "the self-signed one is kept as well");
    again.nudge();
    upkeep.step().await.order.unwrap().unwrap_err();
}

#[tokio::test]
async fn what_an_authority_gets_wrong_is_not_served() {
    for (lifetime, names, said) in
        [(90 * DAY, ["other.example"], "for other names"), (-DAY, [NAME], "about to end; compare this machine's clock")]
    {
        let rig = Rig::new((0, 0), lifetime, &names);
        let (certificates, mut upkeep) = rig.start();
        let error = upkeep.step().await.order.unwrap().unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        let step = upkeep.step().await;
        assert!(step.order.is_none(), "not again at once");
        let _ = served(&certificates).await;
    }
}

#[tokio::test]
async fn a_key_that_others_can_read_is_refused_at_start() {
    use std::os::unix::fs::PermissionsExt as _;
    let rig = Rig::new((0, 0), 90 * DAY, &[NAME]);
    rig.start().1.step().await.order.unwrap().unwrap();
    let file = rig.store().folder().join("certificate.pem");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(readable(rig.folder.path(), &file));
}

fn readable(data: &Path, file: &Path) -> bool {
    let store = Store::new(data, "https://acme.example/directory", Arc::new(LocalDisk));
    assert_eq!(store.folder(), file.parent().unwrap());
    store.key(false).is_err_and(|e| e.to_string().contains("run chmod 600"))
}
