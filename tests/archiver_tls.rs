//! Whom the archiver talks to: the right server, and nobody else. What the others receive is recorded, octet by octet.

mod support;

use anyhow::{Context as _, Result, ensure};
use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};
use support::{
    Archiver, Gateway,
    archiver::restrict,
    authority::{Authority, Pair},
    find, folder, numbered_report,
    ports::free_ports,
    run,
    wire::pin_of,
};
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

const MAILBOX: &str = "mbx-000102030405060708090a0b0c0d0e0f";
const PASSWORD: &str = "quite-a-secret-password";
const NOW: (i32, i32) = (2024, 2100);

/// A stream that keeps what arrives.
struct Recorded {
    stream: TcpStream,
    raw: Arc<Mutex<Vec<u8>>>,
}

impl Read for Recorded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.stream.read(buffer)?;
        if let (Ok(mut raw), Some(read)) = (self.raw.lock(), buffer.get(..count)) {
            raw.extend_from_slice(read);
        }
        Ok(count)
    }
}

impl Write for Recorded {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.stream.write(octets)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// What one client sent: as it stood on the wire, and what TLS made of it.
struct Received {
    raw: Vec<u8>,
    plain: Vec<u8>,
}

/// A POP3 server over TLS for one client, which lets nobody in.
fn serve(pair: &Pair) -> Result<(u16, mpsc::Receiver<Received>)> {
    let chain = CertificateDer::pem_file_iter(&pair.certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&pair.key)?;
    let builder = ServerConfig::builder_with_provider(postkeep_shared::tls::provider());
    let config = builder.with_protocol_versions(postkeep_shared::tls::VERSIONS)?.with_no_client_auth();
    let config = Arc::new(config.with_single_cert(chain, key)?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let Ok((stream, _)) = listener.accept() else { return };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let mut plain = Vec::new();
        if let Ok(connection) = ServerConnection::new(config) {
            let stream = StreamOwned::new(connection, Recorded { stream, raw: Arc::clone(&raw) });
            // Whatever ends it: what counts is what had arrived by then.
            let _ = pop3(stream, &mut plain);
        }
        let raw = raw.lock().map(|raw| raw.clone()).unwrap_or_default();
        let _ = sender.send(Received { raw, plain });
    });
    Ok((port, receiver))
}

fn pop3(stream: StreamOwned<ServerConnection, Recorded>, plain: &mut Vec<u8>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(b"+OK ready\r\n")?;
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        plain.extend_from_slice(&line);
        let answer: &[u8] = match line.get(..4) {
            Some(b"CAPA") => b"+OK\r\nUSER\r\nUIDL\r\n.\r\n",
            Some(b"USER") => b"+OK\r\n",
            Some(b"QUIT") => b"+OK\r\n",
            _ => b"-ERR [AUTH] no\r\n",
        };
        stream.get_mut().write_all(answer)?;
    }
}

/// An archiver with one source at this port of `localhost`.
fn point(archiver: &Archiver, port: u16, tls: &str) -> Result<()> {
    let password = archiver.folder.join("password");
    std::fs::write(&password, format!("{PASSWORD}\n"))?;
    restrict(&password)?;
    archiver.configure(&format!(
        "[[source]]\nname = \"m365\"\nhosts = [\"localhost:{port}\"]\nmailbox = \"{MAILBOX}\"\n\
         password_file = \"password\"\ntls = {tls}\n"
    ))
}

/// The round's exit code and the error it gives for its host.
fn round(archiver: &Archiver) -> Result<(i32, String)> {
    let output = archiver.run(&["run", "--once", "--json"], b"")?;
    let said = output.json_stream()?;
    let error = said.first().and_then(|s| s.pointer("/hosts/0/error")).and_then(|e| e.as_str()).unwrap_or_default();
    Ok((output.code, error.to_owned()))
}

fn ca(file: &Path) -> String {
    format!("{{ verify = \"ca\", ca_file = \"{}\" }}", file.display())
}

fn pin(pin: &str) -> String {
    format!("{{ verify = \"pin\", pin_sha256 = [\"{pin}\"] }}")
}

fn holds_credentials(octets: &[u8]) -> bool {
    [MAILBOX, PASSWORD, "USER", "PASS", "AUTH"].iter().any(|word| find(octets, word.as_bytes()).is_some())
}

#[test]
fn only_the_right_server_hears_a_password() -> Result<()> {
    let folder = folder()?;
    let archiver = Archiver::create(folder.path())?;
    let (ours, theirs) = (Authority::new(folder.path(), "ours")?, Authority::new(folder.path(), "theirs")?);
    let right = ours.make("right", "localhost", NOW, false)?;
    let right_pin = pin_of(&right.certificate)?;
    let other_name = ours.make("name", "other.example", NOW, false)?;
    let expired = ours.make("expired", "localhost", (2020, 2021), true)?;
    let unknown = theirs.make("unknown", "localhost", NOW, false)?;
    let changed = ours.make("changed", "localhost", NOW, false)?;
    let cases = [
        ("right certificate", &right, ca(&ours.root), true),
        ("right pin", &right, pin(&right_pin), true),
        ("right pin, wrong name, expired", &expired, pin(&pin_of(&expired.certificate)?), true),
        ("wrong name", &other_name, ca(&ours.root), false),
        ("expired", &expired, ca(&ours.root), false),
        ("unknown issuer", &unknown, ca(&ours.root), false),
        ("unknown to the system", &right, "{ verify = \"system\" }".to_owned(), false),
        ("changed pin", &changed, pin(&right_pin), false),
    ];
    for (what, pair, tls, good) in cases {
        let (port, received) = serve(pair)?;
        point(&archiver, port, &tls)?;
        let (code, error) = round(&archiver)?;
        let Received { raw, plain } = received.recv_timeout(Duration::from_secs(60)).context(what)?;
        println!("{what}: exit {code}, {} octets on the wire, {} inside TLS; {error}", raw.len(), plain.len());
        ensure!(!raw.is_empty() && !holds_credentials(&raw), "{what}: credentials in clear");
        if good {
            ensure!(code == 4 && holds_credentials(&plain), "{what}: not connected: {error}");
        } else {
            ensure!(code == 1 && plain.is_empty(), "{what}: exit {code}, {:?}", String::from_utf8_lossy(&plain));
        }
    }
    Ok(())
}

