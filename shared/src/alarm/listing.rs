//! `alarm list`: what is wrong now and what was not delivered yet, from the file of the running program.

use super::{Active, Kept, Queued, span_text};
use crate::run::{Exit, LocalTime};
use serde::Serialize;
use std::time::Duration;

/// What `alarm list --json` says.
#[derive(Debug, Clone, Serialize)]
pub struct Listing {
    /// Every alarm.
    pub alarms: Vec<Active>,
    /// Every recipient with something to come.
    pub queued: Vec<Queued>,
}

impl From<&Kept> for Listing {
    fn from(kept: &Kept) -> Self {
        Self { alarms: kept.engine.active(), queued: kept.outbox.queued() }
    }
}

impl Listing {
    /// For people.
    #[must_use]
    pub fn lines(&self, now_ms: u64) -> Vec<String> {
        let mut lines = Vec::new();
        for alarm in &self.alarms {
            let lasts = span_text(Duration::from_millis(now_ms.saturating_sub(alarm.since_ms)));
            let state = match (alarm.settling, alarm.told_ms) {
                (true, _) => "about to be over".to_owned(),
                (false, Some(told)) => format!("told {}", LocalTime::of(told).text()),
                (false, None) => "not told yet, it has not lasted long enough".to_owned(),
            };
            lines.push(format!("{} {}: {} (for {lasts}, {state})", alarm.kind.name(), alarm.subject, alarm.detail));
        }
        if self.alarms.is_empty() {
            lines.push("no alarm".to_owned());
        }
        for queue in &self.queued {
            let error = queue.error.as_deref().unwrap_or("not tried yet");
            lines.push(format!("{} to deliver to {}: {error}", queue.waiting, queue.recipient));
            if queue.left_out > 0 {
                lines.push(format!("{} were left out for {}: too many waited", queue.left_out, queue.recipient));
            }
        }
        lines
    }

    /// Whether a person should look.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let told = self.alarms.iter().any(|alarm| alarm.told_ms.is_some() && !alarm.settling);
        let stuck = self.queued.iter().any(|queue| queue.failures > 0 || queue.left_out > 0);
        if told || stuck { Exit::Attention } else { Exit::Done }
    }
}
