//! A multidrop mailbox on a server that is not ours: Dovecot, over TLS, without XLEDGER and XRETR.
//!
//! Messages as Postfix leaves them there: the headers of the trusted server above its `Received`, forged ones below. Each
//! is filed once to everyone concerned, read back, and only then gone from the mailbox.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    fmt::Write as _,
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use support::{Archiver, Gateway, archiver::restrict, files_below, folder, message, run, sha256};

const PASSWORD: &str = "mailbox-of-all-of-us";

/// A Dovecot of its own, with one mailbox per login name.
struct Dovecot {
    folder: PathBuf,
    port: u16,
    child: Child,
}

impl Dovecot {
    /// Starts it with the certificate of a gateway, whose pin is known.
    fn start(folder: &Path, gateway: &Gateway) -> Result<Self> {
        let port = support::ports::free_port(std::net::Ipv4Addr::LOCALHOST)?;
        let root = folder.join("dovecot");
        fs::create_dir(&root)?;
        // Its processes are other users.
        for open in [folder, root.as_path()] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o755))?;
        }
        let tls = gateway.data().join("tls");
        let pem: Vec<PathBuf> =
            files_below(&tls)?.into_iter().filter(|f| f.extension().is_some_and(|e| e == "pem")).collect();
        let of = |what: &str| -> Result<PathBuf> {
            let has = |file: &&PathBuf| fs::read_to_string(file).is_ok_and(|text| text.contains(what));
            Ok(pem
                .iter()
                .chain(&files_below(&tls)?)
                .find(has)
                .with_context(|| format!("no {what} in {}", tls.display()))?
                .clone())
        };
        let (certificate, key) = (of("BEGIN CERTIFICATE")?, of("PRIVATE KEY")?);
        let at = root.display();
        let config = format!(
            "base_dir = {at}/run\nstate_dir = {at}/run\nlog_path = {at}/log\nprotocols = pop3\nlisten = 127.0.0.1\n\
             ssl = required\nssl_cert = <{}\nssl_key = <{}\nauth_mechanisms = plain\nmail_location = maildir:{at}/mail/%u\n\
             first_valid_uid = 1\npassdb {{\n  driver = static\n  args = password={PASSWORD}\n}}\n\
             userdb {{\n  driver = static\n  args = uid=nobody gid=nogroup home={at}/mail/%u\n}}\n\
             service pop3-login {{\n  chroot =\n  inet_listener pop3 {{\n    port = 0\n  }}\n\
             inet_listener pop3s {{\n    address = 127.0.0.1\n    port = {port}\n    ssl = yes\n  }}\n}}\n\
             service anvil {{\n  chroot =\n}}\n",
            certificate.display(),
            key.display()
        );
        let file = root.join("dovecot.conf");
        fs::write(&file, config)?;
        fs::create_dir(root.join("run"))?;
        let mut command = Command::new("dovecot");
        command.arg("-F").arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().context("dovecot cannot be started; tests/run installs it")?;
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = child.try_wait()?;
            let log = || fs::read_to_string(root.join("log")).unwrap_or_default();
            ensure!(
                ended.is_none() && started.elapsed() < Duration::from_secs(60),
                "dovecot does not serve: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { folder: root, port, child })
    }

    /// Puts messages into a mailbox, and gives it to the user it is served as.
    fn deliver(&self, mailbox: &str, messages: &[Vec<u8>]) -> Result<()> {
        let maildir = self.folder.join("mail").join(mailbox);
        for part in ["cur", "new", "tmp"] {
            fs::create_dir_all(maildir.join(part))?;
        }
        let there = files_below(&maildir)?.len();
        for (n, message) in messages.iter().enumerate() {
            fs::write(maildir.join("new").join(format!("{}.M{n}.host", 1_780_000_000 + there)), message)?;
        }
        run(Command::new("chown").args(["-R", "nobody:nogroup"]).arg(self.folder.join("mail")), b"")?.expect(0)?;
        Ok(())
    }

    /// Messages that are in a mailbox.
    fn waiting(&self, mailbox: &str) -> Result<usize> {
        let maildir = self.folder.join("mail").join(mailbox);
        Ok(files_below(&maildir.join("new"))?.len() + files_below(&maildir.join("cur"))?.len())
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // SIGTERM: its other processes end with it.
        let _ = run(Command::new("kill").arg(self.child.id().to_string()), b"");
        let _ = self.child.wait();
    }
}

fn source(name: &str, dovecot: &Dovecot, pin: &str, more: &str) -> String {
    format!(
        "\n[[source]]\nname = \"{name}\"\nkind = \"pop3\"\nhosts = [\"127.0.0.1:{}\"]\nmailbox = \"{name}\"\n\
         password_file = \"pop3.password\"\ntls = {{ verify = \"pin\", pin_sha256 = [\"{pin}\"] }}\n{more}",
        dovecot.port
    )
}

