//! What a round did: the numbers of `run --json`.

use crate::store::{Outcome, Pending};
use postkeep_shared::{receipt::NodeKey, run::now_ms};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// Addresses that are named of messages left.
const MAX_ADDRESSES: usize = 1000;
/// Sentences kept per host; the rest is counted.
const MAX_PROBLEMS: usize = 100;

/// One round of one source.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The source.
    pub source: String,
    /// Reports that are now in the store and were read back.
    pub collected: u64,
    /// Of those: filed to at least one owner.
    pub filed: u64,
    /// Appearances that are new (owner and folder).
    pub instances: u64,
    /// Of those collected: filed to nobody's archive, `@catchall`.
    pub catchall: u64,
    /// Messages that stay in the source because they concern no owner.
    pub left: u64,
    /// Addresses of those that should have an owner, with how many messages each; the first thousand.
    pub left_unowned: BTreeMap<String, u64>,
    /// Appearances of older messages that were filed to owners who are there now.
    pub refiled: u64,
    /// Of those collected: kept whole and filed nowhere, since nobody can say whose they are.
    pub dead_letters: u64,
    /// Of those collected: kept whole and filed nowhere until an administrator decides.
    pub quarantined: u64,
    /// Messages the source removed after they were stored.
    pub deleted: u64,
    /// Messages that are stored and stay at the source because something about them is odd.
    pub held: u64,
    /// Messages that are the next round's, since this one had taken as many as it may (`max_per_round`).
    pub postponed: u64,
    /// Nothing was asked: the source is paused.
    pub paused: bool,
    /// Octets of the reports collected.
    pub bytes_in: u64,
    /// Octets they added to the store.
    pub bytes_stored: u64,
    /// Numbers of the reports collected, in the ledgers of their nodes.
    #[serde(skip)]
    pub numbers: Vec<(NodeKey, u64)>,
    /// Every host, in the order of the configuration.
    pub hosts: Vec<HostReport>,
    /// Of those collected: reports whose acceptance at a gateway is known.
    #[serde(skip)]
    pub lag_reports: u64,
    /// From there to now, summed up.
    #[serde(skip)]
    pub lag_ms: u64,
}

/// One host in a round.
#[derive(Debug, Clone, Default, Serialize)]
pub struct HostReport {
    /// Name and port.
    pub host: String,
    /// Reached, and nothing odd.
    pub ok: bool,
    /// Why the session ended early, else the first problem.
    pub error: Option<String>,
    /// Everything odd, one sentence each.
    pub problems: Vec<String>,
    /// Messages that still wait there; `None` when it could not be asked.
    pub waiting: Option<u64>,
    /// When the oldest of those was accepted, as its name says, milliseconds since 1970-01-01 UTC.
    #[serde(skip)]
    pub oldest_waiting_ms: Option<u64>,
    /// It refused the mailbox or the password.
    #[serde(skip)]
    pub login_refused: bool,
    /// It was not asked: it failed before and has to wait.
    #[serde(skip)]
    pub waits: bool,
    /// Failures in a row, as `serve` counts them.
    #[serde(skip)]
    pub failures: u32,
    /// When it is asked again at the earliest, milliseconds since 1970-01-01 UTC.
    #[serde(skip)]
    pub next_ms: Option<u64>,
    #[serde(skip)]
    more: usize,
}

impl Report {
    /// A round that has not begun.
    #[must_use]
    pub fn new(source: &str) -> Self {
        Self { source: source.to_owned(), ..Self::default() }
    }

    /// Counts a report that is stored and was read back.
    pub fn count(&mut self, pending: &Pending) {
        self.collected += 1;
        self.instances += pending.instances;
        self.bytes_in += pending.bytes_in;
        match pending.outcome {
            Outcome::Filed => self.filed += 1,
            Outcome::CatchAll => self.catchall += 1,
            Outcome::DeadLetter => self.dead_letters += 1,
            Outcome::Quarantine | Outcome::Rejected => self.quarantined += 1,
        }
    }

    /// Counts how long a stored report took to get here from its acceptance, by the gateway's clock and by ours.
    pub fn lag(&mut self, accepted_ms: u64) {
        self.lag_reports += 1;
        self.lag_ms = self.lag_ms.saturating_add(now_ms().saturating_sub(accepted_ms));
    }

