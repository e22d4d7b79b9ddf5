//! No plaintext on the disk, in no block of it: both programs work on an ext4 image with marked mail; then every octet of
//! the raw image, deleted files and the journal of the file system included, and the logs at their most talkative are
//! searched for the marks, for the mailbox password, before and after its change, and for the key that it opens.
//!
//! The run holds large messages, messages that were never finished, wrong logins, a killed gateway, a power cut, removed
//! and purged messages, an export (to another disk). Needs root and loop devices, as `tests/power.rs`.

#[path = "support/scan.rs"]
mod scan;
mod support;

use anyhow::{Context as _, Result, ensure};
use scan::{Scanner, base64};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use support::{Access, Archiver, Gateway, Image, Pop3, Random, Server, Smtp, folder, report, run};

const KINDS: [&str; 3] = ["smtp", "pop3", "pop3s"];
const LARGE: usize = 6 << 20;

/// Both programs on an image, and what stays outside: logs, the archiver's copy of the password.
struct Scene {
    image: Image,
    gateway: Gateway,
    archiver: Archiver,
    access: Access,
    mark: String,
    logs: PathBuf,
    log: usize,
    outside: tempfile::TempDir,
}

impl Scene {
    fn new(random: &mut Random) -> Result<Option<Self>> {
        let outside = folder()?;
        let Some(image) = Image::create(outside.path(), 256)? else { return Ok(None) };
        let gateway = Gateway::create(image.folder())?;
        gateway.configure("\n[log]\nlevel = \"trace\"\n")?;
        let access = gateway.create_mailbox()?;
        let archiver = Archiver::create(image.folder())?;
        let mark = format!("Mark{:016x}Kram", random.number());
        let logs = outside.path().join("logs");
        std::fs::create_dir(&logs)?;
        Ok(Some(Self { image, gateway, archiver, access, mark, logs, log: 0, outside }))
    }

    /// Starts the gateway at its most talkative; its log is kept by [`Self::keep`].
    fn start(&self) -> Result<Server> {
        Server::start(self.gateway.command(&["serve"])?.env("RUST_LOG", "trace"), &KINDS)
    }

    /// The archiver's copy of the password stays outside of the image: in clear it is meant to be (docs/sources.md).
    fn point(&self, server: &Server) -> Result<()> {
        let password = self.outside.path().join("m365.password");
        std::fs::write(&password, format!("{}\n", self.access.password))?;
        support::archiver::restrict(&password)?;
        self.archiver.configure(&format!(
            "[log]\nlevel = \"trace\"\n[[source]]\nname = \"m365\"\nkind = \"gateway\"\nprofile = \"journal\"\n\
             hosts = [\"{}\"]\nmailbox = \"{}\"\npassword_file = \"{}\"\n\
             tls = {{ verify = \"pin\", pin_sha256 = [\"{}\"] }}\ninterval = \"1s\"\ndelete = \"at-once\"\n",
            server.address("pop3s")?,
            self.access.id,
            password.display(),
            self.gateway.pin()?
        ))
    }

    fn keep(&mut self, text: &str) -> Result<()> {
        self.log += 1;
        ensure!(text.len() > 100, "an empty log proves nothing: {text:?}");
        Ok(std::fs::write(self.logs.join(format!("{}.log", self.log)), text)?)
    }

    /// One round; its log is kept.
    fn round(&mut self) -> Result<()> {
        let output = run(self.archiver.command(&["run", "--once", "--json"])?.env("RUST_LOG", "trace"), b"")?;
        self.keep(&output.err)?;
        output.expect(0).map(drop)
    }

    /// A report whose message has the mark in every form in which it may come: as it is, in base64, in UTF-16.
    fn report(&self, n: usize, octets: usize) -> Vec<u8> {
        let mark = &self.mark;
        let (little, big): (Vec<u8>, Vec<u8>) = (
            mark.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            mark.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        );
        let mut body = format!("{mark} in the text\n").into_bytes();
        for part in [mark.as_bytes(), &little, &big] {
            for shift in 0..3 {
                body.extend(data_encoding::BASE64.encode(&[&b"xyz"[..shift], part].concat()).into_bytes());
                body.push(b'\n');
            }
        }
        let line = format!("{mark} fills {n:08}\n");
        body.extend(line.repeat(octets / line.len()).into_bytes());
        let (from, to) = (format!("{mark}@outside.example"), "bob@aurora.example");
        let body = String::from_utf8_lossy(&body).into_owned();
        let mut original = support::message(&format!("{mark}-{n}"), &from, to, &format!("{mark} {n}"), &body);
        // As some clients write text: not possible by DATA, by BDAT it is.
        original.extend([&little[..], b"\r\n", &big, b"\r\n"].concat());
        report(&from, &[to], &format!("{mark} {n}"), &format!("<{mark}-{n}@aurora.example>"), &original)
    }

