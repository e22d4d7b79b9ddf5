//! Who may send to which mailbox, and what the DNS says about a client.
//!
//! [`Sources::judge`] compares a client with the rules of a mailbox (`docs/sources.md`); [`Sources::reverse_name`]
//! finds its name for the trace header. RFC 7208 for the records of `spf_of`; RFC 8601 §3 for "iprev".
//!
//! Invariants: without rules and without `dns.reverse` nothing is ever looked up; every wait is bounded; trouble with
//! the DNS never makes a client unverified that a remembered answer verifies. What it does not do: SPF, DKIM or DMARC
//! of the sender's domain, which journal reports fail by design.

mod memory;
mod network;
mod record;
mod resolver;
mod rules;
mod settings;
mod spf;
mod tls_name;

pub use memory::{Memory, OnlyKnown, Times};
pub use network::Network;
pub use resolver::{Answer, Dns, Family, Resolver, SetupError, Trouble};
pub use rules::{Action, Facts, Rules, Sender, Verdict};
pub use settings::{DnsConfig, SourcesConfig};
pub use spf::{Outcome, check};
pub use tls_name::TlsName;

use postkeep_shared::mail::MailboxId;
use rules::Sight;
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// Longest wait for the SPF records of one judgement.
const SPF_WAIT: Duration = Duration::from_secs(5);
/// Longest time for a reverse name.
const REVERSE_WAIT: Duration = Duration::from_secs(2);
/// How long after a client connected a message waits for the client's name. Real clients need longer to get to
/// their message anyway; a dead DNS costs this much once per connection.
const REVERSE_GRACE: Duration = Duration::from_millis(300);
/// Names of one address that are looked at (as RFC 7208 §4.6.4 for `ptr`).
const NAMES: usize = 10;

/// The rules with what they need. One for the whole gateway.
pub struct Sources {
    config: SourcesConfig,
    resolver: Option<Arc<dyn Resolver>>,
    memory: Option<Memory>,
    reverse: bool,
    spf_wait: Duration,
}

/// What came of a client for one mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// With the rule that fitted, or the reason why none does.
    pub verdict: Verdict,
    /// What to do about [`Verdict::Unverified`].
    pub action: Action,
}

impl Judgement {
    /// For the evidence: `None` without rules.
    #[must_use]
    pub fn verified(&self) -> Option<bool> {
        match self.verdict {
            Verdict::NoRules => None,
            Verdict::Verified { .. } => Some(true),
            Verdict::Unverified { .. } => Some(false),
        }
    }

    /// Whether the recipient is put off with `450 4.7.1`.
    #[must_use]
    pub fn refused(&self) -> bool {
        self.action == Action::Refuse && self.verified() == Some(false)
    }
}

impl Sources {
    /// Rules over a resolver. Reverse names are looked up too unless [`Self::open`] says otherwise.
    #[must_use]
    pub fn new(config: SourcesConfig, resolver: Arc<dyn Resolver>) -> Self {
        Self::with_times(config, resolver, Times::default(), SPF_WAIT)
    }

    /// The same with other waits: those of [`Memory`], and the longest one for the SPF records of one judgement.
    #[must_use]
    pub fn with_times(config: SourcesConfig, resolver: Arc<dyn Resolver>, times: Times, spf_wait: Duration) -> Self {
        let memory = Some(Memory::new(Arc::clone(&resolver), times));
        Self { config, resolver: Some(resolver), memory, reverse: true, spf_wait }
    }

    /// No rules and no look-ups.
    #[must_use]
    pub fn none() -> Self {
        let config = SourcesConfig::default();
        Self { config, resolver: None, memory: None, reverse: false, spf_wait: SPF_WAIT }
    }

    /// The configured rules over the real DNS, which is set up only if something needs it. Says what the
    /// configuration warns of.
    ///
    /// # Errors
    /// [`SetupError`] when the system's DNS servers are needed and cannot be found out.
    pub fn open(config: &SourcesConfig, dns: &DnsConfig) -> Result<Self, SetupError> {
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        if config.spf_domains().is_empty() && !dns.reverse {
            return Ok(Self { config: config.clone(), ..Self::none() });
        }
        let sources = Self::new(config.clone(), Arc::new(Dns::new(dns)?));
        Ok(Self { reverse: dns.reverse, ..sources })
    }

    /// Whether a client is in a network that some rule names: it may use the connections kept for such.
    #[must_use]
    pub fn names_network_of(&self, ip: IpAddr) -> bool {
        self.config.names_network_of(ip)
    }

