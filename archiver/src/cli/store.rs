//! `store`, and how reading commands open it.

use super::{StoreCommand, load_and_lock, stores};
use crate::{
    archive::{Archive, Folder},
    config::ArchiverConfig,
    store::{Stats, Unlock, Verified, rebuild_catalog, restore_unlock},
};
use postkeep_shared::{
    crypt::Password,
    disk::{Disk, LocalDisk},
    run::{Exit, Failure, secret_lines},
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
        StoreCommand::Verify { json } => verify(config, *json),
        StoreCommand::Stats { json } => stats(config, *json),
        StoreCommand::Unlock => unlock(config),
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
    Ok(archive)
}

fn verify(config: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    let archive = open_reader(config)?;
    let mut found = Verified { ok: true, ..Verified::default() };
    for member in archive.members() {
        found.add(member.store().verify()?);
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
    let Verified { messages, reports, packs, records, .. } = found;
    let problems = found.problems.len();
    say(&format_args!(
        "{messages} messages and {reports} reports rebuilt and compared, {packs} packs and {records} records read, \
         {problems} problems"
    ))
}

fn stats(config: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    let stats = open_reader(config)?.stats()?;
    let said = if json { say(&json!(stats)) } else { say_stats(&stats) };
    said.map_err(stdout_failed)?;
    Ok(Exit::Done)
}

fn say_stats(stats: &Stats) -> io::Result<()> {
    let lines = [
        ("reports", stats.reports),
        ("messages", stats.messages),
        ("instances", stats.instances),
        ("parts", stats.parts),
        ("part references", stats.part_references),
        ("chunks", stats.chunks),
        ("packs", stats.packs),
        ("bytes in", stats.bytes_in),
        ("bytes stored", stats.bytes_stored),
        ("  in packs", stats.pack_bytes),
        ("  in records", stats.record_bytes),
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
        notes.extend(rebuild_catalog(&found.dir, &Unlock::Key(&key), Arc::new(LocalDisk))?);
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

fn unlock(config: Option<&Path>) -> Result<Exit, Failure> {
    let (config, _lock) = load_and_lock(config, &LocalDisk)?;
    let file = config.unlock_key_file();
    if LocalDisk.entry(&file).is_ok() {
        let text = format!("{} is there; move it away first if it does not open the store", file.display());
        return Err(Failure::refused(text));
    }
    let [passphrase] = secret_lines(["Recovery passphrase: "])?;
    let passphrase = Password::received(passphrase.trim().as_bytes());
    let stores = Folder::of(&config, Arc::new(LocalDisk)).list()?;
    let dirs: Vec<&Path> = stores.iter().map(|found| found.dir.as_path()).collect();
    for other in restore_unlock(&dirs, &passphrase, &file, &LocalDisk)? {
        eprintln!("{} has another passphrase; run `store attach` on it with that one", other.display());
    }
    say(&format_args!("{} is made anew; the passphrase stays as it was", file.display())).map_err(stdout_failed)?;
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
