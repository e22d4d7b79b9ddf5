//! The power is cut at random moments, on an ext4 file system in a file: first under the gateway with sixteen senders
//! and a collector at work, then under the archiver in the middle of its rounds.
//!
//! Every `250` that its client has read before the cut counts: the message must come out exactly once and exactly, and the
//! ledger must hold the receipt that the reply named; likewise every `+OK` to a QUIT. Answers that arrive later are counted
//! apart: with the power gone there would be none, and a sync under way at the cut may return success for nothing (the
//! kernel drops the aborted transaction), which is a property of this simulation. `POSTKEEP_TRIALS` sets the number of cuts, `POSTKEEP_SEED` repeats
//! the moments.

mod support;

use anyhow::{Context as _, Result, ensure};
use postkeep_archiver::collect::{Prepared, Rounds};
use postkeep_gateway::{config::GatewayConfig, server};
use postkeep_shared::{
    disk::{
        Disk, LocalDisk,
        faulty::{FaultyDisk, Operation},
    },
    run::ShutdownTrigger,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use support::{Access, Archiver, Gateway, Image, Random, Server, Smtp, folder, numbered_report, pop3, sha256, trials};

const CUTS: u64 = 12;
const SENDERS: usize = 16;
/// Longest time under load before a cut, in milliseconds.
const LONGEST: u64 = 1000;
const KINDS: [&str; 3] = ["smtp", "pop3", "pop3s"];

/// What a sender was told.
struct Acknowledged {
    n: usize,
    seq: u64,
    receipt: String,
}

/// What the clients saw, outside the file system.
#[derive(Default)]
struct Seen {
    next: AtomicUsize,
    /// By uidl.
    acknowledged: Mutex<BTreeMap<String, Acknowledged>>,
    collected: Mutex<BTreeMap<String, usize>>,
    removed: Mutex<BTreeSet<String>>,
    /// Set in the moment of the cut; guards `acknowledged` and `removed` together with their own locks.
    dark: Mutex<bool>,
    /// Answers read after the cut.
    late: AtomicUsize,
    faults: Mutex<Vec<String>>,
}

/// What a run of cuts came to.
struct Figures {
    cuts: u64,
    sent: usize,
    acknowledged: usize,
    found: usize,
    lost: usize,
    duplicated: usize,
    receipts_gone: usize,
    late: usize,
    slowest: Duration,
    faults: Vec<String>,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cuts, sent, acknowledged, found, lost, duplicated, receipts_gone, late, slowest, faults } = self;
        write!(f, "cuts {cuts}, sent {sent}, acknowledged {acknowledged}, found {found}, lost {lost}, ")?;
        write!(f, "duplicated {duplicated}, receipts gone {receipts_gone}, answers after the cut {late}, ")?;
        write!(f, "slowest start {slowest:.1?}, faults {faults:?}")
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Seen {
    /// Sends in clear until the connection breaks or the gateway takes nothing any more.
    fn send(&self, server: &Server, access: &Access) -> Result<()> {
        let mut sender = Smtp::connect(server.address("smtp")?)?;
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let reply = sender.send("", &[&access.address], &numbered_report(n).0)?;
            if reply.code != 250 {
                ensure!(reply.code / 100 == 4, "message {n}: {reply:?}");
                return Ok(());
            }
            let (uidl, seq, receipt) = reply.receipts()?.into_iter().next().context("no receipt")?;
            let dark = locked(&self.dark);
            if *dark {
                self.late.fetch_add(1, Ordering::Relaxed);
            } else {
                locked(&self.acknowledged).insert(uidl, Acknowledged { n, seq, receipt });
            }
        }
    }

    /// Collects and removes up to `limit` messages in one session.
    fn collect(&self, server: &Server, pin: &str, access: &Access, limit: usize) -> Result<usize> {
        let mut collector = support::Pop3::connect_tls(server.address("pop3s")?, pin)?;
        collector.login(&access.id, &access.password)?;
        let mut removing = Vec::new();
        for (number, uidl) in collector.uidl()?.into_iter().take(limit) {
            match collector.xretr(number) {
                Ok((message, _)) => self.came_out(&uidl, &message),
                // A damaged message ends the connection, and so does a cut; the checks at the end tell them apart.
                Err(error) => return Err(error.context(format!("XRETR of {uidl}"))),
            }
            collector.command(&format!("DELE {number}"))?;
            removing.push(uidl);
        }
        collector.quit()?;
        let count = removing.len();
        let dark = locked(&self.dark);
        if *dark {
            self.late.fetch_add(1, Ordering::Relaxed);
        } else {
            locked(&self.removed).extend(removing);
        }
        Ok(count)
    }

    fn came_out(&self, uidl: &str, message: &[u8]) {
        let fault = |text: &str| locked(&self.faults).push(format!("{uidl} {text}"));
        if locked(&self.removed).contains(uidl) {
            fault("came back after its removal was acknowledged");
        }
        match pop3::without_trace(message).ok().and_then(|m| Some((number_of(m)?, m))) {
            Some((n, m)) if m == numbered_report(n).0 => {
                locked(&self.collected).insert(uidl.to_owned(), n);
            }
            _ => fault("came out changed"),
        }
    }

    fn figures(&self, cuts: u64, ledger: &[Value]) -> Figures {
        let (acknowledged, collected) = (locked(&self.acknowledged), locked(&self.collected));
        let numbers: BTreeSet<_> = collected.values().collect();
        let entries: BTreeSet<(u64, String, String)> = ledger.iter().filter_map(entry).collect();
        Figures {
            cuts,
            sent: self.next.load(Ordering::Relaxed),
            acknowledged: acknowledged.len(),
            found: acknowledged.iter().filter(|(uidl, a)| collected.get(*uidl) == Some(&a.n)).count(),
            lost: acknowledged.iter().filter(|(uidl, a)| collected.get(*uidl) != Some(&a.n)).count(),
            duplicated: collected.len() - numbers.len(),
            receipts_gone: acknowledged
                .iter()
                .filter(|(uidl, a)| !entries.contains(&(a.seq, (*uidl).clone(), a.receipt.clone())))
                .count(),
            late: self.late.load(Ordering::Relaxed),
            slowest: Duration::ZERO,
            faults: locked(&self.faults).clone(),
        }
    }
}

