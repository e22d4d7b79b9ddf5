//! `check-config`: every mistake at once, with file, key and remedy.

use super::Context;
use postkeep_shared::{
    disk::LocalDisk,
    run::{Exit, Failure},
};
use std::sync::Arc;

/// Arguments of `check-config`.
#[derive(clap::Args)]
pub struct Args {}

/// Reads the configuration and the files of certificates it names.
///
/// # Errors
/// [`Exit::Usage`] with every mistake.
pub fn run(context: &Context, _args: Args) -> Result<Exit, Failure> {
    let config = context.config()?;
    crate::tls::check(&config.tls, &LocalDisk).map_err(Failure::usage)?;
    let authorities = config.sources.client_ca_file.as_deref();
    crate::tls::ClientAuthorities::load(authorities, Arc::new(LocalDisk)).map_err(Failure::usage)?;
    if let Some(relay) = config.alarms.mail.as_ref().and_then(|mail| mail.relay.as_ref()) {
        relay.check().map_err(Failure::usage)?;
    }
    if !config.alarms.shared.tells_somebody() {
        eprintln!("note: [alarms] names nobody: what is wrong stands in the log and in `alarm list` only");
    }
    config.sources.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    println!("{}: no mistakes", context.config_file().display());
    Ok(Exit::Done)
}
