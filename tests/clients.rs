//! Other people's programs: curl, Python's poplib, mpop and age against the real gateway; and no plaintext anywhere.

mod support;

use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};
use support::{Access, Archiver, Gateway, archiver::restrict, files_below, folder, pop3, run, samples, smtp};

/// A running gateway with the samples that line-based clients carry exactly.
fn filled(folder: &Path) -> Result<(Gateway, Access, BTreeMap<String, Vec<u8>>)> {
    let mut gateway = Gateway::create(folder)?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let mut sender = gateway.smtp()?;
    let mut sent = BTreeMap::new();
    for sample in samples::all()?.into_iter().filter(|s| smtp::data_is_exact(&s.bytes)) {
        let reply = sender.send(sample.mail_from(), &[&access.address], &sample.bytes)?;
        ensure!(reply.code == 250, "{}: {reply:?}", sample.name);
        let (uidl, ..) = reply.receipts()?.into_iter().next().context("no receipt")?;
        sent.insert(uidl, sample.bytes);
    }
    sender.quit()?;
    Ok((gateway, access, sent))
}

/// uidl of each message number.
fn numbers(gateway: &Gateway, access: &Access) -> Result<BTreeMap<u64, String>> {
    let mut collector = gateway.pop3(access)?;
    let numbers = collector.uidl()?.into_iter().collect();
    collector.quit()?;
    Ok(numbers)
}

#[test]
fn curl_lists_and_fetches() -> Result<()> {
    let folder = folder()?;
    let (gateway, access, sent) = filled(folder.path())?;
    let address = gateway.address("pop3")?;
    let curl = |path: &str, more: &[&str]| -> Result<Vec<u8>> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--ssl-reqd", "--insecure", "--max-time", "60"]).args(more);
        command.arg(format!("pop3://{address}/{path}")).args(["-u", &format!("{}:{}", access.id, access.password)]);
        Ok(run(&mut command, b"")?.expect(0)?.out)
    };
    let lines = |bytes: Vec<u8>| String::from_utf8(bytes).map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>());
    let list = lines(curl("", &[])?)?;
    ensure!(list.len() == sent.len(), "curl lists {} of {}", list.len(), sent.len());
    let mut files: Vec<String> = gateway
        .waiting(&access.id)?
        .iter()
        .filter_map(|f| f.file_name().map(|n| n.to_string_lossy().into_owned()))
        .collect();
    let uidls = lines(curl("", &["--request", "UIDL"])?)?;
    let mut names: Vec<String> = uidls.iter().filter_map(|l| l.split_once(' ').map(|(_, n)| n.to_owned())).collect();
    files.sort();
    names.sort();
    ensure!(names == files, "UIDL does not show the names of the files");
    let mut exact = 0;
    for line in &uidls {
        let (number, uidl) = line.split_once(' ').context("UIDL line")?;
        let expected = sent.get(uidl).context("never accepted")?;
        let got = curl(number, &[])?;
        pop3::same(uidl, pop3::without_trace(&got)?, expected)?;
        exact += 1;
    }
    println!("curl: lists {}, uidl = file name {}, exact {exact} / {}", list.len(), names.len(), sent.len());
    ensure!(exact == sent.len());
    Ok(())
}

const POPLIB: &str = r"
import poplib, ssl, sys
poplib._MAXLINE = 1 << 24
host, port, user, password, out = sys.argv[1:]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
session = poplib.POP3_SSL(host, int(port), context=context)
session.user(user)
session.pass_(password)
count, _ = session.stat()
for number in range(1, count + 1):
    _, lines, octets = session.retr(number)
    message = b''.join(line + b'\r\n' for line in lines)
    with open(f'{out}/{number}', 'wb') as file:
        file.write(message)
session.quit()
print(count)
";

#[test]
fn poplib_collects_the_same_bytes() -> Result<()> {
    let folder = folder()?;
    let (gateway, access, sent) = filled(folder.path())?;
    let out = folder.path().join("poplib");
    std::fs::create_dir(&out)?;
    let port = gateway.address("pop3s")?.port().to_string();
    let mut command = Command::new("python3");
    command.args(["-c", POPLIB, "127.0.0.1", &port, &access.id, &access.password]).arg(&out);
    run(&mut command, b"")?.expect(0)?;
    let mut exact = 0;
    for (number, uidl) in numbers(&gateway, &access)? {
        let got = std::fs::read(out.join(number.to_string()))?;
        pop3::same(&uidl, pop3::without_trace(&got)?, sent.get(&uidl).context("never accepted")?)?;
        exact += 1;
    }
    println!("poplib: exact {exact} / {}", sent.len());
    ensure!(exact == sent.len());
    Ok(())
}

