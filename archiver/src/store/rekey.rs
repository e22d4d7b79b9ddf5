//! New wraps of a store's keys, a new unlock key, a new epoch (`docs/formats/keys.md`).
//!
//! Always: killed at any call, the old keys open the store or the new ones, never neither; in the end the old wraps are
//! gone. `store.toml` is replaced whole. A new unlock key touches two files: it is written beside the old one, then every
//! `store.toml` gets a wrap for it besides the one in use, then it takes the old one's place (from here on it is the one
//! that opens), then the wrap for the old one goes. A writer that opens a store between the last two steps takes the last
//! one. The caller holds the writer's lock. Not here: whose passphrase it is, and showing it.

use super::{
    StoreError, StoreResult, Unlock, UnlockKey,
    record_file::check_epochs,
    store_file::{RootKeys, StoreFile},
};
use postkeep_shared::{crypt::Password, disk::Disk};
use std::path::{Path, PathBuf};

/// What becomes of the escrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscrowChange<'a> {
    /// It stays.
    #[default]
    Keep,
    /// None from now on.
    Remove,
    /// This recipient (`age1…`) from now on.
    Set(&'a str),
}

/// What becomes of the recovery passphrase.
#[derive(Clone, Copy, Default)]
pub enum PassphraseChange<'a> {
    /// It stays, and is not needed.
    #[default]
    Keep,
    /// It stays; this is the one. What wraps the keys of a new epoch needs it.
    Present(&'a Password),
    /// This one from now on.
    New(&'a Password),
}

/// What is to be changed.
#[derive(Clone, Copy, Default)]
pub struct Rekey<'a> {
    /// The recovery passphrase.
    pub passphrase: PassphraseChange<'a>,
    /// Whether a new unlock key takes the place of the old one.
    pub unlock_key: bool,
    /// The escrow.
    pub escrow: EscrowChange<'a>,
    /// Whether a new epoch begins: new packs and record files get a new key.
    pub epoch: bool,
}

struct Member<'a> {
    dir: &'a Path,
    file: StoreFile,
    keys: RootKeys,
}

/// Changes the wraps of the stores in `dirs`: all that `key_file` opens, since it is one for all. Opened with `unlock`.
/// Passphrase, escrow and epoch change for the family of the first of them only: a store with another passphrase keeps
/// it. Returns how many epochs that family has now.
///
/// A new epoch is one for all stores of the family; where an earlier call was cut off between two of them, it is
/// finished and no further one begun.
///
/// # Errors
/// [`StoreError::KeysMissing`] for a new epoch where the last one's keys are missing; [`StoreError`]; then some stores may have the new wraps and some the old ones: said again, it goes on.
pub fn rekey(
    dirs: &[PathBuf],
    key_file: &Path,
    unlock: &Unlock<'_>,
    change: &Rekey<'_>,
    disk: &dyn Disk,
) -> StoreResult<usize> {
    let mut members = open_all(dirs, unlock, disk)?;
    let Some(first) = members.first() else { return Ok(0) };
    let family = first.file.wrap_id(first.dir)?;
    if let PassphraseChange::Present(passphrase) = change.passphrase {
        // A mistyped one must not become the passphrase.
        first.file.root_keys(&Unlock::Passphrase(passphrase), first.dir)?;
    }
    let (mut ours, others): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|member| member.file.wrap_id(member.dir).is_ok_and(|id| id == family));
    if change.epoch {
        for Member { dir, file, keys } in &ours {
            check_epochs(dir, &file.keyring(keys, dir)?, disk)?;
        }
        begin_epoch(&mut ours)?;
    }
    let epochs = ours.iter().map(|member| member.keys.epochs()).max().unwrap_or_default();
    for member in &mut ours {
        wrap(member, change)?;
    }
    if change.epoch {
        let Unlock::Key(key) = unlock else {
            return Err(StoreError::Failed("a new epoch needs the unlock key".to_owned()));
        };
        for Member { dir, file, keys } in &mut ours {
            file.key_by_unlock = file.wrapped_by_unlock(key, keys, dir)?;
        }
    }
    let count = ours.len();
    members = ours;
    members.extend(others);
    if change.unlock_key {
        replace_unlock_key(&mut members, key_file, disk)?;
    } else {
        write_all(&mut members, disk)?;
    }
    if let PassphraseChange::Present(passphrase) | PassphraseChange::New(passphrase) = change.passphrase {
        proven(passphrase, members.get(..count).unwrap_or_default(), disk)?;
    }
    Ok(epochs)
}

