//! Real programs against the real gateway: what each does to the octets of the sample reports is measured here and
//! written down in `docs/clients.md`, which must say the same numbers. (curl, poplib and mpop collect in `clients.rs`.)

mod support;

use anyhow::{Context as _, Result, ensure};
use mail_send::{SmtpClientBuilder, smtp::message::Message};
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use support::{
    Access, Gateway, Smtp, archiver::restrict, files_below, find, folder, pop3, run, samples, samples::Sample,
    smtp::data_is_exact,
};

/// The samples that DATA carries without a change.
fn clean_samples() -> Result<Vec<Sample>> {
    Ok(samples::all()?.into_iter().filter(|sample| data_is_exact(&sample.bytes)).collect())
}

/// A reverse-path that names the sample, so that what arrived can be told apart whatever a client did to it.
fn sender_of(sample: &Sample) -> String {
    format!("{}@sender.example", sample.name)
}

/// A running gateway with a mailbox.
fn running(folder: &Path) -> Result<(Gateway, Access)> {
    let mut gateway = Gateway::create(folder)?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    Ok((gateway, access))
}

/// A message as it arrived.
struct Arrived {
    trace: Vec<u8>,
    message: Vec<u8>,
}

/// Everything in the mailbox, by sample.
fn arrived(gateway: &Gateway, access: &Access) -> Result<BTreeMap<String, Arrived>> {
    let mut session = gateway.pop3(access)?;
    let mut all = BTreeMap::new();
    for (number, _) in session.list()? {
        let whole = session.retr(number)?;
        let message = pop3::without_trace(&whole)?.to_vec();
        let trace = whole.get(..whole.len() - message.len()).context("trace")?.to_vec();
        let start = b"Return-Path: <".len();
        let end = find(&trace, b"@sender.example>").context("Return-Path")?;
        let name = String::from_utf8(trace.get(start..end).context("Return-Path")?.to_vec())?;
        ensure!(all.insert(name.clone(), Arrived { trace, message }).is_none(), "{name} arrived twice");
    }
    session.quit()?;
    Ok(all)
}

/// Compares what arrived with what was sent: every message is exact, or changed as `documented` says. The number of
/// exact ones is printed and must stand in `docs/clients.md`.
fn judge(client: &str, got: &BTreeMap<String, Vec<u8>>, documented: impl Fn(&[u8], &[u8]) -> bool) -> Result<()> {
    let samples = clean_samples()?;
    let (mut exact, mut unexpected) = (0, Vec::new());
    for sample in &samples {
        let Some(got) = got.get(&sample.name) else {
            unexpected.push(format!("{} did not arrive", sample.name));
            continue;
        };
        if *got == sample.bytes {
            exact += 1;
        } else if !documented(&sample.bytes, got) {
            unexpected.push(difference(&sample.name, &sample.bytes, got));
        }
    }
    println!("{client}: exact {exact} of {}, others changed as documented", samples.len());
    ensure!(
        unexpected.is_empty(),
        "{client}: {} differ otherwise:\n{}",
        unexpected.len(),
        unexpected.get(..8).unwrap_or(&unexpected).join("\n")
    );
    let document = std::fs::read_to_string(support::root().join("docs/clients.md"))?;
    let row = document.lines().find(|line| line.starts_with(&format!("| {client} |")));
    let row = row.with_context(|| format!("docs/clients.md has no row for {client}"))?;
    ensure!(row.contains(&format!("| {exact} of {} |", samples.len())), "docs/clients.md says otherwise: {row}");
    Ok(())
}

fn difference(name: &str, sent: &[u8], got: &[u8]) -> String {
    let at = got.iter().zip(sent).position(|(a, b)| a != b).unwrap_or(got.len().min(sent.len()));
    let near = |bytes: &[u8]| {
        let part = bytes.get(at.saturating_sub(20)..bytes.len().min(at + 80)).unwrap_or_default();
        String::from_utf8_lossy(part).escape_debug().to_string()
    };
    format!("{name}: {} octets became {}, first at {at}: {} became {}", sent.len(), got.len(), near(sent), near(got))
}

fn messages(arrived: BTreeMap<String, Arrived>) -> BTreeMap<String, Vec<u8>> {
    arrived.into_iter().map(|(name, arrived)| (name, arrived.message)).collect()
}

fn never(_sent: &[u8], _got: &[u8]) -> bool {
    false
}

/// A client that ends every message with one more line end.
fn one_more_line_end(sent: &[u8], got: &[u8]) -> bool {
    got.strip_suffix(b"\r\n") == Some(sent)
}

