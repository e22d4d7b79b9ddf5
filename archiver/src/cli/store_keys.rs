//! `store unlock`, `store rekey`, `store rotate`: what opens the store.

use super::{
    RekeyArgs, RotateArgs, UnlockArgs, load_and_lock,
    store::{say, stdout_failed},
};
use crate::{
    archive::Folder,
    config::ArchiverConfig,
    store::{
        EscrowChange, EscrowIdentity, PassphraseChange, Rekey, StoreState, Unlock, UnlockKey, rekey as change,
        restore_unlock,
    },
};
use postkeep_shared::{
    crypt::Password,
    disk::{Disk as _, LocalDisk},
    run::{Exit, Failure, secret_lines},
};
use serde_json::json;
use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Every store that the unlock key opens, the current one first.
fn stores(config: &ArchiverConfig) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Folder::of(config, Arc::new(LocalDisk)).list()?;
    found.sort_by_key(|one| one.state().map_or(true, |state| state != StoreState::Current));
    Ok(found.into_iter().map(|one| one.dir).collect())
}

/// A new unlock key where the old one is lost.
pub(super) fn unlock(config: Option<&Path>, args: &UnlockArgs) -> Result<Exit, Failure> {
    let (config, _lock) = load_and_lock(config, &LocalDisk)?;
    let file = config.unlock_key_file();
    if LocalDisk.entry(&file).is_ok() {
        let text = format!("{} is there; move it away first if it does not open the store", file.display());
        return Err(Failure::refused(text));
    }
    let dirs = stores(&config)?;
    let others = if let Some(path) = &args.escrow_identity {
        let identity = EscrowIdentity::load(path, &LocalDisk)?;
        restore_unlock(&dirs, &Unlock::Escrow(&identity), &file, &LocalDisk)?
    } else {
        let passphrase = asked()?;
        restore_unlock(&dirs, &Unlock::Passphrase(&passphrase), &file, &LocalDisk)?
    };
    for other in others {
        eprintln!("{} has another passphrase; run `store attach` on it with that one", other.display());
    }
    say(&format_args!("{} is made anew; the passphrase stays as it was", file.display())).map_err(stdout_failed)?;
    Ok(Exit::Done)
}

/// New wraps.
pub(super) fn rekey(config: Option<&Path>, args: &RekeyArgs) -> Result<Exit, Failure> {
    let (config, _lock) = load_and_lock(config, &LocalDisk)?;
    let escrow = match &args.escrow {
        Some(recipient) => EscrowChange::Set(recipient),
        None if args.no_escrow => EscrowChange::Remove,
        None => EscrowChange::Keep,
    };
    let chosen = args.passphrase || args.passphrase_stdin || args.unlock_key || escrow != EscrowChange::Keep;
    let given = args.passphrase_stdin.then(given).transpose()?;
    let made = (args.passphrase || !chosen).then(Password::generate);
    let passphrase = given.as_ref().or(made.as_ref()).map_or(PassphraseChange::Keep, PassphraseChange::New);
    let wanted = Rekey { passphrase, unlock_key: args.unlock_key || !chosen, escrow, epoch: false };
    if let Some(path) = &args.escrow_identity {
        let identity = EscrowIdentity::load(path, &LocalDisk)?;
        carry_out(&config, &Unlock::Escrow(&identity), &wanted, made.as_ref(), args.json)
    } else {
        let key = UnlockKey::load(&config.unlock_key_file(), &LocalDisk)?;
        carry_out(&config, &Unlock::Key(&key), &wanted, made.as_ref(), args.json)
    }
}

/// A new epoch.
pub(super) fn rotate(config: Option<&Path>, args: &RotateArgs) -> Result<Exit, Failure> {
    let (config, _lock) = load_and_lock(config, &LocalDisk)?;
    let key = UnlockKey::load(&config.unlock_key_file(), &LocalDisk)?;
    let made = args.new_passphrase.then(Password::generate);
    let present = if made.is_none() { Some(asked()?) } else { None };
    let passphrase = match (&made, &present) {
        (Some(made), _) => PassphraseChange::New(made),
        (None, Some(present)) => PassphraseChange::Present(present),
        (None, None) => PassphraseChange::Keep,
    };
    let wanted = Rekey { passphrase, epoch: true, ..Rekey::default() };
    carry_out(&config, &Unlock::Key(&key), &wanted, made.as_ref(), args.json)
}

/// A passphrase that was made is shown first: whatever happens then, the one that opens the store is known.
fn carry_out(
    config: &ArchiverConfig,
    unlock: &Unlock<'_>,
    wanted: &Rekey<'_>,
    made: Option<&Password>,
    json: bool,
) -> Result<Exit, Failure> {
    if let (Some(made), false) = (made, json) {
        show(b"recovery passphrase: ", made, b"\n").map_err(stdout_failed)?;
        say(&"Write it down now, and keep the old one until this command says that it is done.")
            .map_err(stdout_failed)?;
    } else if let Some(made) = made {
        // The beginning of the one document; its end comes when the passphrase is in force.
        show(b"{\"passphrase\":\"", made, b"\",").map_err(stdout_failed)?;
    }
    let epochs = change(&stores(config)?, &config.unlock_key_file(), unlock, wanted, &LocalDisk)?;
    if json {
        let rest = json!({
            "ok": true,
            "epochs": epochs,
            "new_passphrase": matches!(wanted.passphrase, PassphraseChange::New(_)),
            "new_unlock_key": wanted.unlock_key,
        });
        let rest = rest.to_string();
        let rest = if made.is_some() { rest.strip_prefix('{').unwrap_or(&rest) } else { &rest };
        say(&rest).map_err(stdout_failed)?;
        return Ok(Exit::Done);
    }
    let mut lines = Vec::new();
    if matches!(wanted.passphrase, PassphraseChange::New(_)) {
        lines.push("the new passphrase is in force; the old one opens nothing any more".to_owned());
    }
    if wanted.unlock_key {
        lines.push(format!("{} is a new key", config.unlock_key_file().display()));
    }
    match wanted.escrow {
        EscrowChange::Keep => {}
        EscrowChange::Remove => lines.push("there is no escrow any more".to_owned()),
        EscrowChange::Set(recipient) => lines.push(format!("the escrow is {recipient}")),
    }
    if wanted.epoch {
        lines.push(format!("epoch {epochs} has begun: new packs and record files get its key"));
    }
    lines.iter().try_for_each(|line| say(line)).map_err(stdout_failed)?;
    Ok(Exit::Done)
}

fn show(before: &[u8], passphrase: &Password, after: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(before)?;
    out.write_all(passphrase.expose())?;
    out.write_all(after)?;
    out.flush()
}

fn asked() -> Result<Password, Failure> {
    let [passphrase] = secret_lines(["Recovery passphrase: "])?;
    Ok(Password::received(passphrase.trim().as_bytes()))
}

fn given() -> Result<Password, Failure> {
    let [passphrase] = secret_lines(["New recovery passphrase: "])?;
    Password::chosen(passphrase.trim()).map_err(|error| Failure::usage(error.to_string()))
}
