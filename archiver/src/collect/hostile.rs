//! Whole rounds against hostile servers: the dialogues of `archiver/tests/dialogues`, over TLS on loopback, the server
//! answering in one gulp, octet by octet and in random cuts; each time with a store of its own.

use super::{
    Prepared, Rounds, samples,
    session::{Fetched, Patience, Session, SessionError},
    tls::{Connector, public_key_digest},
};
use crate::{
    archive::Archive,
    config::{ArchiverConfig, Host, Verify},
    octets::Staging,
    store::{Store, UnlockKey},
};
use data_encoding::BASE64;
use postkeep_shared::{
    crypt::Password,
    disk::{Disk, LocalDisk, create_dirs},
    drive::Stream,
    mail::{Digest, Uidl},
    receipt::{Entry, write_receipt_field},
    run::ShutdownTrigger,
    tls::{VERSIONS, provider},
    wire::DotEncoder,
};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

/// How the server's octets are cut.
#[derive(Clone, Copy, Debug)]
enum Feed {
    Gulp,
    Octets,
    Cuts(u64),
}

impl Feed {
    fn next(&mut self, left: usize) -> usize {
        match self {
            Self::Gulp => left,
            Self::Octets => 1,
            Self::Cuts(seed) => {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (1 + (*seed >> 33) as usize % 60).min(left)
            }
        }
    }
}

/// A step of the server.
#[derive(Debug, Clone)]
enum Step {
    Send(Vec<u8>),
    /// The client's line; `*` at its end: anything may follow.
    Expect(String),
    /// The connection is dropped, without close_notify.
    Cut,
}

/// One connection and what is to come of it.
#[derive(Debug, Clone, Default)]
struct Round {
    steps: Vec<Step>,
    numbers: BTreeMap<String, u64>,
    /// Each must be said; alternatives stand between ` | `.
    said: Vec<String>,
}

#[derive(Debug)]
struct Dialogue {
    title: String,
    clear: bool,
    rounds: Vec<Round>,
}

/// Message `name`: a number, and behind `-` what is wrong with it.
pub(super) fn message(name: &str) -> (Vec<u8>, Entry) {
    let (number, fault) = name.split_once('-').unwrap_or((name, ""));
    let n: u64 = number.parse().expect("a number");
    let uidl = Uidl([n as u8; 16]);
    let content = match n {
        7 => b"Subject: 7\r\n\r\na\n.\nb\n.\r\nc\r\n..\r\n.d\r\nend\r\n".to_vec(),
        _ => format!("Subject: {n}\r\nMessage-ID: <{n}@aurora.example>\r\n\r\nbody {n}\r\n").into_bytes(),
    };
    let prev = if n > 1 { message(&(n - 1).to_string()).1.hash() } else { Digest([0; 32]) };
    let (mut octets, entry) = samples::message_after(n, uidl, &content, prev);
    match fault {
        "" => {}
        "changed" => octets.splice(octets.len() - 3..octets.len() - 2, *b"X").for_each(drop),
        "longer" => octets.extend_from_slice(b"one more line\r\n"),
        "new" => return samples::message_after(n + 50, uidl, b"Subject: another\r\n\r\nnot the same\r\n", prev),
        "forged" => {
            let mut forged = entry.clone();
            forged.body.time_ms += 1;
            let text = String::from_utf8(octets).expect("text");
            octets = text.replace(&write_receipt_field(&entry), &write_receipt_field(&forged)).into_bytes();
            return (octets, forged);
        }
        other => panic!("unknown fault {other}"),
    }
    (octets, entry)
}

fn octets(text: &str) -> Vec<u8> {
    if let Some((before, rest)) = text.split_once('{') {
        let (repeated, after) = rest.split_once('}').expect("closed");
        let (what, count) = repeated.rsplit_once('*').expect("a count");
        return [octets(before), octets(what).repeat(count.parse().expect("a number")), octets(after)].concat();
    }
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'r') => out.push(b'\r'),
            Some(b'n') => out.push(b'\n'),
            Some(b'0') => out.push(0),
            Some(b'e') => out.push(0x1b),
            other => out.extend(other),
        }
    }
    out
}

