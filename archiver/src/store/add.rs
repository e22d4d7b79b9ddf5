//! Adding reports, and the commit that makes them durable (reliability: packs, records, catalog, read-back, receipt).

use super::{
    Commit, NewReport, Pending, Store, StoreError, StoreReceipt, StoreResult,
    beside::{Alone, Elsewhere, instances},
    catalog::{Space, View},
    entry::{
        AlternateRecord, LedgerRecord, MessageRecord, RawRecord, Record, ReportRecord, Summary, VerdictRecord,
        encode_entry,
    },
    format::{copy::chunks_of, record::Content as RecordContent},
    header::summarise,
    index::{apply, has_ledger, is_stored},
    recipe::Hex,
    report::Outcome,
    write::Writer,
};
use crate::{
    journal::{Content, Handling, Verdict},
    octets::Octets,
};
use postkeep_shared::{mail::Digest, receipt::Entry};
use std::{io, ops::Range};

/// Ledger entries of one record.
const LEDGER_BATCH: usize = 512;

/// What is noted of a message that was kept in larger pieces.
const LIMITED: &str = "more than 32 levels or 10,000 parts: kept whole, and not taken apart beyond that";

/// A report that waits for the commit.
pub(super) struct Waiting {
    pub(super) receipt: StoreReceipt,
    pub(super) number: u64,
}

