//! Proofs by the service itself: a reconcile and a signed checkpoint, each on its interval.
//!
//! Both read the record files and need neither the store nor its lock, so they run beside rounds and while the store is
//! lent. A checkpoint is handed to the mailer; what a reconcile finds is read by the alarms. When they ran last stands on disk: a restart does not begin them anew.

use super::Keeper;
use crate::{
    checkpoint,
    collect::Prepared,
    config::ArchiverConfig,
    reconcile::{Memory, Row, reconcile},
};
use postkeep_shared::{
    alarm::Alarms,
    mailer::{Attachment, Letter},
    run::{Failure, Shutdown, now_ms},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How often it looks whether something is due.
const LOOK: Duration = Duration::from_secs(10);

/// Proves until `shutdown` fires.
pub async fn prove(keeper: Arc<Keeper>, alarms: Alarms, mut shutdown: Shutdown) {
    let mut said = Said::default();
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
            done = reconcile_when_due(&keeper, &config, &mut said) => said.tell("reconcile", done),
        }
        said.tell("checkpoint", checkpoint_when_due(&keeper, &config, &alarms));
    }
}

/// What was said last of each: what is tried again every few seconds is told when it changes.
#[derive(Default)]
struct Said(BTreeMap<&'static str, String>);

impl Said {
    fn tell(&mut self, what: &'static str, done: Result<(), Failure>) {
        match done {
            Err(failure) if self.is_new(what, failure.text.clone()) => tracing::error!("ALARM: {what}: {failure}"),
            Ok(()) if self.0.remove(what).is_some() => tracing::info!("{what}: it can be done again"),
            _ => {}
        }
    }

    fn is_new(&mut self, what: &'static str, text: String) -> bool {
        let new = self.0.get(what) != Some(&text);
        self.0.insert(what, text);
        new
    }
}

async fn reconcile_when_due(keeper: &Keeper, config: &ArchiverConfig, said: &mut Said) -> Result<(), Failure> {
    let Some(interval) = config.reconcile_interval else { return Ok(()) };
    let memory = Memory::load(&config.data_dir, &**keeper.disk())?;
    if memory.last_run_ms.is_some_and(|last| is_within(last, interval)) {
        return Ok(());
    }
    let prepared = config.sources.iter().map(|source| Prepared::new(source, &**keeper.disk()));
    let prepared: Vec<Prepared> = prepared.collect::<Result<_, _>>()?;
    let sources: Vec<&Prepared> = prepared.iter().collect();
    let done = reconcile(config, &sources, true, keeper.disk(), Some(keeper.turns())).await?;
    let problem = |row: &Row| {
        let (source, node) = (&row.source, row.node.as_deref().unwrap_or("none"));
        format!("{source}, node {node}: {}", row.problems.join("; "))
    };
    let problems: Vec<String> = done.rows.iter().filter(|row| !row.ok).map(problem).collect();
    // What cannot be remembered is due again in a moment, and finds the same.
    if said.is_new("what reconcile found", problems.join("\n")) || done.forgotten.is_none() {
        problems.iter().for_each(|problem| tracing::error!("ALARM: reconcile: {problem}"));
        done.hints.iter().for_each(|hint| tracing::warn!("reconcile: {hint}"));
        if problems.is_empty() {
            tracing::info!("reconcile: every number adds up");
        }
    }
    match done.forgotten {
        Some(failure) => Err(Failure::cannot(format!("what was seen could not be remembered: {failure}"))),
        None => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_wrong_is_said_once() {
        let mut said = Said::default();
        assert!(said.is_new("a", "no".into()) && said.is_new("b", "no".into()));
        assert!(!said.is_new("a", "no".into()));
        assert!(said.is_new("a", "other".into()) && said.is_new("a", "no".into()));
        said.tell("a", Ok(()));
        assert!(said.is_new("a", "no".into()), "it was well in between");
        said.tell("a", Err(Failure::cannot("no")));
        assert!(!said.is_new("a", "no".into()));
    }
}
