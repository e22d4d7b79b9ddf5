//! `run --once`: one round of every source.
//!
//! A paused source is asked only when it is named: whoever names it wants to know. Maintenance hours do not matter here.
//!
//! Exit 1 when anything needs a person: a host unreachable, a login refused, something odd, a message left, a report kept
//! and not filed. Exit 4 when every host of every source asked refused mailbox or password: then nothing but the
//! password can help.

use super::{RunArgs, check_standing, load_and_lock_alone};
use crate::{
    collect::{Prepared, Rounds, report::Report},
    config::{ArchiverConfig, Source},
    serve::pause::is_paused,
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    run::{Exit, Failure, ShutdownTrigger, on_signals},
};
use std::{io::Write as _, path::Path, sync::Arc};

/// One round of every source, or of one.
///
/// # Errors
/// A sentence and an exit code.
pub fn run(config: Option<&Path>, args: &RunArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let (config, _lock) = load_and_lock_alone(config, &*disk)?;
    config.log.start();
    check_standing(&config, args.i_accept_data_loss)?;
    let sources = select(&config, args.source.as_deref())?;
    let prepared: Vec<Prepared> = sources.iter().map(|s| Prepared::new(s, &*disk)).collect::<Result<_, _>>()?;
    let paused_dir = config.paused_dir();
    runtime()?.block_on(async {
        let (trigger, shutdown) = ShutdownTrigger::new();
        on_signals(trigger).map_err(Failure::cannot)?;
        let rounds = Rounds::open(config, &disk, shutdown.clone())?;
        let mut reports = Vec::new();
        for source in &prepared {
            if shutdown.is_fired() {
                break;
            }
            let asked_for = args.source.is_some();
            let paused = source.source.rhythm.pause || is_paused(&*disk, &paused_dir, &source.source.name);
            let report = if paused && !asked_for {
                Report { paused: true, ..Report::new(&source.source.name) }
            } else {
                rounds.round(source).await?
            };
            print(&report, args.json)?;
            reports.push(report);
        }
        Ok(exit(&reports))
    })
}

/// The sources to work on: all, or the one of this name.
///
/// # Errors
/// Exit 2 when there is none.
pub(super) fn select<'a>(config: &'a ArchiverConfig, name: Option<&str>) -> Result<Vec<&'a Source>, Failure> {
    let sources: Vec<&Source> = config.sources.iter().filter(|s| name.is_none_or(|name| s.name == name)).collect();
    let file = config.file.display();
    match name {
        _ if !sources.is_empty() => Ok(sources),
        Some(name) => Err(Failure::usage(format!("{file}: no source is named `{name}`; check --source"))),
        None => Err(Failure::usage(format!("{file}: there is no [[source]]; add one for each mailbox to collect"))),
    }
}

/// The runtime of commands that connect.
///
/// # Errors
/// When threads cannot be had.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().map_err(Failure::cannot)
}

fn print(report: &Report, json: bool) -> Result<(), Failure> {
    let line = if json { serde_json::to_string(report).map_err(Failure::cannot)? } else { report.line() };
    writeln!(std::io::stdout(), "{line}").map_err(Failure::cannot)
}

fn exit(reports: &[Report]) -> Exit {
    if !reports.is_empty() && reports.iter().all(Report::login_refused) {
        return Exit::WrongKey;
    }
    if reports.iter().any(Report::needs_attention) { Exit::Attention } else { Exit::Done }
}