/// Makes a new unlock key at `key_file`, which must not exist, where the old one is lost: `unlock` opens the stores in
/// `dirs`. Those that it does not open are returned; at least one must open. `store.toml` of each first: killed in
/// between, `unlock` still opens them and the command can run again.
///
/// # Errors
/// [`StoreError`].
pub fn restore_unlock(
    dirs: &[PathBuf],
    unlock: &Unlock<'_>,
    key_file: &Path,
    disk: &dyn Disk,
) -> StoreResult<Vec<PathBuf>> {
    let key = UnlockKey::random();
    let (mut members, mut others, mut wrong) = (Vec::new(), Vec::new(), None);
    for dir in dirs {
        match open_all(std::slice::from_ref(dir), unlock, disk) {
            Ok(one) => members.extend(one),
            Err(error @ (StoreError::WrongKey { .. } | StoreError::NoEscrow(_))) => {
                others.push(dir.clone());
                wrong = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    if let (true, Some(error)) = (members.is_empty(), wrong) {
        return Err(error);
    }
    for member in &mut members {
        member.file.key_by_unlock = member.file.wrapped_by_unlock(&key, &member.keys, member.dir)?;
    }
    write_all(&mut members, disk)?;
    key.save(key_file, disk)?;
    Ok(others)
}

fn open_all<'a>(dirs: &'a [PathBuf], unlock: &Unlock<'_>, disk: &dyn Disk) -> StoreResult<Vec<Member<'a>>> {
    let open = |dir: &'a PathBuf| {
        let mut file = StoreFile::read(dir, disk)?;
        let keys = file.root_keys(unlock, dir)?;
        if let Unlock::Key(key) = unlock {
            file.settle(key, &keys, dir)?;
        }
        file.key_by_unlock_next = None;
        Ok(Member { dir, file, keys })
    };
    dirs.iter().map(open).collect()
}

/// The same new key for every store of the family.
fn begin_epoch(members: &mut [Member<'_>]) -> StoreResult<()> {
    let Some(most) = members.iter().max_by_key(|member| member.keys.epochs()) else { return Ok(()) };
    let even = members.iter().all(|member| member.keys.epochs() == most.keys.epochs());
    let keys = if even { most.keys.with_new_epoch()? } else { most.keys.copy() };
    members.iter_mut().for_each(|member| member.keys = keys.copy());
    Ok(())
}

/// Passphrase and escrow.
fn wrap(member: &mut Member<'_>, change: &Rekey<'_>) -> StoreResult<()> {
    let Member { dir, file, keys } = member;
    match change.passphrase {
        PassphraseChange::Present(_) if !change.epoch => {}
        PassphraseChange::Present(passphrase) | PassphraseChange::New(passphrase) => {
            file.key_by_passphrase = file.wrapped_by_passphrase(passphrase, keys, dir)?;
        }
        PassphraseChange::Keep if change.epoch => {
            return Err(StoreError::Failed("a new epoch needs the recovery passphrase, or a new one".to_owned()));
        }
        PassphraseChange::Keep => {}
    }
    match change.escrow {
        EscrowChange::Keep => {
            let recipient = file.escrow_recipient.clone();
            file.wrap_for_escrow(recipient.as_deref(), keys, dir)
        }
        EscrowChange::Remove => file.wrap_for_escrow(None, keys, dir),
        EscrowChange::Set(recipient) => file.wrap_for_escrow(Some(recipient), keys, dir),
    }
}

fn write_all(members: &mut [Member<'_>], disk: &dyn Disk) -> StoreResult<()> {
    members.iter_mut().try_for_each(|Member { dir, file, keys }| {
        file.seal(keys, dir)?;
        file.write(dir, disk)
    })
}

fn replace_unlock_key(members: &mut [Member<'_>], key_file: &Path, disk: &dyn Disk) -> StoreResult<()> {
    let name = key_file.file_name().unwrap_or_default().to_string_lossy();
    let new_file = key_file.with_file_name(format!("{name}.new"));
    // Left by a call that was cut off before it was in force.
    match disk.remove_file(&new_file) {
        Err(error) if !error.is_missing() => return Err(error.into()),
        _ => {}
    }
    let key = UnlockKey::random();
    key.save(&new_file, disk)?;
    for member in &mut *members {
        member.file.key_by_unlock_next = Some(member.file.wrapped_by_unlock(&key, &member.keys, member.dir)?);
    }
    write_all(members, disk)?;
    let folder = key_file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = disk.open_dir(folder)?;
    disk.rename_over(&new_file, key_file)?;
    folder.sync()?;
    for member in &mut *members {
        if let Some(next) = member.file.key_by_unlock_next.take() {
            member.file.key_by_unlock = next;
        }
    }
    write_all(members, disk)
}

/// Reads back what was written: the passphrase is believed only when it opened every store.
fn proven(passphrase: &Password, members: &[Member<'_>], disk: &dyn Disk) -> StoreResult<()> {
    for Member { dir, keys, .. } in members {
        let file = StoreFile::read(dir, disk)?;
        let found = file.root_keys(&Unlock::Passphrase(passphrase), dir)?;
        if found.expose() != keys.expose() || file.check != Some(file.checked_by(&file.keyring(&found, dir)?)) {
            return Err(StoreError::damaged(&dir.join("store.toml"), 0, "it was written and reads back differently"));
        }
    }
    Ok(())
}
