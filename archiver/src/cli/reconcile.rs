//! `reconcile`: accepted, collected, filed, waiting, missing.
//!
//! Asks every host and reads the store; changes neither, so it may run beside `serve`. With `--offline` it goes by what
//! was last seen, which only the holder of the data folder knows.

use super::{
    ReconcileArgs, load_and_lock,
    run::{runtime, select},
    store::printable,
};
use crate::{
    collect::{Prepared, state::State},
    config::ArchiverConfig,
    reconcile::{Reconciled, Row, reconcile, reconcile_offline},
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    run::{Exit, Failure},
};
use std::{io::Write as _, path::Path, sync::Arc};

/// Compares what was accepted with what is kept.
///
/// # Errors
/// A sentence and an exit code; numbers that do not add up are exit 1.
pub fn run(config: Option<&Path>, args: &ReconcileArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let done = if args.offline { offline(config, args, &disk)? } else { online(config, args, &disk)? };
    for row in &done.rows {
        print(row, args)?;
    }
    done.hints.iter().for_each(|hint| eprintln!("hint: {}", printable(hint)));
    if let Some(failure) = &done.forgotten {
        eprintln!("postkeep-archiver: what was seen could not be remembered: {failure}");
    }
    Ok(if done.is_green() && done.forgotten.is_none() { Exit::Done } else { Exit::Attention })
}

fn online(config: Option<&Path>, args: &ReconcileArgs, disk: &Arc<dyn Disk>) -> Result<Reconciled, Failure> {
    let config = ArchiverConfig::find(config)?;
    config.log.start();
    let sources = select(&config, args.source.as_deref())?;
    let prepared: Vec<Prepared> =
        sources.into_iter().map(|source| Prepared::new(source, &**disk)).collect::<Result<_, _>>()?;
    let prepared: Vec<&Prepared> = prepared.iter().collect();
    let all = prepared.len() == config.sources.len();
    runtime()?.block_on(reconcile(&config, &prepared, all, disk, None))
}

fn offline(config: Option<&Path>, args: &ReconcileArgs, disk: &Arc<dyn Disk>) -> Result<Reconciled, Failure> {
    let (config, _lock) = load_and_lock(config, &**disk)?;
    config.log.start();
    let sources = select(&config, args.source.as_deref())?;
    let state = State::open(&config.state_dir(), &**disk)?;
    reconcile_offline(&config, &sources, &state, disk)
}

fn print(row: &Row, args: &ReconcileArgs) -> Result<(), Failure> {
    let mut row = row.clone();
    if !args.by_day {
        row.days.clear();
    }
    let line = if args.json { serde_json::to_string(&row).map_err(Failure::cannot)? } else { row.line() };
    writeln!(std::io::stdout(), "{line}").map_err(Failure::cannot)
}
