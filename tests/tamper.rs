//! What `reconcile` says when somebody has been at a spool, a ledger, a mailbox or a store: every loss is named exactly,
//! and nothing is named where nothing was done.

mod support;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use support::{Access, Archiver, Gateway, Random, archiver::restrict, copy, folder, numbered_report, run};

/// A gateway and an archiver that collects from it.
struct House {
    gateway: Gateway,
    archiver: Archiver,
    access: Access,
    sent: usize,
    _folder: tempfile::TempDir,
}

impl House {
    fn new() -> Result<Self> {
        let folder = folder()?;
        let mut gateway = Gateway::create(folder.path())?;
        gateway.start()?;
        let access = gateway.create_mailbox()?;
        let archiver = Archiver::collecting(folder.path(), &gateway, &access)?;
        Ok(Self { gateway, archiver, access, sent: 0, _folder: folder })
    }

    /// Sends reports; number and name of each.
    fn send(&mut self, count: usize) -> Result<Vec<(u64, String)>> {
        let mut sender = self.gateway.smtp()?;
        let mut sent = Vec::new();
        for _ in 0..count {
            let reply = sender.send("", &[&self.access.address], &numbered_report(self.sent).0)?;
            ensure!(reply.code == 250, "{reply:?}");
            let (uidl, seq, _) = reply.receipts()?.into_iter().next().context("no receipt")?;
            sent.push((seq, uidl));
            self.sent += 1;
        }
        sender.quit()?;
        Ok(sent)
    }

    fn restart(&mut self) -> Result<()> {
        self.gateway.start()?;
        self.archiver.collect_from(&self.gateway, &self.access)
    }

    fn ledger(&self) -> PathBuf {
        self.gateway.data().join("ledger").join(format!("{}.ledger", self.access.id))
    }

    /// Green, with these numbers.
    fn green(&self, accepted: u64, collected: u64, waiting: u64) -> Result<()> {
        let (code, rows) = self.archiver.reconcile()?;
        let row = rows.first().context("no row")?;
        let counts = [number(row, "accepted"), number(row, "collected"), number(row, "waiting")];
        ensure!(code == 0 && rows.len() == 1 && counts == [accepted, collected, waiting], "exit {code}: {rows:?}");
        Ok(())
    }

    /// Not green: exit 1. The rows.
    fn red(&self) -> Result<Vec<Value>> {
        let (code, rows) = self.archiver.reconcile()?;
        ensure!(code == 1, "exit {code}: {rows:?}");
        Ok(rows)
    }
}