/// The message without the fields of its own header that have one of these names (lower case, with the colon).
fn without_fields(message: &[u8], names: &[&str]) -> Vec<u8> {
    let (mut out, mut dropping, mut header) = (Vec::new(), false, true);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if header && !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let lower = line.to_ascii_lowercase();
            dropping = names.iter().any(|name| lower.starts_with(name.as_bytes()));
            header = line != b"\r\n";
        }
        if !(header && dropping) {
            out.extend_from_slice(line);
        }
    }
    out
}

// --- Senders ------------------------------------------------------------------------------------------------------

#[test]
fn swaks_sends() -> Result<()> {
    let folder = folder()?;
    let (gateway, access) = running(folder.path())?;
    let server = gateway.address("smtp")?.to_string();
    for sample in clean_samples()? {
        let mut command = Command::new("swaks");
        command.args(["--silent", "2", "--server", &server, "--to", &access.address, "--from", &sender_of(&sample)]);
        command.arg("--data").arg(format!("@{}", sample.file.display()));
        run(&mut command, b"")?.expect(0)?;
    }
    judge("swaks", &messages(arrived(&gateway, &access)?), one_more_line_end)
}

#[test]
fn msmtp_sends_under_tls() -> Result<()> {
    let folder = folder()?;
    let (gateway, access) = running(folder.path())?;
    let config = folder.path().join("msmtprc");
    let port = gateway.address("smtp")?.port();
    std::fs::write(
        &config,
        format!("account default\nhost 127.0.0.1\nport {port}\ntls on\ntls_starttls on\ntls_certcheck off\nauth off\n"),
    )?;
    restrict(&config)?;
    for sample in clean_samples()? {
        let mut command = Command::new("msmtp");
        command.arg("-C").arg(&config).args(["--from", &sender_of(&sample), "--", &access.address]);
        run(&mut command, &sample.bytes)?.expect(0)?;
    }
    let arrived = arrived(&gateway, &access)?;
    ensure!(arrived.values().all(|arrived| find(&arrived.trace, b"with ESMTPS").is_some()), "msmtp without TLS");
    judge("msmtp", &messages(arrived), |sent, got| {
        // Bcc is taken away; Date and Message-ID are put in front where they are missing.
        let kept = without_fields(sent, &["bcc:"]);
        let added = got.strip_suffix(kept.as_slice());
        added.is_some_and(|added| without_fields(added, &["date:", "message-id:"]).is_empty())
    })
}

const SMTPLIB: &str = r"
import smtplib, ssl, sys
host, port, to = sys.argv[1:4]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
session = smtplib.SMTP(host, int(port))
session.starttls(context=context)
for line in sys.stdin:
    sender, file = line.rstrip('\n').split('\t')
    with open(file, 'rb') as opened:
        session.sendmail(sender, [to], opened.read(), mail_options=['BODY=8BITMIME'])
session.quit()
";

#[test]
fn smtplib_sends_under_tls() -> Result<()> {
    let folder = folder()?;
    let (gateway, access) = running(folder.path())?;
    let port = gateway.address("smtp")?.port().to_string();
    let list: String =
        clean_samples()?.iter().map(|sample| format!("{}\t{}\n", sender_of(sample), sample.file.display())).collect();
    let mut command = Command::new("python3");
    command.args(["-c", SMTPLIB, "127.0.0.1", &port, &access.address]);
    run(&mut command, list.as_bytes())?.expect(0)?;
    judge("Python smtplib", &messages(arrived(&gateway, &access)?), never)
}

#[test]
fn mail_send_sends_under_tls() -> Result<()> {
    let folder = folder()?;
    let (gateway, access) = running(folder.path())?;
    let port = gateway.address("smtp")?.port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let builder = SmtpClientBuilder::new("127.0.0.1", port).map_err(anyhow::Error::msg)?;
        let mut client = builder.implicit_tls(false).allow_invalid_certs().connect().await?;
        for sample in clean_samples()? {
            let (from, to) = (sender_of(&sample), access.address.clone());
            client.send(Message::empty().from(from).to(to).body(sample.bytes)).await?;
        }
        client.quit().await?;
        anyhow::Ok(())
    })?;
    judge("mail-send", &messages(arrived(&gateway, &access)?), one_more_line_end)
}

/// A Postfix of our own: its own folders, loopback only, everything through the gateway.
struct Postfix {
    master: Child,
    port: u16,
}

const MASTER_CF: &str = "
127.0.0.1:PORT inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

