//! What is known now: of every source and host, of the store, of what keeps the service from its work.
//!
//! Written by the service, read by `status` (through the control socket), metrics, health and alarms. Memory only; the
//! figures count from the start of the service.

use crate::{collect::report::Report, store::Stats};
use postkeep_shared::{metrics::whole, run::now_ms};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The board. Share it as `Arc`.
#[derive(Debug, Default)]
pub struct Board(Mutex<Snapshot>);

/// Everything, at one moment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Process number of the service.
    pub pid: u32,
    /// When the service began, milliseconds since 1970-01-01 UTC; so are all times here.
    pub started_ms: u64,
    /// In the order of the configuration.
    pub sources: Vec<SourceStanding>,
    /// When the configuration in use was read.
    pub configured_ms: u64,
    /// Why the configuration in the files is not the one in use.
    pub reload_error: Option<String>,
    /// Why the owners in the file are not the ones in use.
    pub owners_error: Option<String>,
    /// The command that has the store.
    pub lent_to: Option<String>,
    /// Since when.
    pub lent_ms: Option<u64>,
    /// Figures of the store.
    pub store: Option<StoreStanding>,
}

/// A source.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SourceStanding {
    /// Its name.
    pub name: String,
    /// Somebody paused it, in the configuration or by command.
    pub paused: bool,
    /// These are maintenance hours.
    pub resting: bool,
    /// When the round under way began.
    pub running_ms: Option<u64>,
    /// When the last round ended.
    pub ended_ms: Option<u64>,
    /// How long it took.
    pub took_ms: u64,
    /// When a round last collected something.
    pub last_report_ms: Option<u64>,
    /// Why the last round could not even begin.
    pub error: Option<String>,
    /// What `max_per_round` left in the last round.
    pub postponed: u64,
    /// Left in the source for want of an owner, in the last round.
    pub left: u64,
    /// Since the start.
    pub totals: Totals,
    /// Hosts by name and port.
    pub hosts: BTreeMap<String, HostStanding>,
}

/// Sums since the start of the service.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Rounds.
    pub rounds: u64,
    /// Of those, rounds that need a person's look.
    pub rounds_attention: u64,
    /// Seconds that rounds took.
    pub round_seconds: f64,
    /// Reports.
    pub collected: u64,
    /// Reports filed to at least one owner.
    pub filed: u64,
    /// Reports for the catch-all archive.
    pub catchall: u64,
    /// Reports that nobody could file.
    pub dead_letters: u64,
    /// Reports held until somebody decides.
    pub quarantined: u64,
    /// Messages deleted at the source.
    pub deleted: u64,
    /// Messages kept and not deleted since they are odd.
    pub held: u64,
    /// Appearances filed later to owners who came later.
    pub refiled: u64,
    /// Octets collected.
    pub bytes_in: u64,
    /// Octets they added to the store.
    pub bytes_stored: u64,
    /// Failed visits.
    pub failures: u64,
    /// Reports whose acceptance at a gateway is known.
    pub lag_reports: u64,
    /// From there to their place in the store, summed up.
    pub lag_seconds: f64,
}

/// A host of a source.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HostStanding {
    /// When it was asked last.
    pub asked_ms: Option<u64>,
    /// When it was last well.
    pub last_ok_ms: Option<u64>,
    /// Since when it is not.
    pub failing_since_ms: Option<u64>,
    /// Why.
    pub error: Option<String>,
    /// It refused mailbox or password.
    pub login_refused: bool,
    /// Failures in a row.
    pub failures: u32,
    /// When it is asked again at the earliest, where it is spared.
    pub next_ms: Option<u64>,
    /// Messages that wait there.
    pub waiting: Option<u64>,
    /// When the oldest of them was accepted, as its name says.
    pub oldest_waiting_ms: Option<u64>,
}

/// The store.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StoreStanding {
    /// When it was looked at.
    pub time_ms: u64,
    /// Reports collected.
    pub reports: u64,
    /// Distinct messages.
    pub messages: u64,
    /// Appearances.
    pub instances: u64,
    /// Pack files.
    pub packs: u64,
    /// Octets of all reports as collected.
    pub bytes_in: u64,
    /// Octets of packs.
    pub pack_bytes: u64,
    /// Octets of records.
    pub record_bytes: u64,
    /// Dead letters that wait.
    pub dead_letters: u64,
    /// Reports in quarantine.
    pub quarantined: u64,
    /// Addresses that should have an owner.
    pub unowned: u64,
}

impl StoreStanding {
    /// Of the store's own figures.
    #[must_use]
    pub fn new(stats: &Stats, (dead_letters, quarantined): (u64, u64), unowned: u64) -> Self {
        Self {
            time_ms: now_ms(),
            reports: stats.reports,
            messages: stats.messages,
            instances: stats.instances,
            packs: stats.packs,
            bytes_in: stats.bytes_in,
            pack_bytes: stats.pack_bytes,
            record_bytes: stats.record_bytes,
            dead_letters,
            quarantined,
            unowned,
        }
    }
}

impl Board {
    /// The board of a service that begins now.
    #[must_use]
    pub fn new() -> Self {
        let now = now_ms();
        let pid = std::process::id();
        Self(Mutex::new(Snapshot { pid, started_ms: now, configured_ms: now, ..Snapshot::default() }))
    }