fn number(row: &Value, key: &str) -> u64 {
    row.get(key).and_then(Value::as_u64).unwrap_or(u64::MAX)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The messages that a row names: number, name and fate.
fn named(row: &Value) -> Vec<(u64, String, String)> {
    let messages = row.get("messages").and_then(Value::as_array).cloned().unwrap_or_default();
    messages.iter().map(|m| (number(m, "seq"), text(m, "uidl").to_owned(), text(m, "fate").to_owned())).collect()
}

fn problems(rows: &[Value]) -> String {
    let all = rows.iter().filter_map(|row| row.get("problems")?.as_array());
    let lines: Vec<&str> = all.flatten().filter_map(Value::as_str).collect();
    lines.join("\n")
}

fn says(rows: &[Value], what: &str) -> Result<()> {
    ensure!(problems(rows).contains(what), "not said: {what}\n{}", problems(rows));
    Ok(())
}

#[test]
fn a_spool_file_that_was_removed() -> Result<()> {
    let mut house = House::new()?;
    house.send(2)?;
    house.archiver.round()?;
    let sent = house.send(4)?;
    house.green(6, 2, 4)?;
    let (seq, uidl) = sent.get(1).context("sent")?.clone();
    let new = house.gateway.data().join("spool").join(&house.access.id).join("new");
    std::fs::remove_file(new.join(&uidl))?;
    // While the gateway runs, and after it was started again.
    for _ in 0..2 {
        let rows = house.red()?;
        let row = rows.first().context("no row")?;
        ensure!(number(row, "missing") == 1 && text(row, "missing_numbers") == seq.to_string(), "{row}");
        ensure!(named(row) == [(seq, uidl.clone(), "missing".to_owned())], "{row}");
        ensure!([number(row, "accepted"), number(row, "collected"), number(row, "waiting")] == [6, 2, 3], "{row}");
        house.gateway.stop()?;
        house.restart()?;
    }
    println!("a removed spool file: missing {seq} {uidl}");
    Ok(())
}

#[test]
fn a_message_that_a_foreign_client_removed() -> Result<()> {
    let mut house = House::new()?;
    house.send(1)?;
    house.archiver.round()?;
    let sent = house.send(3)?;
    house.green(4, 1, 3)?;
    let code = "import poplib, ssl, sys\n\
                host, port = sys.argv[1].rsplit(':', 1)\n\
                p = poplib.POP3_SSL(host, int(port), context=ssl._create_unverified_context())\n\
                p.user(sys.argv[2]); p.pass_(sys.stdin.readline().strip()); p.dele(2); p.quit()";
    let mut python = Command::new("python3");
    python.args(["-c", code, &house.gateway.address("pop3s")?.to_string(), &house.access.id]);
    run(&mut python, format!("{}\n", house.access.password).as_bytes())?.expect(0)?;
    let (seq, uidl) = sent.get(1).context("sent")?.clone();
    // Before and after the round that takes the others.
    for collected in [1, 3] {
        let rows = house.red()?;
        let row = rows.first().context("no row")?;
        ensure!(number(row, "removed_by_others") == 1 && number(row, "collected") == collected, "{row}");
        ensure!(text(row, "removed_by_others_numbers") == seq.to_string(), "{row}");
        ensure!(named(row) == [(seq, uidl.clone(), "removed-by-others".to_owned())], "{row}");
        house.archiver.run(&["run", "--once"], b"")?.expect(0)?;
    }
    println!("removed by poplib: {seq} {uidl}");
    Ok(())
}

#[test]
fn a_ledger_entry_that_was_cut_out() -> Result<()> {
    // Seen by reconcile alone; kept by a round before.
    for round in [false, true] {
        cut_out(round)?;
    }
    Ok(())
}

fn cut_out(round: bool) -> Result<()> {
    let mut house = House::new()?;
    house.send(6)?;
    if round {
        house.archiver.round()?;
        house.green(6, 6, 0)?;
    } else {
        house.green(6, 0, 6)?;
    }
    ensure!(house.gateway.stop()? == 0);
    let octets = std::fs::read(house.ledger())?;
    let at = 64 + 276 * 2;
    let cut = [octets.get(..at).context("long")?, octets.get(at + 276..).context("long")?].concat();
    std::fs::write(house.ledger(), cut)?;
    house.restart()?;
    let rows = house.red()?;
    says(
        &rows,
        if round { "ledger entries 3 were seen there before and are gone" } else { "1 missing in the ledger: 3" },
    )?;
    println!("an entry cut out of a ledger ({}):\n{}", if round { "kept before" } else { "not kept" }, problems(&rows));
    Ok(())
}

#[test]
fn a_ledger_of_yesterday() -> Result<()> {
    let mut house = House::new()?;
    house.send(3)?;
    house.archiver.round()?;
    house.green(3, 3, 0)?;
    // Yesterday: three acceptances and their removals.
    let yesterday = std::fs::read(house.ledger())?;
    house.send(3)?;
    house.green(6, 3, 3)?;
    house.archiver.round()?;
    house.green(6, 6, 0)?;
    ensure!(house.gateway.stop()? == 0);
    std::fs::write(house.ledger(), &yesterday)?;
    std::fs::remove_dir_all(house.gateway.data().join("index"))?;
    house.restart()?;
    let rows = house.red()?;
    // A round keeps what it sees at its begin, its own removals come with the next one.
    says(&rows, "ledger entries 7-9 were seen there before and are gone; it ends with 6 now")?;
    says(&rows, "ledger entries 7 to 12, the last one seen ")?;
    println!("a ledger of yesterday:\n{}", problems(&rows));
    // It goes on from there: a fork.
    house.send(2)?;
    let rows = house.red()?;
    says(&rows, "ledger entries 7-8 are others than those seen there before")?;
    says(&rows, "ledger entries 9 were seen there before and are gone")?;
    says(&rows, "ledger entries 9 to 12, the last one seen ")?;
    println!("and continued:\n{}", problems(&rows));
    // What it says is not believed: nothing is removed there.
    let odd = house.archiver.run(&["run", "--once"], b"")?;
    ensure!(odd.code == 1 && house.gateway.waiting(&house.access.id)?.len() == 2, "{} {}", odd.code, odd.text());
    Ok(())
}

/// The entries were seen by reconcile alone: no round ever kept them.
#[test]
fn a_ledger_set_back_before_a_round_saw_it() -> Result<()> {
    let mut house = House::new()?;
    house.send(2)?;
    house.archiver.round()?;
    let yesterday = std::fs::read(house.ledger())?;
    house.send(2)?;
    house.green(4, 2, 2)?;
    ensure!(house.gateway.stop()? == 0);
    std::fs::write(house.ledger(), &yesterday)?;
    std::fs::remove_dir_all(house.gateway.data().join("index"))?;
    for waiting in house.gateway.waiting(&house.access.id)? {
        std::fs::remove_file(waiting)?;
    }
    house.restart()?;
    let rows = house.red()?;
    says(&rows, "ledger entries 5 to 6, the last one seen ")?;
    says(&rows, "the ledger was set back and ends with 4")?;
    println!("a ledger set back that only reconcile had seen:\n{}", problems(&rows));
    Ok(())
}

/// The last file of a store's records, and the places where frames begin.
fn frames(store: &Path) -> Result<(PathBuf, Vec<u8>, Vec<usize>)> {
    let folder = store.join("records");
    let mut files: Vec<PathBuf> = support::files_below(&folder)?;
    files.retain(|file| file.extension().is_some_and(|e| e == "rec"));
    let file = files.last().context("no records")?.clone();
    let octets = std::fs::read(&file)?;
    let starts =
        octets.windows(4).enumerate().filter(|(_, w)| *w == b"PKRC" || *w == b"PKRB").map(|(at, _)| at).collect();
    Ok((file, octets, starts))
}

#[test]
fn a_store_record_that_was_removed() -> Result<()> {
    for middle in [true, false] {
        let mut house = House::new()?;
        let mut sent = Vec::new();
        for _ in 0..3 {
            sent.extend(house.send(2)?);
            house.archiver.round()?;
        }
        house.green(6, 6, 0)?;
        let (file, octets, starts) = frames(&house.archiver.store())?;
        // Each round wrote its reports, and what it saw of the ledger, as one batch: that of the round before the last is
        // cut out, or that of the last.
        ensure!(starts.len() == 3, "{starts:?}");
        let last = starts.len() - 1;
        let (from, to) = match middle {
            true => (starts.get(last - 1).copied(), starts.get(last).copied()),
            false => (starts.get(last).copied(), Some(octets.len())),
        };
        let (from, to) = from.zip(to).context("frames")?;
        std::fs::write(&file, [octets.get(..from).context("long")?, octets.get(to..).context("long")?].concat())?;
        let rows = house.red()?;
        let store = rows
            .iter()
            .find(|row| text(row, "source").starts_with("store "))
            .context("nothing is said of the store")?;
        println!("a record {}:\n{}", if middle { "cut out" } else { "cut off" }, problems(&rows));
        ensure!(problems(std::slice::from_ref(store)).contains("record"), "{store}");
        let row = rows.first().context("no row")?;
        let lost = named(row);
        ensure!(!lost.is_empty() && lost.iter().all(|(_, _, fate)| fate == "lost-from-store"), "{row}");
        ensure!(lost.iter().all(|(seq, uidl, _)| sent.contains(&(*seq, uidl.clone()))), "{row}\n{sent:?}");
        ensure!(number(row, "missing") == lost.len() as u64 && number(row, "removed_by_others") == 0, "{row}");
        ensure!(number(row, "accepted") == 6, "{row}");
    }
    Ok(())
}

#[test]
fn a_host_that_cannot_be_asked() -> Result<()> {
    let mut house = House::new()?;
    house.send(2)?;
    house.archiver.round()?;
    house.send(2)?;
    house.green(4, 2, 2)?;
    house.gateway.kill()?;
    let rows = house.red()?;
    let row = rows.first().context("no row")?;
    ensure!(number(row, "collected") == 2 && number(row, "missing") == 0, "{row}");
    ensure!(row.get("not_asked").and_then(Value::as_array).is_some_and(|hosts| hosts.len() == 1), "{row}");
    house.restart()?;
    house.green(4, 2, 2)
}

#[test]
fn numbers_by_day() -> Result<()> {
    let mut house = House::new()?;
    house.send(3)?;
    house.archiver.round()?;
    house.send(1)?;
    let rows = house.archiver.run(&["reconcile", "--by-day", "--json"], b"")?.expect(0)?.json_stream()?;
    let days = rows.first().and_then(|row| row.get("days")?.as_array().cloned()).context("no days")?;
    let sum = |key: &str| days.iter().map(|day| number(day, key)).sum::<u64>();
    ensure!([sum("accepted"), sum("collected"), sum("filed"), sum("waiting")] == [4, 3, 3, 1], "{days:?}");
    let lines = house.archiver.run(&["reconcile", "--by-day"], b"")?.expect(0)?.text();
    ensure!(lines.lines().count() == 1 + days.len(), "{lines}");
    Ok(())
}

/// `serve` reconciles and makes its first checkpoint without being asked, and goes on collecting meanwhile.
#[test]
fn serve_proves_by_itself() -> Result<()> {
    let mut house = House::new()?;
    house.send(3)?;
    let mut command = house.archiver.command(&["serve"])?;
    let mut serve = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let checkpoints = house.archiver.data().join("checkpoints");
    let started = Instant::now();
    let proved = || -> Result<bool> {
        let status = house.archiver.run(&["status", "--json"], b"")?.json()?;
        let proof = status.get("proof").context("no proof in status")?;
        let green = text(proof, "last_green").len() > 10 && text(proof, "last_checkpoint").len() > 10;
        let sources = proof.get("sources").and_then(Value::as_array).context("no sources")?;
        let ledgers = sources.first().and_then(|s| s.get("ledgers")?.as_array().cloned()).unwrap_or_default();
        Ok(green && ledgers.first().is_some_and(|ledger| number(ledger, "highest") >= 3) && checkpoints.exists())
    };
    let mut done = Ok(false);
    while matches!(done, Ok(false)) && started.elapsed() < Duration::from_secs(90) {
        std::thread::sleep(Duration::from_millis(500));
        done = proved();
    }
    run(Command::new("kill").args(["-TERM", &serve.id().to_string()]), b"")?;
    let ended = serve.wait()?;
    ensure!(done? && ended.success(), "not proved after {:.0?}; serve: {ended}", started.elapsed());
    println!("serve: green and a checkpoint after {:.0?}", started.elapsed());
    house.green(3, 3, 0)
}

/// Two gateways behind one mailbox, an archiver, and everything that happens to them in ordinary years.
struct Street {
    folder: tempfile::TempDir,
    gateways: Vec<Gateway>,
    archiver: Archiver,
    access: Access,
    passwords: Vec<String>,
    sent: usize,
    accepted: usize,
}

impl Street {
    fn new() -> Result<Self> {
        let folder = folder()?;
        let mut gateways = Vec::new();
        for name in ["one", "two"] {
            let place = folder.path().join(name);
            std::fs::create_dir(&place)?;
            gateways.push(Gateway::create(&place)?);
        }
        let access = gateways.first().context("one")?.create_mailbox()?;
        let archiver = Archiver::create(folder.path())?;
        let passwords = vec![access.password.clone()];
        let mut street = Self { folder, gateways, archiver, access, passwords, sent: 0, accepted: 0 };
        street.share()?;
        for gateway in &mut street.gateways {
            gateway.start()?;
        }
        street.point()?;
        Ok(street)
    }

    /// The first gateway's mailboxes to the second.
    fn share(&self) -> Result<()> {
        let bundle = self.folder.path().join("bundle");
        let shown = bundle.display().to_string();
        let [one, two] = self.gateways.as_slice() else { bail!("two gateways") };
        one.run(&["mailbox", "export", "--out", &shown], b"")?.expect(0)?;
        two.run(&["mailbox", "import", &shown], b"")?.expect(0)?;
        Ok(std::fs::remove_file(bundle)?)
    }

    /// The archiver to both gateways, with all passwords.
    fn point(&self) -> Result<()> {
        let password = self.archiver.folder.join("m365.password");
        let newest: Vec<&str> = self.passwords.iter().rev().take(2).map(String::as_str).collect();
        std::fs::write(&password, newest.join("\n") + "\n")?;
        restrict(&password)?;
        let hosts: Vec<String> =
            self.gateways.iter().map(|g| Ok(g.address("pop3s")?.to_string())).collect::<Result<_>>()?;
        let pins: Vec<String> = self.gateways.iter().map(Gateway::pin).collect::<Result<_>>()?;
        let nodes: Vec<String> = self.gateways.iter().map(node).collect::<Result<_>>()?;
        self.archiver.configure(&format!(
            "[[source]]\nname = \"m365\"\nhosts = [\"{}\"]\nmailbox = \"{}\"\npassword_file = \"m365.password\"\n\
             tls = {{ verify = \"pin\", pin_sha256 = [\"{}\"] }}\ninterval = \"1s\"\nnodes = [\"{}\"]\n",
            hosts.join("\", \""),
            self.access.id,
            pins.join("\", \""),
            nodes.join("\", \""),
        ))
    }

    fn send(&mut self, random: &mut Random, count: u64) -> Result<()> {
        for _ in 0..count {
            let gateway = self.gateways.get(random.below(2) as usize).context("two")?;
            // Now and then the same report again: the sender did not hear the answer.
            let n =
                if self.sent > 0 && random.below(6) == 0 { random.below(self.sent as u64) as usize } else { self.sent };
            let reply = gateway.smtp()?.send("", &[&self.access.address], &numbered_report(n).0)?;
            ensure!(reply.code == 250, "{reply:?}");
            self.accepted += 1;
            self.sent = self.sent.max(n + 1);
        }
        Ok(())
    }

    fn kill_gateway(&mut self, which: usize) -> Result<()> {
        let gateway = self.gateways.get_mut(which).context("two")?;
        gateway.kill()?;
        gateway.start()?;
        self.point()
    }

    /// A round that is killed, and one that is not.
    fn killed_round(&self, random: &mut Random) -> Result<()> {
        let mut command = self.archiver.command(&["run", "--once"])?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(random.below(400)));
        child.kill()?;
        child.wait()?;
        self.round()
    }

    fn round(&self) -> Result<()> {
        // A gateway gives the mailbox free when it sees that its client is gone.
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let output = self.archiver.run(&["run", "--once"], b"")?;
            if output.code == 0 {
                return Ok(());
            }
            ensure!(
                output.code == 1 && Instant::now() < deadline,
                "exit {}: {} {}",
                output.code,
                output.text(),
                output.err
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn suspended(&mut self, random: &mut Random) -> Result<()> {
        let which = random.below(2) as usize;
        let gateway = self.gateways.get(which).context("two")?;
        gateway.run(&["mailbox", "suspend", &self.access.id], b"")?.expect(0)?;
        let refused = gateway.smtp()?.send("", &[&self.access.address], &numbered_report(0).0)?;
        ensure!(refused.code == 450, "{refused:?}");
        self.round()?;
        self.green("suspended")?;
        let gateway = self.gateways.get(which).context("two")?;
        gateway.run(&["mailbox", "resume", &self.access.id], b"")?.expect(0)?;
        Ok(())
    }

    /// Another password on the first gateway; the second hears of it in the next run.
    fn new_password(&mut self, n: usize) -> Result<()> {
        let old = self.passwords.last().context("a password")?.clone();
        let new = format!("a new password, number {n}");
        self.share()?;
        let one = self.gateways.first().context("one")?;
        one.run(&["mailbox", "passwd", &self.access.id, "--stdin"], format!("{old}\n{new}\n").as_bytes())?.expect(0)?;
        self.passwords.push(new);
        self.point()
    }

    /// The second gateway is gone, its spool moves into the first, and another one takes its place.
    fn moved_in(&mut self, random: &mut Random) -> Result<()> {
        let messages = 1 + random.below(3);
        self.send(random, messages)?;
        let two = self.gateways.get_mut(1).context("two")?;
        two.kill()?;
        let gone = two.folder.join("data");
        let one = self.gateways.first().context("one")?;
        let moved = one.run(&["spool", "move-in", &gone.display().to_string(), "--json"], b"")?;
        ensure!(moved.code == 0, "{} {}", moved.code, moved.err);
        let place = self.folder.path().join(format!("another-{}", self.sent));
        std::fs::create_dir(&place)?;
        let mut another = Gateway::create(&place)?;
        *self.gateways.get_mut(1).context("two")? = Gateway::at(&another.folder);
        self.share()?;
        another.start()?;
        *self.gateways.get_mut(1).context("two")? = another;
        self.point()
    }

    /// Mail comes in while `serve` collects and reconcile looks.
    fn all_at_once(&mut self, random: &mut Random) -> Result<()> {
        let mut command = self.archiver.command(&["serve"])?;
        let mut serve = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let looked = (0..3).try_for_each(|_| {
            self.send(random, 3)?;
            self.green("while serve runs")
        });
        run(Command::new("kill").args(["-TERM", &serve.id().to_string()]), b"")?;
        let ended = serve.wait()?;
        looked?;
        ensure!(ended.success(), "serve: {ended}");
        self.round()
    }

    fn green(&self, when: &str) -> Result<()> {
        let (code, rows) = self.archiver.reconcile()?;
        let accepted: u64 = rows.iter().map(|row| number(row, "accepted")).sum();
        ensure!(code == 0, "{when}: a false alarm: {rows:#?}");
        ensure!(accepted == self.accepted as u64, "{when}: {accepted} accepted of {}: {rows:#?}", self.accepted);
        Ok(())
    }
}

/// The short name of a gateway's node.
fn node(gateway: &Gateway) -> Result<String> {
    let data = postkeep_gateway::node::Node::load(&gateway.data(), &postkeep_shared::disk::LocalDisk)?;
    Ok(data.public().id())
}

/// Ordinary years: kills, redelivery, suspensions, new passwords, moved spools, two gateways. Nothing is wrong, and
/// nothing is said. `POSTKEEP_RUNS` (50), `POSTKEEP_SEED`.
#[test]
fn no_false_alarm() -> Result<()> {
    let runs: usize = std::env::var("POSTKEEP_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(50);
    let (mut random, seed) = Random::seeded();
    println!("seed {seed}");
    let started = Instant::now();
    let mut street = Street::new()?;
    let mut done = [0; 7];
    for n in 0..runs {
        let messages = 1 + random.below(4);
        street.send(&mut random, messages)?;
        let what = n % 7;
        match what {
            0 => street.round()?,
            1 => street.killed_round(&mut random)?,
            2 => street.kill_gateway(random.below(2) as usize)?,
            3 => street.suspended(&mut random)?,
            4 => street.new_password(n)?,
            5 => street.moved_in(&mut random)?,
            _ => street.all_at_once(&mut random)?,
        }
        *done.get_mut(what).context("seven")? += 1;
        street.green(&format!("run {n}, seed {seed}, case {what}"))?;
        if random.below(2) == 0 {
            street.round()?;
            street.green(&format!("run {n} after a round, seed {seed}"))?;
        }
    }
    street.round()?;
    street.green("at the end")?;
    let green = std::fs::read_to_string(street.archiver.data().join("reconcile.json"))?;
    ensure!(green.contains("\"last_green_ms\""), "{green}");
    println!(
        "no false alarm in {runs} runs ([rounds, killed rounds, killed gateways, suspensions, new passwords, moved spools, all at once] \
         {done:?}), {} acceptances of {} reports, {:.0?}",
        street.accepted,
        street.sent,
        started.elapsed()
    );
    Ok(())
}

/// Checkpoints before and after: what lies between was only appended, and a copy of the store is enough to show it.
#[test]
fn checkpoints_show_what_was_rewritten() -> Result<()> {
    let mut house = House::new()?;
    let checkpoint = |house: &House| -> Result<PathBuf> {
        let made = house.archiver.run(&["checkpoint", "create", "--json"], b"")?.expect(0)?.json()?;
        // Their names are seconds.
        std::thread::sleep(Duration::from_millis(1100));
        Ok(PathBuf::from(text(&made, "path")))
    };
    house.send(3)?;
    house.archiver.round()?;
    let old = checkpoint(&house)?;
    house.send(3)?;
    house.archiver.round()?;
    let new = checkpoint(&house)?;
    let verify = |arguments: &[&str]| -> Result<(i32, Value)> {
        let output = house.archiver.run(&[&["checkpoint", "verify", "--json"], arguments].concat(), b"")?;
        Ok((output.code, output.json().with_context(|| output.err.clone())?))
    };
    let (old, new) = (old.display().to_string(), new.display().to_string());
    let (code, verdict) = verify(&[&old, &new])?;
    ensure!(code == 0 && number(&verdict, "records") > 0 && number(&verdict, "entries") == 6, "{verdict}");
    println!("two checkpoints: {verdict}");
    ensure!(verify(&[&new, &old])?.0 == 1, "in the wrong order");
    let listed = house.archiver.run(&["checkpoint", "list"], b"")?.expect(0)?.text();
    ensure!(listed.lines().count() == 2, "{listed}");
    let shown = house.archiver.run(&["checkpoint", "show", &new], b"")?.expect(0)?.text();
    ensure!(shown.starts_with("postkeep checkpoint 1\n") && !shown.contains(&house.access.id), "{shown}");

    // A copy of the store, the unlock key and the public key: nothing else of the archive.
    let place = house.archiver.folder.join("elsewhere");
    copy(&house.archiver.store(), &place)?;
    let unlock = house.archiver.data().join("unlock.key").display().to_string();
    let key = house.archiver.run(&["checkpoint", "key"], b"")?.expect(0)?.text();
    let shown = place.display().to_string();
    let offline = [
        "--config",
        "/nonexistent",
        "checkpoint",
        "verify",
        &old,
        &new,
        "--store",
        &shown,
        "--unlock-key",
        &unlock,
        "--key",
        key.trim(),
        "--json",
    ];
    let program = house.archiver.command(&[])?.get_program().to_owned();
    let check = || run(Command::new(&program).args(offline), b"");
    check()?.expect(0)?;
    let other = "postkeep-archiver+28fd5ada+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs";
    let by_other = verify(&[&old, &new, "--key", other])?;
    ensure!(by_other.0 == 1 && by_other.1.to_string().contains("not signed by"), "{by_other:?}");

    // A text that was changed.
    let text_of_new = std::fs::read_to_string(&new)?;
    let forged = house.archiver.folder.join("forged.checkpoint");
    std::fs::write(&forged, text_of_new.replacen("store main", "store nain", 1))?;
    let (code, verdict) = verify(&[&old, &forged.display().to_string()])?;
    ensure!(code == 1 && verdict.to_string().contains("it was changed"), "{verdict}");

    // A record that is gone from the copy.
    let (file, octets, starts) = frames(&place)?;
    let last = starts.len() - 1;
    let (from, to) = (starts[last - 1], starts[last]);
    std::fs::write(&file, [&octets[..from], &octets[to..]].concat())?;
    let output = check()?;
    ensure!(output.code == 1, "{} {}", output.code, output.text());
    println!("a record taken out of the copy: {}", output.text().trim());
    std::fs::write(&file, &octets[..starts[last]])?;
    let output = check()?;
    ensure!(output.code == 1 && output.text().contains("the newer checkpoint names record"), "{}", output.text());
    println!("cut off: {}", output.text().trim());
    Ok(())
}
