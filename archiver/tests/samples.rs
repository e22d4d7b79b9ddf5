//! Every sample of `samples/journal` through the library and through the program: what `inspect --json` says is what the
//! sample's JSON says.

#[path = "store/support.rs"]
mod support;

use postkeep_archiver::{
    filing::{Owner, Owners, Rules, assign},
    journal::{self, Context, Role},
    octets::Octets,
    store::{NewReport, Outcome},
};
use postkeep_shared::mail::Digest;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

struct Sample {
    name: String,
    file: PathBuf,
    message: Vec<u8>,
    wanted: Value,
}

fn samples() -> Vec<Sample> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/journal");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the samples are there")
        .map(|entry| entry.expect("listed").path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    let read = |file: PathBuf| {
        let wanted: Value = serde_json::from_slice(&std::fs::read(&file).expect("reads")).expect("JSON");
        let file = file.with_extension("eml");
        let name = file.file_stem().expect("has a name").to_string_lossy().into_owned();
        Sample { name, message: std::fs::read(&file).expect("reads"), file, wanted }
    };
    files.into_iter().map(read).collect()
}

impl Sample {
    fn text(&self, pointer: &str) -> &str {
        self.wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    fn trusted(&self) -> bool {
        self.wanted.pointer("/smtp/trusted") != Some(&json!(false))
    }

    fn rcpt(&self) -> Vec<String> {
        let list = self.wanted.pointer("/smtp/rcpt_to").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|a| a.as_str().map(str::to_owned)).collect()
    }

    fn context(&self) -> Context {
        let profile = self.text("/profile").parse().expect("a profile");
        Context { profile, trusted: self.trusted(), rcpt: self.rcpt(), ..Context::default() }
    }

    /// What `inspect` should say, without `reason`, which is free text. The samples call a report from the wrong
    /// source `spoofed-journal`; for `inspect` the source is an argument, so its kind is `journal-report` and only
    /// the handling says that it is held.
    fn document(&self) -> Value {
        let field = |name: &str| self.wanted.get(name).cloned().unwrap_or(Value::Null);
        let mut recipients = field("recipients");
        for recipient in recipients.as_array_mut().into_iter().flatten() {
            recipient.as_object_mut().expect("an object").remove("source");
        }
        let kind = match self.text("/kind") {
            "spoofed-journal" => "journal-report",
            kind => kind,
        };
        json!({
            "kind": kind,
            "handling": field("handling"),
            "sender": field("sender"),
            "on_behalf_of": field("on_behalf_of"),
            "recipients": recipients,
            "subject": field("subject"),
            "message_id": field("message_id"),
            "archive_sha256": field("archive_sha256"),
            "embedded_size": field("embedded_size"),
        })
    }
}

fn sha256(octets: &dyn Octets) -> String {
    Digest::of(&octets.copy(0..octets.len()).expect("reads")).to_string()
}

fn by_library(sample: &Sample) -> Value {
    let verdict = journal::examine(&sample.message, &sample.context()).expect("reads");
    let content = verdict.content.as_ref().map(|c| sha256(c.octets(&sample.message).expect("reads").as_ref()));
    json!({
        "kind": verdict.kind,
        "handling": verdict.handling,
        "sender": verdict.sender,
        "on_behalf_of": verdict.on_behalf_of,
        "recipients": verdict.recipients,
        "subject": verdict.subject,
        "message_id": verdict.message_id,
        "archive_sha256": content,
        "embedded_size": verdict.embedded_size,
    })
}

fn by_program(sample: &Sample) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postkeep-archiver"));
    command.arg("inspect").arg(&sample.file).arg("--json").args(["--profile", sample.text("/profile")]);
    for address in sample.rcpt() {
        command.args(["--rcpt", &address]);
    }
    if !sample.trusted() {
        command.arg("--untrusted");
    }
    // No configuration anywhere near.
    let output = command.current_dir(std::env::temp_dir()).output().expect("runs");
    assert!(output.status.success(), "{}: {}", sample.name, String::from_utf8_lossy(&output.stderr));
    let mut document: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    let reason = document.as_object_mut().expect("an object").remove("reason");
    assert!(reason.is_some_and(|r| r.is_string()), "{}", sample.name);
    document
}

fn compare(how: &str, made: fn(&Sample) -> Value) {
    let samples = samples();
    let mut agreed = 0;
    for sample in &samples {
        let (made, wanted) = (made(sample), sample.document());
        if made == wanted {
            agreed += 1;
            continue;
        }
        for (key, value) in wanted.as_object().expect("an object") {
            if made.get(key) != Some(value) {
                println!("{} {key}: {} instead of {value}", sample.name, made.get(key).unwrap_or(&Value::Null));
            }
        }
        let unknown = made.as_object().expect("an object").keys().filter(|k| wanted.get(k.as_str()).is_none());
        unknown.for_each(|key| println!("{} has a key {key} nobody documented", sample.name));
    }
    println!("{how}: agreed {agreed} / {}", samples.len());
    assert_eq!(agreed, samples.len());
}

#[test]
fn the_library_agrees_with_every_sample() {
    compare("library", by_library);
}

#[test]
fn the_program_agrees_with_every_sample() {
    compare("inspect --json", by_program);
}