    fn send(&self, server: &Server, n: usize, octets: usize) -> Result<()> {
        let mut sender = Smtp::connect(server.address("smtp")?)?;
        let reply = sender.send("", &[&self.access.address], &self.report(n, octets))?;
        ensure!(reply.code == 250, "{reply:?}");
        Ok(())
    }

    /// Begins a message and leaves it at that.
    fn half(&self, server: &Server, octets: usize) -> Result<Smtp> {
        let mut sender = Smtp::connect(server.address("smtp")?)?;
        for line in ["MAIL FROM:<>".to_owned(), format!("RCPT TO:<{}>", self.access.address), "DATA".to_owned()] {
            let reply = sender.command(&line)?;
            ensure!(matches!(reply.code, 250 | 354), "{reply:?}");
        }
        sender.raw(format!("{}\r\n", self.mark).repeat(octets / self.mark.len()).as_bytes())?;
        Ok(sender)
    }

    /// Searches the raw image and the logs; hits and octets.
    fn search(&self, scanner: &Scanner) -> Result<(usize, u64)> {
        let (mut count, mut octets) = (0, 0);
        let logs = support::files_below(&self.logs)?;
        for file in logs.iter().map(PathBuf::as_path).chain([self.image.file()]) {
            let (hits, len) = scanner.file(file)?;
            for hit in hits.iter().take(5) {
                eprintln!("{hit:?}");
            }
            count += hits.len();
            octets += len;
        }
        Ok((count, octets))
    }
}

fn wrong_login(server: &Server, pin: &str, name: &str, password: &str) -> Result<()> {
    let mut pop3 = Pop3::connect_tls(server.address("pop3s")?, pin)?;
    ensure!(pop3.login(name, password).is_err(), "a wrong password opened the mailbox");
    Ok(())
}

/// Everything a run holds up to the power cut.
fn before_the_cut(scene: &mut Scene) -> Result<()> {
    let server = scene.start()?;
    scene.point(&server)?;
    scene.send(&server, 1, 100)?;
    scene.send(&server, 2, LARGE)?;
    drop(scene.half(&server, 3 << 20)?);
    wrong_login(&server, &scene.gateway.pin()?, &scene.access.id, &format!("{}-wrong", scene.mark))?;
    scene.round()?;
    scene.send(&server, 3, 200_000)?;
    // Killed with a message under way.
    let half = scene.half(&server, 3 << 20)?;
    let (_, log) = server.signal("KILL")?;
    drop(half);
    scene.keep(&log)?;

    let server = scene.start()?;
    scene.point(&server)?;
    scene.send(&server, 4, LARGE)?;
    // The power goes while both programs work.
    let mut round = scene.archiver.command(&["run", "--once"])?;
    let mut round = round.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let half = scene.half(&server, 5 << 20)?;
    std::thread::sleep(Duration::from_millis(700));
    scene.image.cut()?;
    round.kill()?;
    round.wait()?;
    let (_, log) = server.signal("KILL")?;
    drop(half);
    scene.keep(&log)?;
    scene.image.unmount()
}

