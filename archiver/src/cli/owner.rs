//! `owner`: who has an archive, and who should.

use super::{
    OwnerCommand, load_and_lock,
    store::{ended, open_reader, printable, say, stdout_failed},
};
use crate::{
    archive::Archive,
    config::ArchiverConfig,
    filing::{Owner, Owners, domain, edited, is_x500, normalise, read_csv},
    refile::{Reach, refile},
    store::Unowned,
};
use postkeep_shared::{
    config::ConfigError,
    disk::{Disk, DiskLock, LocalDisk, replace_file},
    run::{Exit, Failure},
};
use serde_json::json;
use std::{
    io,
    path::Path,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

/// How long another `owner` command is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Octets of a table at most.
const MAX_TABLE: u64 = 64 * 1024 * 1024;

/// Lists and changes owners, and files what waits for them.
///
/// # Errors
/// Exit 2 for a mistake in the configuration, in the owners file or in what is to be added; exit 3 where a file cannot be
/// written.
pub fn run(config: Option<&Path>, command: &OwnerCommand) -> Result<Exit, Failure> {
    match command {
        OwnerCommand::List { json } => list(&ArchiverConfig::find(config)?, *json),
        OwnerCommand::Add { name, addresses, alias, x500, full_name } => {
            let (name, full_name, addresses) = (name.clone(), full_name.clone(), addresses.clone());
            let owner = Owner { name, full_name, addresses, aliases: alias.clone(), x500: x500.clone() };
            add(&ArchiverConfig::find(config)?, owner)
        }
        OwnerCommand::Remove { name, addresses } => remove(&ArchiverConfig::find(config)?, name, addresses),
        OwnerCommand::Import { file, dry_run } => import(&ArchiverConfig::find(config)?, file, *dry_run),
        OwnerCommand::Unowned { json } => unowned(config, *json),
        OwnerCommand::Refile { json } => again(config, *json),
    }
}

fn list(config: &ArchiverConfig, json: bool) -> Result<Exit, Failure> {
    let owners = Owners::load(&config.owners_file)?;
    for owner in owners.all() {
        let line = if json {
            json!({
                "name": owner.name, "full_name": owner.full_name, "addresses": owner.addresses,
                "aliases": owner.aliases, "x500": owner.x500,
            })
            .to_string()
        } else {
            let full_name = owner.full_name.as_ref().map(|n| format!(" ({n})")).unwrap_or_default();
            let addresses: Vec<&str> = owner.all_addresses().collect();
            format!("{}{full_name}: {}", owner.name, addresses.join(", "))
        };
        say(&line).map_err(stdout_failed)?;
    }
    Ok(Exit::Done)
}

/// Changes the owners file: under its lock, whole, and only where there is something to change.
fn change(
    config: &ArchiverConfig,
    change: impl FnOnce(&mut Owners) -> Result<(), Failure>,
) -> Result<(Owners, Owners), Failure> {
    let path = &config.owners_file;
    let _lock = lock(config)?;
    // A missing file is the first owner; a file with mistakes is never written over.
    let (before, text) = if path.exists() { Owners::load_text(path)? } else { Default::default() };
    let mut after = before.clone();
    change(&mut after)?;
    let new = if text.is_empty() { after.to_toml() } else { edited(&text, &after) };
    if new != text {
        replace_file(&LocalDisk, path, new.as_bytes())?;
    }
    Ok((before, after))
}

/// Two commands at once must not undo each other. Where there is no data folder yet, nothing is at work.
fn lock(config: &ArchiverConfig) -> Result<Option<Box<dyn DiskLock>>, Failure> {
    let path = config.owners_lock_file();
    let until = Instant::now() + PATIENCE;
    loop {
        match LocalDisk.lock(&path) {
            Ok(lock) => return Ok(Some(lock)),
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) if error.source.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                sleep(Duration::from_millis(50));
            }
            Err(error) if error.source.kind() == io::ErrorKind::WouldBlock => {
                return Err(Failure::cannot("another `owner` command is at work; wait for it and try again"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn add(config: &ArchiverConfig, owner: Owner) -> Result<Exit, Failure> {
    let given = owner.clone();
    let (before, after) = change(config, |owners| owners.add(owner).map_err(Failure::usage))?;
    let shared: Vec<String> = shared(&after, &given);
    let done = match (before.named(&given.name), after.named(&given.name)) {
        (Some(old), Some(new)) if old == new => format!("{}: nothing new", given.name),
        (Some(_), _) => format!("{}: changed", given.name),
        _ => format!("{}: added", given.name),
    };
    let say = |line: &str| say(&printable(line)).map_err(stdout_failed);
    say(&done)?;
    for line in shared {
        say(&line)?;
    }
    match given.all_addresses().find(|address| outside(config, address)) {
        Some(address) => say(&format!(
            "{address} is outside the own domains: `owner refile` also looks for old messages of such addresses"
        ))?,
        None => say("what nobody owned before is filed in the next round, or by `owner refile` at once")?,
    }
    Ok(Exit::Done)
}

fn outside(config: &ArchiverConfig, address: &str) -> bool {
    let spelling = normalise(address);
    !is_x500(&spelling) && domain(&spelling).is_none_or(|d| !config.own_domains.iter().any(|own| own == d))
}

fn shared(owners: &Owners, given: &Owner) -> Vec<String> {
    let line = |address: &str| {
        let others = owners.find(address, None).into_iter().map(|found| found.owner.name.as_str());
        let others: Vec<&str> = others.filter(|name| !name.eq_ignore_ascii_case(&given.name)).collect();
        (!others.is_empty())
            .then(|| format!("{address} is shared with {}: new mail goes to all of them", others.join(", ")))
    };
    given.all_addresses().filter_map(line).collect()
}

fn remove(config: &ArchiverConfig, name: &str, addresses: &[String]) -> Result<Exit, Failure> {
    let mut gone: Vec<String> = addresses.to_vec();
    let (_, after) = change(config, |owners| {
        if addresses.is_empty() {
            let owner = owners.remove(name).map_err(Failure::usage)?;
            gone = owner.all_addresses().map(str::to_owned).collect();
            return Ok(());
        }
        owners.remove_addresses(name, addresses).map_err(Failure::usage)
    })?;
    let say = |line: String| say(&printable(&line)).map_err(stdout_failed);
    say(match addresses {
        [] => format!(
            "{name} is no owner any more; the archive stays, and `list --owner {name}` and `export --owner {name}` go on \
             showing it"
        ),
        _ => format!("{name} has {} fewer addresses; what is in the archive stays", addresses.len()),
    })?;
    for address in gone.iter().filter(|address| after.find(address, None).is_empty() && !outside(config, address)) {
        say(format!("new mail for {address} has no owner: `owner unowned` will list it"))?;
    }
    Ok(Exit::Done)
}

fn import(config: &ArchiverConfig, file: &Path, dry_run: bool) -> Result<Exit, Failure> {
    let octets = LocalDisk.read(file, MAX_TABLE)?;
    let mistaken = |mistakes| Failure::from(ConfigError { file: file.to_owned(), mistakes });
    let table = read_csv(&octets).map_err(mistaken)?;
    let lines = table.len();
    let merge = |owners: &mut Owners| {
        // Every line was checked before.
        table.into_iter().try_for_each(|owner| owners.add(owner).map_err(Failure::usage))
    };
    let (before, after) = if dry_run {
        let before = if config.owners_file.exists() { Owners::load(&config.owners_file)? } else { Owners::default() };
        let mut after = before.clone();
        merge(&mut after)?;
        (before, after)
    } else {
        change(config, merge)?
    };
    let new = after.all().len() - before.all().len();
    let changed = before.all().iter().filter(|owner| after.named(&owner.name) != Some(owner)).count();
    let would = if dry_run { "would be " } else { "" };
    let line = format!(
        "{lines} lines read: {new} owners {would}added, {changed} {would}changed, {} in all",
        after.all().len()
    );
    say(&line).map_err(stdout_failed)?;
    Ok(Exit::Done)
}

fn unowned(config: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    let store = open_reader(config)?;
    let found = store.unowned()?;
    let said = if json { say(&json!(found)) } else { found.iter().try_for_each(say_unowned) };
    said.map_err(stdout_failed)?;
    Ok(if found.is_empty() { ended(&store) } else { Exit::Attention })
}

fn say_unowned(unowned: &Unowned) -> io::Result<()> {
    let Unowned { address, count, first, last, messages } = unowned;
    let date = |date: &Option<String>| date.clone().unwrap_or_else(|| "undated".to_owned());
    let span = if count == &1 { date(first) } else { format!("{} to {}", date(first), date(last)) };
    say(&printable(&format!("{address}: {count} messages, {span}")))?;
    for message in messages {
        let (from, subject) = (message.from.as_deref().unwrap_or("-"), message.subject.as_deref().unwrap_or("-"));
        say(&printable(&format!("  {}  {:<20}  {from}  {subject}", message.id, date(&message.date))))?;
    }
    Ok(())
}

fn again(config: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    let (config, _lock) = load_and_lock(config, &LocalDisk)?;
    let owners = Owners::load(&config.owners_file)?;
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let mut store = Archive::open(&config, &disk)?;
    let done = refile(&mut store, &owners, &|source| config.rules(source), Reach::All, &|| false)?;
    let left = store.unowned_count()?;
    let said = if json {
        say(&json!({
            "reports": done.reports, "changed": done.changed, "instances": done.instances, "served": done.served,
            "unowned": left, "write_protected": done.write_protected,
        }))
    } else {
        say(&format_args!(
            "{} reports looked at: {} appearances filed for {} addresses of {} reports; {left} addresses are without owner",
            done.reports, done.instances, done.served, done.changed
        ))
    };
    said.map_err(stdout_failed)?;
    if done.write_protected > 0 {
        eprintln!(
            "{} reports lie in a write-protected store and wait: `store set-state NAME normal` lets them be filed",
            done.write_protected
        );
        return Ok(Exit::Attention);
    }
    Ok(Exit::Done)
}
