//! `store`, and how reading commands open it.

use super::{StoreCommand, load_and_lock};
use crate::{
    config::ArchiverConfig,
    store::{Stats, Store, Unlock, UnlockKey, Verified, rebuild_catalog, restore_unlock},
};
use postkeep_shared::{
    crypt::Password,
    disk::{Disk as _, LocalDisk},
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
        StoreCommand::Verify { json } => verify(config, *json),
        StoreCommand::Stats { json } => stats(config, *json),
        StoreCommand::Unlock => unlock(config),
        StoreCommand::RebuildCatalog { json } => rebuild(config, *json),
    }
}

/// Opens the store for reading, also while `serve` runs.
///
/// # Errors
/// A sentence and an exit code.
pub(super) fn open_reader(config: Option<&Path>) -> Result<Store, Failure> {
    let config = ArchiverConfig::find(config)?;
    let key = UnlockKey::load(&config.unlock_key_file(), &LocalDisk)?;
    Ok(Store::open_read(&config.store_dir(), &Unlock::Key(&key), Arc::new(LocalDisk))?)
}

fn verify(config: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    let found = open_reader(config)?.verify()?;
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
    let key = UnlockKey::load(&config.unlock_key_file(), &LocalDisk)?;
    let notes = rebuild_catalog(&config.store_dir(), &Unlock::Key(&key), Arc::new(LocalDisk))?;
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
    restore_unlock(&config.store_dir(), &passphrase, &file, &LocalDisk)?;
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
