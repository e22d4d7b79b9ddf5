//! What is kept whole and filed nowhere: evidence that does not fit, reports that nobody can file, and what becomes of
//! them. Nothing is lost, every number adds up, and doing the same twice changes nothing.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::fmt::Write as _;
use support::{Access, Archiver, Gateway, files_below, find, folder, numbered_report, report, sha256};

struct Setup {
    _folder: tempfile::TempDir,
    gateway: Gateway,
    access: Access,
    archiver: Archiver,
}

impl Setup {
    fn new() -> Result<Self> {
        let folder = folder()?;
        let mut gateway = Gateway::create(folder.path())?;
        gateway.start()?;
        let access = gateway.create_mailbox()?;
        let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
        Ok(Self { _folder: folder, gateway, access, archiver })
    }

    /// The source as it was, with these lines more.
    fn rules(&self, lines: &str) -> Result<()> {
        self.archiver.collect_from(&self.gateway, &self.access)?;
        let mut text = std::fs::read_to_string(&self.archiver.config)?;
        write!(text, "{lines}")?;
        Ok(std::fs::write(&self.archiver.config, text)?)
    }

    fn send(&self, from: &str, message: &[u8]) -> Result<()> {
        let reply = self.gateway.smtp()?.send(from, &[&self.access.address], message)?;
        ensure!(reply.code == 250, "{reply:?}");
        Ok(())
    }

    /// One round; its exit code must be `code`.
    fn round(&self, code: i32) -> Result<Value> {
        let sources = self.archiver.run(&["run", "--once", "--json"], b"")?.expect(code)?.json_stream()?;
        sources.into_iter().next().context("run --once --json says nothing")
    }

    fn json(&self, arguments: &[&str], code: i32) -> Result<Vec<Value>> {
        self.archiver.run(arguments, b"")?.expect(code)?.json_stream()
    }

