//! Both programs at work in a minute: `cargo run --release --example quickstart`.
//!
//! Starts the real gateway and the real archiver as processes of their own on loopback ports in a fresh folder, sends the
//! sample reports with an independent sender, lets the archiver collect them, and shows what happened. Needs neither
//! root nor a network. The folder stays.

use anyhow::{Context as _, Result, bail, ensure};
use mail_send::{
    SmtpClient, SmtpClientBuilder,
    smtp::message::{Address, Message},
};
use postkeep_shared::mail::Digest;
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    time::Instant,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, pem::PemObject as _},
    },
};

const GATEWAY: &str = "postkeep-gateway";
const ARCHIVER: &str = "postkeep-archiver";
const HOSTNAME: &str = "msgw.quickstart.example";
const OWNERS: &[&str] = &["ann", "bob", "dora"];
/// The sample shown in detail: a message with a blind copy that only the envelope names.
const SHOWN: &str = "002-exo-outbound-to-cc-bcc";

/// Cargo builds no binaries of dependencies for an example, so this one is all three programs: it starts itself under
/// the name of the program that it then is.
fn main() -> ExitCode {
    let name = std::env::args().next().unwrap_or_default();
    match name.as_str() {
        GATEWAY => postkeep_gateway::cli::main(),
        ARCHIVER => postkeep_archiver::cli::main(),
        _ => match show() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("quickstart: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn show() -> Result<()> {
    let started = Instant::now();
    let folder = tempfile::Builder::new().prefix("postkeep-quickstart-").tempdir()?.keep();
    println!("Postkeep quickstart, in {}\n", folder.display());
    let reports = reports()?;

    let gateway = Program::new(GATEWAY, &folder.join("gateway"))?;
    gateway.run(&["init", "--hostname", HOSTNAME])?;
    std::fs::write(&gateway.config, gateway_config(0, 0, 0))?;
    let mailbox = gateway.json(&["mailbox", "create", "--description", "quickstart", "--json"])?;
    let (id, address, password) = (text(&mailbox, "id")?, text(&mailbox, "address")?, text(&mailbox, "password")?);
    let server = gateway.serve()?;
    let (smtp, pop3, pop3s) = (server.address("smtp")?, server.address("pop3")?, server.address("pop3s")?);
    // The same ports when somebody starts it again.
    std::fs::write(&gateway.config, gateway_config(smtp.port(), pop3.port(), pop3s.port()))?;
    step("gateway", &format!("SMTP with STARTTLS on {smtp}, POP3 over TLS on {pop3s}"));
    step("mailbox", address);

    let archiver = Program::new(ARCHIVER, &folder.join("archiver"))?;
    let certificate = gateway.folder.join("data/tls/self-signed.pem");
    archiver.run(&["init"])?;
    write_secret(&archiver.folder.join("gateway.password"), password)?;
    std::fs::write(&archiver.config, archiver_config(pop3s, id, &certificate)?)?;
    for owner in OWNERS {
        archiver.run(&["owner", "add", owner, &format!("{owner}@aurora.example")])?;
    }
    step("owners", &format!("{}, of aurora.example", OWNERS.join(", ")));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let last = runtime.block_on(send(smtp, &certificate, address, &reports))?;
    let octets: usize = reports.iter().map(|(_, report)| report.len()).sum();
    step("sent", &format!("{} reports, {}; the last answer was", reports.len(), size(octets as u64)));
    step("", &last);
    let round = archiver.attention(&["run", "--once", "--json"])?;
    let round = round.first().context("run --once --json says nothing")?;
    step("collected", &format!("{}, read back, compared, and only then deleted there", number(round, "collected")?));

    show_gateway(&gateway, id)?;
    show_archives(&archiver)?;
    show_message(&archiver, &folder, &reports)?;
    show_space(round)?;
    show_reconcile(&archiver)?;

    // One more stays at the gateway, so that there is something to look at.
    runtime.block_on(send(smtp, &certificate, address, reports.get(..1).unwrap_or_default()))?;
    server.stop()?;
    show_commands(&gateway, &archiver, pop3, id);
    println!(
        "\nDone in {:.1} s. Everything is in {}; delete it when you like.",
        started.elapsed().as_secs_f64(),
        folder.display()
    );
    Ok(())
}

// --- What is shown ------------------------------------------------------------------------------------------------

fn heading(text: &str) {
    println!("\n{text}\n{}", "─".repeat(text.chars().count()));
}

fn step(what: &str, text: &str) {
    println!("  {what:<10} {text}");
}

fn show_gateway(gateway: &Program, id: &str) -> Result<()> {
    heading("Mailbox and ledger");
    let ledger = gateway.stream(&["ledger", "show", id, "--json"])?;
    let mailbox = gateway.json(&["mailbox", "show", id, "--json"])?;
    println!(
        "  accepted {}, removed {}, waiting {}; every entry is signed and holds the hash of the one before",
        number(&mailbox, "accepted_total")?,
        number(&mailbox, "removed_total")?,
        number(&mailbox, "messages")?
    );
    println!("  {:>4}  {:<9} {:<36} {:>8}  {:<14} hash", "seq", "event", "uidl", "octets", "after");
    let line = |entry: &Value| -> Result<()> {
        let short = |key: &str| text(entry, key).map(|t| t.chars().take(12).collect::<String>());
        println!(
            "  {:>4}  {:<9} {:<36} {:>8}  {:<14} {}",
            number(entry, "seq")?,
            text(entry, "event")?,
            text(entry, "uidl")?,
            number(entry, "size")?,
            short("prev")?,
            short("hash")?
        );
        Ok(())
    };
    for entry in ledger.iter().take(3) {
        line(entry)?;
    }
    println!("     …");
    ledger.last().map_or(Ok(()), line)
}

fn show_archives(archiver: &Program) -> Result<()> {
    heading("Owners and folders");
    for owner in OWNERS.iter().chain(&["@catchall"]) {
        let mut folders: std::collections::BTreeMap<String, usize> = Default::default();
        for entry in archiver.stream(&["list", "--owner", owner, "--json"])? {
            *folders.entry(text(&entry, "folder")?.to_owned()).or_default() += 1;
        }
        let folders: Vec<String> = folders.iter().map(|(folder, count)| format!("{folder}: {count}")).collect();
        println!("  {owner:<10} {}", if folders.is_empty() { "nothing".into() } else { folders.join("   ") });
    }
    Ok(())
}

fn show_message(archiver: &Program, folder: &Path, reports: &[(String, Vec<u8>)]) -> Result<()> {
    heading("One message, exported");
    let (_, report) = reports.iter().find(|(name, _)| name == SHOWN).context("the sample is missing")?;
    let out = folder.join("export");
    archiver.run(&["export", "--owner", "dora", "--format", "eml", "--out", &out.to_string_lossy()])?;
    for entry in archiver.stream(&["list", "--owner", "dora", "--json"])? {
        let sum = text(&entry, "sha256")?;
        let Some(file) = file_with(&out, sum)? else { bail!("{sum} was listed but not exported") };
        let bytes = std::fs::read(&file)?;
        let Some(start) = report.windows(bytes.len()).position(|window| window == bytes) else { continue };
        let sent = report.get(start..start + bytes.len()).unwrap_or_default();
        println!("  {SHOWN}.eml reaches dora as a blind copy: only the envelope of the report names her");
        println!("  sent      {}  octets {start} to {} of the report", Digest::of(sent), start + sent.len());
        println!("  exported  {}  {}", Digest::of(&bytes), file.strip_prefix(folder)?.display());
        return Ok(());
    }
    bail!("{SHOWN} did not reach dora");
}

fn show_space(round: &Value) -> Result<()> {
    heading("Space");
    let (came, stored) = (number(round, "bytes_in")?, number(round, "bytes_stored")?);
    println!(
        "  {} in, {} stored ({} %): every part once, compressed, encrypted",
        size(came),
        size(stored),
        stored * 100 / came.max(1)
    );
    Ok(())
}

fn show_reconcile(archiver: &Program) -> Result<()> {
    heading("Reconcile");
    for line in archiver.stream(&["reconcile", "--json"])? {
        let n = |key: &str| number(&line, key);
        println!(
            "  accepted {} = collected {} = filed {} + catch-all {} + dead letters {} + quarantined {}",
            n("accepted")?,
            n("collected")?,
            n("filed")?,
            n("catchall")?,
            n("dead_letters")?,
            n("quarantined")?
        );
        println!(
            "  waiting {}, removed by others {}, missing {}",
            n("waiting")?,
            n("removed_by_others")?,
            n("missing")?
        );
        ensure!(line.get("ok") == Some(&Value::Bool(true)), "the numbers do not add up: {line}");
        println!("  every number adds up ✓");
    }
    Ok(())
}

fn show_commands(gateway: &Program, archiver: &Program, pop3: SocketAddr, id: &str) {
    heading("To look further");
    let run = |program: &Program, arguments: &str| {
        println!("  cargo run -qr -p {} -- --config {} {arguments}", program.name, program.config.display());
    };
    println!("  # the archives");
    run(archiver, "list --owner bob");
    run(archiver, "store stats");
    println!("  # the gateway again; one more report waits there, sealed");
    run(gateway, "serve &");
    let password = archiver.folder.join("gateway.password");
    println!("  curl --ssl-reqd --insecure pop3://{pop3}/1 -u \"{id}:$(cat {})\"", password.display());
    run(gateway, &format!("ledger show {id}"));
    run(archiver, "reconcile");
}

fn size(octets: u64) -> String {
    if octets < 1_000_000 { format!("{:.1} kB", octets as f64 / 1e3) } else { format!("{:.2} MB", octets as f64 / 1e6) }
}

// --- Reports and their sender -------------------------------------------------------------------------------------

/// The sample reports as a mail server would send them: those of the journal profile from a trusted source.
fn reports() -> Result<Vec<(String, Vec<u8>)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("archiver/tests/samples/journal");
    let mut reports = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let file = entry?.path();
        if file.extension().is_some_and(|e| e == "eml") {
            let facts: Value = serde_json::from_slice(&std::fs::read(file.with_extension("json"))?)?;
            let trusted = facts.pointer("/smtp/trusted") == Some(&Value::Bool(true));
            if text(&facts, "profile")? == "journal" && trusted {
                let name = file.file_stem().context("a file name")?.to_string_lossy().into_owned();
                reports.push((name, std::fs::read(&file)?));
            }
        }
    }
    reports.sort();
    Ok(reports)
}