/// And after it: recovery, the rest of the mail, another password, purged and exported messages.
fn after_the_cut(scene: &mut Scene) -> Result<String> {
    scene.image.mount()?;
    let new = format!("{}-another-password", scene.mark.to_lowercase());
    let input = format!("{}\n{new}\n", scene.access.password);
    scene.gateway.run(&["mailbox", "passwd", &scene.access.id, "--stdin"], input.as_bytes())?.expect(0)?;
    scene.access.password.clone_from(&new);
    let server = scene.start()?;
    scene.point(&server)?;
    scene.send(&server, 5, 3 << 20)?;
    scene.round()?;
    let (_, log) = server.signal("TERM")?;
    scene.keep(&log)?;
    ensure!(scene.gateway.waiting(&scene.access.id)?.is_empty(), "messages stay at the gateway");
    let listed = scene.archiver.list("bob")?;
    ensure!(listed.len() == 5, "{} messages archived instead of 5", listed.len());
    let out = scene.outside.path().join("export");
    let export = ["export", "--all", "--format", "eml", "--out", &out.display().to_string()];
    let output = run(scene.archiver.command(&export)?.env("RUST_LOG", "trace"), b"")?.expect(0)?;
    let exported = support::files_below(&out)?;
    ensure!(
        exported.iter().any(|file| contains(file, &scene.mark)),
        "the export does not hold the mark: {}",
        output.err
    );
    // What the trash held is free space from now on.
    for file in support::files_below(&scene.gateway.data().join("spool").join(&scene.access.id).join("trash"))? {
        std::fs::remove_file(file)?;
    }
    scene.gateway.run(&["verify"], b"")?.expect(0)?;
    ensure!(scene.archiver.verify()?.0 == 0);
    scene.image.unmount()?;
    Ok(new)
}

fn contains(file: &Path, mark: &str) -> bool {
    std::fs::read(file).is_ok_and(|octets| support::find(&octets, mark.as_bytes()).is_some())
}

#[test]
fn no_octet_of_mail_or_password_is_in_clear() -> Result<()> {
    let (mut random, seed) = Random::seeded();
    let Some(mut scene) = Scene::new(&mut random)? else { return Ok(()) };
    let input = format!("{}\n", scene.access.password);
    let identity = scene.gateway.run(&["mailbox", "identity", &scene.access.id], input.as_bytes())?.expect(0)?.text();
    let identity =
        identity.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).context("an identity")?.to_owned();
    let mut scanner = Scanner::default();
    scanner.add("mark", &scene.mark);
    scanner.add("password", &scene.access.password.clone());
    scanner.add("key", &identity);

    before_the_cut(&mut scene)?;
    let (cut, _) = scene.search(&scanner)?;
    let new = after_the_cut(&mut scene)?;
    scanner.add("new password", &new);
    let (end, octets) = scene.search(&scanner)?;
    println!(
        "plaintext scan: seed {seed}, {} forms, {octets} octets of raw image and logs at trace; hits after the power cut \
         {cut}, at the end {end}",
        scanner.forms()
    );
    ensure!(cut == 0 && end == 0);

    // The scanner finds what is there: planted, in a file that was removed, in base64 at an odd place.
    scene.image.mount()?;
    let planted = scene.image.folder().join("planted");
    std::fs::write(&planted, [b"?".repeat(5001), base64(scene.mark.as_bytes(), 2)].concat())?;
    std::fs::File::open(&planted)?.sync_all()?;
    std::fs::remove_file(&planted)?;
    scene.image.unmount()?;
    let found = scanner.file(scene.image.file())?.0;
    println!("planted and removed: {} hit", found.len());
    ensure!(found.len() == 1 && found[0].what.contains("base64 at 2"), "{found:?}");
    Ok(())
}

#[test]
fn every_form_is_found_at_every_place() {
    let mut scanner = Scanner::default();
    scanner.add("mark", "Mark0123456789Kram");
    let little: Vec<u8> = "Mark0123456789Kram".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = "Mark0123456789Kram".encode_utf16().flat_map(u16::to_be_bytes).collect();
    for secret in [b"Mark0123456789Kram".as_slice(), &little, &big] {
        for before in 0..9 {
            let text = [&b"someword!"[..before], secret, b"tail"].concat();
            for octets in [text.clone(), data_encoding::BASE64.encode(&text).into_bytes()] {
                assert!(!scanner.octets(&octets).is_empty(), "{before} octets before {secret:?}");
            }
        }
    }
    assert!(scanner.octets(b"nothing of it").is_empty());
    // Across the border between two steps of a file.
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), [b"-".repeat((1 << 20) - 7), b"Mark0123456789Kram".to_vec()].concat()).expect("writes");
    let (hits, octets) = scanner.file(file.path()).expect("reads");
    assert_eq!((hits.len(), hits[0].offset, octets), (1, (1 << 20) - 7, (1 << 20) + 11));
}
