//! Messages out of a real server: over STLS and implicit TLS, with our own client, curl and Python's poplib.
#![allow(clippy::unwrap_used, reason = "a test may end where it finds something else")]

use postkeep_gateway::{
    config::GatewayConfig,
    mailbox::Mailbox,
    server::{self, Kind, Running},
    spool::{Origin, Spool},
};
use postkeep_shared::{
    disk::LocalDisk,
    mail::Digest,
    receipt::{Entry, parse_trace},
    run::{Shutdown, ShutdownTrigger},
    tls::{VERSIONS, provider},
};
use std::{net::SocketAddr, process::Command, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

const NAME: &str = "msgw.archive.example";

/// A data directory with one mailbox and its messages; the server runs until it is stopped.
struct House {
    folder: tempfile::TempDir,
    mailbox: Mailbox,
    password: String,
    messages: Vec<Vec<u8>>,
    pop3: SocketAddr,
    pop3s: SocketAddr,
    running: Running,
    trigger: ShutdownTrigger,
}

fn messages() -> Vec<Vec<u8>> {
    let large: Vec<u8> = (0..200_000).flat_map(|n: u32| format!(".{n}\r\n").into_bytes()).collect();
    vec![
        b"Subject: one\r\n\r\n.dot\r\n..two\r\nbody\r\n".to_vec(),
        b"Subject: two\r\n\r\nno end".to_vec(),
        b"Subject: bare\n\nLF . and\r CR\n.\n\x00\xff\r\n".to_vec(),
        b"".to_vec(),
        [b"Subject: large\r\n\r\n".as_slice(), &large].concat(),
        [b"Subject: block\r\n\r\n".as_slice(), &vec![b'x'; 64 * 1024 * 3]].concat(),
    ]
}

fn origin(mailbox: &Mailbox) -> Origin {
    Origin {
        ip: [192, 0, 2, 1].into(),
        reverse_name: None,
        helo: "mail.example".into(),
        mail_from: String::new(),
        rcpt_to: format!("{}@{NAME}", mailbox.id),
        tls: None,
        certificate: None,
        verified: None,
        protocol: "ESMTP",
    }
}

async fn house() -> House {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postkeep-gateway.toml");
    let text = format!(
        "hostname = '{NAME}'\n[smtp]\nlisten = []\n[pop3]\nlisten = ['127.0.0.1:0']\nlisten_tls = ['127.0.0.1:0']\n"
    );
    std::fs::write(&file, text).unwrap();
    let config = GatewayConfig::load(&file).unwrap();
    postkeep_shared::disk::create_dirs(&LocalDisk, &config.data_dir).unwrap();
    let disk = Arc::new(LocalDisk);
    let (spool, _) = Spool::open(&config.data_dir, NAME, disk.clone()).unwrap();
    let (mailbox, password) = spool.mailboxes().create("test", None).unwrap();
    let messages = messages();
    for message in &messages {
        let mut incoming = spool.begin(&mailbox, &origin(&mailbox)).unwrap();
        incoming.write(message).unwrap();
        spool.commit(vec![incoming]).await.unwrap();
    }
    spool.close();
    let (trigger, shutdown) = ShutdownTrigger::new();
    let running = start(&config, shutdown).await;
    let address = |kind| running.addresses.iter().find(|(k, _)| *k == kind).unwrap().1;
    House {
        mailbox,
        password: String::from_utf8(password.unwrap().expose().to_vec()).unwrap(),
        messages,
        pop3: address(Kind::Pop3),
        pop3s: address(Kind::Pop3s),
        running,
        trigger,
        folder,
    }
}

async fn start(config: &GatewayConfig, shutdown: Shutdown) -> Running {
    server::serve(config.clone(), Arc::new(LocalDisk), shutdown).await.unwrap()
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A client that knows only what the test tells it.
struct Client(BufReader<Box<dyn Wire>>);

impl Client {
    async fn tls(house: &House, tcp: TcpStream) -> Box<dyn Wire> {
        let mut roots = RootCertStore::empty();
        let certificate = house.folder.path().join("data/tls/self-signed.pem");
        roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS).unwrap();
        let connector = TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()));
        Box::new(connector.connect(ServerName::try_from(NAME).unwrap(), tcp).await.unwrap())
    }

    async fn implicit(house: &House) -> Self {
        let tcp = TcpStream::connect(house.pop3s).await.unwrap();
        let mut client = Self(BufReader::new(Self::tls(house, tcp).await));
        assert!(client.line().await.starts_with("+OK"));
        client
    }

    async fn stls(house: &House) -> Self {
        let tcp = TcpStream::connect(house.pop3).await.unwrap();
        let mut clear = BufReader::new(tcp);
        let mut line = String::new();
        clear.read_line(&mut line).await.unwrap();
        clear.write_all(b"STLS\r\n").await.unwrap();
        clear.read_line(&mut line).await.unwrap();
        assert!(line.ends_with("+OK begin TLS\r\n"));
        Self(BufReader::new(Self::tls(house, clear.into_inner()).await))
    }

    async fn login(mut self, house: &House) -> Self {
        assert_eq!(self.ask(&format!("USER {}@{NAME}", house.mailbox.id)).await, "+OK send PASS");
        let answer = self.ask(&format!("PASS {}", house.password)).await;
        assert!(answer.starts_with("+OK"), "{answer}");
        self
    }

    async fn ask(&mut self, command: &str) -> String {
        self.0.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
        self.line().await
    }

    async fn line(&mut self) -> String {
        String::from_utf8(self.octets_line().await).unwrap().trim_end().to_owned()
    }

    async fn octets_line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            assert_ne!(self.0.read_until(b'\n', &mut line).await.unwrap(), 0, "ended after {}", line.len());
        }
        line
    }

    /// A dot-stuffed answer with its dots undone.
    async fn dotted(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let line = self.octets_line().await;
            if line == b".\r\n" {
                return out;
            }
            out.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ports_give_what_went_in() {
    let house = house().await;
    for stls in [true, false] {
        let client = if stls { Client::stls(&house).await } else { Client::implicit(&house).await };
        let mut client = client.login(&house).await;
        let mut total = 0;
        for (number, message) in (1..).zip(&house.messages) {
            let size: usize = client.ask(&format!("LIST {number}")).await.rsplit_once(' ').unwrap().1.parse().unwrap();
            total += size;
            assert_eq!(client.ask(&format!("RETR {number}")).await, format!("+OK {size} octets"));
            let got = client.dotted().await;
            assert_eq!(got.len(), size, "message {number}");
            let trace = parse_trace(&got).unwrap();
            trace.receipt.verify().unwrap();
            let body = &got[trace.len..];
            let wire = if message.ends_with(b"\r\n") { b"".as_slice() } else { b"\r\n" };
            // The CRLF that the wire needs is counted in LIST; the receipt has the true length.
            assert!(body == [message.as_slice(), wire].concat() || body == message.as_slice(), "message {number}");
            assert_eq!(trace.receipt.body.size, message.len() as u64);

            let answer = client.ask(&format!("XRETR {number}")).await;
            let (length, digest) = answer.strip_prefix("+OK ").unwrap().split_once(' ').unwrap();
            let mut exact = vec![0; length.parse().unwrap()];
            client.0.read_exact(&mut exact).await.unwrap();
            let trace = parse_trace(&exact).unwrap();
            assert_eq!(&exact[trace.len..], message);
            let salted = [trace.evidence.salt.as_slice(), message].concat();
            assert_eq!(Digest::of(&salted).to_string(), digest);
        }
        assert_eq!(client.ask("STAT").await, format!("+OK {} {total}", house.messages.len()));
        assert!(client.ask("TOP 1 1").await.starts_with("+OK"));
        let top = String::from_utf8(client.dotted().await).unwrap();
        assert!(top.starts_with("Return-Path:") && top.ends_with("Subject: one\r\n\r\n.dot\r\n"), "{top}");
        let node = client.ask("XLEDGER 2").await;
        assert!(node.starts_with("+OK node=") && node.ends_with(" entries follow"), "{node}");
        let ledger = String::from_utf8(client.dotted().await).unwrap();
        let entries: Vec<Entry> = ledger
            .lines()
            .map(|line| Entry::decode(&data_encoding::BASE64.decode(line.as_bytes()).unwrap()).unwrap())
            .collect();
        assert_eq!(entries.len(), house.messages.len() - 1);
        assert_eq!(entries[0].body.seq, 2);
        assert_eq!(client.ask("QUIT").await, "+OK bye");
    }
    house.trigger.fire();
    house.running.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_quit_removes() {
    let house = house().await;
    let count = house.messages.len();
    // 5.2/21: the connection goes away.
    let mut client = Client::implicit(&house).await.login(&house).await;
    assert_eq!(client.ask("DELE 1").await, "+OK marked");
    // 5.2/19: one session at a time.
    let mut second = Client::implicit(&house).await;
    second.ask(&format!("USER {}", house.mailbox.id)).await;
    assert!(second.ask(&format!("PASS {}", house.password)).await.starts_with("-ERR [IN-USE]"));
    drop(client);
    tokio::time::sleep(Duration::from_millis(300)).await;
    // 5.2/22: RSET takes the marks back; QUIT then removes nothing.
    let mut client = Client::implicit(&house).await.login(&house).await;
    assert!(client.ask("STAT").await.starts_with(&format!("+OK {count} ")));
    client.ask("DELE 1").await;
    client.ask("RSET").await;
    assert_eq!(client.ask("QUIT").await, "+OK bye");
    // Now for good. The mailbox is free as soon as +OK was said.
    let mut client = Client::implicit(&house).await.login(&house).await;
    client.ask("DELE 1").await;
    client.ask("DELE 3").await;
    assert_eq!(client.ask("QUIT").await, "+OK bye");
    let mut client = Client::implicit(&house).await.login(&house).await;
    assert!(client.ask("STAT").await.starts_with(&format!("+OK {} ", count - 2)));
    client.ask("XLEDGER").await;
    let ledger = client.dotted().await;
    assert_eq!(ledger.iter().filter(|b| **b == b'\n').count(), count + 2);
    house.trigger.fire();
    house.running.wait().await.unwrap();
}

/// 5.2/24 5.2/26: a damaged message has no end, a missing one is refused; both leave the others alone.
#[tokio::test(flavor = "multi_thread")]
async fn damage_is_never_served_as_whole() {
    let house = house().await;
    let mut client = Client::implicit(&house).await.login(&house).await;
    client.ask("UIDL").await;
    let names: Vec<String> = String::from_utf8(client.dotted().await).unwrap().lines().map(str::to_owned).collect();
    let file = |number: usize| {
        let uidl = names[number - 1].split_once(' ').unwrap().1;
        house.folder.path().join(format!("data/spool/{}/new/{uidl}", house.mailbox.id))
    };
    let mut octets = std::fs::read(file(5)).unwrap();
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    std::fs::write(file(5), octets).unwrap();
    std::fs::remove_file(file(2)).unwrap();
    assert!(client.ask("RETR 2").await.starts_with("-ERR [SYS/PERM]"));
    assert!(client.ask("RETR 1").await.starts_with("+OK"));
    client.dotted().await;
    client.0.write_all(b"RETR 5\r\n").await.unwrap();
    let mut rest = Vec::new();
    // TLS without close_notify is an error of the reader: the client cannot take the part for the whole.
    assert!(client.0.read_to_end(&mut rest).await.is_err());
    assert!(!rest.ends_with(b"\r\n.\r\n"));
    house.trigger.fire();
    house.running.wait().await.unwrap();
}

/// 5.2/18 (and pop3_backpressure): answers wait in the server only as far as one block.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_costs_nothing() {
    let house = house().await;
    let mut client = Client::implicit(&house).await.login(&house).await;
    let before = resident();
    let flood = "RETR 5\r\n".repeat(1000);
    let stuck = tokio::time::timeout(Duration::from_secs(3), async {
        loop {
            client.0.write_all(flood.as_bytes()).await.unwrap();
            client.0.flush().await.unwrap();
        }
    });
    assert!(stuck.await.is_err(), "the server takes no more than it can answer");
    let grown = resident().saturating_sub(before);
    assert!(grown < 128 * 1024, "grown by {grown} KiB for gigabytes of answers");
    let mut other = Client::implicit(&house).await;
    assert_eq!(other.ask("QUIT").await, "+OK bye");
    house.trigger.fire();
    drop(client);
    house.running.wait().await.unwrap();
}

/// KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_names_and_passwords_get_one_answer() {
    let house = house().await;
    let mut client = Client::implicit(&house).await;
    for (user, password) in [
        ("mbx-00000000000000000000000000000000", house.password.as_str()),
        (&house.mailbox.id.to_string(), "wrong password"),
    ] {
        client.ask(&format!("USER {user}")).await;
        assert_eq!(client.ask(&format!("PASS {password}")).await, "-ERR [AUTH] wrong name or password");
    }
    house.trigger.fire();
    house.running.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_the_remedy() {
    let house = house().await;
    let file = house.folder.path().join("second.toml");
    std::fs::write(
        &file,
        format!("hostname = 'a'\ndata_dir = 'second'\n[smtp]\nlisten = []\n[pop3]\nlisten = ['{}']\n", house.pop3),
    )
    .unwrap();
    let (_trigger, shutdown) = ShutdownTrigger::new();
    let config = GatewayConfig::load(&file).unwrap();
    let failure = server::serve(config, Arc::new(LocalDisk), shutdown).await.err().unwrap();
    assert_eq!(failure.exit as u8, 3);
    assert!(failure.text.contains(&house.pop3.to_string()) && failure.text.contains("pop3.listen"), "{failure}");
    assert!(!house.folder.path().join("second").exists(), "nothing is touched before the ports are ours");
    house.trigger.fire();
    house.running.wait().await.unwrap();
}

fn run(program: &mut Command) -> Vec<u8> {
    let output = program.output().unwrap_or_else(|e| panic!("{program:?}: {e}; tests/run installs it"));
    assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// curl and poplib collect the same octets as far as their own rules let them.
#[tokio::test(flavor = "multi_thread")]
async fn other_programs_collect_too() {
    let house = house().await;
    let login = format!("{}:{}", house.mailbox.id, house.password);
    let work = move |port: u16, portal: u16, login: String, user: String, password: String| {
        let clear = format!("pop3://127.0.0.1:{port}/");
        let curl = |extra: &[&str], url: &str| {
            run(Command::new("curl").args(["-sS", "--ssl-reqd", "--insecure", "-u", &login]).args(extra).arg(url))
        };
        let list = String::from_utf8(curl(&[], &clear)).unwrap();
        let uidl = String::from_utf8(curl(&["--request", "UIDL"], &clear)).unwrap();
        let first = curl(&[], &format!("{clear}1"));
        let same = curl(&[], &format!("pop3s://127.0.0.1:{portal}/1"));
        let script = "import poplib,ssl,sys\n\
            c=ssl._create_unverified_context()\n\
            p=poplib.POP3('127.0.0.1',int(sys.argv[1])); p.stls(c)\n\
            p.user(sys.argv[2]); p.pass_(sys.stdin.readline().strip())\n\
            r,l,n=p.retr(1); sys.stdout.buffer.write(b'\\r\\n'.join(l)+b'\\r\\n'); p.quit()\n";
        let mut python = Command::new("python3");
        python.args(["-c", script, &port.to_string(), &user]).stdin(std::process::Stdio::piped());
        let mut child = python.stdout(std::process::Stdio::piped()).spawn().expect("python3; tests/run installs it");
        use std::io::Write as _;
        child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
        let poplib = child.wait_with_output().unwrap();
        assert!(poplib.status.success());
        (list, uidl, first, same, poplib.stdout)
    };
    let (port, portal) = (house.pop3.port(), house.pop3s.port());
    let (user, password) = (house.mailbox.id.to_string(), house.password.clone());
    let (list, uidl, first, same, poplib) =
        tokio::task::spawn_blocking(move || work(port, portal, login, user, password)).await.unwrap();
    assert_eq!(list.lines().count(), house.messages.len());
    let new = house.folder.path().join(format!("data/spool/{}/new", house.mailbox.id));
    for line in uidl.lines() {
        assert!(new.join(line.split_once(' ').unwrap().1.trim()).is_file(), "{line}");
    }
    assert_eq!(uidl.lines().count(), house.messages.len());
    let trace = parse_trace(&first).unwrap();
    assert_eq!(&first[trace.len..], house.messages[0]);
    assert!(first == same && first == poplib);
    house.trigger.fire();
    house.running.wait().await.unwrap();
}