impl Store {
    /// Splits a report, finds what is stored already, writes the rest to the open pack. Memory is bounded whatever
    /// the size. Nothing is durable before [`Self::commit`]. After an [`StoreError::Input`] the store goes on; after
    /// any other error it must be opened again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add(&mut self, report: NewReport<'_>) -> StoreResult<Pending> {
        self.add_beside(&report, &Alone)
    }

    /// As [`Self::add`], beside other stores: what appears there already is no new appearance.
    pub(crate) fn add_beside(&mut self, report: &NewReport<'_>, others: &dyn Elsewhere) -> StoreResult<Pending> {
        self.check_writable()?;
        let result = self.add_report(report, others);
        self.fail_on(result)
    }

    fn add_report(&mut self, report: &NewReport<'_>, others: &dyn Elsewhere) -> StoreResult<Pending> {
        let taken = self.take_apart(report.raw, report.raw_sha256, report.verdict)?;
        let Taken { message, alternates, messages, raw, limited } = taken;
        let mut verdict: VerdictRecord = report.verdict.into();
        if limited {
            verdict.warnings.push(LIMITED.to_owned());
        }
        let outcome = outcome(report, message.is_some());
        let record = ReportRecord {
            source: report.source.to_owned(),
            host: report.host.to_owned(),
            mailbox: report.mailbox.clone(),
            uidl: report.uidl.clone(),
            receipt: report.receipt.as_ref().map(encode_entry),
            evidence: report.evidence.as_ref().map(Into::into),
            collected_ms: report.collected_ms,
            outcome,
            verdict,
            unowned: report.plan.unowned.clone(),
            instances: instances(&report.plan.instances, message.as_ref(), others)?,
            message,
            alternates,
            messages,
            raw,
        };
        let id = record.message.as_ref().map(|message| data_encoding::HEXLOWER.encode(&message.id.0));
        let (number, instances) = self.put_record(&Record::Report(Box::new(record)))?;
        let receipt = StoreReceipt {
            source: report.source.to_owned(),
            mailbox: report.mailbox.clone(),
            uidl: report.uidl.clone(),
            raw_sha256: report.raw_sha256,
            size: report.raw.len(),
            outcome,
        };
        self.pending.push(Waiting { receipt, number });
        self.uncommitted += report.raw.len();
        Ok(Pending { outcome, message: id, instances, bytes_in: report.raw.len() })
    }

    /// Keeps ledger entries of a gateway for `reconcile`; those known already are skipped. Durable with the next
    /// [`Self::commit`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_ledger(&mut self, source: &str, host: &str, entries: &[Entry]) -> StoreResult<()> {
        self.check_writable()?;
        let result = self.add_entries(source, host, entries);
        self.fail_on(result)
    }

    fn add_entries(&mut self, source: &str, host: &str, entries: &[Entry]) -> StoreResult<()> {
        let mut fresh = Vec::new();
        for entry in entries {
            let view = View { catalog: &*self.catalog, batch: &mut self.batch, keys: &self.keys };
            if !has_ledger(&view, source, entry)? {
                fresh.push(encode_entry(entry));
            }
        }
        for entries in fresh.chunks(LEDGER_BATCH) {
            let record = LedgerRecord { source: source.to_owned(), host: host.to_owned(), entries: entries.to_vec() };
            self.put_record(&Record::Ledger(record))?;
        }
        Ok(())
    }

    /// Octets of reports that were added since the last commit: a round commits when this gets large.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> u64 {
        self.uncommitted
    }

    /// Puts a record behind those that wait. Returns its number and how many appearances it adds.
    pub(super) fn put_record(&mut self, record: &Record) -> StoreResult<(u64, u64)> {
        let number = self.head.number + self.payloads.len() as u64 + 1;
        let payload = serde_json::to_vec(record).map_err(|e| StoreError::Failed(e.to_string()))?;
        // Nothing was changed yet: the report stays where it is, and everything else goes on.
        let payload = RecordContent::new(payload).ok_or_else(too_large)?;
        let mut view = View { catalog: &*self.catalog, batch: &mut self.batch, keys: &self.keys };
        let fresh = apply(&mut view, &mut self.totals, number, record)?;
        self.payloads.push(payload);
        Ok((number, fresh))
    }

    pub(super) fn take_apart(&mut self, raw: &dyn Octets, sha256: Digest, verdict: &Verdict) -> StoreResult<Taken> {
        let heal = self.heal;
        let mut view = View { catalog: &*self.catalog, batch: &mut self.batch, keys: &self.keys };
        let mut writer = Writer { view: &mut view, packs: &mut self.packs, heal, limited: false };
        let mut messages = Vec::new();
        let mut embedded: Vec<(Range<u64>, [u8; 16])> = Vec::new();
        let mut keep = |writer: &mut Writer<'_, '_>, content: &Content| -> StoreResult<Summary> {
            let octets = content.octets(raw)?;
            let (summary, new) = store_message(writer, &*octets, &messages)?;
            messages.extend(new);
            if let Content::Range(range) = content {
                embedded.push((range.clone(), summary.id.0));
            }
            Ok(summary)
        };
        let message = verdict.content.as_ref().map(|content| keep(&mut writer, content)).transpose()?;
        let mut alternates = Vec::new();
        for (role, content) in &verdict.alternates {
            let summary = keep(&mut writer, content)?;
            alternates.push(AlternateRecord { role: *role, message: summary.id });
        }
        let recipe = writer.store(raw, &embedded)?;
        let raw = RawRecord { sha256: Hex(sha256.0), size: raw.len(), recipe };
        Ok(Taken { message, alternates, messages, raw, limited: writer.limited })
    }

    /// Brings everything added to stable storage (packs, then records: the commit point, then the catalog), then
    /// reads every report back past the page cache and compares it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is acknowledged then, and the store must be opened again.
    pub fn commit(&mut self) -> StoreResult<Commit> {
        self.check_writable()?;
        let result = self.make_durable();
        let (pack_bytes, record_bytes) = self.fail_on(result)?;
        let mut commit = Commit { pack_bytes, record_bytes, ..Commit::default() };
        let waiting = std::mem::take(&mut self.pending);
        let copies = std::mem::take(&mut self.copies);
        for (receipt, result) in self.read_all_back(waiting, &copies) {
            match result {
                Ok(()) => commit.receipts.push(receipt),
                Err(error) => commit.failures.push((receipt.uidl, error)),
            }
        }
        self.heal = !commit.failures.is_empty();
        Ok(commit)
    }

    /// Octets that packs and records took.
    fn make_durable(&mut self) -> StoreResult<(u64, u64)> {
        if self.payloads.is_empty() {
            return Ok((0, 0));
        }
        // Compressed while the records are sealed; their copies are neither text nor compressible.
        self.packs.begin_sync()?;
        let payloads = std::mem::take(&mut self.payloads);
        let first = self.head.number + 1;
        let batches = self.records.seal(&self.head, &payloads)?;
        self.head = self.records.ready(&self.head)?;
        // The second copy first, under the sync that the packs get anyway.
        for (_, batch) in &batches {
            for chunk in chunks_of(self.records.form(), batch) {
                let id = self.keys.chunk_id(&chunk);
                self.packs.append(id, &chunk)?;
                self.copies.push(id);
            }
        }
        let synced = self.packs.sync()?;
        let (head, places) = self.records.append(&self.head, &batches)?;
        let octets = places.first().map_or(0, |first| head.end - first.offset);
        self.head = head;
        let mut batch = std::mem::take(&mut self.batch);
        let mut view = View { catalog: &*self.catalog, batch: &mut batch, keys: &self.keys };
        for (number, place) in (first..).zip(&places) {
            view.put_clear(Space::Records, &[&number.to_be_bytes()], place.encode());
        }
        for (id, place) in synced.places {
            view.put_clear(Space::Chunks, &[&id], place.encode());
        }
        for (pack, len) in synced.lengths {
            view.put_clear(Space::Packs, &[&pack], len.to_be_bytes().to_vec());
        }
        self.put_head(&mut batch);
        batch.apply(&mut *self.catalog)?;
        self.uncommitted = 0;
        Ok((synced.octets, octets))
    }

    pub(super) fn check_writable(&self) -> StoreResult<()> {
        match &self.failed {
            Some(reason) => Err(StoreError::Failed(reason.clone())),
            None if !self.writable => Err(StoreError::ReadOnly),
            None => Ok(()),
        }
    }

    /// After any error but one of the given message, what the files hold is not known any more.
    pub(super) fn fail_on<T>(&mut self, result: StoreResult<T>) -> StoreResult<T> {
        if let Err(error) = &result
            && !error.is_input()
        {
            self.failed = Some(error.to_string());
        }
        result
    }
}

