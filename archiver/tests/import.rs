//! `import`: every form of files, the same count whatever happens in between, and nothing twice.
//!
//! `POSTKEEP_IMPORT` sets how many messages the killed imports have (10,000 in the full run), `POSTKEEP_KILLS` how often
//! each is killed, `POSTKEEP_SEED` repeats a run.

#[path = "../../tests/support/mod.rs"]
mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};
use support::{Archiver, Random, folder, numbered_report, sha256};

const MESSAGES: usize = 1000;
const KILLS: u64 = 20;
/// Longest life of an import in milliseconds at first; it follows the machine: one that ended makes it shorter.
const LONGEST: u64 = 40;
/// Messages of one commit.
const BATCH: u64 = 64;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs an import to its end; its exit code must be `code`, and its numbers must add up.
fn import(archiver: &Archiver, arguments: &[&str], code: i32) -> Result<Value> {
    let arguments: Vec<&str> = ["import", "--json"].iter().chain(arguments).copied().collect();
    let counts = archiver.run(&arguments, b"")?.expect(code)?.json()?;
    let n = |key: &str| counts[key].as_u64().unwrap_or(u64::MAX);
    let gone = ["filed", "catchall", "duplicates", "dead_letters", "quarantined", "left", "failed"].map(n);
    ensure!(n("read") == gone.iter().sum::<u64>() && counts["ok"] == true, "{counts}");
    Ok(counts)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

fn message(n: usize) -> Vec<u8> {
    let text =
        format!("Number {n}.\n\nFrom here on it is text\n>From there too\n>>From everywhere\n{}", "y".repeat(n % 700));
    let to = if n.is_multiple_of(3) { "bob@aurora.example" } else { "ann@aurora.example" };
    let from = if n.is_multiple_of(5) { "ann@aurora.example" } else { "x@other.example" };
    let message = support::message(&format!("import-{n}"), from, to, &format!("Import {n}"), &text);
    String::from_utf8(message).unwrap_or_default().replace("\r\n", "\n").into_bytes()
}

fn put(file: &Path, octets: &[u8]) -> Result<()> {
    fs::create_dir_all(file.parent().context("a folder")?)?;
    Ok(fs::write(file, octets)?)
}

/// An mboxrd file.
fn mbox(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for message in messages {
        file.extend_from_slice(b"From x@other.example Tue Aug 18 10:00:00 2026\n");
        for line in String::from_utf8_lossy(message).split_inclusive('\n') {
            let quoted = line.trim_start_matches('>').starts_with("From ");
            file.extend_from_slice(if quoted { b">" } else { b"" });
            file.extend_from_slice(line.as_bytes());
        }
        file.push(b'\n');
    }
    file
}

fn sums(archiver: &Archiver, owner: &str) -> Result<Vec<(String, String)>> {
    let text = |entry: &Value, key: &str| entry[key].as_str().map(str::to_owned).context("list --json");
    archiver.list(owner)?.iter().map(|entry| Ok((text(entry, "folder")?, text(entry, "sha256")?))).collect()
}

/// Octets of the records: they grow with each commit.
fn recorded(archiver: &Archiver) -> Result<u64> {
    let files = support::files_below(&archiver.store().join("records"))?;
    Ok(files.iter().filter_map(|file| Some(fs::metadata(file).ok()?.len())).sum())
}

/// Until the import has made so many commits, or has ended.
fn wait_for(archiver: &Archiver, child: &mut Child, commits: u64) -> Result<()> {
    let waited = Instant::now();
    for _ in 0..commits {
        let before = recorded(archiver)?;
        while recorded(archiver)? == before {
            if child.try_wait()?.is_some() || waited.elapsed().as_secs() > 60 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Kills imports at random moments, then lets one end: every message once, and the count of an import that was never
/// disturbed.
fn killed(what: &str, make: impl FnOnce(&Path, &[Vec<u8>]) -> Result<PathBuf>) -> Result<()> {
    let count = usize::try_from(number("POSTKEEP_IMPORT", MESSAGES as u64))?;
    let (kills, (mut random, seed)) = (number("POSTKEEP_KILLS", KILLS), Random::seeded());
    let folder = folder()?;
    let archiver = Archiver::create(folder.path())?;
    let messages: Vec<Vec<u8>> = (0..count).map(message).collect();
    let source = make(folder.path(), &messages)?;
    let arguments = ["import", path(&source), "--owner", "ann"];
    let started = Instant::now();
    let (mut killed, mut ended, mut longest) = (0, 0, LONGEST as f64);
    while killed < kills {
        let mut child =
            archiver.command(&arguments)?.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // Half of them anywhere near the start, half of them around a commit, so that all of them reach the end. One
        // that comes after the end makes no commits.
        if ended == 0 && random.below(2) == 0 {
            let commits = 1 + random.below(1 + 3 * (count as u64 / BATCH) / kills);
            wait_for(&archiver, &mut child, commits)?;
            std::thread::sleep(Duration::from_millis(random.below(60)));
        } else {
            std::thread::sleep(Duration::from_millis(random.below(longest as u64)));
        }
        let at_work = child.try_wait()?.is_none();
        longest = (longest * if at_work { 1.15 } else { 0.7 }).max(2.0);
        killed += u64::from(at_work);
        ended += u64::from(!at_work);
        ensure!(ended < 5 * kills, "imports end before they can be killed");
        child.kill()?;
        child.wait()?;
    }
    let counts = import(&archiver, &arguments[1..], 0)?;
    println!(
        "{what}, seed {seed}: {count} messages, killed {killed} times, {ended} had ended, {:.0?}: {counts}",
        started.elapsed()
    );
    ensure!(counts["read"] == count && counts["filed"] == count && counts["duplicates"] == 0, "{counts}");
    ensure!(counts["before"].as_u64() > Some(0), "no import got anywhere before it was killed");
    let found = sums(&archiver, "ann")?;
    let distinct: BTreeSet<&(String, String)> = found.iter().collect();
    let wanted: BTreeSet<String> = messages.iter().map(|message| sha256(message)).collect();
    let twice = found.len() - distinct.len();
    let missing = wanted.iter().filter(|sum| !found.iter().any(|(_, found)| found == *sum)).count();
    println!("{what}: in the archive {}, twice {twice}, missing {missing}", found.len());
    ensure!(found.len() == count && twice == 0 && missing == 0);
    let again = import(&archiver, &arguments[1..], 0)?;
    ensure!(again["filed"] == count && again["before"] == count && again["instances"] == 0, "{again}");
    let (code, verified) = archiver.verify()?;
    ensure!(code == 0, "{verified}");
    Ok(())
}

#[test]
fn a_maildir_that_is_killed_again_and_again_is_imported_once() -> Result<()> {
    killed("Maildir", |folder, messages| {
        let maildir = folder.join("Maildir");
        for (n, message) in messages.iter().enumerate() {
            let (part, flags) = if n.is_multiple_of(2) { ("cur", ":2,S") } else { ("new", "") };
            put(&maildir.join(part).join(format!("{n}.M1P2.host{flags}")), message)?;
        }
        Ok(maildir)
    })
}

#[test]
fn an_mbox_that_is_killed_again_and_again_is_imported_once() -> Result<()> {
    killed("mbox", |folder, messages| {
        let file = folder.join("old.mbox");
        put(&file, &mbox(messages))?;
        Ok(file)
    })
}

#[test]
fn folders_files_and_what_is_no_mail() -> Result<()> {
    let folder = folder()?;
    let archiver = Archiver::create(folder.path())?;
    let root = folder.path().join("mail");
    for (name, octets) in [
        ("a.eml", message(1)),
        ("sub/b.eml", message(2)),
        ("sub/again.eml", message(2)),
        ("other/b.eml", message(2)),
        ("sub/empty.eml", Vec::new()),
        ("sub/junk.eml", b"\x00\x01\x02 no field at all".to_vec()),
        ("notes.txt", b"not a mail".to_vec()),
        ("box/cur/1:2,S", message(3)),
        ("box/new/2", message(4)),
        ("box/.Gel&APY-scht/cur/3", message(5)),
        ("box/.Gel&APY-scht/new/.x", message(6)),
        ("Sent.mbox", mbox(&[message(7), message(8)])),
    ] {
        put(&root.join(name), &octets)?;
    }
    let arguments = [path(&root), "--owner", "ann"];
    let counts = import(&archiver, &arguments, 1)?;
    ensure!(counts["read"] == 12 && counts["filed"] == 9 && counts["duplicates"] == 1, "{counts}");
    ensure!(counts["quarantined"] == 2 && counts["skipped"] == 1, "{counts}");
    let found: BTreeSet<(String, String)> = sums(&archiver, "ann")?.into_iter().collect();
    let wanted: BTreeSet<(String, String)> = [
        ("Journal Incoming", 1),
        ("sub", 2),
        ("other", 2),
        ("box", 3),
        ("box", 4),
        ("box/Gelöscht", 5),
        ("box/Gelöscht", 6),
        ("Sent", 7),
        ("Sent", 8),
    ]
    .map(|(folder, n)| (folder.to_owned(), sha256(&message(n))))
    .into();
    ensure!(found == wanted, "{found:#?}");
    let again = import(&archiver, &arguments, 1)?;
    for key in ["read", "filed", "duplicates", "quarantined"] {
        ensure!(again[key] == counts[key], "{key}: {again}");
    }
    ensure!(again["before"] == 11 && again["instances"] == 0, "{again}");
    archiver.run(&["import", path(&root), "--owner", "nobody"], b"")?.expect(2)?;
    archiver.run(&["import", path(&root), "--source", "nothing"], b"")?.expect(2)?;
    archiver.run(&["import", path(&root)], b"")?.expect(2)?;
    archiver.run(&["import", "/no/such/path", "--owner", "ann"], b"")?.expect(3)?;
    // What is held can be released by a person.
    let released =
        archiver.run(&["quarantine", "release", "--all", "--reason", "it is mail", "--json"], b"")?.expect(0)?;
    ensure!(released.json_stream()?.len() == 2);
    println!("folders: {counts}");
    Ok(())
}

#[test]
fn reports_in_files_are_filed_as_their_source_says() -> Result<()> {
    let folder = folder()?;
    let archiver = Archiver::create(folder.path())?;
    let source = |profile: &str, more: &str| {
        format!(
            "\n[[source]]\nname = \"{profile}\"\nkind = \"pop3\"\nprofile = \"{profile}\"\nhosts = [\"127.0.0.1:995\"]\n\
             mailbox = \"all@aurora.example\"\npassword_file = \"p\"\n{more}"
        )
    };
    archiver.configure(
        &(source("journal", "")
            + &source("multidrop", "unknown = \"leave\"\n")
            + &source("single", "owner = \"dora\"\n")),
    )?;
    let root = folder.path().join("reports");
    let reports: Vec<(Vec<u8>, Vec<u8>)> = (0..5).map(numbered_report).collect();
    for (n, (report, _)) in reports.iter().enumerate() {
        put(&root.join(format!("{n}.eml")), report)?;
    }
    let samples = support::root().join("archiver/tests/samples/journal");
    let no_envelope = fs::read(samples.join("050-envelope-missing.eml"))?;
    put(&root.join("no-envelope.eml"), &no_envelope)?;
    let cut = &reports[0].0[..reports[0].0.len() - 20];
    put(&root.join("cut.eml"), cut)?;
    let counts = import(&archiver, &[path(&root), "--source", "journal"], 1)?;
    ensure!(counts["filed"] == 5 && counts["dead_letters"] == 1 && counts["quarantined"] == 1, "{counts}");
    let originals: BTreeSet<String> = reports.iter().map(|(_, original)| sha256(original)).collect();
    let found: BTreeSet<String> = sums(&archiver, "bob")?.into_iter().map(|(_, sum)| sum).collect();
    ensure!(found == originals, "unwrapped");
    let dead = archiver.run(&["dead-letter", "list", "--json"], b"")?.expect(0)?.json_stream()?;
    ensure!(dead.len() == 1, "{dead:?}");

    // Copies: by the fields of the server that added them; a stranger's message stays where it is.
    let copies = folder.path().join("copies");
    let copy = |extra: &str, from: &str, to: &str| {
        [
            format!("X-Envelope-To: {extra}\nReceived: from x by mx.aurora.example; Tue, 18 Aug 2026 10:00:00 +0000\n")
                .into_bytes(),
            support::message(extra, from, to, "Copy", "x"),
        ]
        .concat()
    };
    put(&copies.join("1.eml"), &copy("erik@aurora.example", "x@other.example", "carl@aurora.example"))?;
    put(&copies.join("2.eml"), &copy("z@other.example", "x@other.example", "y@other.example"))?;
    let counts = import(&archiver, &[path(&copies), "--source", "multidrop"], 1)?;
    ensure!(counts["filed"] == 1 && counts["left"] == 1, "{counts}");
    ensure!(archiver.list("erik")?.len() == 1 && archiver.list("carl")?.len() == 1);
    // One owner, whoever is named.
    let counts = import(&archiver, &[path(&copies), "--source", "single"], 0)?;
    ensure!(counts["filed"] == 2 && archiver.list("dora")?.len() == 2, "{counts}");
    println!("sources: journal, multidrop and single from files: {counts}");
    Ok(())
}

#[test]
fn every_dialect_of_mbox_gives_the_exact_messages() -> Result<()> {
    let folder = folder()?;
    let original =
        "From: x@other.example\nTo: ann@aurora.example\nMessage-ID: <{}@x>\n\nText\n\nFrom here on\n>>From two\nend\n";
    for dialect in ["mboxo", "mboxrd", "mboxcl", "mboxcl2"] {
        let archiver = Archiver::create(&{
            let own = folder.path().join(dialect);
            fs::create_dir(&own)?;
            own
        })?;
        let (mut file, mut wanted) = (String::new(), BTreeSet::new());
        for n in 0..3 {
            let message = original.replace("{}", &n.to_string());
            let quoted = |line: &str| match dialect {
                "mboxrd" => line.trim_start_matches('>').starts_with("From "),
                "mboxo" | "mboxcl" => line.starts_with("From "),
                _ => false,
            };
            let mut written: String =
                message.split_inclusive('\n').map(|l| if quoted(l) { format!(">{l}") } else { l.to_owned() }).collect();
            let mut exact = message;
            if dialect.starts_with("mboxcl") {
                let (header, body) = written.split_once("\n\n").context("a body")?;
                let field = format!("\nContent-Length: {}\n\n", body.len());
                exact = exact.replacen("\n\n", &field, 1);
                written = [header, &field, body].concat();
            }
            wanted.insert(sha256(exact.as_bytes()));
            write!(file, "From x@other.example Tue Aug 18 10:00:00 2026\n{written}\n")?;
        }
        let mbox = folder.path().join(format!("{dialect}.mbox"));
        fs::write(&mbox, file)?;
        let counts = import(&archiver, &[path(&mbox), "--owner", "ann", "--mbox", dialect], 0)?;
        let found: BTreeSet<String> = sums(&archiver, "ann")?.into_iter().map(|(_, sum)| sum).collect();
        ensure!(counts["read"] == 3 && found == wanted, "{dialect}: {counts} {found:?} {wanted:?}");
    }
    println!("mbox: 4 dialects, 12 of 12 messages exact");
    Ok(())
}

/// MailStore names archive and folder in the header; our own export does it by its folders.
#[test]
fn exports_go_back_where_they_were() -> Result<()> {
    let folder = folder()?;
    let archiver = Archiver::create(folder.path())?;
    let root = folder.path().join("mailstore");
    let with =
        |field: &str, n: usize| [format!("X-MailStore-Folder-UTF7: {field}\n").into_bytes(), message(n)].concat();
    for (name, octets) in [
        ("1.eml", with("ann/Exchange ann/Entw&APw-rfe", 1)),
        ("2.eml", with("bob/Journal Incoming", 2)),
        ("3.eml", with("bob/Journal Incoming", 3)),
        ("unknown.eml", with("stranger/Inbox", 4)),
        ("twice.eml", [b"X-MailStore-Folder-UTF7: bob/x\n".to_vec(), with("ann/x", 5)].concat()),
        ("none.eml", message(6)),
    ] {
        put(&root.join(name), &octets)?;
    }
    let counts = import(&archiver, &[path(&root), "--owner", "erik", "--mailstore"], 0)?;
    ensure!(counts["filed"] == 6, "{counts}");
    let folders =
        |owner: &str| -> Result<Vec<String>> { Ok(sums(&archiver, owner)?.into_iter().map(|(f, _)| f).collect()) };
    ensure!(folders("ann")? == ["Exchange ann/Entwürfe"], "{:?}", folders("ann")?);
    ensure!(folders("bob")? == ["Journal Incoming", "Journal Incoming"], "{:?}", folders("bob")?);
    ensure!(folders("erik")?.len() == 3, "what names nobody, or two, is the owner's that was named");

    let out = folder.path().join("export");
    archiver.run(&["export", "--all", "--out", path(&out)], b"")?.expect(0)?;
    let other = folder.path().join("other");
    fs::create_dir(&other)?;
    let second = Archiver::create(&other)?;
    let counts = import(&second, &[path(&out), "--owner", "carl"], 0)?;
    ensure!(counts["filed"] == 6, "{counts}");
    for owner in ["ann", "bob", "carl", "erik"] {
        let (mut before, mut after) = (sums(&archiver, owner)?, sums(&second, owner)?);
        before.sort();
        after.sort();
        ensure!(before == after, "{owner}: {before:?} {after:?}");
    }
    println!("exports: 6 messages of MailStore in 3 archives; exported and imported again: the same archives");
    Ok(())
}
