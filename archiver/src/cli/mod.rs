//! The command line: one file per command, arguments and printing only.
//!
//! `--json` puts JSON and nothing else on standard output; logs and sentences go to standard error.

pub mod alarm;
mod args;

pub mod backup;
pub mod check_config;
pub mod checkpoint;
pub mod dead_letter;
pub mod delete;
pub mod envelope;
pub mod export;
mod held;
pub mod import;
pub mod init;
pub mod inspect;
pub mod list;
pub mod owner;
pub mod progress;
mod proof;
pub mod quarantine;
pub mod reconcile;
pub mod run;
pub mod serve;
pub mod show;
pub mod source;
pub mod status;
pub mod store;
mod store_keys;
mod store_mend;
mod stores;
pub mod why;

pub use args::{
    BackupArgs, CheckpointCommand, CheckpointVerifyArgs, Cli, Command, DeadLetterCommand, Decision, DeleteArgs,
    DrillArgs, EnvelopeArgs, ExportArgs, ExportFormat, ImportArgs, InitArgs, InspectArgs, ListArgs, MboxArg,
    OwnerCommand, ProfileArg, QuarantineCommand, ReconcileArgs, RekeyArgs, RotateArgs, RunArgs, Sample, ServeArgs,
    ShowArgs, SourceCommand, StateArg, StatusArgs, StoreCommand, UnlockArgs, WhyArgs,
};

use crate::{config::ArchiverConfig, serve::control};
use clap::Parser as _;
use postkeep_shared::{
    disk::{Disk, DiskLock, require_standing},
    run::{Exit, Failure, finish, forbid_core_dumps},
};
use std::{
    io,
    path::Path,
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

/// How long a lock that was lent may be in somebody else's hands.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads the arguments, runs the command, ends with its documented exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    finish("postkeep-archiver", forbid_core_dumps().and_then(|()| dispatch(&cli)))
}

fn dispatch(cli: &Cli) -> Result<Exit, Failure> {
    let config = cli.config.as_deref();
    match &cli.command {
        Command::Init(args) => init::run(config, args),
        Command::Run(args) => run::run(config, args),
        Command::Serve(args) => serve::run(config, args),
        Command::Import(args) => import::run(config, args),
        Command::Inspect(args) => inspect::run(config, args),
        Command::Owner(command) => owner::run(config, command),
        Command::Source(command) => source::run(config, command),
        Command::List(args) => list::run(config, args),
        Command::Show(args) => show::run(config, args),
        Command::Envelope(args) => envelope::run(config, args),
        Command::Why(args) => why::run(config, args),
        Command::Export(args) => export::run(config, args),
        Command::Backup(args) => backup::run(config, args),
        Command::RestoreDrill(args) => backup::drill(config, args),
        Command::Delete(args) => delete::run(config, args),
        Command::Store(command) => store::run(config, command),
        Command::Quarantine(command) => quarantine::run(config, command),
        Command::DeadLetter(command) => dead_letter::run(config, command),
        Command::Reconcile(args) => reconcile::run(config, args),
        Command::Status(args) => status::run(config, args),
        Command::Checkpoint(command) => checkpoint::run(config, command),
        Command::Alarm(command) => alarm::alarm(config, command),
        Command::StatusMail(args) => alarm::status_mail(config, args),
        Command::Probe(command) => alarm::probe(config, command),
        Command::CheckConfig => check_config::run(config),
    }
}

/// Loads the configuration and takes the writer's lock, for commands that change the data folder. A running service lends
/// it, see [`control`].
///
/// # Errors
/// Exit 2 for the configuration, exit 3 where another archiver works on the folder or there is none.
pub fn load_and_lock(config: Option<&Path>, disk: &dyn Disk) -> Result<(ArchiverConfig, Box<dyn DiskLock>), Failure> {
    let config = ArchiverConfig::find(config)?;
    match lock(&config, disk) {
        Ok(lock) => Ok((config, lock)),
        Err(error) => match borrow(&config, disk)? {
            Some(lock) => Ok((config, lock)),
            None => Err(error),
        },
    }
}

/// As [`load_and_lock`], for those who do the service's own work: it steps aside for nobody of them.
///
/// # Errors
/// As [`load_and_lock`].
pub fn load_and_lock_alone(
    config: Option<&Path>,
    disk: &dyn Disk,
) -> Result<(ArchiverConfig, Box<dyn DiskLock>), Failure> {
    let config = ArchiverConfig::find(config)?;
    let lock = lock(&config, disk)?;
    Ok((config, lock))
}

/// The writer's lock while a service lends it.
struct Borrowed {
    /// Let go first: the service takes it when the loan ends.
    _lock: Box<dyn DiskLock>,
    _loan: control::Loan,
}

impl DiskLock for Borrowed {}

fn borrow(config: &ArchiverConfig, disk: &dyn Disk) -> Result<Option<Box<dyn DiskLock>>, Failure> {
    let command = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let to = format!("`{command}` (process {})", std::process::id());
    let Some(loan) = control::borrow(&config.control_socket(), &to)? else { return Ok(None) };
    // `status` may have the lock for the moment of a look.
    let until = Instant::now() + PATIENCE;
    let lock = loop {
        match lock(config, disk) {
            Err(_) if Instant::now() < until => sleep(Duration::from_millis(50)),
            taken => break taken?,
        }
    };
    Ok(Some(Box::new(Borrowed { _lock: lock, _loan: loan })))
}

fn lock(config: &ArchiverConfig, disk: &dyn Disk) -> Result<Box<dyn DiskLock>, Failure> {
    disk.lock(&config.lock_file()).map_err(|error| match error.source.kind() {
        io::ErrorKind::WouldBlock => Failure::cannot(format!(
            "another archiver works on {}; wait for it, or stop it first",
            config.data_dir.display()
        )),
        io::ErrorKind::NotFound => {
            Failure::cannot(format!("there is no data folder {}; `init` makes one", config.data_dir.display()))
        }
        _ => Failure::from(error),
    })
}

/// Refuses a data folder on a network file system, warns of one in memory.
///
/// # Errors
/// Exit 5.
fn check_standing(config: &ArchiverConfig, accept: bool) -> Result<(), Failure> {
    if let Some(warning) = require_standing(&config.data_dir, accept)? {
        tracing::warn!("ALARM: {warning}");
    }
    Ok(())
}
