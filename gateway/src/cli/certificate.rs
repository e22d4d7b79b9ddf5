//! `certificate`: asks the server for another one now, with the same key or a new one; shows the next key beforehand.
//!
//! The server takes the request within a second; one that is not running takes it at its next start.

use super::Context;
use crate::{
    config::CertificateSource,
    tls::{
        self, TlsError,
        acme::{Request, Store, public_key_sha256},
    },
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    run::{Exit, Failure},
};
use std::sync::Arc;

/// Subcommands of `certificate`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Ask the authority for a certificate now, with the key in use
    Renew,
    /// Show the TLSA record of the next key, made where there is none, to publish before it is used
    NextKey,
    /// Ask the authority for a certificate now, with the next key
    RotateKey,
}

/// Runs the command.
///
/// # Errors
/// [`Exit::Usage`] where no authority is configured.
pub fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    let config = context.config()?;
    let CertificateSource::Acme(settings) = &config.tls.source else {
        let mode = config.tls.source.name();
        return Err(Failure::usage(format!("tls.mode is `{mode}`: there is no authority to ask; use mode = \"acme\"")));
    };
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let store = tls::store(settings, &config.data_dir, &disk);
    match command {
        Command::Renew => store.ask(Request::Renew)?,
        Command::NextKey => print_next(&store, &settings.names)?,
        Command::RotateKey => {
            print_next(&store, &settings.names)?;
            store.ask(Request::NewKey)?;
        }
    }
    if !matches!(command, Command::NextKey) {
        eprintln!("asked for; `postkeep-gateway status` shows how it went");
    }
    Ok(Exit::Done)
}

fn print_next(store: &Store, names: &[String]) -> Result<(), TlsError> {
    let digest = public_key_sha256(&store.next_key()?)?;
    for name in names {
        println!("_25._tcp.{name}. IN TLSA 3 1 1 {digest}");
    }
    Ok(())
}
