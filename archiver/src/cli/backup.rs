//! `backup` and `restore-drill`.

use super::{
    BackupArgs, DrillArgs,
    progress::Bar,
    store::{printable, say, stdout_failed},
};
use crate::{
    archive::Archive,
    backup::{self, Also, Drilled},
    config::ArchiverConfig,
    signing::ArchiverKey,
    store::{Unlock, UnlockKey},
};
use data_encoding::HEXLOWER;
use postkeep_shared::{
    crypt::{Password, random},
    disk::{Disk, LocalDisk, write_new_file},
    run::{Exit, Failure, now_ms, secret_lines},
};
use serde_json::json;
use std::{path::Path, sync::Arc};

/// First line of a drill's signed note.
const NOTE: &str = "postkeep restore-drill 1";

/// Copies the archive.
///
/// # Errors
/// A sentence and an exit code.
pub fn run(config: Option<&Path>, args: &BackupArgs) -> Result<Exit, Failure> {
    let config = ArchiverConfig::find(config)?;
    config.log.start();
    let also = Also { prune: args.prune, check: args.check };
    let mut bar = Bar::new("backup", "octets", args.json);
    let told = &mut |done, total| bar.at(done, total);
    let done = backup::backup(&config, &args.to, also, &LocalDisk, now_ms(), told)?;
    drop(bar);
    let said = if args.json {
        say(&json!(done))
    } else {
        say(&format_args!(
            "{} files, {} octets in {}; {} files, {} octets copied by this run; {} files are obsolete, {} of them removed; \
             {} copies had decayed and were made anew",
            done.files,
            done.bytes,
            args.to.display(),
            done.copied,
            done.bytes_copied,
            done.obsolete,
            done.removed,
            done.mended
        ))
    };
    said.map_err(stdout_failed)?;
    Ok(Exit::Done)
}

/// Puts messages of a copy together. Exit 1 when one of them is not whole.
///
/// # Errors
/// A sentence and an exit code.
pub fn drill(config: Option<&Path>, args: &DrillArgs) -> Result<Exit, Failure> {
    let config = ArchiverConfig::find(config)?;
    config.log.start();
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let stores = args.from.join("stores");
    let copy = match args.passphrase_stdin {
        true => {
            let [line] = secret_lines(["Recovery passphrase: "])?;
            let passphrase = Password::received(line.trim().as_bytes());
            Archive::open_copy(&stores, &Unlock::Passphrase(&passphrase), &disk)?
        }
        false => {
            let key = UnlockKey::load(&config.unlock_key_file(), &*disk)?;
            Archive::open_copy(&stores, &Unlock::Key(&key), &disk)?
        }
    };
    let seed = match &args.seed {
        Some(hex) => HEXLOWER.decode(hex.to_lowercase().as_bytes()).ok().and_then(|octets| octets.try_into().ok()),
        None => Some(random()),
    };
    let seed = seed.ok_or_else(|| Failure::usage("--seed takes 64 hex digits, as an earlier drill printed them"))?;
    let mut bar = Bar::new("restore-drill", "messages", args.json);
    let found = backup::drill(&copy, args.sample, seed, &mut |done, total| bar.at(done, total))?;
    drop(bar);
    let key = ArchiverKey::load_or_create(&config.signing_key_file(), &*disk)?;
    let result = json!({"time_ms": now_ms(), "from": args.from, "result": found});
    let note = key.sign_note(&format!("{NOTE}\n{result}\n")).map_err(Failure::cannot)?;
    if let Some(out) = &args.out {
        write_new_file(&*disk, out, note.as_bytes())?;
    }
    tell(&found, &note, &key, args.json)?;
    Ok(if found.differences.is_empty() { Exit::Done } else { Exit::Attention })
}

fn tell(found: &Drilled, note: &str, key: &ArchiverKey, json: bool) -> Result<(), Failure> {
    if json {
        let document = json!({"result": found, "note": note, "key": key.public().to_string()});
        return say(&document).map_err(stdout_failed);
    }
    for one in &found.differences {
        say(&printable(&format!("{}: {}", one.report, one.detail))).map_err(stdout_failed)?;
    }
    let Drilled { sample, receipts, bytes, meaning, .. } = found;
    say(&format_args!("{sample} messages, {bytes} octets put together, {receipts} compared with receipts: {meaning}"))
        .map_err(stdout_failed)?;
    say(&note.trim_end()).map_err(stdout_failed)
}
