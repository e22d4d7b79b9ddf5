//! What was sent and what came back, in `probes/` of the data folder: `NAME.sent.json`, written by who sends, and
//! `NAME.seen.json`, written by who holds the store. Both may be deleted at any time.

use super::{Marker, Probe};
use postkeep_shared::{
    alarm::span_text,
    disk::{Disk, DiskResult, create_dirs, replace_file},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How many of each are kept.
const KEPT: usize = 200;
const MAX_FILE: u64 = 1024 * 1024;

/// One that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Tells it from others.
    pub chance: String,
    /// When, milliseconds since 1970-01-01 UTC.
    pub sent_ms: u64,
    /// Why the server did not take it.
    pub error: Option<String>,
}

/// One that came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Tells it from others.
    pub chance: String,
    /// When it was sent.
    pub sent_ms: u64,
    /// When its report was taken into the store.
    pub arrived_ms: u64,
}

/// What is known of a probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeState {
    /// Time between two, milliseconds.
    pub interval_ms: u64,
    /// The last ones sent, the oldest first.
    pub sent: Vec<Sent>,
    /// The last ones that came back.
    pub arrived: Vec<Arrival>,
}

impl ProbeState {
    /// Reads both files.
    #[must_use]
    pub fn read(disk: &dyn Disk, data_dir: &Path, probe: &Probe) -> Self {
        let interval_ms = u64::try_from(probe.interval.as_millis()).unwrap_or(u64::MAX);
        let (sent, arrived) =
            (list(disk, &file(data_dir, &probe.name, "sent")), list(disk, &file(data_dir, &probe.name, "seen")));
        Self { interval_ms, sent, arrived }
    }

    /// The last that came back.
    #[must_use]
    pub fn last_arrival(&self) -> Option<&Arrival> {
        self.arrived.iter().max_by_key(|arrival| arrival.sent_ms)
    }

    /// How long the last one took that came back, milliseconds.
    #[must_use]
    pub fn latency_ms(&self) -> Option<u64> {
        self.last_arrival().map(|arrival| arrival.arrived_ms.saturating_sub(arrival.sent_ms))
    }

    /// Whether this one came back.
    #[must_use]
    pub fn has(&self, chance: &str) -> Option<&Arrival> {
        self.arrived.iter().find(|arrival| arrival.chance == chance)
    }

    /// Since when they do not come back, and why: the first one unanswered is older than an interval. So whatever breaks,
    /// it is known within two. A service that has just started first gets time to collect.
    #[must_use]
    pub fn missing(&self, started_ms: u64, now_ms: u64) -> Option<(u64, String)> {
        let last = self.last_arrival().map_or(0, |arrival| arrival.sent_ms);
        let first = self.sent.iter().find(|sent| sent.sent_ms > last)?;
        if now_ms.saturating_sub(first.sent_ms.max(started_ms)) < self.interval_ms {
            return None;
        }
        let count = self.sent.iter().filter(|sent| sent.sent_ms > last).count();
        let error = self.sent.last().and_then(|sent| sent.error.as_ref());
        let why = error.map_or_else(
            || "the server took it, and no report of it has come".to_owned(),
            |error| format!("it could not even be sent: {error}"),
        );
        let ago = span_text(Duration::from_millis(now_ms.saturating_sub(first.sent_ms)));
        Some((first.sent_ms, format!("{count} sent and none came back, the first {ago} ago; of the last one: {why}.")))
    }
}

/// Notes one that was sent, or that it could not be.
///
/// # Errors
/// The disk's.
pub(super) fn sent(disk: &dyn Disk, data_dir: &Path, name: &str, now: Sent) -> DiskResult<()> {
    let file = file(data_dir, name, "sent");
    let mut all: Vec<Sent> = list(disk, &file);
    all.retain(|sent| sent.chance != now.chance);
    all.push(now);
    keep(disk, &file, all)
}

/// Notes one that came back; a second report of it changes nothing.
///
/// # Errors
/// The disk's.
pub(super) fn arrived(disk: &dyn Disk, data_dir: &Path, marker: &Marker, now_ms: u64) -> DiskResult<()> {
    let file = file(data_dir, &marker.name, "seen");
    let mut all: Vec<Arrival> = list(disk, &file);
    if all.iter().any(|arrival| arrival.chance == marker.chance) {
        return Ok(());
    }
    all.push(Arrival { chance: marker.chance.clone(), sent_ms: marker.sent_ms, arrived_ms: now_ms });
    keep(disk, &file, all)
}

fn file(data_dir: &Path, name: &str, what: &str) -> PathBuf {
    data_dir.join("probes").join(format!("{name}.{what}.json"))
}

fn list<T: DeserializeOwned>(disk: &dyn Disk, file: &Path) -> Vec<T> {
    disk.read(file, MAX_FILE).ok().and_then(|octets| serde_json::from_slice(&octets).ok()).unwrap_or_default()
}

fn keep<T: Serialize>(disk: &dyn Disk, file: &Path, mut all: Vec<T>) -> DiskResult<()> {
    all.drain(..all.len().saturating_sub(KEPT));
    create_dirs(disk, file.parent().unwrap_or(Path::new(".")))?;
    replace_file(disk, file, &serde_json::to_vec(&all).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_within_two_intervals_and_not_sooner() {
        let minute = 60_000;
        let sent = |n: u64| Sent { chance: n.to_string(), sent_ms: n * minute, error: None };
        let back = |n: u64| Arrival { chance: n.to_string(), sent_ms: n * minute, arrived_ms: n * minute + 900 };
        let mut state =
            ProbeState { interval_ms: minute, sent: vec![sent(1), sent(2)], arrived: vec![back(1), back(2)] };
        assert_eq!((state.missing(0, 10 * minute), state.latency_ms()), (None, Some(900)));
        state.sent.extend([sent(3), sent(4)]);
        assert_eq!(state.missing(0, 4 * minute - 1), None);
        let (since, text) = state.missing(0, 4 * minute).expect("the third is missing");
        assert!(since == 3 * minute && text.starts_with("2 sent"), "{text}");
        assert_eq!(state.missing(4 * minute, 4 * minute + 1), None, "just started");
        state.arrived.push(back(4));
        assert_eq!(state.missing(0, 9 * minute), None, "a later one came: the way is there");
        let first = ProbeState {
            interval_ms: minute,
            sent: vec![Sent { error: Some("no".into()), ..sent(1) }],
            arrived: vec![],
        };
        assert!(first.missing(0, 3 * minute).expect("missing").1.contains("could not even be sent: no"));
        assert_eq!(ProbeState::default().missing(0, minute), None);
    }
}