    /// Looks every SPF record up once, so that the first messages after a start do not wait for it.
    pub async fn warm(&self) {
        let Some(memory) = &self.memory else { return };
        for domain in self.config.spf_domains() {
            // Any address will do: what matters is that the answers are remembered.
            for client in [IpAddr::from([0_u8; 4]), IpAddr::from([0_u8; 16])] {
                match check(memory, domain, client).await {
                    Outcome::NoRecord => tracing::warn!(domain, "spf_of: this domain has no SPF record"),
                    Outcome::Broken(why) => tracing::warn!(domain, why, "spf_of: the SPF record is wrong"),
                    Outcome::Undecided(why) => tracing::warn!(domain, why, "spf_of: no answer from the DNS yet"),
                    Outcome::Pass(term) => tracing::warn!(domain, term, "spf_of: the record lets every client pass"),
                    Outcome::NoPass => {}
                }
            }
        }
    }

    /// Judges a client that names this mailbox. Bounded: some seconds at most, and no wait where the answers needed
    /// are cached or no SPF record decides.
    pub async fn judge(&self, mailbox: &MailboxId, facts: &Facts) -> Judgement {
        let rules = self.config.of(mailbox);
        let facts = Facts { ip: facts.ip.to_canonical(), ..facts.clone() };
        let verdict = match rules.judge(&facts) {
            Sight::Decided(verdict) => verdict,
            Sight::AskSpf { also } => self.judge_by_spf(rules, &facts, also).await,
        };
        Judgement { verdict, action: rules.action }
    }

    async fn judge_by_spf(&self, rules: &Rules, facts: &Facts, also: Option<String>) -> Verdict {
        let deadline = Instant::now() + self.spf_wait;
        let mut reasons = Vec::new();
        for domain in &rules.spf_of {
            let why = match self.spf(domain, facts.ip, deadline).await {
                Outcome::Pass(term) => return rules::verified(Some(format!("spf_of {domain} ({term})")), also),
                Outcome::NoPass => format!("spf_of {domain} does not pass {}", facts.ip),
                Outcome::NoRecord => format!("spf_of {domain} has no SPF record"),
                Outcome::Broken(why) => format!("spf_of {domain} is wrong: {why}"),
                Outcome::Undecided(why) => format!("spf_of {domain} could not be looked up: {why}"),
            };
            reasons.push(why);
        }
        rules.elsewhere(facts, &reasons)
    }

    /// Asks until `deadline`, then takes what is remembered.
    async fn spf(&self, domain: &str, client: IpAddr, deadline: Instant) -> Outcome {
        let Some(memory) = &self.memory else { return Outcome::Undecided("there is no resolver".into()) };
        match tokio::time::timeout_at(deadline.into(), check(memory, domain, client)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                memory.gave_up();
                check(&memory.only_known(), domain, client).await
            }
        }
    }

    /// The name of a client: one that its address points to (PTR) and that points back. Two seconds at most; `None`
    /// for trouble of any kind, and on loopback.
    pub async fn reverse_name(&self, ip: IpAddr) -> Option<String> {
        let resolver = self.resolver.as_deref().filter(|_| self.reverse)?;
        let ip = ip.to_canonical();
        tokio::time::timeout(REVERSE_WAIT, confirmed_name(resolver, ip)).await.ok().flatten()
    }

    /// Starts looking for the name of a client that has just connected.
    #[must_use]
    pub fn reverse_of(self: &Arc<Self>, ip: IpAddr) -> ReverseName {
        let started = Instant::now();
        if !self.reverse || self.resolver.is_none() {
            return ReverseName { started, task: None, name: None };
        }
        let sources = Arc::clone(self);
        let task = Some(tokio::spawn(async move { sources.reverse_name(ip).await }));
        ReverseName { started, task, name: None }
    }
}

/// RFC 8601 §3: a name counts when one of its addresses is the client's.
async fn confirmed_name(resolver: &dyn Resolver, ip: IpAddr) -> Option<String> {
    let names = resolver.reverse(ip).await.ok()?;
    for name in names.iter().take(NAMES) {
        // Whoever owns the address writes this; it has to look like a name before it gets into a header.
        let Ok(name) = record::domain(name) else { continue };
        let Ok(addresses) = resolver.addresses(&name, Family::of(ip)).await else { continue };
        if addresses.contains(&ip) {
            return Some(name);
        }
    }
    None
}

/// The name of a client, being looked up. Dropping it gives up.
pub struct ReverseName {
    started: Instant,
    task: Option<JoinHandle<Option<String>>>,
    name: Option<String>,
}

impl ReverseName {
    /// The name if it is known by now. Waits only within the first moments of a connection.
    pub async fn get(&mut self) -> Option<String> {
        if let Some(task) = &mut self.task {
            let deadline = self.started + REVERSE_GRACE;
            if let Ok(done) = tokio::time::timeout_at(deadline.into(), task).await {
                self.task = None;
                self.name = done.ok().flatten();
            }
        }
        self.name.clone()
    }
}

impl Drop for ReverseName {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