impl Round {
    fn send(&mut self, octets: Vec<u8>) {
        match self.steps.last_mut() {
            Some(Step::Send(before)) => before.extend(octets),
            _ => self.steps.push(Step::Send(octets)),
        }
    }

    fn line(&mut self, text: &str) {
        self.send([octets(text), b"\r\n".to_vec()].concat());
    }

    fn exchange(&mut self, command: &str, answer: &[&str]) {
        self.steps.push(Step::Expect(command.to_owned()));
        answer.iter().for_each(|line| self.line(line));
    }

    fn read(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let names: Vec<&str> = rest.split(' ').filter(|name| !name.is_empty()).collect();
        match word {
            "S:" => self.line(rest),
            "S=" => self.send(octets(rest)),
            "C:" => self.steps.push(Step::Expect(rest.to_owned())),
            "CUT" => self.steps.push(Step::Cut),
            "MESSAGE" => {
                let (mut out, mut encoder) = (b"+OK message follows\r\n".to_vec(), DotEncoder::default());
                encoder.encode(&message(rest).0, &mut out);
                encoder.finish(&mut out);
                self.send(out);
            }
            "HELLO" => {
                self.line("+OK ready");
                let answer: Vec<&str> = ["+OK"].into_iter().chain(names).chain(["."]).collect();
                self.exchange("CAPA", &answer);
                self.exchange(&format!("USER {}", samples::MAILBOX), &["+OK"]);
                self.exchange("PASS secret", &["+OK"]);
            }
            "LEDGER" => {
                let node = data_encoding::HEXLOWER.encode(&samples::node().0);
                self.exchange("XLEDGER *", &[&format!("+OK node={node} entries follow")]);
                names.iter().for_each(|name| self.line(&BASE64.encode(&message(name).1.encode())));
                self.line(".");
            }
            "LIST" => {
                let sizes: Vec<usize> = names.iter().map(|name| message(name).0.len()).collect();
                self.exchange("STAT", &[&format!("+OK {} {}", names.len(), sizes.iter().sum::<usize>())]);
                self.exchange("LIST", &["+OK"]);
                sizes.iter().enumerate().for_each(|(i, size)| self.line(&format!("{} {size}", i + 1)));
                self.line(".");
                self.exchange("UIDL", &["+OK"]);
                for (i, name) in names.iter().enumerate() {
                    self.line(&format!("{} {}", i + 1, message(name).1.body.uidl));
                }
                self.line(".");
            }
            "=" => {
                let pairs = names.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].parse().expect("a number")));
                self.numbers.extend(pairs);
            }
            "!" => self.said.push(rest.to_owned()),
            _ => panic!("unreadable line: {line}"),
        }
    }
}

fn dialogues() -> Vec<Dialogue> {
    let mut all: Vec<Dialogue> = Vec::new();
    for line in include_str!("../../tests/dialogues/client.txt").lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            let (title, kind) = title.split_once(" | ").unwrap_or((title, "tls"));
            all.push(Dialogue { title: title.into(), clear: kind == "clear", rounds: vec![Round::default()] });
            continue;
        }
        let dialogue = all.last_mut().expect("a title first");
        if line == "ROUND" {
            dialogue.rounds.push(Round::default());
        } else {
            dialogue.rounds.last_mut().expect("has one").read(line);
        }
    }
    all
}

/// Plays the server's part; what the client did that it was not to do.
async fn serve(stream: Box<dyn Stream>, steps: &[Step], feed: &mut Feed) -> Result<(), String> {
    let mut stream = BufReader::new(stream);
    for step in steps {
        match step {
            Step::Send(octets) => {
                let mut rest = octets.as_slice();
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(feed.next(rest.len()));
                    // A client that has heard enough goes away.
                    if stream.write_all(now).await.is_err() || stream.flush().await.is_err() {
                        return Ok(());
                    }
                    rest = later;
                }
            }
            Step::Expect(expected) => {
                let mut line = String::new();
                let _gone = stream.read_line(&mut line).await;
                let line = line.trim_end_matches("\r\n");
                let fits = expected.strip_suffix('*').map_or(line == expected, |start| line.starts_with(start));
                if !fits {
                    return Err(format!("the client said `{line}` instead of `{expected}`"));
                }
            }
            Step::Cut => return Ok(()),
        }
    }
    let mut line = String::new();
    match stream.read_line(&mut line).await {
        Ok(count) if count > 0 => Err(format!("the client said `{}` and nothing was expected", line.trim_end())),
        _ => Ok(()),
    }
}

