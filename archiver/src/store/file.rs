//! Filing a stored report again: to owners of addresses that nobody owned before, or after a person or a later release
//! looked at it anew.
//!
//! The record comes first (docs/formats/record.md, `filing`); the catalog follows. Nothing of a message is stored a
//! second time: an appearance is a reference. Said twice it is the same, so that an interrupted pass is simply made
//! again.

use super::{
    Decided, Outcome, Store, StoreError, StoreResult,
    beside::{Alone, Elsewhere, instances},
    catalog::{Space, key, sealed_pairs},
    entry::{AlternateRecord, FiledBy, FilingRecord, InstanceRecord, Record, Summary, VerdictRecord},
    index::{CollectedEntry, MessageEntry, UnownedEntry, report_key, rfc3339, rfc3339_ms, source_key},
};
use crate::{
    filing::{Instance, Plan, Reason},
    journal::Verdict,
    octets::Octets,
};
use data_encoding::HEXLOWER;
use postkeep_shared::mail::Digest;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A stored report, with all that was filed of it later.
#[derive(Debug, Clone)]
pub struct Filed {
    /// Source it was collected from.
    pub source: String,
    /// Mailbox it was collected from.
    pub mailbox: Option<String>,
    /// The name the host gave it.
    pub uidl: String,
    /// When it was collected, milliseconds since 1970-01-01 UTC.
    pub collected_ms: u64,
    /// Where it is now.
    pub outcome: Outcome,
    /// What was made of it last.
    pub verdict: VerdictRecord,
    /// The archived message.
    pub message: Option<Summary>,
    /// What else is in the report.
    pub alternates: Vec<AlternateRecord>,
    /// Addresses without an owner.
    pub unowned: Vec<String>,
    /// What people and retries decided about it, in order.
    pub decisions: Vec<Decided>,
    /// Every appearance it brought, with when and why it was filed.
    pub instances: Vec<(InstanceRecord, u64, Option<FiledBy>)>,
}

impl Filed {
    /// Every reason that filed it.
    pub fn reasons(&self) -> impl Iterator<Item = &Reason> {
        self.instances.iter().flat_map(|(instance, _, _)| &instance.because)
    }
}

/// What is to be recorded of a stored report.
pub struct NewFiling<'a> {
    /// The report.
    pub filed: &'a Filed,
    /// Why.
    pub by: FiledBy,
    /// Who decided, where a person did.
    pub who: Option<String>,
    /// What the person said.
    pub reason: Option<String>,
    /// Where it goes with this; `unowned` is the whole list from now on.
    pub plan: &'a Plan,
    /// What is no longer without an owner.
    pub settled: Vec<String>,
    /// The report's octets, their digest and the new verdict, where it was looked at anew.
    pub examined: Option<(&'a dyn Octets, Digest, &'a Verdict)>,
    /// When, milliseconds since 1970-01-01 UTC.
    pub filed_ms: u64,
}

/// An address that should have an owner and has none. Field names are those of `owner unowned --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unowned {
    /// In the spelling that is compared.
    pub address: String,
    /// How many messages.
    pub count: u64,
    /// Date of the earliest, RFC 3339 in UTC.
    pub first: Option<String>,
    /// Date of the latest.
    pub last: Option<String>,
    /// The messages, oldest first.
    pub messages: Vec<UnownedMessage>,
}

/// A message with an address that has no owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct UnownedMessage {
    /// The message's own date, RFC 3339 in UTC.
    pub date: Option<String>,
    /// Message id, 32 hex digits.
    pub id: String,
    /// Author's address.
    pub from: Option<String>,
    /// Decoded subject.
    pub subject: Option<String>,
    /// Source and uidl of the first report it came with.
    pub source: String,
    /// Name of that report.
    pub uidl: String,
    /// When that was collected.
    pub collected_at: String,
}

