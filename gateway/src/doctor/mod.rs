//! `doctor`: what is wrong with this gateway and its surroundings, how to mend it, and the DNS records to publish.
//!
//! Every check ends in one [`Finding`]; a check that could not be made says so and is not a pass. Nothing is changed,
//! and nobody is asked but the DNS and our own ports. What it does not do: DNSSEC, fetching MTA-STS policies, looking at
//! this machine from outside.

mod local;
mod names;
mod publish;

pub use publish::{Record, policy, records};

use crate::{config::GatewayConfig, sources::Dns, tls::Facts};
use postkeep_shared::disk::Disk;
use serde::Serialize;
use std::sync::Arc;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Works, and could be better.
    Note,
    /// Nothing is known: it could not be checked.
    Unknown,
    /// Wrong.
    Problem,
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The check: `dns-mx`, `port-smtp`, `clock` …
    pub check: &'static str,
    /// How it ended.
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// What to do; empty where nothing is.
    pub remedy: String,
}

impl Finding {
    fn new(check: &'static str, state: State, detail: impl Into<String>, remedy: &str) -> Self {
        Self { check, state, detail: detail.into(), remedy: remedy.to_owned() }
    }

    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, State::Ok, detail, "")
    }

    fn note(check: &'static str, detail: impl Into<String>, remedy: &str) -> Self {
        Self::new(check, State::Note, detail, remedy)
    }

    fn unknown(check: &'static str, detail: impl Into<String>, remedy: &str) -> Self {
        Self::new(check, State::Unknown, detail, remedy)
    }

    fn problem(check: &'static str, detail: impl Into<String>, remedy: &str) -> Self {
        Self::new(check, State::Problem, detail, remedy)
    }
}

/// The certificate on disk cannot be used.
#[must_use]
pub fn unusable(text: &str) -> Finding {
    Finding::problem("certificate", text, "the next start would refuse it")
}

/// What the checks look at.
pub struct Doctor<'a> {
    /// The settings.
    pub config: &'a GatewayConfig,
    /// Where the data is.
    pub disk: Arc<dyn Disk>,
    /// The certificate that is served, or would be, and where it came from.
    pub certificate: Option<(Facts, String)>,
    /// URL of the account at the authority.
    pub account: Option<String>,
    /// Whether every message is read, which takes its time.
    pub thorough: bool,
}

impl Doctor<'_> {
    /// Everything, in the order in which it is best mended.
    pub async fn run(&self, dns: &Dns) -> Vec<Finding> {
        let mut findings = self.machine();
        findings.extend(self.ports().await);
        findings.extend(self.rules());
        findings.extend(self.names(dns).await);
        findings
    }
}