/// Certificate and key of a server.
pub(super) struct Identity {
    pem: String,
    pub(super) config: Arc<ServerConfig>,
    pub(super) pin: Digest,
}

pub(super) fn identity(name: &str, expired: bool) -> Identity {
    let key = rcgen::KeyPair::generate().expect("key");
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("name");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(if expired { 2021 } else { 2999 }, 1, 1);
    let certificate = params.self_signed(&key).expect("certificate");
    let der = PrivateKeyDer::try_from(key.serialize_der()).expect("key");
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], der);
    let mut config = config.expect("pair");
    config.alpn_protocols = vec![b"pop3".to_vec()];
    let pin = public_key_digest(certificate.der()).expect("certificate");
    Identity { pem: certificate.pem(), config: Arc::new(config), pin }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates");
    for entry in fs::read_dir(from).expect("reads").map(|e| e.expect("entry")) {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// An archive of its own, for the server at `port`.
pub(super) fn archive(folder: &Path, port: u16, pin: Digest) -> ArchiverConfig {
    static EMPTY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let empty = EMPTY.get_or_init(|| {
        let empty = tempfile::tempdir().expect("temporary folder");
        let (data, disk): (_, Arc<dyn Disk>) = (empty.path().join("data"), Arc::new(LocalDisk));
        create_dirs(&*disk, &data.join("stores")).expect("creates");
        let key = UnlockKey::create(&data.join("unlock.key"), &*disk).expect("creates");
        let store = Store::create(&data.join("stores/main"), "main", &Password::generate(), &key, disk);
        drop(store.expect("creates"));
        empty
    });
    copy(&empty.path().join("data"), &folder.join("data"));
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
        path
    };
    file("owners.toml", "");
    file("password", "secret\n");
    let text = format!(
        "data_dir = 'data'\n[[source]]\nname = 's'\nhosts = ['127.0.0.1:{port}']\nmailbox = '{}'\n\
         password_file = 'password'\ntls = {{ verify = 'pin', pin_sha256 = ['{pin}'] }}\n",
        samples::MAILBOX
    );
    ArchiverConfig::load(&file("c.toml", &text)).expect("valid")
}

async fn play(dialogue: &Dialogue, identity: &Identity, mut feed: Feed) {
    let about = format!("{}, {feed:?}", dialogue.title);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = listener.local_addr().expect("address").port();
    let folder = tempfile::tempdir().expect("temporary folder");
    let config = archive(folder.path(), port, identity.pin);
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    for (number, round) in dialogue.rounds.iter().enumerate() {
        let about = format!("{about}, round {}", number + 1);
        let server = async {
            let (tcp, _) = listener.accept().await.expect("accepts");
            tcp.set_nodelay(true).expect("option");
            let stream = TlsAcceptor::from(Arc::clone(&identity.config)).accept(tcp).await.expect("handshake");
            serve(Box::new(stream), &round.steps, &mut feed).await
        };
        let (_trigger, shutdown) = ShutdownTrigger::new();
        let rounds = Rounds::open(config.clone(), &disk, shutdown).expect("opens");
        let prepared = Prepared::new(&config.sources[0], &*disk).expect("prepared");
        let (served, report) = tokio::join!(server, rounds.round(&prepared));
        let report = report.unwrap_or_else(|failure| panic!("{about}: {failure}"));
        assert_eq!(served, Ok(()), "{about}");
        drop(rounds);
        let store = Archive::open_read(&config, &disk).expect("opens");
        let stored = store.collected("s").inspect(|one| assert!(one.is_ok(), "reads")).count() as u64;
        for (what, expected) in &round.numbers {
            let got = match what.as_str() {
                "collected" => report.collected,
                "deleted" => report.deleted,
                "held" => report.held,
                "stored" => stored,
                other => panic!("unknown number {other}"),
            };
            assert_eq!(got, *expected, "{about}: {what}; {:?}", report.hosts[0].problems);
        }
        let said = report.hosts[0].problems.join("\n");
        assert!(!said.contains('\u{1b}'), "{about}: control characters in {said:?}");
        assert_eq!(said.is_empty(), round.said.is_empty(), "{about}: said {said}");
        for wanted in &round.said {
            assert!(wanted.split(" | ").any(|one| said.contains(one)), "{about}: `{wanted}` is not said: {said}");
        }
    }
}