/// Number, uidl and short hash of an acceptance in `ledger show --json`.
fn entry(entry: &Value) -> Option<(u64, String, String)> {
    let text = |key: &str| entry.get(key)?.as_str();
    let hash = text("hash")?.get(..16)?.to_owned();
    (text("event")? == "accepted").then_some((entry.get("seq")?.as_u64()?, text("uidl")?.to_owned(), hash))
}

/// The number in `Subject: Number N`.
fn number_of(report: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(report.get(..1000.min(report.len()))?).into_owned();
    text.lines().find_map(|l| l.strip_prefix("Subject: Number "))?.trim().parse().ok()
}

/// Cuts the power `cuts` times under what `serve` starts; `strict` demands that every start and collection succeeds.
fn cut_gateway(
    image: &mut Image,
    cuts: u64,
    random: &mut Random,
    strict: bool,
    serve: impl Fn(&Gateway) -> Result<Command>,
) -> Result<Figures> {
    let gateway = Gateway::create(image.folder())?;
    let access = gateway.create_mailbox()?;
    Server::start(&mut gateway.command(&["serve"])?, &KINDS)?.stop()?;
    let pin = gateway.pin()?;
    let (seen, mut slowest) = (Seen::default(), Duration::ZERO);
    for _ in 0..cuts {
        let server = Server::start(&mut serve(&gateway)?, &KINDS)?;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            let senders: Vec<_> = (0..SENDERS).map(|_| scope.spawn(|| seen.send(&server, &access))).collect();
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && seen.collect(&server, &pin, &access, 40).is_ok() {
                    std::thread::yield_now();
                }
            });
            std::thread::sleep(Duration::from_millis(100 + random.below(LONGEST)));
            *locked(&seen.dark) = true;
            image.cut()?;
            std::thread::sleep(Duration::from_millis(20));
            stop.store(true, Ordering::Relaxed);
            let _ = Command::new("kill").args(["-KILL", &server.pid().to_string()]).status();
            for sender in senders {
                let ended = sender.join().map_err(|_| anyhow::anyhow!("a sender panicked"))?;
                if let Err(error) = ended
                    && format!("{error:#}").contains("message ")
                {
                    locked(&seen.faults).push(format!("{error:#}"));
                }
            }
            Ok(())
        })?;
        server.kill()?;
        image.unmount()?;
        image.mount()?;
        *locked(&seen.dark) = false;
        let start = Instant::now();
        let server = Server::start(&mut gateway.command(&["serve"])?, &KINDS)?;
        slowest = slowest.max(start.elapsed());
        loop {
            match seen.collect(&server, &pin, &access, 500) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if strict => return Err(error.context("collecting after a cut")),
                Err(_) => break,
            }
        }
        server.stop()?;
        if !strict {
            break;
        }
    }
    let ledger = gateway.run(&["ledger", "show", &access.id, "--json"], b"")?.json_stream()?;
    let figures = Figures { slowest, ..seen.figures(cuts, &ledger) };
    let verdict = gateway.run(&["verify", "--json"], b"")?;
    ensure!(!strict || verdict.code == 0, "verify: {} {}", verdict.text(), verdict.err);
    Ok(figures)
}