impl Postfix {
    fn start(folder: &Path, relay: u16, security: &str) -> Result<Self> {
        // Its daemons run as another user.
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        let config = folder.join("postfix");
        let (queue, data, log) = (folder.join("queue"), folder.join("postfix-data"), folder.join("maillog"));
        std::fs::create_dir(&config)?;
        std::fs::create_dir(&queue)?;
        std::fs::create_dir(&data)?;
        run(Command::new("chown").arg("postfix").arg(&data), b"")?.expect(0)?;
        let port = support::ports::free_port(std::net::Ipv4Addr::LOCALHOST)?;
        let main = format!(
            "compatibility_level = 3.6\nmail_owner = postfix\nsetgid_group = postdrop\n\
             queue_directory = {}\ndata_directory = {}\nmaillog_file = {}\nmaillog_file_prefixes = {}\n\
             inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = relay.sender.example\nmydestination =\n\
             alias_maps =\nalias_database =\nmynetworks = 127.0.0.0/8\nsmtp_dns_support_level = disabled\n\
             local_header_rewrite_clients =\nrelayhost = [127.0.0.1]:{relay}\nsmtp_tls_security_level = {security}\n",
            queue.display(),
            data.display(),
            log.display(),
            folder.display()
        );
        std::fs::write(config.join("main.cf"), main)?;
        std::fs::write(config.join("master.cf"), MASTER_CF.replace("PORT", &port.to_string()))?;
        // Makes the queue's folders, with the owners they must have.
        run(Command::new("postfix").arg("-c").arg(&config).arg("check"), b"")?.expect(0)?;
        let mut command = Command::new("/usr/lib/postfix/sbin/master");
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { master: command.spawn()?, port })
    }

    fn connect(&self) -> Result<Smtp> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match Smtp::connect(([127, 0, 0, 1], self.port).into()) {
                Err(error) if Instant::now() > deadline => return Err(error.context("Postfix does not answer")),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
                connected => return connected,
            }
        }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // SIGTERM: master ends its daemons, too. Its own session, so nobody else hears it.
        let _ = Command::new("kill").args(["-TERM", &self.master.id().to_string()]).status();
        let _ = self.master.wait();
    }
}