/// Sends all of them over one connection; the last answer.
async fn send(server: SocketAddr, certificate: &Path, to: &str, reports: &[(String, Vec<u8>)]) -> Result<String> {
    let connector = trusting(certificate)?;
    let mut builder = SmtpClientBuilder::new_with_tls_connector(HOSTNAME, server.port(), connector)
        .implicit_tls(false)
        .helo_host("mail.aurora.example");
    builder.addr = server.to_string();
    let mut sender = builder.connect().await.context("SMTP with STARTTLS")?;
    let mut last = String::new();
    for (name, report) in reports {
        last = send_one(&mut sender, to, report).await.with_context(|| name.clone())?;
    }
    sender.quit().await?;
    Ok(last)
}

async fn send_one(
    sender: &mut SmtpClient<TlsStream<tokio::net::TcpStream>>,
    to: &str,
    report: &[u8],
) -> Result<String> {
    let from = "journal-ndr@aurora.example";
    let lone = |pair: &[u8]| (pair.first() == Some(&b'\r')) != (pair.get(1) == Some(&b'\n'));
    let reply = match report.strip_suffix(b"\r\n") {
        // The sender adds the line end before the final dot.
        Some(body) if !report.windows(2).any(lone) => {
            let address = |email: &str| Address { email: email.to_owned().into(), parameters: Default::default() };
            sender.send(Message { mail_from: address(from), rcpt_to: vec![address(to)], body: body.into() }).await?
        }
        // DATA would change it; Exchange sends such a message by BDAT, too.
        _ => {
            sender.cmd(format!("MAIL FROM:<{from}> BODY=8BITMIME\r\n")).await?;
            sender.cmd(format!("RCPT TO:<{to}>\r\n")).await?;
            sender.cmd([format!("BDAT {} LAST\r\n", report.len()).as_bytes(), report].concat()).await?
        }
    };
    ensure!(reply.code == 250, "refused: {} {}", reply.code, reply.message);
    let [class, subject, detail] = reply.esc;
    Ok(format!("{} {class}.{subject}.{detail} {}", reply.code, reply.message))
}