#[test]
fn gateway_loses_nothing() -> Result<()> {
    let (mut random, seed) = Random::seeded();
    let (cuts, started) = (trials(CUTS), Instant::now());
    let folder = folder()?;
    let Some(mut image) = Image::create(folder.path(), 1024)? else { return Ok(()) };
    let figures = cut_gateway(&mut image, cuts, &mut random, true, |gateway| gateway.command(&["serve"]))?;
    println!("power cut, gateway: seed {seed}, {figures}, {:.0?}", started.elapsed());
    ensure!(figures.lost == 0 && figures.duplicated == 0 && figures.receipts_gone == 0, "{figures}");
    ensure!(figures.faults.is_empty(), "{figures}");
    ensure!(figures.acknowledged as u64 > 20 * cuts, "hardly any load: {figures}");
    Ok(())
}

/// Not a test: the gateway on a disk that leaves out one step, started by [`cuts_alone_see_some_mutants`].
#[test]
#[ignore = "started by another test as a program"]
fn mutant_gateway() -> Result<()> {
    let mutant = std::env::var("POSTKEEP_MUTANT")?;
    let (operation, path) = match mutant.as_str() {
        "sync of the file" => (Operation::Sync, "/spool/"),
        "sync of the directory" => (Operation::SyncDir, "/new"),
        "sync of the ledger" => (Operation::Sync, ".ledger"),
        other => anyhow::bail!("no such step: {other}"),
    };
    let disk = FaultyDisk::new(Arc::new(LocalDisk));
    disk.omit(operation, path);
    let config = GatewayConfig::load(Path::new(&std::env::var("POSTKEEP_CONFIG")?))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let (_trigger, shutdown) = ShutdownTrigger::new();
        let running = server::serve(config, Arc::new(disk), shutdown).await?;
        for (kind, address) in &running.addresses {
            eprintln!("listening {kind} {address}");
        }
        Ok(running.wait().await?)
    })
}

/// Which missing step the cut alone shows: those that do not show need the order checks.
#[test]
fn cuts_alone_see_some_mutants() -> Result<()> {
    let (mut random, seed) = Random::seeded();
    for (mutant, must_show) in
        [("sync of the file", true), ("sync of the ledger", true), ("sync of the directory", false)]
    {
        let mut shown = None;
        for cut in 1..=3 {
            let folder = folder()?;
            let Some(mut image) = Image::create(folder.path(), 512)? else { return Ok(()) };
            let figures = cut_gateway(&mut image, 1, &mut random, false, |gateway| {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["--exact", "mutant_gateway", "--ignored", "--nocapture", "--test-threads", "1"]);
                command.env("POSTKEEP_MUTANT", mutant).env("POSTKEEP_CONFIG", &gateway.config);
                command.current_dir(&gateway.folder);
                Ok(command)
            })?;
            println!("without {mutant}: seed {seed}, {figures}");
            if figures.lost > 0 || figures.receipts_gone > 0 {
                shown = Some(cut);
                break;
            }
        }
        match shown {
            Some(cut) => println!("without {mutant}: seen at cut {cut}"),
            None => println!("without {mutant}: not seen in 3 cuts"),
        }
        ensure!(shown.is_some() || !must_show, "seed {seed}: the harness does not see a gateway without {mutant}");
    }
    Ok(())
}

