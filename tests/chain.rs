//! The whole path with every sample: SMTP in, POP3 out, archived, and what `inspect` makes of each.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use support::{
    Archiver, Gateway, folder, pop3,
    samples::{self, Sample},
    sha256, smtp,
};

/// The fields in which `inspect` must agree with a sample's description.
const FIELDS: &[&str] =
    &["kind", "handling", "sender", "on_behalf_of", "subject", "message_id", "archive_sha256", "recipients"];

#[test]
fn every_sample_comes_out_as_it_went_in() -> Result<()> {
    let folder = folder()?;
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let samples = samples::all()?;

    let sent = send_all(&gateway, &access.address, &samples)?;
    let exact = compare_all(&gateway, &access, &sent)?;
    println!("RETR and XRETR exact after the trace header: {exact} / {}", samples.len());
    ensure!(exact == samples.len());

    let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
    let output = archiver.run(&["run", "--once", "--json"], b"")?;
    ensure!(matches!(output.code, 0 | 1), "run --once: exit {}\n{}", output.code, output.err);
    let round = output.json_stream()?.into_iter().next().context("no source in run --once --json")?;
    println!("round: {round}");
    ensure!(number(&round, "collected")? == samples.len() as u64, "{round}");
    ensure!(number(&round, "left")? == 0, "{round}");

    let archived: BTreeSet<String> = archiver
        .list_all()?
        .iter()
        .filter_map(|(_, entry)| entry.get("sha256").and_then(Value::as_str).map(str::to_owned))
        .collect();
    let (found, wanted) = archived_as_described(&samples, &archived);
    println!("archived as described: {found} / {wanted}");
    ensure!(found == wanted);

    let (code, numbers) = archiver.reconcile()?;
    println!("reconcile: exit {code} {numbers:?}");
    ensure!(code == 0 && !numbers.is_empty());
    for line in &numbers {
        ensure!(line.get("ok") == Some(&Value::Bool(true)), "{line}");
        ensure!(number(line, "accepted")? == samples.len() as u64, "{line}");
        ensure!(number(line, "missing")? == 0 && number(line, "waiting")? == 0, "{line}");
    }

    ensure!(gateway.waiting(&access.id)?.is_empty(), "something was left at the gateway");
    let again = archiver.run(&["run", "--once", "--json"], b"")?.json_stream()?;
    ensure!(number(again.first().context("no source")?, "collected")? == 0, "collected twice: {again:?}");
    let (code, verdict) = archiver.verify()?;
    ensure!(code == 0 && verdict.get("ok") == Some(&Value::Bool(true)), "{verdict}");
    let verdict = gateway.run(&["verify", "--json"], b"")?.expect(0)?.json()?;
    ensure!(verdict.get("ok") == Some(&Value::Bool(true)), "{verdict}");
    Ok(())
}

/// Sends every sample under TLS; which uidl stands for which.
fn send_all<'a>(gateway: &Gateway, to: &str, samples: &'a [Sample]) -> Result<BTreeMap<String, &'a Sample>> {
    let mut sender = gateway.smtp()?;
    for keyword in ["PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES"] {
        ensure!(sender.offers(keyword), "{keyword} is not announced: {:?}", sender.extensions);
    }
    let (mut sent, mut bdat) = (BTreeMap::new(), 0);
    for sample in samples {
        let reply = sender.send(sample.mail_from(), &[to], &sample.bytes)?;
        ensure!(reply.code == 250, "{}: {reply:?}", sample.name);
        bdat += usize::from(!smtp::data_is_exact(&sample.bytes));
        let (uidl, seq, _) = reply.receipts()?.into_iter().next().context("no receipt")?;
        sent.insert(uidl, sample);
        ensure!(seq == sent.len() as u64, "sequence number {seq} after {} messages", sent.len());
    }
    println!("sent: {} by DATA, {bdat} by BDAT", samples.len() - bdat);
    sender.quit()?;
    Ok(sent)
}

/// Compares what RETR and XRETR give with what was sent; both TLS ports.
fn compare_all(gateway: &Gateway, access: &support::Access, sent: &BTreeMap<String, &Sample>) -> Result<usize> {
    let mut collector = gateway.pop3(access)?;
    let sizes: BTreeMap<u64, u64> = collector.list()?.into_iter().collect();
    let mut exact = 0;
    for (number, uidl) in collector.uidl()? {
        let sample = sent.get(&uidl).with_context(|| format!("{uidl} was never accepted"))?;
        let retr = collector.retr(number)?;
        ensure!(sizes.get(&number) == Some(&(retr.len() as u64)), "LIST does not give the size of {}", sample.name);
        pop3::same(&sample.name, pop3::without_trace(&retr)?, &pop3::as_lines(&sample.bytes))?;
        let (xretr, _) = collector.xretr(number)?;
        pop3::same(&sample.name, pop3::without_trace(&xretr)?, &sample.bytes)?;
        exact += 1;
    }
    collector.quit()?;
    let mut collector = pop3::Pop3::connect_stls(gateway.address("pop3")?, &gateway.pin()?)?;
    collector.login(&access.address, &access.password)?;
    ensure!(collector.list()?.len() == sent.len(), "STLS session lists something else");
    collector.quit()?;
    Ok(exact)
}

