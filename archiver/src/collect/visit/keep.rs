//! A batch that was fetched: judged, added, committed and read back, under the store's lock. Only what the store gives a
//! receipt for may be deleted at its source.

use super::{Got, Item, Visit, VisitError};
use crate::{
    archive::Archive,
    collect::{
        examine::examine,
        judge::{Expected, Judged},
        listing::Listed,
        session::SessionError,
        state::moved,
    },
    filing::assign,
    octets::{Slice, Staged},
    store::{NewReport, Pending, StoreReceipt},
};
use postkeep_shared::{
    mail::{Digest, Uidl},
    receipt::{Entry, NodeKey},
    run::now_ms,
};
use std::collections::{HashMap, HashSet};

/// A message that was added to the open batch.
struct Added<'l> {
    listed: &'l Listed,
    pending: Pending,
    deletable: bool,
    /// When the gateway accepted it.
    accepted_ms: Option<u64>,
    /// Its number in its node's ledger.
    number: Option<(NodeKey, u64)>,
}

impl Visit<'_> {
    /// Stores a batch; the receipts of what may be deleted. Temporary files and memory are given back.
    pub(super) fn keep<'l>(&mut self, got: Vec<Got<'_, 'l>>) -> Result<Vec<(&'l Listed, StoreReceipt)>, VisitError> {
        if got.is_empty() {
            return Ok(Vec::new());
        }
        let shared = self.tools.store;
        shared.with(|store| self.store(store, &got))
    }

    fn store<'l>(
        &mut self,
        store: &mut Archive,
        got: &[Got<'_, 'l>],
    ) -> Result<Vec<(&'l Listed, StoreReceipt)>, VisitError> {
        let mut added: HashMap<String, Added<'l>> = HashMap::new();
        self.add_entries(store, got)?;
        for one in got {
            if let Some((name, one)) = self.take(store, one)? {
                added.insert(name, one);
            }
        }
        let mut deletions = Vec::new();
        if added.is_empty() {
            return Ok(deletions);
        }
        let commit = store.commit()?;
        self.report.bytes_stored += commit.bytes_stored();
        for (name, error) in commit.failures {
            self.problem(format!("message {name} could not be read back and stays at the source: {error}"));
        }
        for receipt in commit.receipts {
            let Some(one) = added.remove(receipt.uidl()) else { continue };
            self.report.count(&one.pending);
            self.report.numbers.extend(one.number);
            if let Some(accepted) = one.accepted_ms {
                self.report.lag(accepted);
            }
            if one.deletable {
                deletions.push((one.listed, receipt));
            }
        }
        Ok(deletions)
    }

    /// Adds the ledger entries up to the last one that is about one of these messages, without a gap: the next visit reads
    /// on from the highest number in the store.
    fn add_entries(&mut self, store: &mut Archive, got: &[Got<'_, '_>]) -> Result<(), VisitError> {
        let names: HashSet<Uidl> = got.iter().filter_map(|one| one.item.listed.name().parse().ok()).collect();
        if let Some(last) = self.entries.iter().rposition(|entry| names.contains(&entry.body.uidl)) {
            let entries: Vec<Entry> = self.entries.drain(..=last).collect();
            store.add_ledger(&self.source.name, &self.at, &entries)?;
        }
        Ok(())
    }

    /// Judges a fetched message and adds it to the store. `None` when it is not for the store, or there already.
    fn take<'l>(&mut self, store: &mut Archive, got: &Got<'_, 'l>) -> Result<Option<(String, Added<'l>)>, VisitError> {
        let Got { item, staged, .. } = got;
        let listed = item.listed;
        if self.came_meanwhile(store, item)? {
            return Ok(None);
        }
        let Some(mut judged) = self.judge(store, got)? else { return Ok(None) };
        if let Some(problem) = &judged.problem {
            self.problem(format!("message {}: {problem}; it is kept and stays at the source", listed.name()));
        }
        if let (Some(receipt), None) = (&judged.receipt, self.node) {
            self.pin(receipt.node)?;
        }
        let (name, good) = self.name(item, &mut judged);
        if name != listed.name() && store.is_collected(&self.source.name, Some(&self.mailbox), &name)?.is_some() {
            self.report.held += 1;
            return Ok(None);
        }
        let deletable = good && judged.problem.is_none() && self.is_due(now_ms());
        if judged.problem.is_some() || !good {
            self.report.held += 1;
        }
        let accepted_ms = judged.receipt.as_ref().map(|receipt| receipt.body.time_ms);
        let number = judged.receipt.as_ref().map(|receipt| (receipt.node, receipt.body.seq));
        let Some(pending) = self.add(store, &name, listed, staged, judged)? else { return Ok(None) };
        Ok(Some((name, Added { listed, pending, deletable, accepted_ms, number })))
    }

    /// Whether another host of the source gave this message since it was listed here: then the next round compares
    /// the two and deletes this one.
    fn came_meanwhile(&self, store: &Archive, item: &Item<'_>) -> Result<bool, VisitError> {
        if item.again || item.before.is_some() || !item.listed.is_distinct() {
            return Ok(false);
        }
        Ok(store.is_collected(&self.source.name, Some(&self.mailbox), &item.listed.name())?.is_some())
    }

    fn judge(&mut self, store: &Archive, got: &Got<'_, '_>) -> Result<Option<Judged>, VisitError> {
        let Got { item: Item { listed, .. }, staged, announced, measured } = got;
        let measured = match measured {
            Ok(measured) => measured,
            Err(error) => {
                self.problem(format!("message {}: {error}; it is neither kept nor deleted", listed.name()));
                return Ok(None);
            }
        };
        let Some(mailbox) = self.gateway else { return Ok(Some(measured.unjudged())) };
        let mut expected = Expected { mailbox, node: self.node, moved: None, announced: *announced };
        let mut judged = measured.judge(staged, listed, &expected).map_err(staging)?;
        if judged.problem.is_some() {
            // Rare: only now is it worth a look whether the ledger says that it came from another node.
            expected.moved = self.moved_from(store, listed)?;
            if expected.moved.is_some() {
                judged = measured.judge(staged, listed, &expected).map_err(staging)?;
            }
        }
        Ok(Some(judged))
    }

    /// Hash of the receipt that a message was accepted with elsewhere, if it was moved to this host.
    fn moved_from(&mut self, store: &Archive, listed: &Listed) -> Result<Option<Digest>, VisitError> {
        if self.moved.is_none() {
            self.moved = Some(moved(&self.source.name, store)?);
        }
        let uidl: Option<Uidl> = listed.name().parse().ok();
        Ok(uidl.and_then(|uidl| self.moved.as_ref()?.get(&uidl).copied()))
    }

    /// The name to store it under, and whether that is its own: one that cannot be told apart, or whose name stands
    /// for other octets already, is kept under its name and its digest.
    fn name(&mut self, item: &Item<'_>, judged: &mut Judged) -> (String, bool) {
        let own = item.listed.name();
        let apart = |own: &str| {
            let short: String = own.chars().take(80).collect();
            format!("{short}#{}", judged.sha256.short(32))
        };
        if !item.listed.is_distinct() {
            return (apart(&own), false);
        }
        let Some(before) = &item.before else { return (own, true) };
        if before.raw_sha256 == judged.sha256 && self.gateway.is_none() {
            // Only its size was listed inexactly: stored again it is the same report.
            return (own, true);
        }
        let name = apart(&own);
        self.problem(format!("message {own} is not the one that was collected under this name; both are kept"));
        judged.receipt = None;
        (name, false)
    }

    fn add(
        &mut self,
        store: &mut Archive,
        name: &str,
        listed: &Listed,
        staged: &Staged,
        judged: Judged,
    ) -> Result<Option<Pending>, VisitError> {
        let raw = Slice::new(staged, judged.report.clone());
        let verdict =
            examine(self.source, &raw, judged.evidence.as_ref(), judged.problem.as_deref()).map_err(staging)?;
        let probe = self.tools.probes.recognise(&verdict, now_ms());
        let plan = probe.unwrap_or_else(|| {
            assign(&verdict, self.source.reading.owner.as_deref(), self.tools.owners, self.tools.rules)
        });
        if plan.leave {
            self.report.leave(&plan.unowned);
            self.tools.state.leave(&self.source.name, &listed.name(), self.tools.rules_digest, &plan.unowned)?;
            return Ok(None);
        }
        let report = NewReport {
            source: &self.source.name,
            host: &self.at,
            mailbox: Some(self.mailbox.clone()),
            uidl: name.to_owned(),
            receipt: judged.receipt,
            evidence: judged.evidence,
            raw: &raw,
            raw_sha256: judged.sha256,
            verdict: &verdict,
            plan: &plan,
            collected_ms: now_ms(),
        };
        match store.add(report) {
            Ok(pending) => Ok(Some(pending)),
            Err(error) if error.is_input() => {
                self.problem(format!("message {name} could not be stored and stays at the source: {error}"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn staging(error: std::io::Error) -> VisitError {
    VisitError::Session(SessionError::Staging(error))
}