impl Store {
    /// Records what became of a report; durable with the next [`Self::commit`]. Returns how many appearances are new.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_filing(&mut self, filing: NewFiling<'_>) -> StoreResult<u64> {
        self.add_filing_beside(filing, &Alone)
    }

    /// As [`Self::add_filing`], beside other stores.
    pub(crate) fn add_filing_beside(&mut self, filing: NewFiling<'_>, others: &dyn Elsewhere) -> StoreResult<u64> {
        self.check_writable()?;
        let result = self.put_filing(filing, others);
        self.fail_on(result)
    }

    fn put_filing(&mut self, filing: NewFiling<'_>, others: &dyn Elsewhere) -> StoreResult<u64> {
        let NewFiling { filed, by, who, reason, plan, settled, examined, filed_ms } = filing;
        let (mut message, mut alternates, mut messages) = (filed.message.clone(), Vec::new(), Vec::new());
        if let Some((raw, sha256, verdict)) = examined {
            let taken = self.take_apart(raw, sha256, verdict)?;
            (message, alternates, messages) = (taken.message, taken.alternates, taken.messages);
        }
        let outcome = match (&message, by) {
            (_, FiledBy::Reject) => Outcome::Rejected,
            (Some(_), _) if plan.catchall => Outcome::CatchAll,
            (Some(_), _) if !plan.instances.is_empty() => Outcome::Filed,
            (Some(_), FiledBy::Refile) => filed.outcome,
            _ => Outcome::DeadLetter,
        };
        let record = FilingRecord {
            source: filed.source.clone(),
            mailbox: filed.mailbox.clone(),
            uidl: filed.uidl.clone(),
            collected_ms: filed.collected_ms,
            filed_ms,
            by,
            who,
            reason,
            outcome,
            verdict: examined.map(|(_, _, verdict)| verdict.into()),
            unowned: plan.unowned.clone(),
            settled,
            instances: instances(&plan.instances, message.as_ref(), others)?,
            message,
            alternates,
            messages,
        };
        Ok(self.put_record(&Record::Filing(Box::new(record)))?.1)
    }

    /// A report, by the number of its record, with all that was filed of it later.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn filed(&self, number: u64) -> StoreResult<Filed> {
        let report = self.report(number)?;
        let at = report.collected_ms;
        let mut filed = Filed {
            source: report.source,
            mailbox: report.mailbox,
            uidl: report.uidl,
            collected_ms: at,
            outcome: report.outcome,
            verdict: report.verdict,
            message: report.message,
            alternates: report.alternates,
            unowned: report.unowned,
            decisions: Vec::new(),
            instances: report.instances.into_iter().map(|instance| (instance, at, None)).collect(),
        };
        for later in self.filings(&filed.source, filed.mailbox.as_deref(), &filed.uidl)? {
            if later.by != FiledBy::Refile {
                filed.decisions.push(Decided::from(&later));
            }
            filed.outcome = later.outcome;
            filed.unowned = later.unowned;
            if later.verdict.is_some() {
                filed.alternates = later.alternates;
            }
            filed.message = later.message.or(filed.message);
            filed.verdict = later.verdict.unwrap_or(filed.verdict);
            let (at, by) = (later.filed_ms, Some(later.by));
            filed.instances.extend(later.instances.into_iter().map(|instance| (instance, at, by)));
        }
        Ok(filed)
    }

    /// What became of a report later, in order.
    pub(super) fn filings(&self, source: &str, mailbox: Option<&str>, uidl: &str) -> StoreResult<Vec<FilingRecord>> {
        let found = self.numbered_filings(source, mailbox, uidl)?;
        Ok(found.into_iter().map(|(_, filing)| filing).collect())
    }

    /// The same, each with the number of its record.
    pub(super) fn numbered_filings(
        &self,
        source: &str,
        mailbox: Option<&str>,
        uidl: &str,
    ) -> StoreResult<Vec<(u64, FilingRecord)>> {
        let fields = [source_key(&self.keys, source), report_key(&self.keys, mailbox, uidl)].concat();
        let mut found = Vec::new();
        for pair in self.catalog.prefix(&key(Space::Filings, &[&fields])) {
            let number = trailing(&pair?.0);
            match self.record(number)? {
                Record::Filing(filing) => found.push((number, *filing)),
                _ => return Err(StoreError::CatalogDamaged),
            }
        }
        Ok(found)
    }

    /// A report by its name, `None` when it was never collected.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn filed_named(&self, source: &str, mailbox: Option<&str>, uidl: &str) -> StoreResult<Option<Filed>> {
        let entry = self.collected_entry(source, mailbox, uidl)?;
        entry.map(|entry| self.filed(entry.record)).transpose()
    }

    /// Every report that brought this message, or one of the same identity, in the order of their coming.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMessage`] and the others.
    pub fn reports_of(&self, id: &str) -> StoreResult<Vec<Filed>> {
        let numbers = self.envelope_numbers(id)?;
        numbers.into_iter().map(|number| self.filed(number)).collect()
    }

    pub(super) fn envelope_numbers(&self, id: &str) -> StoreResult<Vec<u64>> {
        let entry = self.message_entry(id)?;
        let pairs = self.catalog.prefix(&key(Space::Envelopes, &[&entry.summary.identity.0]));
        pairs.map(|pair| Ok(trailing(&pair?.0))).collect()
    }

    /// What a listing shows of a message: subject and date.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMessage`] and the others.
    pub fn summary(&self, id: &str) -> StoreResult<Summary> {
        Ok(self.message_entry(id)?.summary)
    }

    /// Numbers of the reports that nobody owns, and of those with an address without owner that `wanted` says yes to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn waiting_for(&self, wanted: &dyn Fn(&str) -> bool) -> StoreResult<BTreeSet<u64>> {
        let mut numbers = BTreeSet::new();
        for pair in self.catalog.prefix(&key(Space::CatchAll, &[])) {
            numbers.insert(trailing(&pair?.1));
        }
        let mut last: Option<(Vec<u8>, bool)> = None;
        for pair in sealed_pairs::<UnownedEntry>(&*self.catalog, &self.keys, Space::Unowned, &[]) {
            let (key, entry) = pair?;
            let address = key.get(..17).unwrap_or_default();
            let yes = match &last {
                Some((before, yes)) if before == address => *yes,
                _ => wanted(&entry.address),
            };
            last = Some((address.to_vec(), yes));
            if yes {
                numbers.insert(entry.record);
            }
        }
        Ok(numbers)
    }

    /// Numbers of all reports.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all_reports(&self) -> StoreResult<BTreeSet<u64>> {
        let pairs = sealed_pairs::<CollectedEntry>(&*self.catalog, &self.keys, Space::Collected, &[]);
        let kept = pairs.filter(|pair| {
            // What a person took out of the archive is neither filed again nor looked for.
            pair.as_ref().map_or(true, |(_, entry)| entry.gone.is_none_or(|gone| gone.lost))
        });
        kept.map(|pair| pair.map(|(_, entry)| entry.record)).collect()
    }

    /// Every address that should have an owner and has none, sorted, with its messages.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unowned(&self) -> StoreResult<Vec<Unowned>> {
        let addresses = self.unowned_entries()?.into_iter();
        let whole = addresses.map(|(address, entries)| {
            let messages = entries.into_values().map(|entry| self.unowned_message(&entry));
            Ok(Unowned::of(address, messages.collect::<StoreResult<_>>()?))
        });
        whole.collect()
    }

    /// The same, by address and identity: one entry for each message.
    pub(crate) fn unowned_entries(&self) -> StoreResult<BTreeMap<String, BTreeMap<Vec<u8>, UnownedEntry>>> {
        let mut found: BTreeMap<String, BTreeMap<Vec<u8>, UnownedEntry>> = BTreeMap::new();
        for pair in sealed_pairs::<UnownedEntry>(&*self.catalog, &self.keys, Space::Unowned, &[]) {
            let (key, entry) = pair?;
            // Forks and repeated reports are one message.
            let identity = key.get(17..33).unwrap_or_default().to_vec();
            let messages = found.entry(entry.address.clone()).or_default();
            match messages.get(&identity) {
                Some(before) if before.record <= entry.record => {}
                _ => drop(messages.insert(identity, entry)),
            }
        }
        Ok(found)
    }

    /// How many addresses that is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unowned_count(&self) -> StoreResult<u64> {
        let (mut count, mut last) = (0, Vec::new());
        for pair in self.catalog.prefix(&key(Space::Unowned, &[])) {
            let (key, _) = pair?;
            let address = key.get(..17).unwrap_or_default();
            if address != last {
                count += 1;
                last = address.to_vec();
            }
        }
        Ok(count)
    }

    pub(crate) fn unowned_message(&self, entry: &UnownedEntry) -> StoreResult<UnownedMessage> {
        let message: Option<MessageEntry> = self.value(Space::Messages, &[&entry.message.0])?;
        let summary = message.ok_or(StoreError::CatalogDamaged)?.summary;
        let report = self.report(entry.record)?;
        Ok(UnownedMessage {
            date: summary.date.and_then(rfc3339),
            id: HEXLOWER.encode(&entry.message.0),
            from: summary.from,
            subject: summary.subject,
            source: report.source,
            uidl: report.uidl,
            collected_at: rfc3339_ms(report.collected_ms),
        })
    }
}

impl Unowned {
    /// An address with its messages.
    pub(crate) fn of(address: String, mut messages: Vec<UnownedMessage>) -> Self {
        messages.sort_unstable();
        let dates = || messages.iter().filter_map(|message| message.date.clone());
        let (first, last) = (dates().next(), dates().next_back());
        Self { address, count: messages.len() as u64, first, last, messages }
    }
}

/// The number at the end of a key or value.
pub(super) fn trailing(octets: &[u8]) -> u64 {
    octets.last_chunk::<8>().map_or(0, |octets| u64::from_be_bytes(*octets))
}

impl From<&InstanceRecord> for Instance {
    fn from(record: &InstanceRecord) -> Self {
        let InstanceRecord { owner, folder, because, known: _ } = record.clone();
        Self { owner, folder, because }
    }
}
