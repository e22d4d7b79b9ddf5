//! What is given to the store, and what it answers.

use crate::{filing::Plan, journal::Verdict, octets::Octets};
use postkeep_shared::{
    mail::Digest,
    receipt::{Entry, Evidence, NodeKey},
};
use serde::{Deserialize, Serialize};

/// A report to be stored.
pub struct NewReport<'a> {
    /// Name of the source it was collected from.
    pub source: &'a str,
    /// Host it was collected from.
    pub host: &'a str,
    /// Gateway mailbox (`mbx-…`) or login; `None` where the source has no such thing.
    pub mailbox: Option<String>,
    /// The name the host gives it; names it for ever within source and mailbox.
    pub uidl: String,
    /// The gateway's receipt.
    pub receipt: Option<Entry>,
    /// What the gateway saw of the sender.
    pub evidence: Option<Evidence>,
    /// The exact message as sent to the gateway: the trace header is cut off.
    pub raw: &'a dyn Octets,
    /// SHA-256 of `raw`, as the caller computed it while collecting; what is read back at the commit is compared with it.
    pub raw_sha256: Digest,
    /// What was made of it.
    pub verdict: &'a Verdict,
    /// Whose archives it belongs in.
    pub plan: &'a Plan,
    /// When it was collected, milliseconds since 1970-01-01 UTC.
    pub collected_ms: u64,
}

/// Where a report went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// To at least one owner.
    Filed,
    /// To the catch-all archive.
    CatchAll,
    /// Kept whole, filed nowhere: its content could not be taken out.
    DeadLetter,
    /// Kept whole, filed nowhere: held for a person to look at.
    Quarantine,
    /// Kept whole, filed nowhere: a person looked and rejected it.
    Rejected,
}

impl Outcome {
    /// Kept whole and filed nowhere, so that somebody has to look at it.
    #[must_use]
    pub fn is_held(self) -> bool {
        matches!(self, Self::DeadLetter | Self::Quarantine)
    }
}

/// What [`super::Store::add`] made of a report. Nothing is durable before [`super::Store::commit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Where it goes.
    pub outcome: Outcome,
    /// Id of the archived message, 32 hex digits; `None` when nothing is filed.
    pub message: Option<String>,
    /// Appearances (owner and folder) that are new; those that another report brought before are not counted.
    pub instances: u64,
    /// Octets of the report.
    pub bytes_in: u64,
}

/// Proof that a report is on stable storage and was read back from it whole. Only [`super::Store::commit`] and
/// [`super::Store::confirm`] make one, and only with one may a report be deleted at its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreReceipt {
    pub(super) source: String,
    pub(super) mailbox: Option<String>,
    pub(super) uidl: String,
    pub(super) raw_sha256: Digest,
    pub(super) size: u64,
    pub(super) outcome: Outcome,
}

impl StoreReceipt {
    /// Source it was collected from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Mailbox it was collected from.
    #[must_use]
    pub fn mailbox(&self) -> Option<&str> {
        self.mailbox.as_deref()
    }

    /// The name the host gave it.
    #[must_use]
    pub fn uidl(&self) -> &str {
        &self.uidl
    }

    /// SHA-256 of the octets that were read back.
    #[must_use]
    pub fn raw_sha256(&self) -> Digest {
        self.raw_sha256
    }

    /// Octets that were read back.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the report went.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }
}

/// What a commit did.
#[derive(Debug, Default)]
#[must_use]
pub struct Commit {
    /// One for each report that is stored and was read back whole.
    pub receipts: Vec<StoreReceipt>,
    /// Reports (by uidl) that are recorded but could not be read back: no receipt, they must stay at their source.
    /// Adding them again stores fresh copies of the chunks concerned.
    pub failures: Vec<(String, super::StoreError)>,
    /// Octets that packs grew by.
    pub pack_bytes: u64,
    /// Octets that records grew by.
    pub record_bytes: u64,
}

impl Commit {
    /// Octets that the store grew by, its catalog not counted.
    #[must_use]
    pub fn bytes_stored(&self) -> u64 {
        self.pack_bytes + self.record_bytes
    }
}

/// A report that was collected and committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// Source it was collected from.
    pub source: String,
    /// Host it was collected from.
    pub host: String,
    /// Mailbox it was collected from.
    pub mailbox: Option<String>,
    /// The name the host gave it.
    pub uidl: String,
    /// The gateway node that signed the receipt.
    pub node: Option<NodeKey>,
    /// The receipt's number in the ledger.
    pub seq: Option<u64>,
    /// The receipt.
    pub receipt: Option<Entry>,
    /// SHA-256 of the report as sent to the gateway.
    pub raw_sha256: Digest,
    /// Its octets.
    pub size: u64,
    /// Where it is now.
    pub outcome: Outcome,
    /// Appearances (owner and folder) that it brought and no report before it.
    pub appearances: u64,
    /// When, milliseconds since 1970-01-01 UTC.
    pub collected_ms: u64,
}
