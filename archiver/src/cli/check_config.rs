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