    /// What it says now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// The sources there are; what is known of others is forgotten.
    pub fn sources(&self, names: &[String]) {
        let mut board = self.lock();
        let mut before = std::mem::take(&mut board.sources);
        board.sources = names
            .iter()
            .map(|name| {
                let known = before.iter().position(|source| source.name == *name);
                known.map_or_else(
                    || SourceStanding { name: name.clone(), ..SourceStanding::default() },
                    |at| before.swap_remove(at),
                )
            })
            .collect();
    }

    pub(super) fn rests(&self, name: &str, paused: bool, resting: bool) {
        self.source(name, |source| (source.paused, source.resting) = (paused, resting));
    }

    pub(super) fn begins(&self, name: &str) {
        self.source(name, |source| source.running_ms = Some(now_ms()));
    }

    pub(super) fn ended(&self, report: &Report, took: Duration) {
        let now = now_ms();
        self.source(&report.source, |source| {
            source.over(now, took);
            source.error = None;
            source.count(report, now);
        });
    }

    pub(super) fn failed(&self, name: &str, error: &str, took: Duration) {
        self.source(name, |source| {
            source.over(now_ms(), took);
            source.totals.rounds_attention += 1;
            source.error = Some(error.to_owned());
        });
    }

    pub(super) fn reloaded(&self, error: Option<String>) {
        let mut board = self.lock();
        if error.is_none() {
            board.configured_ms = now_ms();
        }
        board.reload_error = error;
    }

    pub(super) fn owners(&self, error: Option<String>) {
        self.lock().owners_error = error;
    }

    pub(super) fn lent(&self, to: Option<&str>) {
        let mut board = self.lock();
        board.lent_to = to.map(str::to_owned);
        board.lent_ms = to.map(|_| now_ms());
    }

    pub(super) fn store(&self, standing: StoreStanding) {
        self.lock().store = Some(standing);
    }

    fn source(&self, name: &str, change: impl FnOnce(&mut SourceStanding)) {
        // One that a reload took away may still end its last round.
        if let Some(source) = self.lock().sources.iter_mut().find(|source| source.name == name) {
            change(source);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SourceStanding {
    fn over(&mut self, now: u64, took: Duration) {
        self.running_ms = None;
        self.ended_ms = Some(now);
        self.took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.totals.rounds += 1;
        self.totals.round_seconds += took.as_secs_f64();
    }

    fn count(&mut self, report: &Report, now: u64) {
        if report.collected > 0 {
            self.last_report_ms = Some(now);
        }
        (self.postponed, self.left) = (report.postponed, report.left);
        let totals = &mut self.totals;
        totals.rounds_attention += u64::from(report.needs_attention());
        totals.collected += report.collected;
        totals.filed += report.filed;
        totals.catchall += report.catchall;
        totals.dead_letters += report.dead_letters;
        totals.quarantined += report.quarantined;
        totals.deleted += report.deleted;
        totals.held += report.held;
        totals.refiled += report.refiled;
        totals.bytes_in += report.bytes_in;
        totals.bytes_stored += report.bytes_stored;
        totals.lag_reports += report.lag_reports;
        totals.lag_seconds += whole(report.lag_ms) / 1000.0;
        let mut before = std::mem::take(&mut self.hosts);
        for here in &report.hosts {
            let mut host = before.remove(&here.host).unwrap_or_default();
            (host.failures, host.next_ms, host.error) = (here.failures, here.next_ms, here.error.clone());
            if !here.waits {
                host.asked_ms = Some(now);
                host.login_refused = here.login_refused;
                totals.failures += u64::from(here.failures > 0);
            }
            if here.ok {
                (host.last_ok_ms, host.failing_since_ms) = (Some(now), None);
            } else {
                host.failing_since_ms.get_or_insert(now);
            }
            if here.waiting.is_some() {
                (host.waiting, host.oldest_waiting_ms) = (here.waiting, here.oldest_waiting_ms);
            }
            self.hosts.insert(here.host.clone(), host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::report::HostReport;

    fn round(ok: bool) -> Report {
        let mut report = Report::new("m365");
        let mut host = HostReport::new("msgw1:995".into());
        (host.ok, host.failures, host.waiting) = (ok, u32::from(!ok), ok.then_some(3));
        report.hosts.push(host);
        report.collected = u64::from(ok);
        report
    }

    #[test]
    fn sums_and_standings() {
        let board = Board::new();
        board.sources(&["m365".into(), "other".into()]);
        board.begins("m365");
        assert!(board.snapshot().sources[0].running_ms.is_some());
        board.ended(&round(true), Duration::from_secs(2));
        board.ended(&round(false), Duration::from_secs(1));
        board.ended(&round(false), Duration::from_secs(1));
        let source = board.snapshot().sources[0].clone();
        assert_eq!((source.totals.rounds, source.totals.collected, source.totals.failures), (3, 1, 2));
        assert_eq!(source.totals.rounds_attention, 2);
        let host = source.hosts["msgw1:995"].clone();
        assert!(host.last_ok_ms.is_some() && host.failing_since_ms.is_some() && host.waiting == Some(3));
        board.ended(&round(true), Duration::ZERO);
        assert!(board.snapshot().sources[0].hosts["msgw1:995"].failing_since_ms.is_none());
        // A reload keeps what is known and forgets what is gone.
        board.sources(&["m365".into()]);
        assert_eq!((board.snapshot().sources.len(), board.snapshot().sources[0].totals.rounds), (1, 4));
        board.ended(&Report::new("other"), Duration::ZERO);
        assert_eq!(board.snapshot().sources.len(), 1);
    }
}