/// A dialogue in clear ends before the handshake, and no USER was sent.
async fn play_clear(dialogue: &Dialogue, identity: &Identity, mut feed: Feed) {
    let about = format!("{}, {feed:?}", dialogue.title);
    let round = &dialogue.rounds[0];
    let (client, server) = tokio::io::duplex(1 << 16);
    let host = Host { name: "msgw.example".into(), port: 110, addresses: Vec::new() };
    let connector = Connector::new(&Verify::Pin(vec![identity.pin])).expect("pin");
    let serving = serve_clear(Box::new(server), &round.steps, &mut feed);
    let opening = Session::on_stream(Box::new(client), &host, &connector, Patience::USUAL);
    let (served, opened) = tokio::join!(serving, opening);
    let error = opened.err().unwrap_or_else(|| panic!("{about}: it was opened")).to_string();
    assert!(served.is_ok(), "{about}: {served:?}");
    assert!(!round.said.is_empty(), "{about}: says nothing");
    for wanted in &round.said {
        assert!(wanted.split(" | ").any(|one| error.contains(one)), "{about}: `{wanted}` is not said: {error}");
    }
}

/// As [`serve`]; a ClientHello may follow, a command may not.
async fn serve_clear(stream: Box<dyn Stream>, steps: &[Step], feed: &mut Feed) -> Result<(), String> {
    match serve(stream, steps, feed).await {
        Err(text) if text.contains("said `\u{16}") => Ok(()),
        other => other,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_dialogue_whatever_the_cuts() {
    let all = Arc::new(dialogues());
    let identity = Arc::new(identity("msgw.example", false));
    let (mut playing, count) = (tokio::task::JoinSet::new(), all.len());
    assert!(count >= 25, "only {count}");
    for at in 0..count {
        for feed in [Feed::Gulp, Feed::Octets, Feed::Cuts(at as u64 + 1)] {
            let (all, identity) = (Arc::clone(&all), Arc::clone(&identity));
            playing.spawn(async move {
                let dialogue = &all[at];
                let playing = async {
                    if dialogue.clear {
                        play_clear(dialogue, &identity, feed).await;
                    } else {
                        play(dialogue, &identity, feed).await;
                    }
                };
                let ended = tokio::time::timeout(Duration::from_secs(60), playing).await;
                ended.unwrap_or_else(|_| panic!("{}, {feed:?}: hangs", dialogue.title));
            });
        }
    }
    while let Some(ended) = playing.join_next().await {
        ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }
    println!("client dialogues: {count}, each in one gulp, octet by octet and in random cuts");
}

/// 5.3/05: a thousand injected answers, in the same segment and in the following one: no password, no command.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_injected_answers() {
    let identity = identity("msgw.example", false);
    let injected = ["+OK\r\n", "+OK injected\r\n+OK\r\n", "-ERR no\r\n", ".\r\n", "+OK\r\nSTLS\r\n.\r\n", "x", "\r\n"];
    for same_segment in [true, false] {
        for n in 0..1000_usize {
            let (client, mut server) = tokio::io::duplex(1 << 16);
            let host = Host { name: "msgw.example".into(), port: 110, addresses: Vec::new() };
            let connector = Connector::new(&Verify::Pin(vec![identity.pin])).expect("pin");
            let attack = async {
                server.write_all(b"+OK ready\r\n").await.expect("writes");
                let mut said = vec![0; 6];
                server.read_exact(&mut said).await.expect("CAPA");
                server.write_all(b"+OK\r\nSTLS\r\n.\r\n").await.expect("writes");
                server.read_exact(&mut said).await.expect("STLS");
                let what = injected[n % injected.len()];
                if same_segment {
                    server.write_all(format!("+OK begin\r\n{what}").as_bytes()).await.expect("writes");
                } else {
                    server.write_all(b"+OK begin\r\n").await.expect("writes");
                    tokio::task::yield_now().await;
                    let _gone = server.write_all(what.as_bytes()).await;
                }
                let _gone = server.shutdown().await;
                let mut rest = Vec::new();
                let _gone = server.read_to_end(&mut rest).await;
                rest
            };
            let opening = Session::on_stream(Box::new(client), &host, &connector, Patience::USUAL);
            let (rest, opened) = tokio::join!(attack, async { opening.await.map(drop) });
            assert!(opened.is_err());
            // A ClientHello is all that may come; it names no user.
            assert!(rest.is_empty() || rest[0] == 0x16, "{}", rest.escape_ascii());
            assert!(!rest.windows(4).any(|w| w == b"USER" || w == b"PASS" || w == b"CAPA"));
        }
        let how = if same_segment { "in the same segment" } else { "in the following segment" };
        println!("POP3 client: 1000 answers injected {how}, 0 believed");
    }
}

const SHORT: Patience = Patience {
    opening: Duration::from_millis(600),
    answer: Duration::from_millis(600),
    removal: Duration::from_millis(600),
    grace: Duration::from_millis(600),
};

/// A server in TLS that plays `steps` and then one octet every `pause`, for ever.
async fn slow_server(identity: &Identity, steps: Vec<Step>, octet: u8, pause: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = listener.local_addr().expect("address").port();
    let acceptor = TlsAcceptor::from(Arc::clone(&identity.config));
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("accepts");
        let mut stream = BufReader::new(acceptor.accept(tcp).await.expect("handshake"));
        for step in steps {
            match step {
                Step::Send(octets) => {
                    stream.write_all(&octets).await.expect("writes");
                    stream.flush().await.expect("flushes");
                }
                _ => drop(stream.read_line(&mut String::new()).await),
            }
        }
        while stream.write_all(&[octet]).await.is_ok() && stream.flush().await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    });
    port
}

