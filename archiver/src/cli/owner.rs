//! `owner list` and `owner add`.

use super::OwnerCommand;
use crate::{
    config::ArchiverConfig,
    filing::{Owner, Owners},
};
use postkeep_shared::{
    disk::LocalDisk,
    run::{Exit, Failure},
};
use std::{
    io::{self, Write as _},
    path::Path,
};

/// Lists and adds owners.
///
/// # Errors
/// Exit 2 for a mistake in the configuration, in the owners file or in what is to be added; exit 3 where the file cannot
/// be written.
pub fn run(config: Option<&Path>, command: &OwnerCommand) -> Result<Exit, Failure> {
    let config = ArchiverConfig::find(config)?;
    match command {
        OwnerCommand::List { json } => list(&config, *json),
        OwnerCommand::Add { name, addresses, full_name } => {
            let (name, full_name, addresses) = (name.clone(), full_name.clone(), addresses.clone());
            add(&config, Owner { name, full_name, addresses })
        }
    }
}

fn list(config: &ArchiverConfig, json: bool) -> Result<Exit, Failure> {
    let owners = Owners::load(&config.owners_file)?;
    let mut text = String::new();
    for owner in owners.all() {
        if json {
            let line = serde_json::json!({
                "name": owner.name, "full_name": owner.full_name, "addresses": owner.addresses,
            });
            text += &format!("{line}\n");
        } else {
            let full_name = owner.full_name.as_ref().map(|n| format!(" ({n})")).unwrap_or_default();
            text += &format!("{}{full_name}: {}\n", owner.name, owner.addresses.join(", "));
        }
    }
    let written = io::stdout().write_all(text.as_bytes());
    written.map_err(|e| Failure::cannot(format!("cannot write to standard output: {e}")))?;
    Ok(Exit::Done)
}

fn add(config: &ArchiverConfig, owner: Owner) -> Result<Exit, Failure> {
    let path = &config.owners_file;
    // A missing file is the first owner; a file with mistakes is never written over.
    let mut owners = if path.exists() { Owners::load(path)? } else { Owners::default() };
    owners.add(owner).map_err(Failure::usage)?;
    owners.save(path, &LocalDisk)?;
    Ok(Exit::Done)
}
