//! Figures and health of the archiver (`docs/metrics.md`), of the board, the store and the last reconcile.
//!
//! Labels are the names of sources, hosts and probes as the configuration has them, and nothing else: no mailbox, no owner, no
//! address.

use super::{
    board::{Board, HostStanding, Snapshot, SourceStanding, StoreStanding},
    keeper::Keeper,
    probes::Lost,
    reconciled::Reconciled,
};
use postkeep_shared::{
    metrics::{Exposition, Health, Told, process, whole},
    run::now_ms,
};
use std::{sync::Arc, time::Duration};

/// What every name begins with.
pub const PREFIX: &str = "postkeep_archiver_";

/// No piece of work with the store takes this long on a disk that answers.
const STUCK: Duration = Duration::from_secs(15 * 60);
/// Octets below which the next batch may not fit.
const ROOM: u64 = 256 * 1024 * 1024;

/// Answers monitoring.
pub struct Teller {
    keeper: Arc<Keeper>,
    board: Arc<Board>,
    probes: Lost,
}

impl Teller {
    /// Of a service.
    #[must_use]
    pub fn new(keeper: Arc<Keeper>, board: Arc<Board>) -> Self {
        Self { keeper, board, probes: Lost::default() }
    }
}

impl Told for Teller {
    /// Tasks are run, or this would not be asked; and the store is let go of again.
    fn alive(&self) -> Health {
        let stuck = self.keeper.store_held_for().filter(|held| *held > STUCK);
        let reason = |held: Duration| format!("one piece of work with the store has taken {} s so far", held.as_secs());
        Health::of(stuck.map(reason).into_iter().collect())
    }

    /// Whether everything that should be collected can be.
    fn ready(&self) -> Health {
        let board = self.board.snapshot();
        let mut reasons: Vec<String> = Vec::new();
        reasons.extend(board.reload_error.iter().map(|why| format!("the old configuration is in use: {why}")));
        reasons.extend(board.owners_error.iter().map(|why| format!("the old owners are in use: {why}")));
        reasons.extend(board.lent_to.iter().map(|to| format!("the store is lent to {to}")));
        reasons.extend(board.sources.iter().flat_map(source_reasons));
        match self.keeper.space() {
            Ok(space) if space.read_only => {
                reasons.push("the data folder is on a file system mounted read-only".into())
            }
            Ok(space) if space.free < ROOM => reasons.push(format!("{} octets are free for the store", space.free)),
            Ok(_) => {}
            Err(error) => reasons.push(error.to_string()),
        }
        Health::of(reasons)
    }

    fn figures(&self, out: &mut Exposition) {
        if let Err(error) = self.keeper.look_at_store() {
            // A scrape without these figures is noticed; one with wrong ones is not.
            tracing::error!("figures of the store: {error}");
        }
        let board = self.board.snapshot();
        process(out, env!("CARGO_PKG_VERSION"), board.started_ms);
        service_figures(out, &board);
        total_figures(out, &board);
        source_figures(out, &board);
        host_figures(out, &board);
        if let Some(store) = &board.store {
            store_figures(out, store);
        }
        if let Ok(space) = self.keeper.space() {
            out.gauge("disk_free_bytes", "Free octets on the file system of the data folder.").value(whole(space.free));
            out.gauge("disk_size_bytes", "Octets of that file system.").value(whole(space.total));
        }
        if let Some(last) = self.keeper.reconciled() {
            reconcile_figures(out, &last);
        }
        self.probes.figures(out, &self.keeper.config(), &**self.keeper.disk(), board.started_ms, now_ms());
    }
}

fn source_reasons(source: &SourceStanding) -> Vec<String> {
    let name = &source.name;
    if source.paused || source.resting {
        return Vec::new();
    }
    let mut reasons: Vec<String> = source.error.iter().map(|why| format!("source {name}: {why}")).collect();
    if source.ended_ms.is_none() {
        reasons.push(format!("source {name}: no round has ended yet"));
    }
    let failing = |(host, standing): (&String, &HostStanding)| {
        let why = standing.error.as_deref().filter(|_| standing.failures > 0)?;
        Some(format!("source {name}, host {host}: {why}"))
    };
    reasons.extend(source.hosts.iter().filter_map(failing));
    reasons
}