fn at(port: u16) -> Host {
    Host { name: "127.0.0.1".into(), port, addresses: Vec::new() }
}

/// 5.3/01: no greeting, or one octet a minute (here: every 50 ms with deadlines of 600 ms in place of 30 s).
#[tokio::test]
async fn a_banner_that_never_ends_is_not_waited_for() {
    assert_eq!(Patience::USUAL.opening, Duration::from_secs(30));
    let identity = identity("127.0.0.1", false);
    let connector = Connector::new(&Verify::Pin(vec![identity.pin])).expect("pin");
    for pause in [Duration::from_millis(50), Duration::from_secs(3600)] {
        let port = slow_server(&identity, Vec::new(), b'+', pause).await;
        let started = Instant::now();
        let error = Session::open_within(&at(port), &connector, SHORT).await.err().expect("fails");
        assert!(matches!(error, SessionError::Slow(_)), "{error}");
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
    // Not even a handshake.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let error = Session::open_within(&at(silent.local_addr().expect("address").port()), &connector, SHORT).await;
    assert!(matches!(error, Err(SessionError::Slow(_))));
}

fn until_user() -> Vec<Step> {
    let mut round = Round::default();
    round.line("+OK ready");
    round.exchange("CAPA", &["+OK", "."]);
    round.exchange("USER", &["+OK"]);
    round.steps.push(Step::Expect("PASS".into()));
    round.steps
}

/// 5.3/08: silence on PASS ends the session (60 s; here 600 ms).
#[tokio::test]
async fn silence_on_pass() {
    assert_eq!(Patience::USUAL.answer, Duration::from_secs(60));
    let identity = identity("127.0.0.1", false);
    let connector = Connector::new(&Verify::Pin(vec![identity.pin])).expect("pin");
    for pause in [Duration::from_millis(50), Duration::from_secs(3600)] {
        let port = slow_server(&identity, until_user(), b'+', pause).await;
        let mut session = Session::open_within(&at(port), &connector, SHORT).await.expect("opens");
        let started = Instant::now();
        let error = session.login("mbx", Password::received(b"pw")).await.expect_err("fails");
        assert!(error.to_string().contains("too slow") || error.to_string().contains("silent"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

/// 5.3/17: a message that trickles: the floor of 500 octets a second ends it (after a minute; here after 600 ms).
#[tokio::test]
async fn a_trickling_message_is_given_up() {
    let identity = identity("127.0.0.1", false);
    let connector = Connector::new(&Verify::Pin(vec![identity.pin])).expect("pin");
    let mut round = Round { steps: until_user(), ..Round::default() };
    round.line("+OK");
    round.exchange("RETR", &["+OK message follows"]);
    let port = slow_server(&identity, round.steps, b'x', Duration::from_millis(20)).await;
    let mut session = Session::open_within(&at(port), &connector, SHORT).await.expect("opens");
    session.login("mbx", Password::received(b"pw")).await.expect("logs in");
    let folder = tempfile::tempdir().expect("temporary folder");
    let staging = Staging::open(folder.path(), Arc::new(LocalDisk)).expect("opens");
    session.request(&samples::listed(1, 1000, "a"), 100_000);
    let started = Instant::now();
    let error = match session.fetch(staging.begin()).await {
        Err(error) => error,
        Ok(Fetched::Message(..) | Fetched::Refused(_)) => panic!("it never ends"),
    };
    assert!(error.to_string().contains("500 octets per second"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// 5.3/06: another name, an expired certificate, another key: nothing is said to such a server.
#[tokio::test]
async fn the_wrong_certificate_hears_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (right, other, expired) =
        (identity("127.0.0.1", false), identity("other.example", false), identity("127.0.0.1", true));
    let ca = |one: &Identity| {
        let file = folder.path().join(one.pin.to_string());
        fs::write(&file, &one.pem).expect("writes");
        Verify::Ca(file)
    };
    let pin = |one: &Identity| Verify::Pin(vec![one.pin]);
    for (what, server, verify) in [
        ("another name", &other, ca(&other)),
        ("expired", &expired, ca(&expired)),
        ("another key than the pinned one", &other, pin(&right)),
        ("unknown authority", &other, ca(&right)),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("address").port();
        let connector = Connector::new(&verify).expect("usable");
        let serving = async {
            let (tcp, _) = listener.accept().await.expect("accepts");
            let mut heard = Vec::new();
            if let Ok(mut stream) = TlsAcceptor::from(Arc::clone(&server.config)).accept(tcp).await {
                let _refused = stream.write_all(b"+OK ready\r\n").await;
                let _refused = stream.read_to_end(&mut heard).await;
            }
            heard
        };
        let opening = async { Session::open_within(&at(port), &connector, SHORT).await.map(drop) };
        let (heard, opened) = tokio::join!(serving, opening);
        assert!(heard.is_empty(), "{what}: {}", heard.escape_ascii());
        let error = opened.expect_err(what).to_string();
        assert!(error.starts_with("cannot connect: "), "{what}: {error}");
    }
    // The right one is spoken to.
    let port = slow_server(&right, until_user(), b'x', Duration::from_secs(60)).await;
    let connector = Connector::new(&ca(&right)).expect("usable");
    Session::open_within(&at(port), &connector, SHORT).await.expect("opens");
}

/// 5.3/07: a server that asks for a new handshake in TLS 1.2: it is refused (rustls answers every HelloRequest with
/// no_renegotiation and has no code for a second handshake), and no USER follows. OpenSSL plays the server.
#[tokio::test(flavor = "multi_thread")]
async fn renegotiation_is_refused() {
    use std::{
        io::Write as _,
        process::{Child, Command, Stdio},
    };
    struct Running(Child);
    impl Drop for Running {
        fn drop(&mut self) {
            let _gone = self.0.kill();
            let _gone = self.0.wait();
        }
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = |name: &str| folder.path().join(name);
    let key = rcgen::KeyPair::generate().expect("key");
    let params = rcgen::CertificateParams::new(vec!["msgw.example".to_owned()]).expect("name");
    let certificate = params.self_signed(&key).expect("certificate");
    fs::write(file("cert.pem"), certificate.pem()).expect("writes");
    fs::write(file("key.pem"), key.serialize_pem()).expect("writes");
    let out = fs::File::create(file("out")).expect("creates");
    let mut command = Command::new("openssl");
    command.args(["s_server", "-tls1_2", "-crlf", "-alpn", "pop3", "-accept", "127.0.0.1:0", "-cert"]);
    command.arg(file("cert.pem")).arg("-key").arg(file("key.pem"));
    command.stdin(Stdio::piped()).stdout(out.try_clone().expect("file")).stderr(out);
    let mut openssl = Running(command.spawn().expect("openssl is installed"));
    let mut stdin = openssl.0.stdin.take().expect("a pipe");
    let printed = || String::from_utf8_lossy(&fs::read(file("out")).expect("reads")).into_owned();
    let wait_for = async |text: &str| {
        let began = Instant::now();
        while !printed().contains(text) {
            assert!(began.elapsed() < Duration::from_secs(60), "OpenSSL never printed `{text}`: {}", printed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    wait_for("ACCEPT ").await;
    let port = printed().lines().find_map(|line| line.strip_prefix("ACCEPT ")?.rsplit(':').next()?.parse().ok());
    let pin = public_key_digest(certificate.der()).expect("certificate");
    let connector = Connector::new(&Verify::Pin(vec![pin])).expect("pin");
    let host = at(port.expect("a port"));
    let serving = async {
        wait_for("CIPHER is").await;
        stdin.write_all(b"+OK ready\n").expect("writes");
        wait_for("CAPA").await;
        // A line with `r` alone is s_server's command for it.
        stdin.write_all(b"r\n").expect("writes");
        wait_for("SSL_do_handshake").await;
        wait_for("no renegotiation").await;
    };
    let opening = async { Session::open_within(&host, &connector, Patience::USUAL).await.map(drop) };
    let (opened, ()) = tokio::join!(opening, serving);
    assert!(opened.is_err());
    assert!(!printed().contains("USER"), "{}", printed());
}

/// 5.3/07: a server that wants TLS 1.0, or RC4: ended within the handshake.
#[tokio::test]
async fn old_tls_is_ended_at_once() {
    let connector = Connector::new(&Verify::Pin(vec![Digest([0; 32])])).expect("pin");
    for (version, suite) in [([3, 1], [0, 0x2f]), ([3, 0], [0, 0x05]), ([3, 2], [0xc0, 0x13]), ([3, 3], [0, 0x05])] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("address").port();
        let serving = async {
            let (mut tcp, _): (TcpStream, _) = listener.accept().await.expect("accepts");
            let mut hello = [0; 4096];
            let count = tcp.read(&mut hello).await.expect("reads");
            assert!(hello[..count].starts_with(&[0x16, 3]));
            // ServerHello: version, random, no session id, suite, no compression.
            let body = [&version[..], &[7; 32], &[0], &suite[..], &[0]].concat();
            let handshake = [&[2, 0, 0, body.len() as u8][..], &body].concat();
            let record = [&[0x16, version[0], version[1], 0, handshake.len() as u8][..], &handshake].concat();
            tcp.write_all(&record).await.expect("writes");
            let mut rest = Vec::new();
            let _gone = tcp.read_to_end(&mut rest).await;
            rest
        };
        let opening = async { Session::open_within(&at(port), &connector, SHORT).await.map(drop) };
        let (rest, opened) = tokio::join!(serving, opening);
        let error = opened.expect_err("fails").to_string();
        assert!(error.starts_with("cannot connect: "), "{version:?} {suite:?}: {error}");
        // Nothing but an alert.
        assert!(rest.is_empty() || rest[0] == 0x15, "{rest:?}");
    }
}