#[test]
fn tls_1_1_is_not_spoken() -> Result<()> {
    let folder = folder()?;
    let archiver = Archiver::create(folder.path())?;
    let authority = Authority::new(folder.path(), "ours")?;
    let right = authority.make("right", "localhost", NOW, true)?;
    let [port] = free_ports()?;
    let old = ["-cipher", "DEFAULT:@SECLEVEL=0"];
    let mut server = Command::new("openssl");
    server.args(["s_server", "-quiet", "-tls1_1", "-accept", &format!("127.0.0.1:{port}"), "-cert"]);
    server.arg(&right.certificate).arg("-key").arg(&right.key).args(old);
    let mut server = server.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let outcome = (|| -> Result<()> {
        // It does speak TLS 1.1 with somebody who wants that.
        let client = || {
            let mut client = Command::new("openssl");
            client.args(["s_client", "-tls1_1", "-connect", &format!("127.0.0.1:{port}")]).args(old);
            run(&mut client, b"")
        };
        let mut tries = 0..200;
        while !client()?.text().contains("Protocol  : TLSv1.1") {
            tries.next().context("openssl s_server does not speak TLS 1.1")?;
            std::thread::sleep(Duration::from_millis(50));
        }
        for tls in [ca(&authority.root), pin(&pin_of(&right.certificate)?)] {
            point(&archiver, port, &tls)?;
            let (code, error) = round(&archiver)?;
            println!("TLS 1.1: exit {code}; {error}");
            ensure!(code == 1 && error.contains("cannot connect"), "exit {code}: {error}");
        }
        Ok(())
    })();
    server.kill()?;
    let received = server.wait_with_output()?.stdout;
    outcome?;
    println!("TLS 1.1: {} octets of the archiver inside TLS", received.len());
    ensure!(received.is_empty(), "{:?}", String::from_utf8_lossy(&received));
    Ok(())
}

#[test]
fn a_pin_is_shown_and_stored_after_a_yes() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    let pinned = std::fs::read_to_string(&archiver.config)?;
    let pin_line = pinned.lines().find(|line| line.starts_with("tls = ")).context("tls")?.to_owned();
    let mut text = pinned.replace(&pin_line, "# how we know it\ntls = { verify = \"system\" } # for now");
    std::fs::write(&archiver.config, &text)?;
    ensure!(round(&archiver)?.0 == 1, "a self-signed certificate was believed");

    let no = archiver.run(&["source", "pin", "m365"], b"no\n")?.expect(1)?;
    println!("{}", no.text());
    ensure!(no.text().contains(&format!("public key SHA-256 {}", gateway.pin()?)), "{}", no.text());
    for part in ["subject", "names              msgw.archive.example", "issuer             itself", "9999-12-31"] {
        ensure!(no.text().contains(part), "{part}: {}", no.text());
    }
    archiver.run(&["source", "pin", "m365"], b"")?.expect(1)?;
    ensure!(std::fs::read_to_string(&archiver.config)? == text, "stored without a yes");
    archiver.run(&["source", "pin", "m366"], b"yes\n")?.expect(2)?;

    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&archiver.config, std::fs::Permissions::from_mode(0o644))?;
    archiver.run(&["source", "pin", "m365"], b"yes\n")?.expect(0)?;
    text = text.replace("tls = { verify = \"system\" }", &pin_line);
    ensure!(std::fs::read_to_string(&archiver.config)? == text, "{}", std::fs::read_to_string(&archiver.config)?);
    ensure!(std::fs::metadata(&archiver.config)?.permissions().mode() & 0o777 == 0o644, "the mode changed");
    let mut sender = gateway.smtp()?;
    ensure!(sender.send("", &[&access.address], &numbered_report(1).0)?.code == 250);
    sender.quit()?;
    ensure!(archiver.round()?["collected"] == 1);
    let again = archiver.run(&["source", "pin", "m365"], b"")?.expect(0)?;
    ensure!(again.text().contains("nothing to do"), "{}", again.text());

    // The gateway comes back with another key, at the same port.
    let (old, pop3s) = (gateway.pin()?, gateway.address("pop3s")?);
    gateway.stop()?;
    std::fs::remove_dir_all(gateway.data().join("tls"))?;
    let config = std::fs::read_to_string(&gateway.config)?;
    let listen = format!("listen_tls = [\"{pop3s}\"]");
    std::fs::write(&gateway.config, config.replace("listen_tls = [\"127.0.0.1:0\"]", &listen))?;
    gateway.start()?;
    let (code, error) = round(&archiver)?;
    println!("{error}");
    ensure!(code == 1 && error.contains("not the pinned one"), "{error}");
    let changed = archiver.run(&["source", "pin", "m365"], b"yes\n")?.expect(0)?;
    println!("{}", changed.text());
    ensure!(changed.text().contains(&format!("CHANGED: {old} was pinned")), "{}", changed.text());
    ensure!(std::fs::read_to_string(&archiver.config)? == text.replace(&old, &gateway.pin()?));
    ensure!(round(&archiver)?.0 == 0);
    Ok(())
}
