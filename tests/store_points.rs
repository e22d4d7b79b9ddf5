//! Killed at every n-th system call that changes a file: `store compact`, `store rotate`, `store merge`, `store transfer`,
//! and on a damaged store of which all can be mended `store repair` and `store rebuild-records`.
//!
//! After the blow every message is listed as before and comes out octet for octet (where nothing was damaged); said again,
//! the command ends, the store verifies, and everything is there once. The calls of all threads are counted together (`support/strike.py`);
//! a first run without a kill counts them. `POSTKEEP_POINTS=all` kills at all of them.

mod support;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Instant,
};
use support::{
    Archiver, Random, copy,
    deeds::numbered,
    files_below,
    strike::{self, Blow, Seen, Watch},
};

/// Points of each command in an ordinary run.
const USUAL: usize = 8;
const PASSPHRASE: &[u8] = b"a passphrase for rotation\n";

/// What is done to a store that all of it can be mended from.
type Damage = fn(&Path) -> Result<()>;

/// A command, and the archive on which it is said over and over.
struct Sweep {
    name: &'static str,
    arguments: Vec<&'static str>,
    input: &'static [u8],
    archiver: Archiver,
    /// The data folder as it was.
    template: PathBuf,
    /// What is listed, and the octets of each message by its id.
    before: Vec<(String, Value)>,
    messages: BTreeMap<String, Vec<u8>>,
    /// Whether the template is damaged, so that not everything comes out before the command has ended.
    is_damaged: bool,
    folder: tempfile::TempDir,
}

