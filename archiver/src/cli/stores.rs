//! `store create`, `attach`, `detach`, `rename`, `set-state`, `merge`, `transfer` and `list`: which stores there are.

use super::{
    StateArg, load_and_lock,
    progress::Bar,
    store::{printable, say, stdout_failed},
};
use crate::{
    archive::{Archive, Folder, Found, Which},
    config::ArchiverConfig,
    octets::Staging,
    store::{Stats, Store, StoreState, Unlock, UnlockKey},
};
use postkeep_shared::{
    crypt::Password,
    disk::{Disk, LocalDisk},
    run::{Exit, Failure, now_ms, secret_lines},
};
use serde_json::json;
use std::{
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

fn local() -> Arc<dyn Disk> {
    Arc::new(LocalDisk)
}

pub(super) fn create(config: Option<&Path>, name: &str, own_passphrase: bool) -> Result<Exit, Failure> {
    let (config, _lock) = load_and_lock(config, &LocalDisk)?;
    let folder = Folder::of(&config, local());
    if own_passphrase {
        let passphrase = Password::generate();
        folder.create_apart(name, &passphrase)?;
        let mut out = io::stdout();
        (|| {
            write!(out, "recovery passphrase: ")?;
            out.write_all(passphrase.expose())?;
            writeln!(out, "\nWrite it down; it is shown only now.")
        })()
        .map_err(stdout_failed)?;
    } else {
        folder.create(name)?;
    }
    say(&format_args!(
        "store {name} is made, empty and normal; `store set-state {name} current` gives it the new mail"
    ))
    .map_err(stdout_failed)?;
    Ok(Exit::Done)
}

pub(super) fn attach(config: Option<&Path>, dir: &Path, passphrase_stdin: bool) -> Result<Exit, Failure> {
    let (config, _lock) = load_and_lock(config, &LocalDisk)?;
    let passphrase = match passphrase_stdin {
        true => {
            let [line] = secret_lines(["Recovery passphrase of that store: "])?;
            Some(Password::received(line.trim().as_bytes()))
        }
        false => None,
    };
    let name = Folder::of(&config, local()).attach(dir, passphrase.as_ref())?;
    say(&format_args!("store {name} is attached and normal")).map_err(stdout_failed)?;
    Ok(Exit::Done)
}

pub(super) fn detach(config: Option<&Path>, name: &str) -> Result<Exit, Failure> {
    let (config, _lock) = load_and_lock(config, &LocalDisk)?;
    let to = Folder::of(&config, local()).detach(name)?;
    say(&format_args!(
        "store {name} is no part of the archive any more; it is whole in {} and opens with its passphrase",
        to.display()
    ))
    .map_err(stdout_failed)?;
    Ok(Exit::Done)
}

pub(super) fn rename(config: Option<&Path>, old: &str, new: &str) -> Result<Exit, Failure> {
    let (config, _lock) = load_and_lock(config, &LocalDisk)?;
    Folder::of(&config, local()).rename_store(old, new)?;
    say(&format_args!("store {old} is {new} now")).map_err(stdout_failed)?;
    Ok(Exit::Done)
}

pub(super) fn set_state(config: Option<&Path>, name: &str, state: StateArg) -> Result<Exit, Failure> {
    let (config, _lock) = load_and_lock(config, &LocalDisk)?;
    let state = match state {
        StateArg::Current => StoreState::Current,
        StateArg::Normal => StoreState::Normal,
        StateArg::WriteProtected => StoreState::WriteProtected,
        StateArg::Disabled => StoreState::Disabled,
    };
    Folder::of(&config, local()).set_state(name, state)?;
    say(&format_args!("store {name} is {}", state.word())).map_err(stdout_failed)?;
    Ok(Exit::Done)
}

/// Which reports `store transfer` is about.
pub(super) fn which<'a>(owner: Option<&'a str>, before: Option<&str>) -> Result<Which<'a>, Failure> {
    if let Some(owner) = owner {
        return Ok(Which::Owner(owner));
    }
    let day = before.unwrap_or_default();
    let wrong = || Failure::usage(format!("--before takes a day such as 2026-01-31, not `{}`", printable(day)));
    let parts: Vec<&str> = day.split('-').collect();
    let [year, month, day] = parts.as_slice() else { return Err(wrong()) };
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let month = u8::try_from(number(month)?).ok().and_then(|month| time::Month::try_from(month).ok());
    let date = time::Date::from_calendar_date(
        i32::from(number(year)?),
        month.ok_or_else(wrong)?,
        u8::try_from(number(day)?).map_err(|_| wrong())?,
    );
    let moment = date.map_err(|_| wrong())?.midnight().assume_utc().unix_timestamp();
    Ok(Which::Before(u64::try_from(moment).map_err(|_| wrong())?.saturating_mul(1000)))
}

