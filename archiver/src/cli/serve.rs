//! `serve`: every source on its interval, until SIGTERM.
//!
//! Rounds follow each other, one at a time: there is one writer. A stop lets the batch in work end, so everything the
//! store took is deleted at its source in the same session.

use super::{
    ServeArgs, check_standing, load_and_lock,
    run::{runtime, select},
};
use crate::collect::{Prepared, Rounds};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    run::{Exit, Failure, Shutdown, ShutdownTrigger, on_signals},
};
use std::{path::Path, sync::Arc};
use tokio::time::{Instant, sleep_until};

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// A sentence and an exit code; trouble of a host is logged and tried again on the next interval.
pub fn run(config: Option<&Path>, args: &ServeArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let (config, _lock) = load_and_lock(config, &*disk)?;
    config.log.start();
    check_standing(&config, args.i_accept_data_loss)?;
    let sources = select(&config, None)?;
    let prepared: Vec<Prepared> = sources.iter().map(|s| Prepared::new(s, &*disk)).collect::<Result<_, _>>()?;
    runtime()?.block_on(async {
        let (trigger, shutdown) = ShutdownTrigger::new();
        on_signals(trigger).map_err(Failure::cannot)?;
        let rounds = Rounds::open(config, &disk, shutdown.clone())?;
        tracing::info!("serving {} sources", prepared.len());
        repeat(rounds, &prepared, shutdown).await?;
        tracing::info!("stopped");
        Ok(Exit::Done)
    })
}

async fn repeat(mut rounds: Rounds, prepared: &[Prepared], mut shutdown: Shutdown) -> Result<(), Failure> {
    let start = Instant::now();
    let mut due: Vec<Instant> = prepared.iter().map(|_| start).collect();
    while !shutdown.is_fired() {
        let next = due.iter().copied().enumerate().min_by_key(|(_, at)| *at);
        let Some((index, at)) = next else { return Ok(()) };
        tokio::select! {
            () = sleep_until(at) => {}
            () = shutdown.fired() => return Ok(()),
        }
        let Some(source) = prepared.get(index) else { return Ok(()) };
        match rounds.round(source).await {
            Ok(report) if report.needs_attention() => tracing::warn!("{}", report.line()),
            Ok(report) => tracing::info!("{}", report.line()),
            // A mistake in the owners file: mended while we run, the next round goes on.
            Err(failure) if failure.exit == Exit::Usage => tracing::error!("{failure}"),
            Err(failure) => return Err(failure),
        }
        if let Some(at) = due.get_mut(index) {
            *at = Instant::now() + source.source.interval;
        }
    }
    Ok(())
}