/// A connector that trusts the gateway's own certificate and nothing else.
fn trusting(certificate: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(self_signed(certificate)?)?;
    let config = ClientConfig::builder_with_provider(postkeep_shared::tls::provider())
        .with_protocol_versions(postkeep_shared::tls::VERSIONS)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn self_signed(certificate: &Path) -> Result<CertificateDer<'static>> {
    let pem = std::fs::read(certificate)?;
    CertificateDer::from_pem_slice(&pem).map_err(|e| anyhow::anyhow!("{}: {e:?}", certificate.display()))
}

// --- The programs -------------------------------------------------------------------------------------------------

fn gateway_config(smtp: u16, pop3: u16, pop3s: u16) -> String {
    format!(
        "hostname = \"{HOSTNAME}\"\ndomains = [\"{HOSTNAME}\"]\ndata_dir = \"data\"\n\n[smtp]\nlisten = [\"127.0.0.1:{smtp}\"]\n\n\
         [pop3]\nlisten = [\"127.0.0.1:{pop3}\"]\nlisten_tls = [\"127.0.0.1:{pop3s}\"]\n\n[tls]\nmode = \"self-signed\"\n\n\
         [log]\nlevel = \"warn\"\n"
    )
}

fn archiver_config(pop3s: SocketAddr, mailbox: &str, certificate: &Path) -> Result<String> {
    let parsed = tokio_rustls::rustls::server::ParsedCertificate::try_from(&self_signed(certificate)?)?
        .subject_public_key_info();
    Ok(format!(
        "data_dir = \"data\"\nown_domains = [\"aurora.example\"]\nowners_file = \"owners.toml\"\n\n[[source]]\nname = \"quickstart\"\n\
         kind = \"gateway\"\nprofile = \"journal\"\nhosts = [\"{pop3s}\"]\nmailbox = \"{mailbox}\"\n\
         password_file = \"gateway.password\"\ntls = {{ verify = \"pin\", pin_sha256 = [\"{}\"] }}\ndelete = \"at-once\"\n\n\
         [log]\nlevel = \"warn\"\n",
        Digest::of(&parsed)
    ))
}