/// How many of the trusted samples with an archivable message stand in an archive, and how many should. Of reports
/// that are forks of one message (only fields that relays add differ) one form is listed.
fn archived_as_described(samples: &[Sample], archived: &BTreeSet<String>) -> (usize, usize) {
    let wanted: Vec<&Sample> = samples
        .iter()
        .filter(|s| s.trusted() && s.text("profile") == Some("journal") && s.text("archive_sha256").is_some())
        .collect();
    let listed = |s: &&&Sample| s.text("archive_sha256").is_some_and(|sum| archived.contains(sum));
    let listed_forms: Vec<Vec<Vec<u8>>> =
        wanted.iter().filter(listed).filter_map(|s| original(s)).map(stable).collect();
    let (mut exact, mut forks) = (0, 0);
    for sample in &wanted {
        if listed(&sample) {
            exact += 1;
        } else if original(sample).is_some_and(|o| listed_forms.contains(&stable(o))) {
            forks += 1;
        } else {
            println!("not archived as described: {}", sample.name);
        }
    }
    println!("archived: {exact} with the described SHA-256, {forks} as forks of one of those");
    (exact + forks, wanted.len())
}

/// The embedded message of a sample, found by its described size and SHA-256.
fn original(sample: &Sample) -> Option<&[u8]> {
    let size = usize::try_from(sample.truth.get("embedded_size")?.as_u64()?).ok()?;
    let sum = sample.text("archive_sha256")?;
    let bytes = &sample.bytes;
    let starts = (4..bytes.len()).filter(|at| bytes.get(at - 4..*at) == Some(b"\r\n\r\n".as_slice()));
    starts.filter_map(|at| bytes.get(at..at + size)).find(|candidate| sha256(candidate) == sum)
}

/// What forks of a message have in common: the fields its sender wrote, in their order, and the body.
fn stable(original: &[u8]) -> Vec<Vec<u8>> {
    let kept = ["from", "sender", "to", "cc", "bcc", "subject", "date", "message-id", "mime-version"];
    let end = support::find(original, b"\r\n\r\n").unwrap_or(original.len());
    let (header, body) = original.split_at(end);
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for line in header.split_inclusive(|b| *b == b'\n') {
        match (line.first(), fields.last_mut()) {
            (Some(b' ' | b'\t'), Some(field)) => field.extend_from_slice(line),
            _ => fields.push(line.trim_ascii_end().to_vec()),
        }
    }
    fields.retain(|field| {
        let name = String::from_utf8_lossy(field).split(':').next().unwrap_or_default().to_lowercase();
        kept.contains(&name.as_str()) || name.starts_with("content-")
    });
    fields.push(body.to_vec());
    fields
}

fn number(json: &Value, key: &str) -> Result<u64> {
    json.get(key).and_then(Value::as_u64).with_context(|| format!("no number `{key}` in {json}"))
}

#[test]
fn inspect_agrees_with_every_description() -> Result<()> {
    let folder = folder()?;
    let archiver = Archiver::create(folder.path())?;
    let (mut agreed, mut total) = (0, 0);
    for sample in samples::all()?.iter().filter(|s| s.text("profile") == Some("journal")) {
        total += 1;
        let file = sample.file.to_string_lossy();
        let mut arguments = vec!["inspect", &file, "--profile", "journal", "--json"];
        for rcpt in sample.rcpt_to() {
            arguments.extend(["--rcpt", rcpt]);
        }
        if !sample.trusted() {
            arguments.push("--untrusted");
        }
        let verdict = archiver.run(&arguments, b"")?.expect(0)?.json()?;
        let differences = differences(&sample.truth, &verdict);
        agreed += usize::from(differences.is_empty());
        for difference in differences {
            println!("{}: {difference}", sample.name);
        }
        ensure!(sha256(&sample.bytes) == sample.text("raw_sha256").unwrap_or_default(), "{} was changed", sample.name);
    }
    println!("inspect agreed: {agreed} / {total}");
    ensure!(agreed == total && total > 0);
    Ok(())
}

fn differences(truth: &Value, verdict: &Value) -> Vec<String> {
    let shorten = |value: &Value| value.to_string().chars().take(300).collect::<String>();
    let field = |json: &Value, name: &str| match (name, json.get(name)) {
        ("recipients", Some(Value::Array(recipients))) => recipients.iter().map(recipient).collect(),
        // The description's word for a report from elsewhere; what it is called stays what it is, and it is held.
        ("kind", Some(Value::String(kind))) if kind == "spoofed-journal" => "journal-report".into(),
        (_, value) => value.cloned().unwrap_or_default(),
    };
    let pairs = FIELDS.iter().map(|name| (name, field(truth, name), field(verdict, name)));
    pairs
        .filter(|(_, wanted, got)| wanted != got)
        .map(|(name, wanted, got)| format!("{name}: {} instead of {}", shorten(&got), shorten(&wanted)))
        .collect()
}

/// What is described of every recipient; some descriptions add remarks.
fn recipient(json: &Value) -> Value {
    ["address", "type", "expanded_from", "forwarded_from"]
        .iter()
        .map(|key| json.get(*key).cloned().unwrap_or_default())
        .collect()
}