/// Not a test: one round of the archiver on a disk that leaves out one step, started by
/// [`cuts_alone_see_some_mutants_of_the_archiver`].
#[test]
#[ignore = "started by another test as a program"]
fn mutant_archiver() -> Result<()> {
    let disk = FaultyDisk::new(Arc::new(LocalDisk));
    match std::env::var("POSTKEEP_MUTANT")?.as_str() {
        "any change" => {}
        "sync and read-back of the pack" => {
            disk.omit(Operation::Sync, ".pack");
            disk.omit(Operation::DropCache, ".pack");
        }
        "sync and read-back of the record" => {
            disk.omit(Operation::Sync, ".rec");
            disk.omit(Operation::DropCache, ".rec");
        }
        "sync of the pack" => disk.omit(Operation::Sync, ".pack"),
        "sync of the record" => disk.omit(Operation::Sync, ".rec"),
        "syncs of the directories of packs" => disk.omit(Operation::SyncDir, "/packs"),
        "sync of the directory of records" => disk.omit(Operation::SyncDir, "/records"),
        "read-back past the page cache" => disk.omit(Operation::DropCache, ""),
        other => anyhow::bail!("no such step: {other}"),
    }
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let file = std::env::var("POSTKEEP_CONFIG")?;
    let (config, _lock) = postkeep_archiver::cli::load_and_lock(Some(Path::new(&file)), &*disk)?;
    let prepared = Prepared::new(config.sources.first().context("a source")?, &*disk)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let (_trigger, shutdown) = ShutdownTrigger::new();
        let report = Rounds::open(config, &disk, shutdown)?.round(&prepared).await?;
        ensure!(!report.needs_attention(), "{}", report.line());
        Ok(())
    })
}

/// The same for the archiver: a round that deleted what it took, and then the power goes.
#[test]
fn cuts_alone_see_some_mutants_of_the_archiver() -> Result<()> {
    for (mutant, must_show) in [
        ("any change", false),
        ("sync and read-back of the pack", true),
        ("sync and read-back of the record", true),
        // Dropping the pages of a file begins to write them, and what follows in the round ends it: hidden, not sound.
        ("sync of the pack", false),
        ("sync of the record", false),
        ("syncs of the directories of packs", false),
        ("sync of the directory of records", false),
        ("read-back past the page cache", false),
    ] {
        let folder = folder()?;
        let Some(mut image) = Image::create(folder.path(), 256)? else { return Ok(()) };
        let mut gateway = Gateway::create(folder.path())?;
        gateway.start()?;
        let access = gateway.create_mailbox()?;
        let archiver = Archiver::collecting(image.folder(), &gateway, &access)?;
        image.unmount()?;
        image.mount()?;
        let mut acknowledged = BTreeSet::new();
        for n in 0..8 {
            let (report, original) = numbered_report(n);
            let reply = gateway.smtp()?.send("", &[&access.address], &report)?;
            ensure!(reply.code == 250, "{reply:?}");
            acknowledged.insert(sha256(&original));
        }
        let mut round = Command::new(std::env::current_exe()?);
        round.args(["--exact", "mutant_archiver", "--ignored", "--nocapture", "--test-threads", "1"]);
        round.env("POSTKEEP_MUTANT", mutant).env("POSTKEEP_CONFIG", &archiver.config).current_dir(&archiver.folder);
        support::run(&mut round, b"")?.expect(0)?;
        image.cut()?;
        image.unmount()?;
        image.mount()?;
        // What is still at the gateway is not lost; here it never is.
        ensure!(gateway.waiting(&access.id)?.is_empty(), "without {mutant}: messages stay at the gateway");
        let mut found = BTreeSet::new();
        for entry in archiver.list("bob").unwrap_or_default() {
            let id = entry.get("id").and_then(Value::as_str).context("id")?;
            let shown = archiver.run(&["show", id], b"")?;
            if shown.code == 0 {
                found.insert(sha256(&shown.out));
            }
        }
        let lost = acknowledged.difference(&found).count();
        println!(
            "archiver without {mutant}: acknowledged {}, deleted at the gateway, power cut: found {}, lost {lost}: {}",
            acknowledged.len(),
            found.len(),
            if lost > 0 { "seen" } else { "not seen" }
        );
        ensure!(lost > 0 || !must_show, "the harness does not see an archiver without {mutant}");
        ensure!(lost == 0 || mutant != "any change", "{lost} lost");
    }
    Ok(())
}