fn service_figures(out: &mut Exposition, board: &Snapshot) {
    out.gauge("reload_failed", "1 while the configuration or the owners in the files have a mistake.")
        .sample(&[("file", "configuration")], if board.reload_error.is_some() { 1.0 } else { 0.0 })
        .sample(&[("file", "owners")], if board.owners_error.is_some() { 1.0 } else { 0.0 });
    out.gauge("configured_time_seconds", "When the configuration in use was read, in Unix time.")
        .value(seconds(board.configured_ms));
    out.gauge("store_lent", "1 while a command has the store and no round begins.").flag(&[], board.lent_to.is_some());
}

/// Figures that only grow, by source.
fn total_figures(out: &mut Exposition, board: &Snapshot) {
    let mut each = |name: &str, help: &str, value: &dyn Fn(&SourceStanding) -> u64| {
        let mut family = out.counter(name, help);
        for source in &board.sources {
            family.sample(&[("source", &source.name)], whole(value(source)));
        }
    };
    each("rounds_total", "Rounds that ended.", &|s| s.totals.rounds);
    each("rounds_attention_total", "Rounds that need a person's look.", &|s| s.totals.rounds_attention);
    each("visit_failures_total", "Visits of a host that failed.", &|s| s.totals.failures);
    each("collected_total", "Reports collected, stored and read back.", &|s| s.totals.collected);
    each("collected_bytes_total", "Octets of those reports.", &|s| s.totals.bytes_in);
    each("stored_bytes_total", "Octets they added to the store.", &|s| s.totals.bytes_stored);
    each("filed_total", "Reports filed to at least one owner.", &|s| s.totals.filed);
    each("catchall_total", "Reports for the catch-all archive.", &|s| s.totals.catchall);
    each("quarantined_total", "Reports that went to quarantine.", &|s| s.totals.quarantined);
    each("dead_letters_total", "Reports that nobody could file.", &|s| s.totals.dead_letters);
    each("held_total", "Messages stored and not deleted at the source, since something is odd.", &|s| s.totals.held);
    each("deleted_total", "Messages deleted at the source.", &|s| s.totals.deleted);
    each("refiled_total", "Appearances filed later to owners who came later.", &|s| s.totals.refiled);
    let mut family = out.summary("round_seconds", "What rounds took.");
    for source in &board.sources {
        family.measured(&[("source", &source.name)], source.totals.round_seconds, source.totals.rounds);
    }
    let mut family =
        out.summary("lag_seconds", "From the acceptance of a report at the gateway to its place in the store.");
    for source in &board.sources {
        family.measured(&[("source", &source.name)], source.totals.lag_seconds, source.totals.lag_reports);
    }
}

fn source_figures(out: &mut Exposition, board: &Snapshot) {
    let mut each = |name: &str, help: &str, value: &dyn Fn(&SourceStanding) -> Option<f64>| {
        let mut family = out.gauge(name, help);
        for source in &board.sources {
            if let Some(value) = value(source) {
                family.sample(&[("source", &source.name)], value);
            }
        }
    };
    let flag = |is: bool| Some(if is { 1.0 } else { 0.0 });
    each("source_paused", "1 while a source is paused.", &|s| flag(s.paused));
    each("source_resting", "1 in the maintenance hours of a source.", &|s| flag(s.resting));
    each("source_failed", "1 when the last round could not begin.", &|s| flag(s.error.is_some()));
    each("round_running", "1 while a round is under way.", &|s| flag(s.running_ms.is_some()));
    each("last_round_time_seconds", "When the last round ended, in Unix time.", &|s| s.ended_ms.map(seconds));
    each("last_report_time_seconds", "When a round last collected something, in Unix time.", &|s| {
        s.last_report_ms.map(seconds)
    });
    each("postponed_messages", "What max_per_round left in the last round.", &|s| Some(whole(s.postponed)));
    each("left_messages", "Left in the source for want of an owner in the last round.", &|s| Some(whole(s.left)));
}