pub(super) struct Taken {
    pub(super) message: Option<Summary>,
    pub(super) alternates: Vec<AlternateRecord>,
    pub(super) messages: Vec<MessageRecord>,
    raw: RawRecord,
    limited: bool,
}

fn too_large() -> StoreError {
    let text =
        "its envelope does not fit into a record of 64 MiB (about 300,000 recipients); split the distribution list";
    StoreError::Input(io::Error::new(io::ErrorKind::FileTooLarge, text))
}

/// Stores a message unless it is there; the record is new to the store, or stored again because what is there is not
/// believed.
fn store_message(
    writer: &mut Writer<'_, '_>,
    octets: &dyn Octets,
    before: &[MessageRecord],
) -> StoreResult<(Summary, Option<MessageRecord>)> {
    let summary = summarise(writer.view.keys, octets)?;
    let known = before.iter().any(|message| message.summary.id == summary.id)
        || (!writer.heal && is_stored(writer.view, &summary.id.0)?);
    if known {
        return Ok((summary, None));
    }
    let recipe = writer.store(octets, &[])?;
    Ok((summary.clone(), Some(MessageRecord { summary, recipe, was: None })))
}

fn outcome(report: &NewReport<'_>, message: bool) -> Outcome {
    if report.verdict.handling == Handling::Quarantine {
        Outcome::Quarantine
    } else if !message || report.plan.is_dead() {
        Outcome::DeadLetter
    } else if report.plan.catchall {
        Outcome::CatchAll
    } else {
        Outcome::Filed
    }
}
