//! A data folder with a configuration, mail for it, and all that a reader can ask.

#![allow(dead_code, unreachable_pub, missing_docs)]

use super::support::{PASSPHRASE, Report, disk, report, verdict};
use postkeep_archiver::{
    archive::Archive,
    config::ArchiverConfig,
    filing::{Owner, Owners, Plan, Rules, plan as planned},
    journal::{Content, Recipient, RecipientKind},
    store::{NewReport, Outcome, Store, UnlockKey},
};
use postkeep_shared::{
    crypt::Password,
    disk::{LocalDisk, create_dirs},
    mail::Digest,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

pub const OWNERS: [&str; 3] = ["ann", "bob", "cat"];

/// A data folder with a configuration.
pub struct Scene(pub tempfile::TempDir);

impl Scene {
    pub fn new(new_store_at: u64) -> Self {
        let scene = Self(tempfile::tempdir().expect("temporary folder"));
        let data = scene.0.path().join("data");
        create_dirs(&LocalDisk, &data.join("stores")).expect("makes");
        let key = UnlockKey::create(&data.join("unlock.key"), &LocalDisk).expect("makes");
        let passphrase = Password::received(PASSPHRASE);
        drop(Store::create(&data.join("stores/main"), "main", &passphrase, &key, disk()).expect("makes"));
        let text = format!(
            "data_dir = \"data\"\nown_domains = [\"x\"]\nowners_file = \"owners.toml\"\n[store]\nnew_store_at = {new_store_at}\n"
        );
        fs::write(scene.0.path().join("postkeep-archiver.toml"), text).expect("writes");
        fs::write(scene.0.path().join("owners.toml"), "").expect("writes");
        scene
    }

    /// Another one with the same in it, without the time that a passphrase takes.
    pub fn copy(&self) -> Self {
        let scene = Self(tempfile::tempdir().expect("temporary folder"));
        let copied = Command::new("cp").arg("-a").arg(self.0.path().join(".")).arg(scene.0.path()).status();
        assert!(copied.expect("runs").success());
        scene
    }

    pub fn config(&self) -> ArchiverConfig {
        ArchiverConfig::load(&self.0.path().join("postkeep-archiver.toml")).expect("valid")
    }

    pub fn open(&self) -> Archive {
        Archive::open(&self.config(), &disk()).expect("opens")
    }

    pub fn read(&self) -> Archive {
        Archive::open_read(&self.config(), &disk()).expect("opens")
    }

    pub fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_postkeep-archiver"))
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        // A command that asks for nothing may be gone already.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        child.wait_with_output().expect("ends")
    }

    pub fn code(&self, arguments: &[&str]) -> Option<i32> {
        self.run(arguments, "").status.code()
    }

    /// Name → state, as `store list` tells.
    pub fn states(&self) -> BTreeMap<String, String> {
        let output = self.run(&["store", "list", "--json"], "");
        let lines = String::from_utf8(output.stdout).expect("text");
        let one = |line: &str| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            (text("name"), text("state"))
        };
        lines.lines().map(one).collect()
    }
}

/// What comes: forks of the same mail, repeated reports, addresses nobody owns, quarantine.
pub struct Mail {
    pub uidl: String,
    pub report: Report,
    pub owners: Vec<usize>,
    pub unowned: Option<&'static str>,
    pub outcome: Outcome,
}

pub fn mails(count: usize) -> Vec<Mail> {
    let mut mails = Vec::new();
    for n in 0..count {
        // Every third mail comes again: octet for octet, or over another host, to somebody else too.
        let (of, fork) = if n % 3 == 2 { (n / 2, n % 2 == 0) } else { (n, false) };
        let base = report(&format!("<{of}@x>"), &format!("body of {of}\r\n"), 1 + of % 5);
        let report = if fork { base.replaced("Received: first", &format!("Received: hop {n}")) } else { base };
        let (outcome, unowned) = match n % 10 {
            7 => (Outcome::Quarantine, None),
            4 => (Outcome::CatchAll, Some("zoe@x")),
            8 => (Outcome::Filed, Some("yan@x")),
            _ => (Outcome::Filed, None),
        };
        let owners = (0..OWNERS.len()).filter(|owner| (n + owner) % 2 == 0 || n % 3 == 2).collect();
        mails.push(Mail { uidl: format!("u{n:04}"), report, owners, unowned, outcome });
    }
    mails
}

pub fn rules() -> Rules {
    Rules { own_domains: vec!["x".to_owned()], ..Rules::default() }
}

pub fn owners(names: &[&str]) -> Owners {
    let mut owners = Owners::default();
    for name in names {
        owners.add(Owner::new(name, [format!("{name}@x").as_str()])).expect("valid");
    }
    owners
}

pub fn add(archive: &mut Archive, mail: &Mail, at: u64) {
    try_add(archive, mail, at).expect("adds");
}