fn host_figures(out: &mut Exposition, board: &Snapshot) {
    let mut each = |name: &str, help: &str, value: &dyn Fn(&HostStanding) -> Option<f64>| {
        let mut family = out.gauge(name, help);
        for source in &board.sources {
            for (host, standing) in &source.hosts {
                if let Some(value) = value(standing) {
                    family.sample(&[("source", &source.name), ("host", host)], value);
                }
            }
        }
    };
    let now = now_ms();
    each("host_up", "1 when the last visit of a host was well.", &|h| Some(if h.error.is_none() { 1.0 } else { 0.0 }));
    each("host_failures", "Failed visits in a row.", &|h| Some(f64::from(h.failures)));
    each("host_last_ok_time_seconds", "When a host was last well, in Unix time.", &|h| h.last_ok_ms.map(seconds));
    each("waiting_messages", "Messages that waited at the end of the last visit.", &|h| h.waiting.map(whole));
    each("oldest_waiting_seconds", "Age of the oldest of them; 0 where none waited.", &|h| {
        h.waiting?;
        Some(h.oldest_waiting_ms.map_or(0.0, |oldest| seconds(now.saturating_sub(oldest))))
    });
}

fn store_figures(out: &mut Exposition, store: &StoreStanding) {
    let mut each = |name: &str, help: &str, value: u64| {
        out.gauge(name, help).value(whole(value));
    };
    each("store_reports", "Reports in the store.", store.reports);
    each("store_messages", "Distinct messages in the store.", store.messages);
    each("store_instances", "Appearances: one per owner, folder and message.", store.instances);
    each("store_packs", "Pack files.", store.packs);
    each("store_collected_bytes", "Octets of all reports as collected.", store.bytes_in);
    each("store_dead_letters", "Dead letters that wait for somebody.", store.dead_letters);
    each("store_quarantined", "Reports in quarantine that wait for somebody.", store.quarantined);
    each("store_unowned_addresses", "Addresses that should have an owner and have none.", store.unowned);
    out.gauge("store_bytes", "Octets of the store on disk.")
        .sample(&[("part", "packs")], whole(store.pack_bytes))
        .sample(&[("part", "records")], whole(store.record_bytes));
    let stored = store.pack_bytes + store.record_bytes;
    let ratio = if store.bytes_in == 0 { 0.0 } else { whole(stored) / whole(store.bytes_in) };
    out.gauge("store_ratio", "Octets stored by octets collected; 0 where nothing was.").value(ratio);
    out.gauge("store_figures_time_seconds", "When these figures were taken, in Unix time.")
        .value(seconds(store.time_ms));
}

fn reconcile_figures(out: &mut Exposition, last: &Reconciled) {
    let mut family = out.gauge("reconcile_time_seconds", "When a source was last reconciled, in Unix time.");
    for (source, of) in &last.sources {
        if let Some(run) = of.last_run_ms {
            family.sample(&[("source", source)], seconds(run));
        }
    }
    let mut family =
        out.gauge("reconcile_green_time_seconds", "When every number of a source last added up, in Unix time.");
    for (source, of) in &last.sources {
        if let Some(green) = of.last_green_ms {
            family.sample(&[("source", source)], seconds(green));
        }
    }
    let mut family =
        out.gauge("missing_messages", "Accepted by a gateway and found nowhere, as the last reconcile says.");
    for (source, of) in &last.sources {
        family.sample(&[("source", source)], whole(of.missing()));
    }
}

fn seconds(ms: u64) -> f64 {
    whole(ms) / 1000.0
}