    /// The row of `reconcile`, which must add up.
    fn reconciled(&self) -> Result<Value> {
        let (code, rows) = self.archiver.reconcile()?;
        ensure!(code == 0, "{rows:?}");
        let row = rows.into_iter().next().context("no row")?;
        let n = |key: &str| row[key].as_u64().unwrap_or(u64::MAX);
        ensure!(n("accepted") == n("collected") + n("waiting"), "{row}");
        ensure!(n("collected") == n("filed") + n("catchall") + n("dead_letters") + n("quarantined"), "{row}");
        Ok(row)
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn ids(list: &[Value]) -> Vec<String> {
    list.iter().map(|held| text(held, "id")).collect()
}

/// Wherever the gateway saw it come from, and whatever the message says of itself.
#[test]
fn evidence_that_does_not_fit_is_quarantined_whole_and_decided_by_a_person() -> Result<()> {
    let setup = Setup::new()?;
    setup.rules("networks = [\"192.0.2.0/24\"]\n")?;
    let reports: Vec<(Vec<u8>, Vec<u8>)> = (0..4).map(numbered_report).collect();
    for (report, _) in &reports {
        setup.send("ndr@aurora.example", report)?;
    }
    let round = setup.round(1)?;
    ensure!((round["collected"] == 4) && round["quarantined"] == 4 && round["filed"] == 0, "{round}");
    ensure!(setup.archiver.list("bob")?.is_empty(), "nothing is filed");
    let held = setup.json(&["quarantine", "list", "--json"], 0)?;
    ensure!(held.len() == 4, "{held:?}");
    ensure!(held.iter().all(|h| text(h, "reason").contains("127.0.0.1")), "{held:?}");
    ensure!(held.iter().all(|h| h["evidence"]["mail_from"] == "ndr@aurora.example"), "{held:?}");
    let row = setup.reconciled()?;
    ensure!(row["quarantined"] == 4 && row["dead_letters"] == 0, "{row}");

    // Kept whole and encrypted.
    let ids = ids(&held);
    let mut found = 0;
    for id in &ids {
        let raw = setup.archiver.run(&["quarantine", "show", id, "--raw"], b"")?.expect(0)?;
        found += usize::from(reports.iter().any(|(report, _)| *report == raw.out));
    }
    ensure!(found == 4, "{found} of 4 come out as they came in");
    for file in files_below(&setup.archiver.data())? {
        let octets = std::fs::read(&file)?;
        ensure!(find(&octets, b"Message number").is_none(), "plaintext in {}", file.display());
    }

    // Released: filed like a fresh report. Again: nothing changes.
    let release = ["quarantine", "release", &ids[0], "--reason", "the connector moved", "--json"];
    let done = setup.json(&release, 0)?;
    ensure!(done.len() == 1 && done[0]["result"] == "released" && done[0]["outcome"] == "filed", "{done:?}");
    ensure!(done[0]["instances"] == 2, "sender and recipient: {done:?}");
    let listed = setup.archiver.list("bob")?;
    ensure!(listed.len() == 1, "{listed:?}");
    ensure!(reports.iter().any(|(_, original)| sha256(original) == text(&listed[0], "sha256")));
    let stats = setup.archiver.stats()?;
    let again = setup.json(&release, 0)?;
    ensure!(again[0]["result"] == "unchanged", "{again:?}");
    ensure!(setup.archiver.stats()? == stats, "nothing was written");
    let shown = setup.archiver.run(&["envelope", &text(&listed[0], "id"), "--json"], b"")?.expect(0)?.json()?;
    ensure!(shown[0]["decisions"][0]["reason"] == "the connector moved" && shown[0]["outcome"] == "filed", "{shown}");

    // Rejected: kept and marked. What is filed cannot be rejected; what was rejected can be released.
    let reject = ["quarantine", "reject", &ids[1], "--reason", "a forgery", "--json"];
    ensure!(setup.json(&reject, 0)?[0]["outcome"] == "rejected");
    ensure!(setup.json(&reject, 0)?[0]["result"] == "unchanged");
    setup.archiver.run(&["quarantine", "reject", &ids[0], "--reason", "too late"], b"")?.expect(5)?;
    setup.archiver.run(&["quarantine", "release", &ids[2], "--reason", "  "], b"")?.expect(2)?;
    setup.archiver.run(&["quarantine", "release", &ids[2], "ffffffff", "--reason", "x"], b"")?.expect(2)?;
    setup.archiver.run(&["quarantine", "release", "--reason", "x"], b"")?.expect(2)?;
    ensure!(setup.json(&["quarantine", "list", "--json"], 0)?.len() == 2, "a mistake changes nothing");
    let row = setup.reconciled()?;
    ensure!(row["quarantined"] == 3 && row["rejected"] == 1 && row["filed"] == 1, "{row}");

    ensure!(setup.json(&["quarantine", "release", "--all", "--reason", "all right", "--json"], 0)?.len() == 2);
    ensure!(
        setup.json(&["quarantine", "release", &ids[1], "--reason", "it was none", "--json"], 0)?[0]["outcome"]
            == "filed"
    );
    ensure!(setup.archiver.list("bob")?.len() == 4);

    // The log of decisions is in the records: a new catalog knows it.
    let before = setup.json(&["quarantine", "list", "--all", "--json"], 0)?;
    setup.archiver.run(&["store", "rebuild-catalog"], b"")?.expect(0)?;
    let mut after = setup.json(&["quarantine", "list", "--all", "--json"], 0)?;
    let mut sorted = before.clone();
    sorted.sort_by_key(|held| text(held, "id"));
    after.sort_by_key(|held| text(held, "id"));
    ensure!(sorted == after, "{sorted:#?}\n{after:#?}");
    let twice = after.iter().find(|held| text(held, "id") == ids[1]).context("is listed")?;
    let decided: Vec<String> = twice["decisions"].as_array().into_iter().flatten().map(|d| text(d, "reason")).collect();
    ensure!(decided == ["a forgery", "it was none"], "{twice}");
    let (code, verified) = setup.archiver.verify()?;
    ensure!(code == 0, "{verified}");
    let row = setup.reconciled()?;
    println!("quarantine: 4 held, 1 rejected and released later, 4 filed; reconcile {row}");
    ensure!(row["filed"] == 4 && row["quarantined"] == 0, "{row}");
    Ok(())
}

#[test]
fn reverse_paths_tenants_and_the_gateways_own_doubt() -> Result<()> {
    let setup = Setup::new()?;
    setup.rules("mail_from = [\"ndr@aurora.example\"]\ntenants = [\"aurora.onmicrosoft.com\"]\n")?;
    let of = |n: usize, tenant: &str| -> Vec<u8> {
        let (report, _) = numbered_report(n);
        [format!("X-OriginatorOrg: {tenant}\r\n").as_bytes(), &report].concat()
    };
    setup.send("ndr@aurora.example", &of(1, "aurora.onmicrosoft.com"))?;
    setup.send("ndr@other.example", &of(2, "aurora.onmicrosoft.com"))?;
    setup.send("ndr@aurora.example", &of(3, "other.onmicrosoft.com"))?;
    setup.send("ndr@aurora.example", &numbered_report(4).0)?;
    let round = setup.round(1)?;
    ensure!(round["filed"] == 1 && round["quarantined"] == 3, "{round}");
    let reasons: Vec<String> =
        setup.json(&["quarantine", "list", "--json"], 0)?.iter().map(|h| text(h, "reason")).collect();
    for part in ["MAIL FROM <ndr@other.example>", "other.onmicrosoft.com", "has no X-OriginatorOrg"] {
        ensure!(reasons.iter().any(|reason| reason.contains(part)), "{part}: {reasons:?}");
    }
    println!("evidence: 1 of 4 fits, 3 held: {reasons:?}");
    setup.reconciled()?;
    Ok(())
}

#[test]
fn dead_letters_are_kept_and_filed_when_somebody_owns_them() -> Result<()> {
    let setup = Setup::new()?;
    let samples = support::root().join("archiver/tests/samples/journal");
    let no_envelope = std::fs::read(samples.join("050-envelope-missing.eml"))?;
    let headers_only = std::fs::read(samples.join("072-ndr-headers-only.eml"))?;
    let no_recipient = report("zoe@aurora.example", &[], "Lost", "<lost@aurora.example>", &numbered_report(7).1);
    let fine = numbered_report(8).0;
    for message in [&no_envelope, &headers_only, &no_recipient, &fine] {
        setup.send("", message)?;
    }
    let round = setup.round(1)?;
    ensure!(round["dead_letters"] == 3 && round["filed"] == 1 && round["catchall"] == 0, "{round}");
    ensure!(setup.gateway.waiting(&setup.access.id)?.is_empty(), "kept, so they need not wait at the gateway");
    let dead = setup.json(&["dead-letter", "list", "--json"], 0)?;
    ensure!(dead.len() == 3, "{dead:?}");
    let mut whole = 0;
    for held in &dead {
        let raw = setup.archiver.run(&["dead-letter", "show", &text(held, "id"), "--raw"], b"")?.expect(0)?.out;
        whole += usize::from([&no_envelope, &headers_only, &no_recipient].contains(&&raw));
    }
    ensure!(whole == 3);
    ensure!(setup.reconciled()?["dead_letters"] == 3);

    // Nothing has changed, so nothing can be filed.
    let tried = setup.json(&["dead-letter", "retry", "--json"], 1)?;
    ensure!(tried.len() == 3 && tried.iter().all(|t| t["result"] == "stays"), "{tried:?}");
    // Somebody owns one of them now.
    setup.archiver.run(&["owner", "add", "zoe", "zoe@aurora.example"], b"")?.expect(0)?;
    let tried = setup.json(&["dead-letter", "retry", "--json"], 1)?;
    ensure!(tried.iter().filter(|t| t["result"] == "retried" && t["outcome"] == "filed").count() == 1, "{tried:?}");
    ensure!(setup.archiver.list("zoe")?.len() == 1);
    ensure!(setup.json(&["dead-letter", "list", "--json"], 0)?.len() == 2);
    let filed = dead
        .iter()
        .map(|held| text(held, "id"))
        .find(|id| tried.iter().any(|t| t["id"] == id.as_str() && t["result"] == "retried"));
    let again = ["dead-letter", "retry", &filed.context("one was filed")?, "--json"];
    ensure!(setup.json(&again, 0)?[0]["result"] == "unchanged");
    let row = setup.reconciled()?;
    ensure!(row["dead_letters"] == 2 && row["filed"] == 2, "{row}");
    let (code, verified) = setup.archiver.verify()?;
    ensure!(code == 0, "{verified}");
    println!("dead letters: 3 kept, 1 filed for its new owner, 2 stay; reconcile {row}");
    Ok(())
}
