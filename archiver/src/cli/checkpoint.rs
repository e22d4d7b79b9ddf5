//! `checkpoint`: makes, lists, shows and verifies checkpoints.

use super::{
    CheckpointCommand, CheckpointVerifyArgs,
    store::{printable, say, stdout_failed},
};
use crate::{
    checkpoint::{Checkpoint, Copy, create, list, verify},
    config::ArchiverConfig,
    reconcile::store_folders,
    signing::{ArchiverKey, PublicKey, open_note},
    store::{Log, Unlock, UnlockKey},
};
use postkeep_shared::{
    crypt::Password,
    disk::{Disk, LocalDisk},
    run::{Exit, Failure, now_ms, secret_lines},
};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

const LIMIT: u64 = 16 * 1024 * 1024;

/// Checkpoints.
///
/// # Errors
/// A sentence and an exit code; exit 1 when a checkpoint does not fit.
pub fn run(config: Option<&Path>, command: &CheckpointCommand) -> Result<Exit, Failure> {
    match command {
        CheckpointCommand::Create { json } => make(config, *json),
        CheckpointCommand::List { json } => show_all(config, *json),
        CheckpointCommand::Show { name } => show(config, name),
        CheckpointCommand::Key => key(config),
        CheckpointCommand::Verify(args) => check(config, args),
    }
}

fn make(config: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    let config = ArchiverConfig::find(config)?;
    config.log.start();
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let done = create(&config, &disk, now_ms())?;
    let said = if json {
        say(&json!({"path": done.path, "note": done.note, "damage": done.damage}))
    } else {
        say(&done.path.display())
    };
    said.map_err(stdout_failed)?;
    if !json {
        done.damage.iter().for_each(|text| eprintln!("{}", printable(text)));
    }
    Ok(if done.damage.is_empty() { Exit::Done } else { Exit::Attention })
}

fn show_all(config: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    let config = ArchiverConfig::find(config)?;
    for listed in list(&config.checkpoint.dir, &LocalDisk)? {
        let said = if json {
            say(&json!({"name": listed.name, "path": listed.path, "time": listed.time}))
        } else {
            say(&listed.path.display())
        };
        said.map_err(stdout_failed)?;
    }
    Ok(Exit::Done)
}

fn show(config: Option<&Path>, name: &str) -> Result<Exit, Failure> {
    let text = read(config, name)?;
    say(&text.trim_end()).map_err(stdout_failed)?;
    Ok(Exit::Done)
}

fn key(config: Option<&Path>) -> Result<Exit, Failure> {
    let config = ArchiverConfig::find(config)?;
    let key = ArchiverKey::load_or_create(&config.signing_key_file(), &LocalDisk)?;
    say(&key.public()).map_err(stdout_failed)?;
    Ok(Exit::Done)
}

/// A file, or the name of a checkpoint in the folder.
fn read(config: Option<&Path>, name: &str) -> Result<String, Failure> {
    let given = PathBuf::from(name);
    let path = if given.exists() {
        given
    } else {
        let folder = ArchiverConfig::find(config)?.checkpoint.dir;
        let listed = list(&folder, &LocalDisk)?.into_iter().find(|listed| listed.name == name);
        let text = || Failure::usage(format!("{name} is no file, and no checkpoint in {}", folder.display()));
        listed.ok_or_else(text)?.path
    };
    let octets = LocalDisk.read(&path, LIMIT)?;
    String::from_utf8(octets).map_err(|_| Failure::usage(format!("{} is not text", path.display())))
}

fn check(config: Option<&Path>, args: &CheckpointVerifyArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let key: PublicKey = match &args.key {
        Some(text) => {
            // The word itself, or a file that holds it.
            let text = std::fs::read_to_string(text).unwrap_or_else(|_| text.clone());
            text.parse().map_err(|error| Failure::usage(format!("--key: {error}")))?
        }
        None => ArchiverKey::load(&ArchiverConfig::find(config)?.signing_key_file(), &*disk)?.public(),
    };
    let opened = |name: &str| -> Result<Result<Checkpoint, String>, Failure> {
        let note = read(config, name)?;
        let text = open_note(&note, &key).map_err(|error| format!("{name}: {error}"));
        Ok(text.and_then(|text| Checkpoint::parse(text).map_err(|error| format!("{name}: {error}"))))
    };
    let (old, new) = match (opened(&args.old)?, opened(&args.new)?) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(error), _) | (_, Err(error)) => return verdict(&[error], 0, 0, args.json),
    };
    let copies = copies(config, args, &disk)?;
    let found = verify(&old, &new, &copies)?;
    verdict(&found.problems, found.records, found.entries, args.json)
}

fn copies(config: Option<&Path>, args: &CheckpointVerifyArgs, disk: &Arc<dyn Disk>) -> Result<Vec<Copy>, Failure> {
    let passphrase = match args.passphrase {
        true => {
            let [text] = secret_lines(["Recovery passphrase: "])?;
            Some(Password::received(text.trim().as_bytes()))
        }
        false => None,
    };
    let unlock = match (&passphrase, &args.unlock_key) {
        (Some(_), _) => None,
        (None, Some(path)) => Some(UnlockKey::load(path, &**disk)?),
        (None, None) => Some(UnlockKey::load(&ArchiverConfig::find(config)?.unlock_key_file(), &**disk)?),
    };
    let unlock = match (&passphrase, &unlock) {
        (Some(passphrase), _) => Unlock::Passphrase(passphrase),
        (None, Some(key)) => Unlock::Key(key),
        (None, None) => return Err(Failure::usage("name --unlock-key or --passphrase")),
    };
    let folders = if args.store.is_empty() {
        store_folders(&ArchiverConfig::find(config)?, disk)?
    } else {
        args.store.iter().map(|dir| (dir.display().to_string(), dir.clone())).collect()
    };
    let open = |(name, dir): (String, PathBuf)| Ok(Copy { name, log: Log::open(&dir, &unlock, Arc::clone(disk))? });
    folders.into_iter().map(open).collect()
}

fn verdict(problems: &[String], records: u64, entries: u64, json: bool) -> Result<Exit, Failure> {
    let ok = problems.is_empty();
    if json {
        let document = json!({"ok": ok, "records": records, "entries": entries, "problems": problems});
        say(&document).map_err(stdout_failed)?;
    } else {
        problems.iter().try_for_each(|text| say(&printable(text))).map_err(stdout_failed)?;
        let text = match ok {
            true => {
                format!("nothing between them was rewritten: {records} records and {entries} ledger entries followed")
            }
            false => format!("they do not fit: {} problems", problems.len()),
        };
        say(&text).map_err(stdout_failed)?;
    }
    Ok(if ok { Exit::Done } else { Exit::Attention })
}
