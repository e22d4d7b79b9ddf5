//! Several stores are one archive: what is listed does not tell how many there are, the next store begins by itself and
//! whatever breaks in between, and stores come and go whole.

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::{
    archive::{Archive, Folder},
    config::ArchiverConfig,
    filing::{Owner, Owners, Plan, Rules, plan as planned},
    journal::{Content, Recipient, RecipientKind},
    refile::{Reach, refile},
    store::{NewReport, Outcome, Store, UnlockKey},
};
use postkeep_shared::{
    crypt::Password,
    disk::{
        Disk, LocalDisk, create_dirs,
        faulty::{FaultyDisk, Operation},
    },
    mail::Digest,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};
use support::{PASSPHRASE, Report, disk, report, verdict};

const OWNERS: [&str; 3] = ["ann", "bob", "cat"];

/// A data folder with a configuration.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new(new_store_at: u64) -> Self {
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

    fn config(&self) -> ArchiverConfig {
        ArchiverConfig::load(&self.0.path().join("postkeep-archiver.toml")).expect("valid")
    }

    fn open(&self) -> Archive {
        Archive::open(&self.config(), &disk()).expect("opens")
    }

    fn read(&self) -> Archive {
        Archive::open_read(&self.config(), &disk()).expect("opens")
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
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

    fn code(&self, arguments: &[&str]) -> Option<i32> {
        self.run(arguments, "").status.code()
    }

    /// Name → state, as `store list` tells.
    fn states(&self) -> BTreeMap<String, String> {
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
struct Mail {
    uidl: String,
    report: Report,
    owners: Vec<usize>,
    unowned: Option<&'static str>,
    outcome: Outcome,
}

fn mails(count: usize) -> Vec<Mail> {
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

fn rules() -> Rules {
    Rules { own_domains: vec!["x".to_owned()], ..Rules::default() }
}

fn owners(names: &[&str]) -> Owners {
    let mut owners = Owners::default();
    for name in names {
        owners.add(Owner::new(name, [format!("{name}@x").as_str()])).expect("valid");
    }
    owners
}

fn add(archive: &mut Archive, mail: &Mail, at: u64) {
    try_add(archive, mail, at).expect("adds");
}

fn try_add(archive: &mut Archive, mail: &Mail, at: u64) -> Option<()> {
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

fn fill(archive: &mut Archive, mails: &[Mail], from: usize) {
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
fn seen(archive: &Archive) -> Value {
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
fn difference(one: &Value, other: &Value, at: &str) -> Option<String> {
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

fn assert_same(one: &Value, other: &Value) {
    assert_eq!(difference(one, other, ""), None);
    assert!(one == other, "keys differ");
}

#[test]
fn several_stores_are_one_archive() {
    let mails = mails(60);
    let (one, many) = (Scene::new(1_000_000), Scene::new(7));
    for scene in [&one, &many] {
        fill(&mut scene.open(), &mails[..30], 0);
        // Started again half-way: nothing is collected twice.
        let mut archive = scene.open();
        for mail in &mails[..30] {
            assert!(archive.is_collected("src", Some("mbx"), &mail.uidl).expect("reads").is_some());
            assert!(archive.confirm("src", Some("mbx"), &mail.uidl).expect("reads").is_some());
        }
        fill(&mut archive, &mails[30..], 30);
    }
    let (single, several) = (one.read(), many.read());
    let stores = several.members().len();
    assert_eq!(single.members().len(), 1);
    assert!(stores >= 4, "{stores}");
    assert_same(&seen(&single), &seen(&several));
    drop((single, several));
    // Zoe comes: what is filed to her lies in the stores of the reports.
    let names = ["ann", "bob", "cat", "zoe", "yan"];
    for scene in [&one, &many] {
        let done = refile(&mut scene.open(), &owners(&names), &|_| rules(), Reach::Waiting, &|| false).expect("files");
        assert!(done.instances > 0 && done.write_protected == 0, "{done:?}");
        let again = refile(&mut scene.open(), &owners(&names), &|_| rules(), Reach::All, &|| false).expect("files");
        assert_eq!((again.changed, again.instances), (0, 0));
    }
    let (single, several) = (one.read(), many.read());
    let normal = |mut all: Value| {
        // When it was filed is another moment in each.
        for list in all["envelopes"].as_object_mut().expect("a map").values_mut() {
            for envelope in list.as_array_mut().expect("a list") {
                envelope["instances"]
                    .as_array_mut()
                    .expect("a list")
                    .iter_mut()
                    .for_each(|i| i["filed_at"] = Value::Null);
            }
        }
        all
    };
    assert_same(&normal(seen(&single)), &normal(seen(&several)));
    let stats = several.stats().expect("reads");
    drop((single, several));
    // The catalogs gone, all of it comes from packs and records.
    for scene in [&one, &many] {
        for entry in fs::read_dir(scene.config().stores_dir()).expect("is there") {
            let catalog = entry.expect("reads").path().join("catalog");
            if catalog.is_dir() {
                fs::remove_dir_all(catalog).expect("removes");
            }
        }
    }
    let (single, several) = (one.open(), many.open());
    assert_same(&normal(seen(&single)), &normal(seen(&several)));
    println!(
        "60 reports in 1 store and in {stores}: lists of {} archives, envelopes, unowned, held, collected and numbers are \
         equal, before and after refiling and after rebuilding ({} messages stored in {stores} stores, {} appearances)",
        names.len(),
        stats.messages,
        stats.instances
    );
}

#[test]
fn whatever_fails_while_the_next_store_begins_there_is_one_current_store() {
    let mails = mails(12);
    let base = Scene::new(6);
    {
        let mut archive = Archive::open(&base.config(), &disk()).expect("opens");
        mails[..4].iter().enumerate().for_each(|(n, mail)| add(&mut archive, mail, n as u64));
        assert_eq!(archive.commit().expect("commits").failures.len(), 0);
    }
    let trial = || {
        let scene = Scene::new(6);
        fs::remove_dir_all(scene.0.path().join("data")).expect("removes");
        copy(&base.0.path().join("data"), &scene.0.path().join("data"));
        (scene, FaultyDisk::new(Arc::new(LocalDisk)))
    };
    let go = |scene: &Scene, disk: &FaultyDisk| {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut archive = Archive::open(&scene.config(), &disk).ok()?;
        for (n, mail) in mails[4..9].iter().enumerate() {
            try_add(&mut archive, mail, 4 + n as u64)?;
        }
        archive.commit().ok()
    };
    let (scene, whole) = trial();
    assert!(go(&scene, &whole).is_some());
    let done = whole.take_done();
    let mut points = 0;
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir] {
        let count = done.iter().filter(|one| one.operation == operation).count();
        for at in 0..count {
            let (scene, disk) = trial();
            disk.fail_with_errno(operation, at as u32 + 1, 5);
            let receipts = go(&scene, &disk).map(|commit| commit.receipts.len()).unwrap_or_default();
            drop(disk);
            points += 1;
            let mut archive = scene.open();
            let stored = mails[4..9]
                .iter()
                .filter(|mail| archive.is_collected("src", Some("mbx"), &mail.uidl).expect("reads").is_some())
                .count();
            assert!(stored >= receipts, "{operation:?} {at}: {stored} of {receipts}");
            let current = scene.states().values().filter(|state| *state == "current").count();
            assert_eq!(current, 1, "{operation:?} {at}: {:?}", scene.states());
            for (n, mail) in mails.iter().enumerate() {
                if archive.is_collected("src", Some("mbx"), &mail.uidl).expect("reads").is_none() {
                    add(&mut archive, mail, n as u64);
                }
            }
            assert_eq!(archive.commit().expect("commits").failures.len(), 0);
            drop(archive);
            let archive = scene.read();
            assert_eq!(archive.collected("src").count(), mails.len());
            assert!((2..=3).contains(&archive.members().len()), "{operation:?} {at}: {:?}", scene.states());
        }
    }
    println!(
        "the next store begins: {points} operations of the disk fail, 1 current store each time, {} reports each",
        12
    );
}

fn copy(from: &Path, to: &Path) {
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

#[test]
fn stores_come_and_go_whole() {
    let mails = mails(20);
    let scene = Scene::new(1_000_000);
    fill(&mut scene.open(), &mails[..10], 0);
    assert_eq!(scene.code(&["store", "create", "main"]), Some(5), "there is one");
    assert_eq!(scene.code(&["store", "create", "../x"]), Some(5), "no path");
    assert_eq!(scene.code(&["store", "create", "second"]), Some(0));
    assert_eq!(scene.code(&["store", "set-state", "second", "current"]), Some(0));
    fill(&mut scene.open(), &mails[10..], 10);
    let whole = seen(&scene.read());
    let states = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(scene.states(), states(&[("main", "normal"), ("second", "current")]));
    // A name is a folder's; moving it is moving the store.
    assert_eq!(scene.code(&["store", "rename", "main", "old"]), Some(0));
    assert_eq!(scene.code(&["store", "rename", "old", "second"]), Some(5));
    assert_eq!(scene.code(&["store", "rename", "nobody", "x"]), Some(2));
    fs::rename(scene.config().stores_dir().join("old"), scene.config().stores_dir().join("older")).expect("moves");
    assert_same(&seen(&scene.read()), &whole);
    assert_eq!(scene.states(), states(&[("older", "normal"), ("second", "current")]));
    // Write-protected: read, and not written to.
    assert_eq!(scene.code(&["store", "set-state", "second", "disabled"]), Some(5), "somebody must take the mail");
    assert_eq!(scene.code(&["store", "set-state", "older", "write-protected"]), Some(0));
    assert_same(&seen(&scene.read()), &whole);
    let done =
        refile(&mut scene.open(), &owners(&["ann", "bob", "cat", "zoe", "yan"]), &|_| rules(), Reach::All, &|| false);
    let done = done.expect("files");
    assert!(done.write_protected > 0 && done.instances > 0, "{done:?}");
    // Disabled: not seen, and said so.
    assert_eq!(scene.code(&["store", "set-state", "older", "disabled"]), Some(0));
    let listed = scene.run(&["list", "--owner", "ann", "--json"], "");
    assert!(String::from_utf8_lossy(&listed.stderr).contains("older is disabled"), "{listed:?}");
    assert!(scene.read().collected("src").count() < mails.len());
    assert_eq!(scene.code(&["store", "detach", "second"]), Some(5), "the current one stays");
    assert_eq!(scene.code(&["store", "detach", "older"]), Some(0));
    assert_eq!(scene.states(), states(&[("second", "current")]));
    // Into another archive: only with its passphrase, and only once.
    let other = Scene::new(1_000_000);
    let detached = scene.0.path().join("data/detached/older");
    let dir = detached.to_str().expect("text");
    assert_eq!(other.code(&["store", "attach", dir]), Some(4), "the unlock key is another one");
    assert_eq!(other.run(&["store", "attach", dir, "--passphrase-stdin"], "wrong one\n").status.code(), Some(4));
    let passphrase = format!("{}\n", String::from_utf8_lossy(PASSPHRASE));
    let attached = other.run(&["store", "attach", dir, "--passphrase-stdin"], &passphrase);
    assert_eq!(attached.status.code(), Some(0), "{}", String::from_utf8_lossy(&attached.stderr));
    assert_eq!(other.states(), states(&[("main", "current"), ("older", "normal")]));
    assert_eq!(other.read().collected("src").count(), 10);
    // The same mail comes here too: shown once, although this store names everything otherwise.
    fill(&mut other.open(), &mails[10..], 10);
    let before: Vec<_> = other.read().owners().expect("reads");
    let count = |archive: &Archive| {
        let mut count = 0;
        for owner in &before {
            archive
                .list(owner, None, &mut |_| {
                    count += 1;
                    Ok(())
                })
                .expect("lists");
        }
        count
    };
    let archive = other.read();
    assert_eq!(count(&archive), archive.stats().expect("reads").instances);
    assert_eq!(other.code(&["store", "verify"]), Some(0));
    assert_eq!(other.code(&["status"]), Some(0));
    // Damage of one store stops a reader with a name, not silently.
    fs::write(other.config().stores_dir().join("older/store.toml"), "nonsense").expect("writes");
    let refused = other.run(&["list", "--owner", "ann"], "");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("store older"), "{refused:?}");
    assert_eq!(other.code(&["store", "list"]), Some(1));
    let folder = Folder::of(&other.config(), disk());
    assert_eq!(folder.list().expect("lists").len(), 2);
}