/// Moves reports from one store to another.
pub(super) fn transfer(
    config: Option<&Path>,
    (from, into): (&str, &str),
    which: Which<'_>,
    json: bool,
) -> Result<Exit, Failure> {
    let (config, _lock) = load_and_lock(config, &LocalDisk)?;
    config.log.start();
    let mut archive = Archive::open(&config, &local())?;
    let staging = Staging::open(&config.staging_dir(), local())?;
    let mut bar = Bar::new("move", "reports", json);
    let moved = archive.transfer((from, into), which, &staging, now_ms(), &mut |done, all| bar.at(done, all))?;
    drop(bar);
    let said = if json {
        say(&json!(moved))
    } else {
        moved.problems.iter().for_each(|problem| eprintln!("{}", printable(problem)));
        say(&format_args!(
            "{} reports, {} octets lie in {into} now ({} of them were there already); {} stay in {from}; the \
             space of those that went is not freed there yet",
            moved.reports, moved.bytes, moved.before, moved.left
        ))
    };
    said.map_err(stdout_failed)?;
    Ok(if moved.problems.is_empty() { Exit::Done } else { Exit::Attention })
}

/// Every store, also one that cannot be opened.
pub(super) fn list(config: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    let config = ArchiverConfig::find(config)?;
    let folder = Folder::of(&config, local());
    let key = folder.unlock_key()?;
    let mut well = true;
    for found in folder.list()? {
        let (state, stats, problems) = look(&found, &key);
        well &= problems.is_empty();
        let Stats { messages, reports, bytes_stored, .. } = stats.clone().unwrap_or_default();
        let line = if json {
            let number = |number: u64| stats.as_ref().map(|_| number);
            json!({
                "name": found.name, "state": state, "path": found.dir, "messages": number(messages),
                "reports": number(reports), "bytes": number(bytes_stored), "problems": problems,
            })
            .to_string()
        } else {
            let number = |number: u64| stats.as_ref().map_or_else(|| "-".to_owned(), |_| number.to_string());
            let line = format!(
                "{:<20} {state:<15} {:>12} messages {:>16} octets  {}",
                found.name,
                number(messages),
                number(bytes_stored),
                found.dir.display()
            );
            let problems = problems.iter().map(|problem| format!("\n  {}", printable(problem)));
            printable(&line) + &problems.collect::<String>()
        };
        say(&line).map_err(stdout_failed)?;
    }
    Ok(if well { Exit::Done } else { Exit::Attention })
}

fn look(found: &Found, key: &UnlockKey) -> (&'static str, Option<Stats>, Vec<String>) {
    let state = match found.state() {
        Ok(StoreState::Disabled) => return (StoreState::Disabled.word(), None, Vec::new()),
        Ok(state) => state.word(),
        Err(error) => return ("unknown", None, vec![error.to_string()]),
    };
    let opened = Store::open_read(&found.dir, &Unlock::Key(key), local());
    match opened.and_then(|store| Ok((store.stats()?, store.unseen().to_vec()))) {
        Ok((stats, unseen)) => (state, Some(stats), unseen),
        Err(error) => (state, None, vec![error.to_string()]),
    }
}