pub fn try_add(archive: &mut Archive, mail: &Mail, at: u64) -> Option<()> {
    let range = mail.report.range.start as u64..mail.report.range.end as u64;
    let mut verdict = verdict(Some(Content::Range(range)));
    verdict.sender = Some("out@y".to_owned());
    let mut addresses: Vec<String> = Vec::new();
    if mail.outcome != Outcome::CatchAll {
        addresses.extend(mail.owners.iter().map(|owner| format!("{}@x", OWNERS[*owner])));
    }
    addresses.extend(mail.unowned.map(str::to_owned));
    verdict.recipients = addresses
        .into_iter()
        .map(|address| Recipient { address, kind: RecipientKind::To, expanded_from: None, forwarded_from: None })
        .collect();
    if mail.outcome == Outcome::Quarantine {
        verdict.handling = postkeep_archiver::journal::Handling::Quarantine;
        verdict.content = None;
    }
    let record: postkeep_archiver::store::entry::VerdictRecord = (&verdict).into();
    let plan = match mail.outcome {
        Outcome::Quarantine => Plan::default(),
        _ => planned(record.envelope(Some(1_787_040_000)), &owners(&OWNERS), &rules()),
    };
    let raw = mail.report.octets.clone();
    let new = NewReport {
        source: "src",
        host: "host:995",
        mailbox: Some("mbx".to_owned()),
        uidl: mail.uidl.clone(),
        receipt: None,
        evidence: None,
        raw: &raw,
        raw_sha256: Digest::of(&raw),
        verdict: &verdict,
        plan: &plan,
        collected_ms: 1_787_040_000_000 + at,
    };
    let pending = archive.add(new).ok()?;
    assert_eq!(pending.outcome, mail.outcome, "{}", mail.uidl);
    Some(())
}

pub fn fill(archive: &mut Archive, mails: &[Mail], from: usize) {
    for (at, batch) in mails.chunks(5).enumerate() {
        for (n, mail) in batch.iter().enumerate() {
            assert!(archive.is_collected("src", Some("mbx"), &mail.uidl).expect("reads").is_none());
            add(archive, mail, (from + at * 5 + n) as u64);
        }
        let commit = archive.commit().expect("commits");
        assert_eq!((commit.receipts.len(), commit.failures.len()), (batch.len(), 0));
    }
}

/// Everything that a reader can ask, without the ids: those are other ones in another archive.
pub fn seen(archive: &Archive) -> Value {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut lists = BTreeMap::new();
    for owner in archive.owners().expect("reads") {
        let mut lines = Vec::new();
        archive
            .list(&owner, None, &mut |listed| {
                let mut octets = Vec::new();
                archive.read_message(&listed.id, &mut octets).expect("reads");
                assert_eq!(Digest::of(&octets).to_string(), listed.sha256);
                let (mut by_digest, digest) = (Vec::new(), listed.sha256.clone());
                archive.read_message(&digest, &mut by_digest).expect("reads");
                assert_eq!(octets, by_digest, "the digest names it too");
                names.insert(listed.id.clone(), digest);
                lines.push(json!(listed));
                Ok(())
            })
            .expect("lists");
        lines.sort_by_key(|line| (line["date"].to_string(), line["sha256"].to_string(), line["folder"].to_string()));
        lists.insert(owner, lines);
    }
    let envelopes: BTreeMap<&String, Vec<Value>> =
        names.iter().map(|(id, sha256)| (sha256, archive.envelopes(id).expect("reads"))).collect();
    let (mut held, mut collected) = (Vec::new(), Vec::new());
    archive
        .held(&|_| true, &mut |one| {
            held.push(json!(one));
            Ok(())
        })
        .expect("reads");
    for one in archive.collected("src") {
        let one = one.expect("reads");
        collected.push(format!("{} {:?} {} {}", one.uidl, one.outcome, one.raw_sha256, one.appearances));
    }
    collected.sort();
    let stats = archive.stats().expect("reads");
    let all = json!({
        "lists": lists, "envelopes": envelopes, "held": held, "collected": collected,
        "unowned": archive.unowned().expect("reads"), "unowned count": archive.unowned_count().expect("reads"),
        "count held": archive.count_held().expect("reads"), "reports": stats.reports, "instances": stats.instances,
        "bytes in": stats.bytes_in,
    });
    // Ids are keyed by the archive; digests are not.
    let mut text = all.to_string();
    for (id, sha256) in &names {
        text = text.replace(&format!("\"{id}\""), &format!("\"{sha256}\""));
    }
    let mut all: Value = serde_json::from_str(&text).expect("JSON");
    for held in all["held"].as_array_mut().expect("a list") {
        held["id"] = Value::Null;
    }
    for unowned in all["unowned"].as_array_mut().expect("a list") {
        // Of the same date they stand in the order of their ids.
        unowned["messages"].as_array_mut().expect("a list").sort_by_key(|message| message["id"].to_string());
    }
    all
}

/// The first place where two documents differ.
pub fn difference(one: &Value, other: &Value, at: &str) -> Option<String> {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
            a.iter().find_map(|(key, value)| difference(value, b.get(key)?, &format!("{at}/{key}")))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(n, (a, b))| difference(a, b, &format!("{at}/{n}")))
        }
        _ if one == other => None,
        _ => Some(format!("{at}: {one} and {other}")),
    }
}

pub fn assert_same(one: &Value, other: &Value) {
    assert_eq!(difference(one, other, ""), None);
    assert!(one == other, "keys differ");
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("makes");
    for entry in fs::read_dir(from).expect("reads") {
        let entry = entry.expect("reads");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("copies");
        }
    }
}
