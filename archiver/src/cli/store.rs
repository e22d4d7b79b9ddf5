//! `store`, and how reading commands open it.

use super::{Sample, StoreCommand, load_and_lock, progress::Bar, store_keys, store_mend, stores};
use crate::{
    archive::{Archive, Folder, Which},
    config::ArchiverConfig,
    store::{Depth, OwnerStats, Stats, Unlock, Verified, rebuild_catalog_with},
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    run::{Exit, Failure},
};
use serde_json::json;
use std::{
    fmt::Display,
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

/// Looks after the store.
///
/// # Errors
/// A sentence and an exit code.
pub fn run(config: Option<&Path>, command: &StoreCommand) -> Result<Exit, Failure> {
    match command {
        StoreCommand::Create { name, own_passphrase } => stores::create(config, name, *own_passphrase),
        StoreCommand::Attach { dir, passphrase_stdin } => stores::attach(config, dir, *passphrase_stdin),
        StoreCommand::Detach { name } => stores::detach(config, name),
        StoreCommand::Rename { old, new } => stores::rename(config, old, new),
        StoreCommand::SetState { name, state } => stores::set_state(config, name, *state),
        StoreCommand::List { json } => stores::list(config, *json),
        StoreCommand::Merge { from, into, json } => stores::transfer(config, (from, into), Which::All, *json),
        StoreCommand::Transfer { owner, before, from, into, json } => {
            let which = stores::which(owner.as_deref(), before.as_deref())?;
            stores::transfer(config, (from, into), which, *json)
        }
        StoreCommand::Verify { quick, sample, json } => verify(config, depth(*quick, *sample), *json),
        StoreCommand::Stats { owners, json } => stats(config, *owners, *json),
        StoreCommand::Unlock(args) => store_keys::unlock(config, args),
        StoreCommand::Rekey(args) => store_keys::rekey(config, args),
        StoreCommand::Rotate(args) => store_keys::rotate(config, args),
        StoreCommand::RebuildRecords { json } => store_mend::rebuild_records(config, *json),
        StoreCommand::Repair { json } => store_mend::repair(config, *json),
        StoreCommand::Compact { least, old_epochs, json } => store_mend::compact(config, *least, *old_epochs, *json),
        StoreCommand::RebuildCatalog { json } => rebuild(config, *json),
    }
}

/// Opens all stores for reading, also while `serve` runs.
///
/// # Errors
/// A sentence and an exit code.
pub(super) fn open_reader(config: Option<&Path>) -> Result<Archive, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let archive = Archive::open_read(&ArchiverConfig::find(config)?, &disk)?;
    for name in archive.disabled() {
        eprintln!("store {name} is disabled: what is in it is not seen here");
    }
    for place in archive.unseen() {
        eprintln!("{}", printable(&format!("{place}; what stands there is not seen here, `store verify` tells more")));
    }
    Ok(archive)
}

/// How a command ends that lists or counts: what could not be read is in no list, and whoever asked has to know.
pub(super) fn ended(archive: &Archive) -> Exit {
    if archive.unseen().next().is_some() { Exit::Attention } else { Exit::Done }
}

fn depth(quick: bool, sample: Option<Sample>) -> Depth {
    match sample {
        Some(Sample::Count(count)) => Depth::Count(count),
        Some(Sample::Percent(percent)) => Depth::Percent(percent),
        None if quick => Depth::Quick,
        None => Depth::Full,
    }
}

fn verify(config: Option<&Path>, depth: Depth, json: bool) -> Result<Exit, Failure> {
    let archive = open_reader(config)?;
    let mut found = Verified { ok: true, ..Verified::default() };
    for member in archive.members() {
        let mut bar = Bar::new("verify", "packs and records", json);
        found.add(member.store().verify_with(depth, &mut |done, total| bar.at(done, total))?);
    }
    let said = if json { say(&json!(found)) } else { say_verified(&found) };
    said.map_err(stdout_failed)?;
    Ok(if found.ok { Exit::Done } else { Exit::Attention })
}

