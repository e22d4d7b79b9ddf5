//! Owners who come and go, addresses nobody owns, forks and folders: with the real programs.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
    time::{Duration, Instant},
};
use support::{Access, Archiver, Gateway, Random, folder, message, report, sha256};

const OWNERS_FILE: &str = "# Who is who. Do not sort.\n[[owner]]   # the boss\nname = 'ann'\naddresses = [\n  'ann@aurora.example', # since 2019\n]\n\n\
    [[owner]]\nname = \"bob\"\naliases = ['b.old@aurora.example']\naddresses = [\"bob@aurora.example\"]\n";

/// A gateway with a mailbox, and an archiver that collects it.
struct Pair {
    _folder: tempfile::TempDir,
    gateway: Gateway,
    access: Access,
    archiver: Archiver,
}

impl Pair {
    fn new() -> Result<Self> {
        let folder = folder()?;
        let mut gateway = Gateway::create(folder.path())?;
        gateway.start()?;
        let access = gateway.create_mailbox()?;
        let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
        std::fs::write(archiver.folder.join("owners.toml"), OWNERS_FILE)?;
        Ok(Self { _folder: folder, gateway, access, archiver })
    }

    fn send(&self, number: usize, from: &str, to: &[&str]) -> Result<()> {
        let mail = mail(number, from, "");
        send(&self.gateway, &self.access, &report(from, to, &subject(number), &id(number), &mail))
    }

    /// Replaces lines of the configuration.
    fn reconfigure(&self, from: &str, to: &str) -> Result<()> {
        let text = std::fs::read_to_string(&self.archiver.config)?;
        ensure!(text.contains(from), "{from}");
        Ok(std::fs::write(&self.archiver.config, text.replace(from, to))?)
    }

    fn owner(&self, arguments: &[&str]) -> Result<support::Output> {
        self.archiver.run(&[&["owner"], arguments].concat(), b"")
    }

    fn owners_file(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.archiver.folder.join("owners.toml"))?)
    }

    /// Folder and subject of everything in an archive, sorted.
    fn archive(&self, owner: &str) -> Result<Vec<String>> {
        let mut found: Vec<String> = self
            .archiver
            .list(owner)?
            .iter()
            .map(|entry| format!("{}: {}", text(entry, "folder"), text(entry, "subject")))
            .collect();
        found.sort();
        Ok(found)
    }

    /// Address and count of everything without owner, and the exit code.
    fn unowned(&self) -> Result<(i32, BTreeMap<String, u64>)> {
        let output = self.owner(&["unowned", "--json"])?;
        let json = output.json()?;
        let list = json.as_array().context("a list")?;
        let pair = |entry: &Value| Some((text(entry, "address"), entry.get("count")?.as_u64()?));
        Ok((output.code, list.iter().filter_map(pair).collect()))
    }

    fn why(&self, id: &str, whom: &str) -> Result<(bool, String)> {
        let json = self.archiver.run(&["why", id, whom, "--json"], b"")?.expect(0)?.json()?;
        let sentences = json.get("sentences").and_then(Value::as_array).context("sentences")?;
        let sentences: Vec<&str> = sentences.iter().filter_map(Value::as_str).collect();
        Ok((json.get("in").and_then(Value::as_bool).context("in")?, sentences.join(" ")))
    }
}

fn id(number: usize) -> String {
    format!("<mail-{number}@aurora.example>")
}

fn subject(number: usize) -> String {
    format!("Mail {number}")
}

fn mail(number: usize, from: &str, trace: &str) -> Vec<u8> {
    let plain = message(&format!("mail-{number}"), from, "list@aurora.example", &subject(number), "Hello");
    [trace.as_bytes(), &plain].concat()
}

fn send(gateway: &Gateway, access: &Access, report: &[u8]) -> Result<()> {
    let reply = gateway.smtp()?.send("", &[&access.address], report)?;
    ensure!(reply.code == 250, "{reply:?}");
    Ok(())
}