/// As the trusted server leaves it: its headers, its `Received`, then what came.
fn delivered(envelope: &str, forged: &str, original: &[u8]) -> Vec<u8> {
    let mut head = String::from("Delivered-To: all@aurora.example\n");
    for recipient in envelope.split_whitespace() {
        let _ = writeln!(head, "X-Envelope-To: {recipient}");
    }
    head += "Received: from out.other.example (out.other.example [198.51.100.7])\n\tby mx.aurora.example (Postfix) with ESMTPS id 4X;\n\tTue, 18 Aug 2026 10:00:00 +0000 (UTC)\n";
    for recipient in forged.split_whitespace() {
        let _ = writeln!(head, "X-Envelope-To: {recipient}");
    }
    [head.into_bytes(), String::from_utf8_lossy(original).replace("\r\n", "\n").into_bytes()].concat()
}

fn crlf(octets: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(octets).replace('\n', "\r\n").into_bytes()
}

fn n(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(u64::MAX)
}

#[test]
fn a_mailbox_of_dovecot_is_emptied_into_the_archives() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let pin = gateway.pin()?;
    let dovecot = Dovecot::start(folder.path(), &gateway)?;
    let archiver = Archiver::create(folder.path())?;
    let password = archiver.folder.join("pop3.password");
    fs::write(&password, format!("{PASSWORD}\n"))?;
    restrict(&password)?;
    let multidrop =
        "profile = \"multidrop\"\ntrusted_host = \"mx.aurora.example\"\nignore_addresses = [\"all@aurora.example\"]\n";
    let journal = "profile = \"journal\"\ntenants = [\"aurora.onmicrosoft.com\"]\n";
    archiver.configure(
        &(source("all", &dovecot, &pin, multidrop)
            + &source("box", &dovecot, &pin, "profile = \"single\"\nowner = \"dora\"\ndelete = \"never\"\n")
            + &source("reports", &dovecot, &pin, journal)),
    )?;

    // To bob, a blind copy to carl; erik is named below the trusted line only.
    let blind = message("blind", "x@other.example", "bob@aurora.example", "Blind copy", ".\n..dots\nbody");
    let outgoing = message("out", "ann@aurora.example", "y@other.example", "Outgoing", "x");
    let mails = [
        delivered("bob@aurora.example carl@aurora.example", "erik@aurora.example", &blind),
        delivered("y@other.example", "", &outgoing),
    ];
    dovecot.deliver("all", &mails)?;
    dovecot.deliver("box", &mails[..1])?;
    let (report, original) = support::numbered_report(1);
    let tenant = [b"X-OriginatorOrg: aurora.onmicrosoft.com\r\n".as_slice(), &report].concat();
    let stranger = [b"X-OriginatorOrg: other.example\r\n".as_slice(), &support::numbered_report(2).0].concat();
    let lf = |octets: &[u8]| String::from_utf8_lossy(octets).replace("\r\n", "\n").into_bytes();
    dovecot.deliver("reports", &[lf(&tenant), lf(&stranger)])?;

    let rounds = archiver.run(&["run", "--once", "--json"], b"")?.expect(1)?.json_stream()?;
    let [all, one, reports] = rounds.as_slice() else { anyhow::bail!("{rounds:?}") };
    ensure!(n(all, "collected") == 2 && n(all, "filed") == 2 && n(all, "deleted") == 2, "{all}");
    ensure!(n(one, "collected") == 1 && n(one, "filed") == 1 && n(one, "deleted") == 0, "{one}");
    ensure!(n(reports, "filed") == 1 && n(reports, "quarantined") == 1, "{reports}");
    ensure!(dovecot.waiting("all")? == 0 && dovecot.waiting("box")? == 1, "deleted as the sources say");

    let sums = |owner: &str| -> Result<Vec<String>> {
        Ok(archiver.list(owner)?.iter().filter_map(|e| e["sha256"].as_str().map(str::to_owned)).collect())
    };
    // POP3 gives lines with CRLF; that is what came, and what is kept.
    let [blind_sum, outgoing_sum] = [&mails[0], &mails[1]].map(|mail| sha256(&crlf(mail)));
    ensure!(sums("carl")? == [blind_sum.clone()] && sums("dora")? == [blind_sum.clone()], "{:?}", sums("carl")?);
    ensure!(sums("ann")?.contains(&outgoing_sum) && sums("bob")?.contains(&blind_sum));
    ensure!(sums("bob")?.contains(&sha256(&original)), "the report was unwrapped");
    ensure!(sums("erik")?.is_empty(), "named by the sender only");
    ensure!(sums("@catchall")?.is_empty());

    let again = archiver.run(&["run", "--once", "--json"], b"")?.expect(0)?.json_stream()?;
    ensure!(again.iter().all(|source| n(source, "collected") == 0), "{again:?}");
    let (code, rows) = archiver.reconcile()?;
    ensure!(
        code == 0 && rows.iter().all(|row| n(row, "collected") == n(row, "filed") + n(row, "quarantined")),
        "{rows:?}"
    );
    let (code, verified) = archiver.verify()?;
    ensure!(code == 0, "{verified}");
    println!(
        "Dovecot: multidrop 2 filed and deleted, single 1 kept at the source, journal 1 filed and 1 held, 0 wrong owners"
    );
    Ok(())
}