#[test]
fn the_protected_copy_is_kept_beside_the_clear_one() {
    let mut seen = 0;
    for sample in samples() {
        let verdict = journal::examine(&sample.message, &sample.context()).expect("reads");
        let made: Vec<Value> = verdict
            .alternates
            .iter()
            .map(|(role, content): &(Role, _)| {
                json!({ "role": role, "sha256": sha256(content.octets(&sample.message).expect("reads").as_ref()) })
            })
            .collect();
        let wanted = sample.wanted.get("sha256_alternates").cloned().unwrap_or(json!([]));
        assert_eq!(Value::from(made), wanted, "{}", sample.name);
        seen += usize::from(wanted != json!([]));
    }
    assert!(seen > 0);
}

#[test]
fn thousands_of_recipients_are_read_at_once() {
    let samples = samples();
    let sample = samples.iter().find(|s| s.name.starts_with("039")).expect("is there");
    let start = processor_time();
    let verdict = journal::examine(&sample.message, &sample.context()).expect("reads");
    assert_eq!(verdict.recipients.len(), 5000);
    let took = processor_time() - start;
    println!("5000 recipients: {took:?} of processor time");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// What this thread has used (proc(5), `schedstat`): not changed by what else runs on the machine.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    Duration::from_nanos(text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number"))
}

/// Every sample all the way: read, planned, stored, read back; each owner has the exact octets that the sample names, and
/// nobody else has anything.
#[test]
fn every_sample_is_filed_to_its_owners() {
    let place = support::Place::new();
    let mut store = place.open();
    let samples = samples();
    let mut owners = Owners::default();
    for name in ["ann", "bob", "carl", "dora", "erik"] {
        owners.add(Owner::new(name, [format!("{name}@aurora.example").as_str()])).expect("valid");
    }
    let rules = Rules { own_domains: vec!["aurora.example".into()], ..Rules::default() };
    let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
    for sample in &samples {
        let verdict = journal::examine(&sample.message, &sample.context()).expect("reads");
        let pending = store.add(NewReport {
            source: "s",
            host: "h",
            mailbox: None,
            uidl: sample.name.clone(),
            receipt: None,
            evidence: None,
            raw: &sample.message,
            raw_sha256: Digest::of(&sample.message),
            verdict: &verdict,
            plan: &assign(&verdict, None, &owners, &rules),
            collected_ms: 1,
        });
        outcomes.insert(sample.name.clone(), pending.expect("is taken").outcome);
    }
    let commit = store.commit().expect("commits");
    assert_eq!(commit.receipts.len(), samples.len(), "{:?}", commit.failures);
    let mut listed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    for owner in store.owners().expect("lists") {
        let mut each = |entry: postkeep_archiver::store::Listed| {
            ids.insert(entry.sha256.clone(), entry.id);
            listed.entry(owner.clone()).or_default().insert(entry.sha256);
            Ok(())
        };
        store.list(&owner, None, &mut each).expect("lists");
    }
    let (mut instances, mut held, mut dead) = (0, 0, 0);
    for sample in &samples {
        let mut raw = Vec::new();
        store.read_report("s", None, &sample.name, &mut raw).expect("reads");
        assert!(raw == sample.message, "{}: exact octets", sample.name);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
        let people = sample.wanted["recipients"].as_array().into_iter().flatten().map(|r| text(&r["address"]));
        let people: BTreeSet<String> =
            people.chain([text(&sample.wanted["sender"]), text(&sample.wanted["on_behalf_of"])]).collect();
        let wanted: Vec<&str> =
            owners.all().iter().filter(|o| people.contains(&o.addresses[0])).map(|o| o.name.as_str()).collect();
        let sum = sample.text("/archive_sha256").to_owned();
        let outcome = outcomes[&sample.name];
        match (sample.text("/handling"), wanted.is_empty()) {
            ("quarantine", _) => assert_eq!(outcome, Outcome::Quarantine, "{}", sample.name),
            (_, false) => assert_eq!(outcome, Outcome::Filed, "{}", sample.name),
            (handling, true) => {
                let nobody = if handling == "archive" { Outcome::CatchAll } else { Outcome::DeadLetter };
                assert_eq!(outcome, nobody, "{}", sample.name);
            }
        }
        held += usize::from(outcome == Outcome::Quarantine);
        dead += usize::from(outcome == Outcome::DeadLetter);
        if outcome != Outcome::Filed {
            continue;
        }
        for owner in wanted {
            // A fork of a message that is there already is shown once: by the octets that came first.
            let shown = listed[owner].contains(&sum) || {
                let verdict = journal::examine(&sample.message, &sample.context()).expect("reads");
                let id = verdict.message_id.clone();
                samples.iter().any(|other| other.name < sample.name && Some(other.text("/message_id")) == id.as_deref())
            };
            assert!(shown, "{}: {owner} has not got it", sample.name);
            instances += 1;
        }
        if let Some(id) = ids.get(&sum) {
            let mut out = Vec::new();
            store.read_message(id, &mut out).expect("reads");
            assert_eq!(Digest::of(&out).to_string(), sum, "{}", sample.name);
            let envelopes = store.envelopes(id).expect("reads");
            let envelope = envelopes.iter().find(|e| e["uidl"] == sample.name.as_str()).expect("its own report");
            let alternates = envelope["alternates"].as_array().map_or(0, Vec::len);
            assert_eq!(
                alternates,
                sample.wanted["sha256_alternates"].as_array().map_or(0, Vec::len),
                "{}",
                sample.name
            );
        }
    }
    println!("{} samples filed: {instances} appearances checked, {held} held, {dead} dead letters", samples.len());
    assert!(store.verify().expect("goes on").ok);
}
