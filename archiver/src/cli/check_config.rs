//! `check-config`: every mistake at once, with file, key and remedy; then the files the configuration names.

use crate::{collect::Prepared, config::ArchiverConfig, filing::Owners};
use postkeep_shared::{
    disk::LocalDisk,
    run::{Exit, Failure},
};
use std::path::Path;

/// Checks the configuration, the owners file, password and certificate files. Connects nowhere.
///
/// # Errors
/// Exit 2 with every mistake, one line each.
pub fn run(config: Option<&Path>) -> Result<Exit, Failure> {
    let config = ArchiverConfig::find(config)?;
    let mut mistakes: Vec<String> = Vec::new();
    mistakes.extend(Owners::load(&config.owners_file).err().map(|e| e.to_string()));
    for source in &config.sources {
        mistakes.extend(Prepared::new(source, &LocalDisk).err().map(|e| e.to_string()));
    }
    let mail =
        config.alarms.mail.as_ref().and_then(|mail| mail.relay.as_ref()).map(|relay| ("[mail]".to_owned(), relay));
    let probes = config.probes.iter().map(|probe| (format!("probe {}", probe.name), &probe.server));
    for (place, relay) in mail.into_iter().chain(probes) {
        mistakes.extend(relay.check().err().map(|text| format!("{}: {place}: {text}", config.file.display())));
    }
    for name in config.alarms.busy_hours.keys().filter(|name| !config.sources.iter().any(|s| s.name == **name)) {
        mistakes.push(format!("{}: alarms.busy_hours: there is no source `{name}`", config.file.display()));
    }
    if !config.alarms.shared.tells_somebody() {
        eprintln!("note: [alarms] names nobody: what is wrong stands in the log and in `alarm list` only");
    }
    if !config.data_dir.is_dir() {
        mistakes.push(format!("there is no data folder {}; `init` makes one", config.data_dir.display()));
    }
    if mistakes.is_empty() {
        println!("{}: no mistake found, {} sources", config.file.display(), config.sources.len());
        Ok(Exit::Done)
    } else {
        Err(Failure::usage(mistakes.join("\n")))
    }
}