/// Sends all samples through a Postfix with this `smtp_tls_security_level`; they must arrive with `protocol`.
fn through_postfix(client: &str, security: &str, protocol: &str) -> Result<()> {
    if run(Command::new("id").arg("-u"), b"")?.text().trim() != "0" {
        println!("{client}: NOT TESTED, Postfix must be started by root");
        return Ok(());
    }
    let folder = folder()?;
    let (gateway, access) = running(folder.path())?;
    let postfix = Postfix::start(folder.path(), gateway.address("smtp")?.port(), security)?;
    let samples = clean_samples()?;
    let mut sender = postfix.connect()?;
    for sample in &samples {
        let reply = sender.send_data(&sender_of(sample), &[&access.address], &sample.bytes)?;
        ensure!(reply.code == 250, "Postfix: {reply:?}");
    }
    sender.quit()?;
    let log = || std::fs::read_to_string(folder.path().join("maillog")).unwrap_or_default();
    let deadline = Instant::now() + Duration::from_secs(90);
    while gateway.waiting(&access.id)?.len() < samples.len() {
        let count = gateway.waiting(&access.id)?.len();
        ensure!(Instant::now() < deadline, "{count} of {} went through Postfix:\n{}", samples.len(), log());
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(postfix);
    let arrived = arrived(&gateway, &access)?;
    let with = format!("with {protocol} ");
    let same = arrived.values().filter(|a| find(&a.trace, with.as_bytes()).is_some()).count();
    ensure!(same == samples.len(), "{client}: {same} of {} came with {protocol}", samples.len());
    judge(client, &messages(arrived), |sent, got| {
        // message_drop_headers, as it is without a setting.
        let kept = without_fields(sent, &["bcc:", "content-length:", "resent-bcc:", "return-path:"]);
        let received = got.strip_suffix(kept.as_slice());
        received
            .is_some_and(|field| field.starts_with(b"Received: ") && without_fields(field, &["received:"]).is_empty())
    })
}

#[test]
fn postfix_relays_in_clear() -> Result<()> {
    through_postfix("Postfix, no TLS", "none", "ESMTP")
}

#[test]
fn postfix_relays_with_opportunistic_tls() -> Result<()> {
    through_postfix("Postfix, TLS `may`", "may", "ESMTPS")
}

#[test]
fn postfix_relays_with_mandatory_tls() -> Result<()> {
    through_postfix("Postfix, TLS `encrypt`", "encrypt", "ESMTPS")
}

// --- Collectors ---------------------------------------------------------------------------------------------------

/// A gateway with the samples, sent without a change.
fn filled(folder: &Path) -> Result<(Gateway, Access)> {
    let (gateway, access) = running(folder)?;
    let mut sender = gateway.smtp()?;
    for sample in clean_samples()? {
        let reply = sender.send(&sender_of(&sample), &[&access.address], &sample.bytes)?;
        ensure!(reply.code == 250, "{}: {reply:?}", sample.name);
    }
    sender.quit()?;
    Ok((gateway, access))
}

/// What a client wrote, one file per message, by sample: what stands behind the trace header in the file.
fn collected(files: &[PathBuf]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for file in files {
        let bytes = std::fs::read(file)?;
        let end = find(&bytes, b"@sender.example>").context("no Return-Path")?;
        let start = bytes.get(..end).and_then(|b| b.iter().rposition(|b| *b == b'<')).context("no Return-Path")?;
        let name = String::from_utf8(bytes.get(start + 1..end).context("Return-Path")?.to_vec())?;
        // The receipt is the last field of the trace header; nothing folds it.
        let receipt = find(&bytes, b"X-Postkeep-Receipt:").context("no receipt")?;
        let rest = bytes.get(receipt..).unwrap_or_default();
        let lines: Vec<&[u8]> = rest.split_inclusive(|byte| *byte == b'\n').collect();
        let folded = lines.iter().skip(1).take_while(|l| l.starts_with(b" ") || l.starts_with(b"\t")).count();
        all.insert(name, lines.get(1 + folded..).unwrap_or_default().concat());
    }
    Ok(all)
}

fn with_crlf(bytes: &[u8]) -> Vec<u8> {
    bytes.split_inclusive(|byte| *byte == b'\n').fold(Vec::new(), |mut out, line| {
        match line.strip_suffix(b"\n") {
            Some(line) => out.extend_from_slice(&[line.strip_suffix(b"\r").unwrap_or(line), b"\r\n"].concat()),
            None => out.extend_from_slice(line),
        }
        out
    })
}

#[test]
fn fetchmail_collects() -> Result<()> {
    let folder = folder()?;
    let (gateway, access) = filled(folder.path())?;
    let out = folder.path().join("fetched");
    std::fs::create_dir(&out)?;
    let config = folder.path().join("fetchmailrc");
    let text = format!(
        "set invisible\nset no bouncemail\npoll 127.0.0.1 protocol POP3 service {} username \"{}\" password \"{}\"\n\
         ssl no sslcertck keep fetchall no rewrite no stripcr no forcecr no dropstatus no mimedecode\n\
         mda \"/bin/sh -c 'cat > $(mktemp {}/XXXXXXXX)'\"\n",
        gateway.address("pop3s")?.port(),
        access.id,
        access.password,
        out.display()
    );
    std::fs::write(&config, text)?;
    restrict(&config)?;
    let mut command = Command::new("fetchmail");
    command.env("HOME", folder.path()).env("FETCHMAILHOME", folder.path()).args(["--nodetach", "--nosyslog", "-f"]);
    command.arg(&config).arg("--pidfile").arg(folder.path().join("fetchmail.pid"));
    run(&mut command, b"")?.expect(0)?;
    judge("fetchmail", &collected(&files_below(&out)?)?, |sent, got| with_crlf(got) == sent)
}

#[test]
fn getmail_collects() -> Result<()> {
    let folder = folder()?;
    let (gateway, access) = filled(folder.path())?;
    let out = folder.path().join("got");
    std::fs::create_dir(&out)?;
    let config = folder.path().join("getmailrc");
    let text = format!(
        "[retriever]\ntype = SimplePOP3SSLRetriever\nserver = 127.0.0.1\nport = {}\nusername = {}\npassword = {}\n\
         [destination]\ntype = MDA_external\npath = /bin/sh\narguments = (\"-c\", \"cat > $(mktemp {}/XXXXXXXX)\")\n\
         allow_root_commands = true\n\
         [options]\nread_all = true\ndelete = false\ndelivered_to = false\nreceived = false\nverbose = 0\n",
        gateway.address("pop3s")?.port(),
        access.id,
        access.password,
        out.display()
    );
    std::fs::write(&config, text)?;
    restrict(&config)?;
    let mut command = Command::new("getmail");
    command.env("HOME", folder.path()).arg("--getmaildir").arg(folder.path()).arg("--rcfile").arg(&config);
    run(&mut command, b"")?.expect(0)?;
    judge("getmail", &collected(&files_below(&out)?)?, |sent, got| {
        // Every header is written anew, in embedded messages too: folded elsewhere. Return-Path goes; a missing end of
        // the last part is added.
        let sent = without_fields(sent, &["return-path:"]);
        let (sent, got) = (words(&sent), words(got));
        let ended = |got: &[&[u8]]| got.split_last().is_some_and(|(last, rest)| rest == sent && last.ends_with(b"--"));
        sent == got || ended(&got)
    })
}

/// The words of a text, whatever is between them.
fn words(text: &[u8]) -> Vec<&[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect()
}
