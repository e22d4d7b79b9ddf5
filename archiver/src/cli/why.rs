//! `why`.

use super::{
    WhyArgs,
    store::{open_reader, printable, say, stdout_failed},
};
use crate::{config::ArchiverConfig, filing::Owners, why::explain};
use postkeep_shared::run::{Exit, Failure};
use serde_json::json;
use std::path::Path;

/// Says why a message is in an archive, or is not.
///
/// # Errors
/// A sentence and an exit code.
pub fn run(config: Option<&Path>, args: &WhyArgs) -> Result<Exit, Failure> {
    let store = open_reader(config)?;
    let config = ArchiverConfig::find(config)?;
    let owners = Owners::load(&config.owners_file)?;
    let why = explain(&store, &owners, &config, &args.id, args.whom.as_deref())?;
    let said = if args.json {
        say(&json!(why))
    } else {
        why.sentences.iter().try_for_each(|sentence| say(&printable(sentence)))
    };
    said.map_err(stdout_failed)?;
    Ok(Exit::Done)
}