/// One of the two programs with a folder and a configuration of its own.
struct Program {
    name: &'static str,
    folder: PathBuf,
    config: PathBuf,
}

impl Program {
    fn new(name: &'static str, folder: &Path) -> Result<Self> {
        std::fs::create_dir(folder)?;
        Ok(Self { name, folder: folder.to_owned(), config: folder.join(format!("{name}.toml")) })
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg0(self.name).current_dir(&self.folder).arg("--config").arg(&self.config).args(arguments);
        command.stdin(Stdio::null());
        Ok(command)
    }

    fn ending_with(&self, arguments: &[&str], codes: &[i32]) -> Result<Vec<u8>> {
        let output = self.command(arguments)?.output()?;
        let code = output.status.code().unwrap_or(-1);
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(codes.contains(&code), "{} {}: exit code {code}\n{said}", self.name, arguments.join(" "));
        Ok(output.stdout)
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        self.ending_with(arguments, &[0]).map(drop)
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        Ok(serde_json::from_slice(&self.ending_with(arguments, &[0])?)?)
    }

    fn stream(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        documents(&self.ending_with(arguments, &[0])?)
    }

    /// As [`Self::stream`], where something may need attention (exit code 1).
    fn attention(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        documents(&self.ending_with(arguments, &[0, 1])?)
    }

    /// Starts the server and waits until it listens.
    fn serve(&self) -> Result<Server> {
        let mut child = self.command(&["serve"])?.stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stderr.take().context("piped")?);
        let (mut addresses, mut said) = (Vec::new(), String::new());
        while addresses.len() < 3 {
            let mut line = String::new();
            ensure!(lines.read_line(&mut line)? > 0, "{} did not start: {said}", self.name);
            let mut words = line.trim_end().strip_prefix("listening ").unwrap_or_default().split(' ');
            if let (Some(kind), Some(Ok(address))) = (words.next(), words.next().map(str::parse)) {
                addresses.push((kind.to_owned(), address));
            }
            said.push_str(&line);
        }
        // Whatever it has to say from now on is for the reader of this program.
        std::thread::spawn(move || std::io::copy(&mut lines.by_ref(), &mut std::io::stderr()));
        Ok(Server { child, addresses })
    }
}

/// JSON documents; a list counts as its items.
fn documents(bytes: &[u8]) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for document in serde_json::Deserializer::from_slice(bytes).into_iter() {
        match document? {
            Value::Array(items) => all.extend(items),
            document => all.push(document),
        }
    }
    Ok(all)
}

/// A running server; it ends with this value.
struct Server {
    child: Child,
    addresses: Vec<(String, SocketAddr)>,
}

impl Server {
    fn address(&self, kind: &str) -> Result<SocketAddr> {
        let found = self.addresses.iter().find(|(k, _)| k == kind);
        found.map(|(_, address)| *address).with_context(|| format!("no {kind} address"))
    }

    /// Asks it to stop, as an operator would.
    fn stop(mut self) -> Result<()> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(self.child.wait()?.success(), "the gateway did not end well");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// --- Small things -------------------------------------------------------------------------------------------------

fn text<'a>(json: &'a Value, key: &str) -> Result<&'a str> {
    json.get(key).and_then(Value::as_str).with_context(|| format!("no `{key}` in {json}"))
}

fn number(json: &Value, key: &str) -> Result<u64> {
    json.get(key).and_then(Value::as_u64).with_context(|| format!("no number `{key}` in {json}"))
}

fn write_secret(file: &Path, secret: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    Ok(writeln!(file, "{secret}")?)
}

/// The file below `folder` with this SHA-256.
fn file_with(folder: &Path, sum: &str) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = file_with(&path, sum)? {
                return Ok(Some(found));
            }
        } else if Digest::of(&std::fs::read(&path)?).to_string() == sum {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
