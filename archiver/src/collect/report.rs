//! What a round did: the numbers of `run --json`.

use crate::store::{Outcome, Pending};
use serde::Serialize;
use std::collections::BTreeMap;

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
    /// Octets of the reports collected.
    pub bytes_in: u64,
    /// Octets they added to the store.
    pub bytes_stored: u64,
    /// Every host, in the order of the configuration.
    pub hosts: Vec<HostReport>,
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
    /// It refused the mailbox or the password.
    #[serde(skip)]
    pub login_refused: bool,
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
        self.bytes_stored += pending.bytes_stored;
        match pending.outcome {
            Outcome::Filed => self.filed += 1,
            Outcome::CatchAll => self.catchall += 1,
            Outcome::DeadLetter => self.dead_letters += 1,
            Outcome::Quarantine | Outcome::Rejected => self.quarantined += 1,
        }
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