/// An archive of ten messages, of which three were deleted, in two key epochs; six of them in a second store where
/// `stores` says so. `damage` is done to the first store in the end.
fn prepare(
    name: &'static str,
    stores: usize,
    arguments: &[&'static str],
    input: &'static [u8],
    damage: Option<Damage>,
) -> Result<Sweep> {
    let folder = support::folder()?;
    let archiver = Archiver::create(folder.path())?;
    archiver.run(&["store", "rekey", "--passphrase-stdin"], PASSPHRASE)?.expect(0)?;
    for number in 1..=10 {
        if number == 6 {
            archiver.run(&["store", "rotate"], PASSPHRASE)?.expect(0)?;
            if stores == 2 {
                archiver.run(&["store", "create", "second"], b"")?.expect(0)?;
                archiver.run(&["store", "set-state", "second", "current"], b"")?.expect(0)?;
            }
        }
        let file = folder.path().join(format!("{number}.eml"));
        fs::write(&file, numbered(number).1)?;
        let owner = if number % 4 == 0 { "ann" } else { "bob" };
        archiver.run(&["import", file.to_str().context("text")?, "--owner", owner], b"")?.expect(0)?;
    }
    let listed = archiver.list("bob")?;
    for one in listed.iter().step_by(3).take(3) {
        archiver.run(&["delete", "--id", id(one)?, "--owner", "bob", "--reason", "test"], b"")?.expect(0)?;
    }
    let before = archiver.list_all()?;
    let mut messages = BTreeMap::new();
    for (_, one) in &before {
        let octets = archiver.run(&["show", id(one)?], b"")?.expect(0)?.out;
        ensure!((1..=10).any(|number| numbered(number).1 == octets), "not what was imported");
        messages.insert(id(one)?.to_owned(), octets);
    }
    ensure!(before.len() == 7 && messages.len() == 7, "{} listed", before.len());
    let template = folder.path().join("template");
    copy(&archiver.data(), &template)?;
    let is_damaged = damage.is_some();
    if let Some(damage) = damage {
        damage(&template.join("stores/main"))?;
    }
    Ok(Sweep { name, arguments: arguments.to_vec(), input, archiver, template, before, messages, is_damaged, folder })
}

fn id(listed: &Value) -> Result<&str> {
    listed["id"].as_str().context("an id")
}

impl Sweep {
    fn once(&self, watch: Watch) -> Result<(i32, Seen)> {
        fs::remove_dir_all(self.archiver.data())?;
        copy(&self.template, &self.archiver.data())?;
        let log = self.folder.path().join("calls");
        let output = watch.run(&self.archiver.command(&self.arguments)?, &self.archiver.folder, &log, self.input)?;
        ensure!(!output.err.contains("panicked"), "{}", output.err);
        Ok((output.code, Seen::read(&log)?))
    }

    /// Messages that are not there, and those that are there more than once.
    fn missing_and_twice(&self) -> Result<(usize, usize)> {
        let now = self.archiver.list_all()?;
        let keys = |all: &[(String, Value)]| {
            all.iter().map(|(owner, one)| Ok((owner.clone(), id(one)?.to_owned()))).collect::<Result<Vec<_>>>()
        };
        let (now_keys, before) = (keys(&now)?, keys(&self.before)?);
        let distinct: BTreeSet<_> = now_keys.iter().collect();
        let mut lost = before.iter().filter(|one| !distinct.contains(one)).count();
        let twice = now_keys.len() - distinct.len() + distinct.iter().filter(|one| !before.contains(one)).count();
        for (id, octets) in &self.messages {
            let shown = self.archiver.run(&["show", id], b"")?;
            lost += usize::from(shown.code != 0 || shown.out != *octets);
        }
        ensure!(lost + twice > 0 || now == self.before, "the listings are other ones");
        Ok((lost, twice))
    }

    /// After the blow, and after the command was said again.
    fn check(&self) -> Result<(usize, usize)> {
        let (lost, twice) = if self.is_damaged { (0, 0) } else { self.missing_and_twice()? };
        let again = self.archiver.run(&self.arguments, self.input)?;
        ensure!(again.code == 0, "said again: {} {}", again.code, again.err);
        let (code, verified) = self.archiver.verify()?;
        ensure!(code == 0, "{verified}");
        let (lost_then, twice_then) = self.missing_and_twice()?;
        // What the store takes from here on is there too.
        let file = self.folder.path().join("fresh.eml");
        fs::write(&file, numbered(11).1)?;
        self.archiver.run(&["import", file.to_str().context("text")?, "--owner", "carl"], b"")?.expect(0)?;
        let fresh = self.archiver.list("carl")?;
        let fresh = fresh.first().context("the fresh one is listed")?;
        ensure!(self.archiver.run(&["show", id(fresh)?], b"")?.expect(0)?.out == numbered(11).1, "the fresh one");
        Ok((lost + lost_then, twice + twice_then))
    }
}

fn sweep(
    name: &'static str,
    stores: usize,
    arguments: &[&'static str],
    input: &'static [u8],
    damage: Option<Damage>,
) -> Result<()> {
    if !strike::is_possible()? {
        return Ok(());
    }
    let (started, (mut random, seed)) = (Instant::now(), Random::seeded());
    let sweep = prepare(name, stores, arguments, input, damage)?;
    let (code, whole) = sweep.once(Watch { blow: Blow::KillChange, at: 0 })?;
    ensure!(code == 0, "{name} ends with {code}");
    ensure!(sweep.check()? == (0, 0), "{name}, not killed");
    let points = strike::sample(whole.calls.len(), USUAL, &mut random);
    let (mut kinds, mut missed, mut lost, mut twice) = (BTreeMap::new(), 0, 0, 0);
    for at in points.iter().map(|at| at + 1) {
        let watch = Watch { blow: Blow::KillChange, at };
        let what = || format!("seed {seed}, {name}: {watch}");
        let (code, seen) = sweep.once(watch).with_context(what)?;
        match seen.struck {
            Some(call) => {
                ensure!(code == 137, "{}: exit {code}", what());
                *kinds.entry(call.kind).or_insert(0) += 1;
            }
            // What happens in the background is not the same every time.
            None => missed += 1,
        }
        let found = sweep.check().with_context(what)?;
        if found != (0, 0) {
            println!("{}: lost {}, twice {}", what(), found.0, found.1);
        }
        (lost, twice) = (lost + found.0, twice + found.1);
    }
    let killed: usize = kinds.values().sum();
    println!(
        "{:<15} seed {seed}, calls {}, points {}, killed {killed}, not reached {missed}, lost {lost}, twice {twice}; {kinds:?}; {:.0?}",
        sweep.name,
        whole.calls.len(),
        points.len(),
        started.elapsed()
    );
    ensure!((lost, twice) == (0, 0));
    ensure!(killed * 10 >= points.len() * 9 && killed > 5, "only {killed} of {} points were reached", points.len());
    Ok(())
}

#[test]
fn compact() -> Result<()> {
    sweep("store compact", 1, &["store", "compact", "--least", "0", "--old-epochs"], b"", None)
}

#[test]
fn rotate() -> Result<()> {
    sweep("store rotate", 2, &["store", "rotate"], PASSPHRASE, None)
}

#[test]
fn merge() -> Result<()> {
    sweep("store merge", 2, &["store", "merge", "main", "second"], b"", None)
}

#[test]
fn transfer() -> Result<()> {
    sweep("store transfer", 2, &["store", "transfer", "--owner", "ann", "main", "second"], b"", None)
}

#[test]
fn rebuild_records() -> Result<()> {
    let damage: Damage = |store| Ok(fs::remove_dir_all(store.join("records"))?);
    sweep("rebuild-records", 1, &["store", "rebuild-records"], b"", Some(damage))
}

#[test]
fn repair() -> Result<()> {
    let damage: Damage = |store| {
        // The octets of one under the name of the other.
        let packs = files_below(&store.join("packs"))?;
        let (one, other) = (packs.first().context("a pack")?, packs.last().context("a pack")?);
        ensure!(one != other, "only one pack");
        let octets = fs::read(one)?;
        fs::write(one, fs::read(other)?)?;
        fs::write(other, octets)?;
        // And a catalog that knows nothing of it.
        Ok(fs::remove_dir_all(store.join("catalog"))?)
    };
    sweep("store repair", 1, &["store", "repair"], b"", Some(damage))
}
