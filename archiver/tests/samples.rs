//! Every sample of `samples/journal` through the library and through the program: what `inspect --json` says is what the
//! sample's JSON says.

use postkeep_archiver::{
    journal::{self, Context, Role},
    octets::Octets,
};
use postkeep_shared::mail::Digest;
use serde_json::{Value, json};
use std::{
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

/// A small generator, so that a failure can be repeated from its number.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit.max(1)
    }
}

fn mutate(message: &[u8], random: &mut Random) -> Vec<u8> {
    const PIECES: [&[u8]; 14] = [
        b"\r\n",
        b"\n",
        b"\r",
        b"--",
        b":",
        b"\"",
        b"(",
        b"<",
        b"=",
        b"\0",
        b";",
        b"=?utf-8?q?",
        b"Content-Type: ",
        b"\xff",
    ];
    let mut message = message.to_vec();
    for _ in 0..1 + random.below(6) {
        let at = random.below(message.len() + 1);
        match random.below(6) {
            0 => message.truncate(at),
            1 => drop(message.splice(at..at, PIECES[random.below(PIECES.len())].iter().copied())),
            2 => {
                let end = (at + random.below(200)).min(message.len());
                drop(message.drain(at..end));
            }
            3 => {
                let end = (at + random.below(2000)).min(message.len());
                let copy = message[at..end].to_vec();
                let to = random.below(message.len() + 1);
                drop(message.splice(to..to, copy));
            }
            4 => message.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << (at % 8)),
            _ => message.iter_mut().skip(at).take(1 + at % 9).for_each(|b| *b = b'-'),
        }
    }
    message
}

#[test]
fn damaged_reports_are_read_without_harm() {
    let samples = samples();
    // The largest samples would only repeat their recipients.
    let small: Vec<&Sample> = samples.iter().filter(|s| s.message.len() < 64 * 1024).collect();
    let (mut random, mut slowest) = (Random(1), Duration::ZERO);
    for round in 0..20_000 {
        let sample = small[round % small.len()];
        let message = mutate(&sample.message, &mut random);
        let start = processor_time();
        let verdict = journal::examine(&message, &sample.context()).expect("memory never fails");
        let content = verdict.content.as_ref().map(|c| c.octets(&message).expect("a range of it").len());
        assert!(content.is_none_or(|len| len <= message.len() as u64), "{} round {round}", sample.name);
        assert_eq!(verdict.content.is_none(), verdict.handling == journal::Handling::Quarantine, "round {round}");
        slowest = slowest.max(processor_time() - start);
    }
    println!("20000 damaged reports, the slowest in {slowest:?} of processor time");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}