fn text(entry: &Value, key: &str) -> String {
    entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(value: &Value, key: &str) -> Result<u64> {
    value.get(key).and_then(Value::as_u64).with_context(|| format!("{key} in {value}"))
}

/// Packs grew by the copies of new records, and by no content: a chunk stored twice would count once. `killed` commits may
/// have left the copy of records, 64 of 300, that never came to be.
fn only_records_came(before: &Value, after: &Value, killed: u64) -> Result<()> {
    let grown = |key: &str| Ok::<_, anyhow::Error>(number(after, key)? - number(before, key)?);
    let (packs, records) = (grown("pack_bytes")?, grown("record_bytes")?);
    let most = records * 3 / 2 + records * killed * 64 / 300 + 1024;
    ensure!(packs <= most, "{packs} octets of packs for {records} of records");
    Ok(())
}

#[test]
fn an_address_without_owner_finds_one() -> Result<()> {
    let pair = Pair::new()?;
    let (zoe, team) = ("zoe@aurora.example", "team@aurora.example");
    pair.send(1, "ann@aurora.example", &["b.old@aurora.example", zoe])?;
    pair.send(2, "customer@elsewhere.example", &["ZOE@Aurora.example"])?;
    pair.send(3, "customer@elsewhere.example", &["zoe+x@aurora.example", team])?;
    pair.send(4, "ann@aurora.example", &["customer@elsewhere.example"])?;
    let round = pair.archiver.round()?;
    ensure!(number(&round, "filed")? == 2 && number(&round, "catchall")? == 2, "{round}");
    ensure!(pair.archive("@catchall")? == ["Unknown E-mail Addresses: Mail 2", "Unknown E-mail Addresses: Mail 3"]);
    ensure!(pair.archive("bob")? == ["Journal Incoming: Mail 1"], "the known get theirs");
    let wanted = [(team, 1), ("zoe+x@aurora.example", 1), (zoe, 2)].map(|(a, n)| (a.to_owned(), n));
    ensure!(pair.unowned()? == (1, BTreeMap::from(wanted)), "{:?}", pair.unowned()?);
    let status = pair.archiver.run(&["status", "--json"], b"")?.json()?;
    ensure!(number(&status, "unowned")? == 3, "{status}");
    let before = pair.archiver.stats()?;
    let first = text(pair.archiver.list("bob")?.first().context("bob has it")?, "id");
    let (inside, why) = pair.why(&first, zoe)?;
    ensure!(!inside && why.contains("`owner add NAME zoe@aurora.example`"), "{why}");
    ensure!(pair.archiver.run(&["why", &first, "zoe"], b"")?.expect(0)?.text().contains("No report of this message"));

    // Comments, order and spelling of the file stay; the new owner comes behind.
    pair.owner(&["add", "zoe", zoe, "--full-name", "Zoe Z."])?.expect(0)?;
    let added = "\n[[owner]]\nname = \"zoe\"\nfull_name = \"Zoe Z.\"\naddresses = [\"zoe@aurora.example\"]\n";
    ensure!(pair.owners_file()? == format!("{OWNERS_FILE}{added}"), "{}", pair.owners_file()?);

    // The next round files the old ones by itself.
    let round = pair.archiver.round()?;
    ensure!(number(&round, "refiled")? == 3 && number(&round, "collected")? == 0, "{round}");
    ensure!(pair.archive("zoe")? == [1, 2, 3].map(|n| format!("Journal Incoming: Mail {n}")));
    ensure!(pair.archive("@catchall")?.is_empty(), "what somebody owns leaves it");
    ensure!(pair.unowned()? == (1, BTreeMap::from([(team.to_owned(), 1)])), "{:?}", pair.unowned()?);
    let after = pair.archiver.stats()?;
    for key in ["parts", "part_references", "chunks", "messages", "bytes_in"] {
        ensure!(before.get(key) == after.get(key), "{key}: {before} {after}");
    }
    only_records_came(&before, &after, 0)?;
    ensure!(number(&after, "instances")? == number(&before, "instances")? + 1, "two left the catch-all, three came");
    let again = pair.owner(&["refile", "--json"])?.expect(0)?.json()?;
    ensure!(number(&again, "reports")? == 4 && number(&again, "changed")? == 0, "{again}");
    ensure!(number(&pair.archiver.round()?, "refiled")? == 0);

    let (inside, why) = pair.why(&first, "zoe")?;
    ensure!(inside && why.contains("names zoe@aurora.example as a recipient, an address of zoe"), "{why}");
    ensure!(why.contains("when the address had got an owner"), "{why}");
    let (inside, why) = pair.why(&first, "b.old@aurora.example")?;
    ensure!(inside && why.contains("bob / Journal Incoming"), "{why}");
    let envelope = pair.archiver.run(&["envelope", &first], b"")?.expect(0)?.text();
    ensure!(envelope.contains("(rule alias)") && envelope.contains("refile on "), "{envelope}");

    // Who goes leaves the archive behind; a name that passes on does not hand over the old mail.
    let said = pair.owner(&["remove", "zoe"])?.expect(0)?.text();
    ensure!(said.contains("the archive stays") && pair.owners_file()?.starts_with(OWNERS_FILE), "{said}");
    pair.owner(&["add", "zach", zoe])?.expect(0)?;
    pair.send(5, "ann@aurora.example", &[zoe])?;
    ensure!(number(&pair.archiver.round()?, "refiled")? == 0);
    pair.owner(&["refile"])?.expect(0)?;
    ensure!(pair.archive("zoe")?.len() == 3 && pair.archive("zach")? == ["Journal Incoming: Mail 5"]);
    let (inside, why) = pair.why(&first, "zach")?;
    ensure!(!inside && why.contains("it was filed to zoe on "), "{why}");

    let (code, verified) = pair.archiver.verify()?;
    ensure!(code == 0, "{verified}");
    ensure!(pair.archiver.reconcile()?.0 == 0);
    let everything = || -> Result<Vec<Vec<String>>> {
        ["ann", "bob", "zoe", "zach", "@catchall"].iter().map(|owner| pair.archive(owner)).collect()
    };
    let (lists, stats, unowned) = (everything()?, pair.archiver.stats()?, pair.unowned()?);
    pair.archiver.run(&["store", "rebuild-catalog"], b"")?.expect(0)?;
    ensure!(everything()? == lists && pair.archiver.stats()? == stats, "the records say the same");
    ensure!(pair.unowned()? == unowned);
    Ok(())
}

#[test]
fn refiling_killed_anywhere_ends_the_same() -> Result<()> {
    let (mut random, seed) = Random::seeded();
    let pair = Pair::new()?;
    let mut sender = pair.gateway.smtp()?;
    for n in 0..300 {
        let (from, to) = ("customer@elsewhere.example", format!("zoe{}@aurora.example", n % 30));
        let report = report(from, &[&to, "ann@aurora.example"], &subject(n), &id(n), &mail(n, from, ""));
        ensure!(sender.send("", &[&pair.access.address], &report)?.code == 250);
    }
    sender.quit()?;
    pair.archiver.round()?;
    let before = pair.archiver.stats()?;
    ensure!(pair.unowned()?.1.len() == 30);
    let all: Vec<String> = (0..30).map(|n| format!("zoe{n}@aurora.example")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    // How long it takes to look at everything and find nothing.
    let started = Instant::now();
    pair.owner(&["refile"])?.expect(0)?;
    let idle = started.elapsed().as_millis() as u64;
    pair.owner(&[&["add", "zoe"], all.as_slice()].concat())?.expect(0)?;
    let (mut killed, mut seen) = (0, BTreeSet::new());
    for n in 0..15 {
        let mut command = pair.archiver.command(&["owner", "refile"])?;
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(idle * (40 + n * 10) / 100 + random.below(1 + idle / 10)));
        let ended = child.try_wait()?.is_some();
        child.kill()?;
        child.wait()?;
        if ended {
            break;
        }
        killed += 1;
        seen.insert(pair.unowned()?.1.values().sum::<u64>());
    }
    pair.owner(&["refile"])?.expect(0)?;
    let after = pair.archiver.stats()?;
    println!(
        "seed {seed}: refiling of 300 messages killed at work {killed} times; messages still without owner in between: {seen:?}"
    );
    ensure!(pair.archive("zoe")?.len() == 300 && pair.unowned()?.1.is_empty(), "seed {seed}");
    ensure!(number(&after, "instances")? == number(&before, "instances")? + 300, "seed {seed}: {before} {after}");
    ensure!(after.get("chunks") == before.get("chunks"), "seed {seed}: {before} {after}");
    only_records_came(&before, &after, killed).with_context(|| format!("seed {seed}"))?;
    let (code, verified) = pair.archiver.verify()?;
    ensure!(code == 0, "seed {seed}: {verified}");
    Ok(())
}

#[test]
fn what_is_left_in_the_source_is_named_and_comes_later() -> Result<()> {
    let pair = Pair::new()?;
    pair.reconfigure("unknown = \"catchall\"", "unknown = \"leave\"\nfolder = \"{direction}/{year}/{h-email}\"")?;
    pair.send(1, "customer@elsewhere.example", &["zoe@aurora.example"])?;
    pair.send(2, "customer@elsewhere.example", &["b.old@aurora.example"])?;
    for _ in 0..2 {
        let output = pair.archiver.run(&["run", "--once", "--json"], b"")?.expect(1)?;
        let round = output.json_stream()?.into_iter().next().context("a source")?;
        ensure!(number(&round, "left")? == 1, "{round}");
        ensure!(round.pointer("/left_unowned/zoe@aurora.example") == Some(&Value::from(1)), "{round}");
        ensure!(pair.gateway.waiting(&pair.access.id)?.len() == 1);
    }
    let output = pair.archiver.run(&["run", "--once"], b"")?.expect(1)?;
    ensure!(output.text().contains("left for want of an owner: zoe@aurora.example"), "{}", output.text());
    pair.owner(&["add", "zoe", "zoe@aurora.example"])?.expect(0)?;
    ensure!(number(&pair.archiver.round()?, "filed")? == 1);
    ensure!(pair.gateway.waiting(&pair.access.id)?.is_empty());
    ensure!(pair.archive("zoe")? == ["Incoming/2026/zoe@aurora.example: Mail 1"], "{:?}", pair.archive("zoe")?);
    ensure!(pair.archive("bob")? == ["Incoming/2026/b.old@aurora.example: Mail 2"], "{:?}", pair.archive("bob")?);
    Ok(())
}

#[test]
fn tables_are_taken_whole_or_not_at_all() -> Result<()> {
    let pair = Pair::new()?;
    let table = pair.archiver.folder.join("people.csv");
    let name = table.to_str().context("UTF-8")?;
    std::fs::write(&table, "name;addresses;x500\ncarl;carl@aurora.example;\nd d;nobody;x\ncarl;;\n")?;
    let failed = pair.owner(&["import", name])?;
    ensure!(failed.code == 2 && failed.err.lines().count() == 5, "{}", failed.err);
    for wanted in ["line 3, name", "line 3, addresses", "line 3, x500", "line 4, name", "line 4, addresses"] {
        ensure!(failed.err.contains(wanted), "{wanted}: {}", failed.err);
    }
    ensure!(pair.owners_file()? == OWNERS_FILE, "nothing was written");
    std::fs::write(
        &table,
        "name;addresses;aliases\ncarl;carl@aurora.example;\nANN;ann@aurora.example;\"a1@aurora.example;a2@aurora.example\"\n",
    )?;
    let tried = pair.owner(&["import", name, "--dry-run"])?.expect(0)?.text();
    ensure!(tried.contains("1 owners would be added, 1 would be changed, 3 in all"), "{tried}");
    ensure!(pair.owners_file()? == OWNERS_FILE, "nothing was written");
    pair.owner(&["import", name])?.expect(0)?;
    let once = pair.owners_file()?;
    ensure!(once.contains("# since 2019") && once.contains("a2@aurora.example"), "{once}");
    ensure!(pair.owner(&["import", name])?.expect(0)?.text().contains("0 owners added, 0 changed"));
    ensure!(pair.owners_file()? == once, "the second time changes nothing");
    let listed = pair.owner(&["list", "--json"])?.expect(0)?.json_stream()?;
    ensure!(listed.len() == 3 && listed[0]["aliases"][1] == "a2@aurora.example", "{listed:?}");

    // Commands at the same time do not undo each other.
    let names: Vec<String> = (0..8).map(|n| format!("new{n}")).collect();
    let addresses: Vec<String> = names.iter().map(|name| format!("{name}@aurora.example")).collect();
    let children: Vec<_> = names
        .iter()
        .zip(&addresses)
        .map(|(name, address)| {
            let mut command = pair.archiver.command(&["owner", "add", name, address])?;
            Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
        })
        .collect::<Result<_>>()?;
    for mut child in children {
        ensure!(child.wait()?.success());
    }
    ensure!(pair.owner(&["list", "--json"])?.expect(0)?.json_stream()?.len() == 11);
    for (arguments, wanted) in [
        (["remove", "nobody", ""].as_slice(), "there is no owner `nobody`"),
        (&["remove", "ann", "zoe@aurora.example"], "has no address"),
        (&["add", "a b", "x@aurora.example"], "has a blank"),
        (&["import", "missing.csv"], "missing.csv"),
    ] {
        let arguments: Vec<&str> = arguments.iter().copied().filter(|a| !a.is_empty()).collect();
        let failed = pair.owner(&arguments)?;
        ensure!(matches!(failed.code, 2 | 3) && failed.err.contains(wanted), "{arguments:?}: {}", failed.err);
    }
    Ok(())
}

#[test]
fn one_mail_by_two_gateways_in_three_forks_twice_repeated() -> Result<()> {
    let folder = folder()?;
    let mut sources = String::new();
    let archiver = Archiver::create(folder.path())?;
    let mut reports = Vec::new();
    for (at, recipients) in [&["bob", "carl"][..], &["carl", "dora"], &["erik", "zoe"]].iter().enumerate() {
        let to: Vec<String> = recipients.iter().map(|name| format!("{name}@aurora.example")).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let trace = format!(
            "Received: from fork{at}.aurora.example by hub.aurora.example; Tue, 18 Aug 2026 09:14:0{at} +0000\r\n"
        );
        reports.push(report("ann@aurora.example", &to, &subject(1), &id(1), &mail(1, "ann@aurora.example", &trace)));
    }
    let mut gateways = Vec::new();
    for name in ["one", "two"] {
        let place = folder.path().join(name);
        std::fs::create_dir(&place)?;
        let mut gateway = Gateway::create(&place)?;
        gateway.start()?;
        let access = gateway.create_mailbox()?;
        let password = archiver.folder.join(format!("{name}.password"));
        std::fs::write(&password, format!("{}\n", access.password))?;
        support::archiver::restrict(&password)?;
        sources += &format!(
            "\n[[source]]\nname = \"{name}\"\nhosts = [\"{}\"]\nmailbox = \"{}\"\npassword_file = \"{name}.password\"\n\
             tls = {{ verify = \"pin\", pin_sha256 = [\"{}\"] }}\n",
            gateway.address("pop3s")?,
            access.id,
            gateway.pin()?
        );
        gateways.push((gateway, access));
    }
    archiver.configure(&sources)?;
    for (gateway, access) in &gateways {
        for report in reports.iter().chain([&reports[0], &reports[0]]) {
            send(gateway, access, report)?;
        }
    }
    let rounds = archiver.run(&["run", "--once", "--json"], b"")?.expect(0)?.json_stream()?;
    let collected: u64 = rounds.iter().map(|round| number(round, "collected")).sum::<Result<_>>()?;
    let mut instances = Vec::new();
    for (owner, folder) in
        [("ann", "Outgoing"), ("bob", "Incoming"), ("carl", "Incoming"), ("dora", "Incoming"), ("erik", "Incoming")]
    {
        let listed = archiver.list(owner)?;
        ensure!(listed.len() == 1 && text(&listed[0], "folder") == format!("Journal {folder}"), "{owner}: {listed:?}");
        instances.push((owner, text(&listed[0], "id")));
    }
    let forms: Vec<String> = (0..3).map(|at| sha256(original(&reports[at]))).collect();
    for (owner, id) in &instances {
        let envelopes = archiver.run(&["envelope", id, "--json"], b"")?.expect(0)?.json()?;
        let envelopes = envelopes.as_array().context("a list")?;
        ensure!(envelopes.len() == 10, "{owner}: {} envelopes", envelopes.len());
        for source in ["one", "two"] {
            for (at, form) in forms.iter().enumerate() {
                let same = |e: &&Value| text(e, "source") == source && text(e, "message_sha256") == *form;
                let here: Vec<&Value> = envelopes.iter().filter(same).collect();
                ensure!(here.len() == if at == 0 { 3 } else { 1 }, "fork {at} of {source}: {}", here.len());
                ensure!(here.iter().all(|e| e.pointer("/receipt/signature") == Some(&Value::Bool(true))));
                ensure!(here.iter().all(|e| e["recipients"].as_array().is_some_and(|r| r.len() == 2)));
            }
        }
    }
    let output = archiver.run(&["owner", "unowned", "--json"], b"")?.expect(1)?.json()?;
    ensure!(output[0]["address"] == "zoe@aurora.example" && output[0]["count"] == 1, "one message: {output}");
    let stats = archiver.stats()?;
    println!(
        "one mail, 2 gateways, 3 forks, one of them sent three times: {collected} reports, {} forms stored, {} instances in \
         {} archives, 10 envelopes of each with valid receipts",
        number(&stats, "messages")?,
        number(&stats, "instances")?,
        instances.len()
    );
    ensure!(collected == 10 && number(&stats, "messages")? == 3 && number(&stats, "instances")? == 5, "{stats}");
    ensure!(archiver.reconcile()?.0 == 0);
    Ok(())
}

/// The embedded message of a report.
fn original(report: &[u8]) -> &[u8] {
    let start = support::find(report, b"message/rfc822\r\n\r\n").map_or(0, |at| at + 18);
    let end = report.len() - report.rsplit(|b| *b == b'\n').nth(1).map_or(0, |line| line.len() + 1) - 2;
    report.get(start..end).unwrap_or_default()
}