fn say_verified(found: &Verified) -> io::Result<()> {
    for problem in &found.problems {
        say(&printable(&format!("{}: {}: {}", problem.kind, problem.r#where, problem.detail)))?;
    }
    for note in &found.notes {
        say(&printable(&format!("note: {note}")))?;
    }
    let Verified { mode, messages, reports, sampled, deleted, lost, packs, records, .. } = found;
    let what = match *mode {
        "full" => "rebuilt and compared".to_owned(),
        "sample" => format!("complete, {sampled} messages rebuilt and compared"),
        _ => "complete, none rebuilt".to_owned(),
    };
    let problems = found.problems.len();
    say(&format_args!(
        "{messages} messages and {reports} reports {what}, {packs} packs and {records} records read, {deleted} deleted, \
         {lost} lost before, {problems} problems"
    ))
}

fn stats(config: Option<&Path>, owners: bool, json: bool) -> Result<Exit, Failure> {
    let store = open_reader(config)?;
    let stats = store.stats()?;
    let owners = if owners { Some(store.owner_stats()?) } else { None };
    let said = if json {
        let mut all = json!(stats);
        if let (Some(owners), Some(all)) = (owners, all.as_object_mut()) {
            all.insert("owners".to_owned(), json!(owners));
        }
        say(&all)
    } else {
        say_stats(&stats, store.catalog_bytes()?).and_then(|()| say_owners(owners.as_deref().unwrap_or_default()))
    };
    said.map_err(stdout_failed)?;
    Ok(ended(&store))
}

fn say_owners(owners: &[OwnerStats]) -> io::Result<()> {
    if owners.is_empty() {
        return Ok(());
    }
    say(&format_args!("{:>12} {:>16} {:>16}  owner", "instances", "bytes", "stored share"))?;
    owners.iter().try_for_each(|OwnerStats { owner, instances, bytes, stored_share }| {
        say(&format_args!("{instances:>12} {bytes:>16} {stored_share:>16}  {}", printable(owner)))
    })
}

fn say_stats(stats: &Stats, catalog: u64) -> io::Result<()> {
    let lines = [
        ("reports", stats.reports),
        ("messages", stats.messages),
        ("instances", stats.instances),
        ("parts", stats.parts),
        ("part references", stats.part_references),
        ("chunks", stats.chunks),
        ("packs", stats.packs),
        ("message bytes", stats.message_bytes),
        ("bytes in", stats.bytes_in),
        ("bytes stored", stats.bytes_stored),
        ("  in packs", stats.pack_bytes),
        ("  in records", stats.record_bytes),
        ("bytes of catalog", catalog),
    ];
    for (name, number) in lines {
        say(&format_args!("{name:<16} {number:>16}"))?;
    }
    say(&format_args!("{:<16} {:>16.3}", "stored / in", stats.ratio))
}

fn rebuild(config: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    let (config, lock) = load_and_lock(config, &LocalDisk)?;
    let folder = Folder::of(&config, Arc::new(LocalDisk));
    let key = folder.unlock_key()?;
    let mut notes = Vec::new();
    for found in folder.list()? {
        let mut bar = Bar::new("rebuild-catalog", "files", json);
        let told = &mut |done, total| bar.at(done, total);
        notes.extend(rebuild_catalog_with(&found.dir, &Unlock::Key(&key), Arc::new(LocalDisk), told)?);
    }
    drop(lock);
    let said = if json {
        say(&json!({"ok": true, "notes": notes}))
    } else {
        notes.iter().try_for_each(|note| say(&printable(note))).and_then(|()| say(&"the catalog is rebuilt"))
    };
    said.map_err(stdout_failed)?;
    Ok(Exit::Done)
}

/// One line on standard output.
pub(super) fn say(line: &dyn Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Standard output that cannot be written to.
pub(super) fn stdout_failed(error: io::Error) -> Failure {
    Failure::cannot(format!("cannot write to standard output: {error}"))
}

/// Text from messages for a terminal: control characters cannot steer it.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