#[test]
fn mpop_collects_the_same_lines() -> Result<()> {
    let folder = folder()?;
    let (gateway, access, sent) = filled(folder.path())?;
    let maildir = folder.path().join("maildir");
    for part in ["cur", "new", "tmp"] {
        std::fs::create_dir_all(maildir.join(part))?;
    }
    let config = folder.path().join("mpoprc");
    let text = format!(
        "account gateway\nhost 127.0.0.1\nport {}\ntls on\ntls_starttls off\ntls_certcheck off\nauth user\nuser {}\n\
         password {}\nkeep on\nreceived_header off\nuidls_file {}\ndelivery maildir {}\n",
        gateway.address("pop3s")?.port(),
        access.id,
        access.password,
        folder.path().join("uidls").display(),
        maildir.display()
    );
    std::fs::write(&config, text)?;
    restrict(&config)?;
    run(Command::new("mpop").arg("-C").arg(&config).arg("gateway"), b"")?.expect(0)?;
    // mpop writes lines with LF, so compare as it writes.
    let unix = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let mut got: Vec<String> =
        files_below(&maildir.join("new"))?.iter().map(|f| Ok(unix(&std::fs::read(f)?))).collect::<Result<_>>()?;
    let mut collector = gateway.pop3(&access)?;
    let mut expected = Vec::new();
    for (number, uidl) in collector.uidl()? {
        let retr = collector.retr(number)?;
        pop3::same(&uidl, pop3::without_trace(&retr)?, sent.get(&uidl).context("never accepted")?)?;
        expected.push(unix(&retr));
    }
    got.sort();
    expected.sort();
    let exact = got.iter().zip(&expected).filter(|(a, b)| a == b).count();
    println!("mpop: same lines {exact} / {}", sent.len());
    ensure!(exact == sent.len() && got.len() == sent.len());
    Ok(())
}

#[test]
fn age_opens_spool_files() -> Result<()> {
    let folder = folder()?;
    let (gateway, access, sent) = filled(folder.path())?;
    let password = format!("{}\n", access.password);
    let identity = gateway.run(&["mailbox", "identity", &access.id], password.as_bytes())?.expect(0)?;
    ensure!(identity.text().contains("AGE-SECRET-KEY-1"), "no identity: {}", identity.text());
    let file = folder.path().join("identity");
    std::fs::write(&file, &identity.out)?;
    restrict(&file)?;
    let mut opened = 0;
    for spooled in gateway.waiting(&access.id)? {
        let uidl = spooled.file_name().context("name")?.to_string_lossy().into_owned();
        let plain = run(Command::new("age").args(["-d", "-i"]).arg(&file).arg(&spooled), b"")?.expect(0)?.out;
        let message = sent.get(&uidl).context("never accepted")?;
        ensure!(plain.starts_with(b"Return-Path: <") && plain.ends_with(message), "{uidl} opens to something else");
        opened += 1;
    }
    println!("age -d: opened and equal {opened} / {}", sent.len());
    ensure!(opened == sent.len());
    let (uidl, message) = sent.first_key_value().context("nothing sent")?;
    let open = gateway.run(&["open", &access.id, uidl], password.as_bytes())?.expect(0)?;
    pop3::same("open", pop3::without_trace(&open.out)?, message)?;
    let wrong = gateway.run(&["mailbox", "identity", &access.id], b"not the password at all\n")?;
    ensure!(wrong.code == 4, "wrong password: exit {} {}", wrong.code, wrong.err);
    Ok(())
}