    /// Counts a message that stays in its source, with its addresses that should have an owner.
    pub fn leave(&mut self, unowned: &[String]) {
        self.left += 1;
        for address in unowned {
            if self.left_unowned.len() < MAX_ADDRESSES || self.left_unowned.contains_key(address) {
                *self.left_unowned.entry(address.clone()).or_default() += 1;
            }
        }
    }

    /// Takes over what another part of the round did.
    pub fn merge(&mut self, other: Self) {
        self.collected += other.collected;
        self.filed += other.filed;
        self.instances += other.instances;
        self.catchall += other.catchall;
        self.left += other.left;
        for (address, messages) in other.left_unowned {
            if self.left_unowned.len() < MAX_ADDRESSES || self.left_unowned.contains_key(&address) {
                *self.left_unowned.entry(address).or_default() += messages;
            }
        }
        self.refiled += other.refiled;
        self.dead_letters += other.dead_letters;
        self.quarantined += other.quarantined;
        self.deleted += other.deleted;
        self.held += other.held;
        self.postponed += other.postponed;
        self.bytes_in += other.bytes_in;
        self.bytes_stored += other.bytes_stored;
        self.numbers.extend(other.numbers);
        self.lag_reports += other.lag_reports;
        self.lag_ms += other.lag_ms;
        self.hosts.extend(other.hosts);
    }

    /// Whether a person should look.
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        self.left + self.held + self.dead_letters + self.quarantined > 0 || self.hosts.iter().any(|host| !host.ok)
    }

    /// Whether every host refused mailbox or password.
    #[must_use]
    pub fn login_refused(&self) -> bool {
        !self.hosts.is_empty() && self.hosts.iter().all(|host| host.login_refused)
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        if self.paused {
            return format!("{}: paused, nothing was asked", self.source);
        }
        let mut line = format!(
            "{}: {} collected, {} filed ({} appearances), {} catch-all, {} dead letters, {} quarantined, {} left, {} \
             deleted at the source, {} octets in, {} stored",
            self.source,
            self.collected,
            self.filed,
            self.instances,
            self.catchall,
            self.dead_letters,
            self.quarantined,
            self.left,
            self.deleted,
            self.bytes_in,
            self.bytes_stored
        );
        if self.refiled > 0 {
            line += &format!(", {} older appearances filed to new owners", self.refiled);
        }
        if !self.left_unowned.is_empty() {
            let addresses: Vec<&str> = self.left_unowned.keys().take(10).map(String::as_str).collect();
            let more = self.left_unowned.len() - addresses.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            line += &format!(", left for want of an owner: {}{more}", addresses.join(", "));
        }
        if self.held > 0 {
            line += &format!(", {} kept but not deleted", self.held);
        }
        if self.postponed > 0 {
            line += &format!(", {} left for the next round by max_per_round", self.postponed);
        }
        for host in self.hosts.iter().filter(|host| !host.ok) {
            line += &format!("; {}: {}", host.host, host.error.as_deref().unwrap_or("not well"));
        }
        line
    }
}

impl HostReport {
    /// A host that was not asked yet.
    #[must_use]
    pub fn new(host: String) -> Self {
        Self { host, ok: true, ..Self::default() }
    }

    /// It failed, and is asked again after `pause`.
    pub fn fails(&mut self, failures: u32, pause: Duration) {
        self.failures = failures;
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.next_ms = Some(now_ms().saturating_add(pause));
    }

    /// It is not asked in this round.
    pub fn spare(&mut self, failures: u32, pause: Duration, error: &str) {
        self.fails(failures, pause);
        self.waits = true;
        self.ok = false;
        let seconds = pause.as_secs();
        self.error = Some(format!("not asked for {seconds} s more, after {failures} failures in a row: {error}"));
    }

    /// Something odd: an alarm in the log, and a sentence in the report.
    pub fn problem(&mut self, source: &str, text: String) {
        tracing::warn!("{source}, {}: {text}", self.host);
        self.ok = false;
        self.error.get_or_insert_with(|| text.clone());
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text);
        } else {
            self.more += 1;
        }
    }

    /// Ends the list of problems.
    pub fn finish(&mut self) {
        if self.more > 0 {
            self.problems.push(format!("and {} more", self.more));
        }
    }
}