#[test]
fn archiver_loses_nothing() -> Result<()> {
    let (mut random, seed) = Random::seeded();
    let (cuts, started) = (trials(CUTS), Instant::now());
    let folder = folder()?;
    let Some(mut image) = Image::create(folder.path(), 1024)? else { return Ok(()) };
    let mut gateway = Gateway::create(folder.path())?;
    gateway.start()?;
    let access = gateway.create_mailbox()?;
    let archiver = Archiver::collecting(image.folder(), &gateway, &access)?;
    // The archiver was just set up; that is not what is cut.
    image.unmount()?;
    image.mount()?;

    let stop = AtomicBool::new(false);
    let (ended, acknowledged) = std::thread::scope(|scope| -> Result<_> {
        let sender = scope.spawn(|| send_to(&gateway, &access, &stop));
        let ended = cut_rounds(&archiver, &mut image, &mut random, cuts);
        stop.store(true, Ordering::Relaxed);
        let acknowledged = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        Ok((ended?, acknowledged))
    })?;
    for _ in 0..100 {
        archiver.run(&["run", "--once", "--json"], b"")?.expect(0)?;
        if gateway.waiting(&access.id)?.is_empty() {
            break;
        }
    }

    let mut archived: BTreeMap<(String, String), usize> = BTreeMap::new();
    for entry in archiver.list("bob")? {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned).context("list --json");
        *archived.entry((text("folder")?, text("sha256")?)).or_default() += 1;
    }
    let sums: BTreeSet<&String> = archived.keys().map(|(_, sum)| sum).collect();
    let lost = acknowledged.iter().filter(|sum| !sums.contains(sum)).count();
    let duplicated = archived.values().filter(|count| **count > 1).count();
    let (balance, numbers) = archiver.reconcile()?;
    let (verified, verdict) = archiver.verify()?;
    println!(
        "power cut, archiver: seed {seed}, cuts {cuts} in a round ({ended} more rounds had ended), acknowledged {}, \
         found {}, lost {lost}, duplicated {duplicated}, reconcile exit {balance}, store verify exit {verified}, {:.0?}",
        acknowledged.len(),
        acknowledged.len() - lost,
        started.elapsed()
    );
    ensure!(lost == 0 && duplicated == 0);
    ensure!(balance == 0, "{numbers:?}");
    ensure!(verified == 0, "{verdict}");
    ensure!(gateway.waiting(&access.id)?.is_empty(), "messages stay at the gateway");
    Ok(())
}

/// SHA-256 of the original of every acknowledged report.
fn send_to(gateway: &Gateway, access: &Access, stop: &AtomicBool) -> Result<BTreeSet<String>> {
    let mut acknowledged = BTreeSet::new();
    let mut sender = gateway.smtp()?;
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (report, original) = numbered_report(n);
        let reply = sender.send("", &[&access.address], &report)?;
        ensure!(reply.code == 250, "{reply:?}");
        acknowledged.insert(sha256(&original));
        std::thread::sleep(Duration::from_millis(15));
    }
    Ok(acknowledged)
}

/// Cuts the power in `cuts` rounds; how many rounds had ended before their moment came.
fn cut_rounds(archiver: &Archiver, image: &mut Image, random: &mut Random, cuts: u64) -> Result<u64> {
    let (mut done, mut ended) = (0, 0);
    while done < cuts {
        let mut command = archiver.command(&["run", "--once"])?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(random.below(LONGEST)));
        if child.try_wait()?.is_some() {
            ended += 1;
            ensure!(ended < 20 * cuts, "rounds end before they can be cut");
            continue;
        }
        image.cut()?;
        std::thread::sleep(Duration::from_millis(random.below(20)));
        child.kill()?;
        child.wait()?;
        image.unmount()?;
        image.mount()?;
        done += 1;
    }
    Ok(ended)
}