#[test]
fn no_plaintext_is_on_disk() -> Result<()> {
    let sentinel = "SentinelQuarz7Kiesel";
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let forms = forms(sentinel);

    // The search itself must be able to fail.
    let planted = folder.path().join("planted");
    std::fs::create_dir(&planted)?;
    for (name, form) in &forms {
        std::fs::write(planted.join("file"), [b"some text ".as_slice(), form, b" more"].concat())?;
        ensure!(hits(std::slice::from_ref(&planted), &forms)?.1.len() == 1, "the search does not find {name}");
    }

    let (from, to) = (format!("{}@partner.example", sentinel.to_lowercase()), "bob@aurora.example");
    let mut sender = gateway.smtp()?;
    let mut scans = 0;
    let mut scan = |folders: &[PathBuf]| -> Result<()> {
        let (files, hits) = hits(folders, &forms)?;
        ensure!(hits.is_empty(), "plaintext on disk: {hits:?}");
        scans += files;
        Ok(())
    };
    for n in 0..20 {
        let original = sentinel_message(sentinel, n);
        let report = support::report(&from, &[to], sentinel, &format!("<{sentinel}.{n}@partner.example>"), &original);
        ensure!(sender.send(&from, &[&access.address], &report)?.code == 250);
        scan(&[gateway.data()])?;
    }
    // A message that is still arriving, and one that was broken off.
    let mut open = gateway.smtp()?;
    open.command(&format!("MAIL FROM:<{from}>"))?;
    open.command(&format!("RCPT TO:<{}>", access.address))?;
    open.command("DATA")?;
    let long = format!("Subject: {sentinel}\r\n\r\n{}", format!("{sentinel} and more text\r\n").repeat(20_000));
    open.raw(long.as_bytes())?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    scan(&[gateway.data()])?;
    drop(open);

    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    archiver.round()?;
    scan(&[gateway.data(), archiver.data()])?;
    ensure!(!archiver.list("bob")?.is_empty(), "nothing was archived, so nothing was tested");
    let log = gateway.server()?.log();
    ensure!(!forms.iter().any(|(_, form)| support::find(log.as_bytes(), form).is_some()), "plaintext in the log");
    gateway.stop()?;
    scan(&[gateway.data(), archiver.data()])?;
    println!("sentinel: {} forms, {scans} files read, 0 hits", forms.len());
    Ok(())
}

fn sentinel_message(sentinel: &str, n: usize) -> Vec<u8> {
    let attachment = data_encoding::BASE64.encode(format!("binary \u{1} {sentinel} attachment").repeat(100).as_bytes());
    let attachment: Vec<&str> = attachment.as_bytes().chunks(76).filter_map(|l| std::str::from_utf8(l).ok()).collect();
    format!(
        "From: <{0}@partner.example>\r\nTo: <bob@aurora.example>\r\nSubject: {0}\r\nX-Note: {0}\r\n\
         Message-ID: <{0}.{2}@partner.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\n\
         --b\r\nContent-Type: text/plain\r\n\r\nThe word is {0}.\r\n--b\r\nContent-Type: application/octet-stream; name=\"{0}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{1}\r\n--b--\r\n",
        sentinel,
        attachment.join("\r\n"),
        n
    )
    .into_bytes()
}

/// The spellings to look for: as it is, in lower case, in base64 at each of three offsets, in UTF-16, in hex.
fn forms(sentinel: &str) -> Vec<(String, Vec<u8>)> {
    let mut forms = vec![
        ("as it is".to_owned(), sentinel.into()),
        ("lower case".to_owned(), sentinel.to_lowercase().into()),
        ("hex".to_owned(), data_encoding::HEXLOWER.encode(sentinel.as_bytes()).into()),
        ("UTF-16LE".to_owned(), sentinel.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("UTF-16BE".to_owned(), sentinel.encode_utf16().flat_map(u16::to_be_bytes).collect()),
    ];
    for offset in 0..3 {
        let padded = [vec![b' '; offset], sentinel.into()].concat();
        let encoded = data_encoding::BASE64_NOPAD.encode(&padded);
        // Only the characters that hold nothing but octets of the sentinel.
        let (start, whole) = ((offset * 8).div_ceil(6), padded.len() * 8 / 6);
        forms.push((format!("base64 at {offset}"), encoded.as_bytes()[start..whole].to_vec()));
    }
    forms
}

/// Number of files below the folders, and those that hold one of the forms.
fn hits(folders: &[PathBuf], forms: &[(String, Vec<u8>)]) -> Result<(usize, Vec<String>)> {
    let (mut files, mut hits) = (0, Vec::new());
    for folder in folders {
        for file in files_below(folder)? {
            // Files come and go under a running server.
            let Ok(bytes) = std::fs::read(&file) else { continue };
            files += 1;
            for (name, form) in forms {
                if support::find(&bytes, form).is_some() {
                    hits.push(format!("{} ({name})", file.display()));
                }
            }
        }
    }
    hits.dedup();
    Ok((files, hits))
}
