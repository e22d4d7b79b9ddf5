//! Proofs by the service itself: a reconcile and a signed checkpoint, each on its interval.
//!
//! Both read the record files and need neither the store nor its lock, so they run beside rounds and while the store is
//! lent. A checkpoint is handed to the mailer; what a reconcile finds is read by the alarms. When they ran last stands on disk: a restart does not begin them anew.

use super::Keeper;
use crate::{
    checkpoint,
    collect::Prepared,
    config::ArchiverConfig,
    reconcile::{Memory, reconcile},
};
use postkeep_shared::{
    alarm::Alarms,
    mailer::{Attachment, Letter},
    run::{Failure, Shutdown, now_ms},
};
use std::{sync::Arc, time::Duration};

/// How often it looks whether something is due.
const LOOK: Duration = Duration::from_secs(10);

/// Proves until `shutdown` fires.
pub async fn prove(keeper: Arc<Keeper>, alarms: Alarms, mut shutdown: Shutdown) {
    loop {
        tokio::select! {
            biased;
            () = shutdown.fired() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let config = keeper.config();
        // A reconcile that waits for a slow host is no reason to stop late.
        tokio::select! {
            biased;
            () = shutdown.fired() => return,
            done = reconcile_when_due(&keeper, &config) => tell("reconcile", done),
        }
        tell("checkpoint", checkpoint_when_due(&keeper, &config, &alarms));
    }
}

fn tell(what: &str, done: Result<(), Failure>) {
    if let Err(failure) = done {
        tracing::error!("ALARM: {what}: {failure}");
    }
}

async fn reconcile_when_due(keeper: &Keeper, config: &ArchiverConfig) -> Result<(), Failure> {
    let Some(interval) = config.reconcile_interval else { return Ok(()) };
    let memory = Memory::load(&config.data_dir, &**keeper.disk())?;
    if memory.last_run_ms.is_some_and(|last| is_within(last, interval)) {
        return Ok(());
    }
    let prepared = config.sources.iter().map(|source| Prepared::new(source, &**keeper.disk()));
    let prepared: Vec<Prepared> = prepared.collect::<Result<_, _>>()?;
    let sources: Vec<&Prepared> = prepared.iter().collect();
    let done = reconcile(config, &sources, true, keeper.disk(), Some(keeper.turns())).await?;
    for row in done.rows.iter().filter(|row| !row.ok) {
        let (source, node) = (&row.source, row.node.as_deref().unwrap_or("none"));
        tracing::error!("ALARM: reconcile: {source}, node {node}: {}", row.problems.join("; "));
    }
    if done.is_green() {
        tracing::info!("reconcile: every number adds up");
    }
    if let Some(failure) = &done.forgotten {
        tracing::error!("ALARM: what reconcile saw could not be remembered: {failure}");
    }
    Ok(())
}

/// A clock that was set back makes nothing wait.
fn is_within(last_ms: u64, interval: Duration) -> bool {
    now_ms().checked_sub(last_ms).is_some_and(|ago| u128::from(ago) < interval.as_millis())
}

fn checkpoint_when_due(keeper: &Keeper, config: &ArchiverConfig, alarms: &Alarms) -> Result<(), Failure> {
    let Some(interval) = config.checkpoint.interval else { return Ok(()) };
    tokio::task::block_in_place(|| {
        if !checkpoint::is_due(&config.checkpoint.dir, interval, &**keeper.disk(), now_ms())? {
            return Ok(());
        }
        let made = checkpoint::create(config, keeper.disk(), now_ms())?;
        tracing::info!("checkpoint: {}", made.path.display());
        for text in &made.damage {
            tracing::error!("ALARM: checkpoint: {text}");
        }
        if !config.checkpoint.mail.is_empty() {
            alarms.mail(config.checkpoint.mail.clone(), letter(&made));
        }
        Ok(())
    })
}

/// A checkpoint as a letter: its text to read, and the file itself, which is what verifies.
fn letter(made: &checkpoint::Written) -> Letter {
    let name = made.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Letter {
        subject: format!("Postkeep checkpoint {}", name.trim_end_matches(".checkpoint")),
        text: made.note.clone(),
        html: None,
        files: vec![Attachment {
            name,
            media_type: "application/octet-stream".to_owned(),
            octets: made.note.clone().into_bytes(),
        }],
        written: i64::try_from(now_ms() / 1000).unwrap_or_default(),
        replaces: None,
    }
}
