//! Reports that were kept whole and filed nowhere: dead letters, quarantine, and what was decided about them.

use super::{
    Outcome, Store, StoreError, StoreResult,
    catalog::{Space, key},
    entry::{EvidenceRecord, FiledBy, FilingRecord, VerdictRecord},
    index::{CollectedEntry, rfc3339_ms, short},
};
use data_encoding::HEXLOWER;
use serde::Serialize;
use std::io::Write;

/// A report that was kept whole. Field names are those of `quarantine list --json`.
#[derive(Debug, Clone, Serialize)]
pub struct Held {
    /// 16 hex digits; names it in every command.
    pub id: String,
    /// Where it is now.
    pub outcome: Outcome,
    /// Why it was kept whole.
    pub reason: String,
    /// Source it was collected from.
    pub source: String,
    /// Host it was collected from.
    pub host: String,
    /// Mailbox it was collected from.
    pub mailbox: Option<String>,
    /// The name the host gave it.
    pub uidl: String,
    /// RFC 3339 in UTC.
    pub collected_at: String,
    /// Octets.
    pub size: u64,
    /// SHA-256 of the report, hex.
    pub sha256: String,
    /// What was made of it when it came.
    #[serde(flatten)]
    pub verdict: HeldVerdict,
    /// What the gateway saw of the sender.
    pub evidence: Option<EvidenceRecord>,
    /// What was decided about it, the first first.
    pub decisions: Vec<Decided>,
}

/// A report that was kept whole, as the catalog knows it.
pub(crate) struct HeldKey {
    pub(crate) id: String,
    pub(crate) entry: CollectedEntry,
}

/// What a list needs of a verdict.
#[derive(Debug, Clone, Serialize)]
pub struct HeldVerdict {
    /// What it is.
    pub kind: crate::journal::Kind,
    /// Envelope sender.
    pub sender: Option<String>,
    /// Envelope recipients.
    pub recipients: Vec<String>,
    /// Subject.
    pub subject: Option<String>,
    /// Message-ID.
    pub message_id: Option<String>,
}

/// A decision about a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// What.
    pub decision: FiledBy,
    /// Why.
    pub reason: Option<String>,
    /// Who.
    pub by: Option<String>,
    /// When, RFC 3339 in UTC.
    pub decided_at: String,
    /// Where it went.
    pub outcome: Outcome,
}

impl Store {
    /// Hands every report that was ever kept whole to `each`, in the order of their coming; `wanted` says of which
    /// outcomes (their present ones).
    ///
    /// # Errors
    /// [`StoreError`], and what `each` gives.
    pub fn held(
        &self,
        wanted: &dyn Fn(Outcome) -> bool,
        each: &mut dyn FnMut(Held) -> StoreResult<()>,
    ) -> StoreResult<()> {
        for one in self.held_keys(wanted)? {
            each(self.open_held(one.id, one.entry)?)?;
        }
        Ok(())
    }

    /// The same, in the order of their coming, without what is only in their records.
    pub(crate) fn held_keys(&self, wanted: &dyn Fn(Outcome) -> bool) -> StoreResult<Vec<HeldKey>> {
        let mut found = Vec::new();
        for (id, entry) in self.held_entries()? {
            let entry = entry?;
            if wanted(entry.outcome) {
                found.push(HeldKey { id, entry });
            }
        }
        found.sort_unstable_by_key(|one| one.entry.record);
        Ok(found)
    }

    /// Everything about one of them.
    pub(crate) fn open_held_key(&self, one: HeldKey) -> StoreResult<Held> {
        self.open_held(one.id, one.entry)
    }

    /// How many dead letters and how many reports in quarantine wait for somebody.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_held(&self) -> StoreResult<(u64, u64)> {
        let (mut dead_letters, mut quarantined) = (0, 0);
        for (_, entry) in self.held_entries()? {
            match entry?.outcome {
                Outcome::DeadLetter => dead_letters += 1,
                Outcome::Quarantine => quarantined += 1,
                Outcome::Filed | Outcome::CatchAll | Outcome::Rejected => {}
            }
        }
        Ok((dead_letters, quarantined))
    }

    /// Those whose id begins with `prefix`; more than one when it is too short.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find_held(&self, prefix: &str) -> StoreResult<Vec<Held>> {
        let mut found = Vec::new();
        for (id, entry) in self.held_entries()? {
            if id.starts_with(prefix) {
                found.push(self.open_held(id, entry?)?);
            }
        }
        Ok(found)
    }

    /// Writes the exact octets of a report that was kept whole.
    ///
    /// # Errors
    /// As [`Self::read_report`].
    pub fn read_held(&self, held: &Held, out: &mut dyn Write) -> StoreResult<()> {
        self.read_report(&held.source, held.mailbox.as_deref(), &held.uidl, out)
    }

    fn held_entries(&self) -> StoreResult<impl Iterator<Item = (String, StoreResult<CollectedEntry>)> + use<'_>> {
        let pairs = self.catalog.prefix(&key(Space::Held, &[]));
        let keys: Vec<Vec<u8>> = pairs.map(|pair| Ok(pair?.0)).collect::<StoreResult<_>>()?;
        Ok(keys.into_iter().map(|key| {
            let fields = key.get(1..).unwrap_or_default();
            let id = short(&self.keys, "held report", &[fields]);
            let id = HEXLOWER.encode(id.get(..8).unwrap_or_default());
            let entry = self.value::<CollectedEntry>(Space::Collected, &[fields]);
            (id, entry.and_then(|entry| entry.ok_or(StoreError::CatalogDamaged)))
        }))
    }

    fn open_held(&self, id: String, entry: CollectedEntry) -> StoreResult<Held> {
        let report = self.report(entry.record)?;
        let filings = self.filings(&entry.source, entry.mailbox.as_deref(), &entry.uidl)?;
        let decisions = filings.iter().filter(|filing| filing.by != FiledBy::Refile).map(Decided::from).collect();
        Ok(Held {
            id,
            outcome: entry.outcome,
            reason: report.verdict.reason.clone(),
            source: entry.source,
            host: entry.host,
            mailbox: entry.mailbox,
            uidl: entry.uidl,
            collected_at: rfc3339_ms(entry.collected_ms),
            size: entry.size,
            sha256: HEXLOWER.encode(&entry.raw_sha256.0),
            verdict: HeldVerdict::from(&report.verdict),
            evidence: report.evidence,
            decisions,
        })
    }
}

impl From<&VerdictRecord> for HeldVerdict {
    fn from(verdict: &VerdictRecord) -> Self {
        Self {
            kind: verdict.kind,
            sender: verdict.sender.clone(),
            recipients: verdict.recipients.iter().map(|recipient| recipient.address.clone()).collect(),
            subject: verdict.subject.clone(),
            message_id: verdict.message_id.clone(),
        }
    }
}

impl From<&FilingRecord> for Decided {
    fn from(record: &FilingRecord) -> Self {
        Self {
            decision: record.by,
            reason: record.reason.clone(),
            by: record.who.clone(),
            decided_at: rfc3339_ms(record.filed_ms),
            outcome: record.outcome,
        }
    }
}
