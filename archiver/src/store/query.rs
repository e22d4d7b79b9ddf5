//! Questions to a store.

use super::{
    Collected, Filed, Listed, OwnerStats, Stats, Store, StoreResult,
    catalog::{Space, key, sealed_last, sealed_pairs},
    entry::{FiledBy, InstanceRecord, ReportRecord, decode_entry},
    index::{CollectedEntry, InstanceEntry, ledger_key, owner_key, rfc3339_ms, source_key},
    keyring::is_copy_id,
};
use data_encoding::HEXLOWER;
use postkeep_shared::{
    disk::Disk,
    mail::Digest,
    receipt::{Entry, NodeKey},
};
use serde_json::{Value, json};
use std::{collections::BinaryHeap, path::Path};

/// Appearances that are sorted at a time, 48 octets each: a larger archive is gone through once for each million, so that
/// it is never in memory whole.
const SORTED: usize = 1024 * 1024;

/// What an appearance is listed by: its date first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sorted {
    date: Option<i64>,
    id: [u8; 16],
    place: [u8; 16],
}

impl Store {
    /// Whether a report was committed before.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn is_collected(&self, source: &str, mailbox: Option<&str>, uidl: &str) -> StoreResult<Option<Collected>> {
        Ok(self.collected_entry(source, mailbox, uidl)?.map(collected))
    }

    /// Every report collected from a source, in no order.
    pub fn collected(&self, source: &str) -> impl Iterator<Item = StoreResult<Collected>> + use<'_> {
        let source = source_key(&self.keys, source);
        let pairs = sealed_pairs(&*self.catalog, &self.keys, Space::Collected, &[&source]);
        pairs.map(|pair| pair.map(|(_, entry)| collected(entry)))
    }

    /// Every ledger entry kept for a source; those of one node and mailbox in the order of their numbers.
    pub fn ledger_entries(&self, source: &str) -> impl Iterator<Item = StoreResult<Entry>> + use<'_> {
        let source = source_key(&self.keys, source);
        let pairs = sealed_pairs::<String>(&*self.catalog, &self.keys, Space::Ledger, &[&source]);
        pairs.filter_map(|pair| pair.map(|(_, text)| decode_entry(&text)).transpose())
    }

    /// The highest ledger entry kept of a node's mailbox: where the next XLEDGER continues.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn last_ledger_entry(&self, source: &str, mailbox: &str, node: &NodeKey) -> StoreResult<Option<Entry>> {
        let (source, log) = (source_key(&self.keys, source), ledger_key(&self.keys, mailbox, &node.0));
        let last = sealed_last::<String>(&*self.catalog, &self.keys, Space::Ledger, &[&source, &log])?;
        Ok(last.as_deref().and_then(decode_entry))
    }

    /// Hands every appearance in an owner's archive to `each`, sorted by date (those without one first); `folder`
    /// narrows it.
    ///
    /// # Errors
    /// [`super::StoreError`], and what `each` gives.
    pub fn list(
        &self,
        owner: &str,
        folder: Option<&str>,
        each: &mut dyn FnMut(Listed) -> StoreResult<()>,
    ) -> StoreResult<()> {
        let owner = owner_key(&self.keys, owner);
        let mut after = None;
        loop {
            let order = self.sorted(&owner, folder, after)?;
            for Sorted { place, .. } in &order {
                if let Some(entry) = self.value::<InstanceEntry>(Space::Instances, &[&owner, place])? {
                    each(entry.listed)?;
                }
            }
            if order.len() < SORTED {
                return Ok(());
            }
            after = order.last().copied();
        }
    }

    /// The first [`SORTED`] appearances behind `after`, in order.
    fn sorted(&self, owner: &[u8; 16], folder: Option<&str>, after: Option<Sorted>) -> StoreResult<Vec<Sorted>> {
        let mut first = BinaryHeap::new();
        for pair in sealed_pairs::<InstanceEntry>(&*self.catalog, &self.keys, Space::Instances, &[owner]) {
            let (key, entry) = pair?;
            if folder.is_some_and(|folder| entry.listed.folder != folder) {
                continue;
            }
            let id = HEXLOWER.decode(entry.listed.id.as_bytes()).ok().and_then(|id| id.try_into().ok());
            let (Some(id), Some(place)) = (id, key.last_chunk().copied()) else {
                return Err(super::StoreError::CatalogDamaged);
            };
            let next = Sorted { date: entry.date, id, place };
            if after.is_none_or(|after| next > after) {
                first.push(next);
                if first.len() > SORTED {
                    first.pop();
                }
            }
        }
        Ok(first.into_sorted_vec())
    }

    /// Every owner who has at least one appearance, sorted.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn owners(&self) -> StoreResult<Vec<String>> {
        let pairs = sealed_pairs::<String>(&*self.catalog, &self.keys, Space::Owners, &[]);
        let mut owners = pairs.map(|pair| pair.map(|(_, name)| name)).collect::<StoreResult<Vec<_>>>()?;
        owners.sort_unstable();
        Ok(owners)
    }

    /// Every report that brought this message, or one of the same identity, in the order of their coming: what the
    /// mail server said of it, what the gateway saw and signed, and where it went.
    ///
    /// # Errors
    /// [`super::StoreError::NoSuchMessage`] and the others.
    pub fn envelopes(&self, id: &str) -> StoreResult<Vec<Value>> {
        let numbers = self.envelope_numbers(id)?;
        numbers.into_iter().map(|number| Ok(self.envelope_at(number)?.1)).collect()
    }

    /// When a report was collected, and what `envelope` says of it.
    pub(crate) fn envelope_at(&self, number: u64) -> StoreResult<(u64, Value)> {
        let report = self.report(number)?;
        Ok((report.collected_ms, envelope(&report, &self.filed(number)?)))
    }

    /// Octets of the catalog's files: an index that can be made again, not counted in [`Self::stats`].
    ///
    /// # Errors
    /// [`super::StoreError::Disk`].
    pub fn catalog_bytes(&self) -> StoreResult<u64> {
        tree_len(&*self.disk, &self.dir.join("catalog"))
    }

    /// Numbers of the store.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn stats(&self) -> StoreResult<Stats> {
        let mut stats = self.figures()?;
        for pair in self.catalog.prefix(&key(Space::Chunks, &[])) {
            stats.chunks += u64::from(!is_copy_id(&pair?.0));
        }
        Ok(stats)
    }

    /// The same without the number of chunks, which takes long to count.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn figures(&self) -> StoreResult<Stats> {
        let (packs, _) = self.packs.list()?;
        let pack_bytes: u64 = packs.iter().map(|pack| pack.len).sum();
        let record_bytes: u64 = self.records.list()?.iter().map(|(_, len)| len).sum();
        let totals = self.totals;
        let file_bytes = self.disk.entry(&self.dir.join("store.toml"))?.len;
        let bytes_stored = pack_bytes + record_bytes + file_bytes;
        let ratio = if totals.bytes_in == 0 { 0.0 } else { bytes_stored as f64 / totals.bytes_in as f64 };
        Ok(Stats {
            reports: totals.reports,
            messages: totals.messages,
            instances: totals.instances,
            parts: totals.parts,
            part_references: totals.part_references,
            message_bytes: totals.message_bytes,
            chunks: 0,
            packs: packs.len() as u64,
            bytes_in: totals.bytes_in,
            bytes_stored,
            pack_bytes,
            record_bytes,
            ratio,
        })
    }

    /// Numbers of every owner's archive, sorted by name.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub fn owner_stats(&self) -> StoreResult<Vec<OwnerStats>> {
        let mut found = Vec::new();
        for pair in sealed_pairs::<String>(&*self.catalog, &self.keys, Space::Owners, &[]) {
            let owner = pair?.1;
            let mut stats = OwnerStats { owner, ..OwnerStats::default() };
            let key = owner_key(&self.keys, &stats.owner);
            for pair in sealed_pairs::<InstanceEntry>(&*self.catalog, &self.keys, Space::Instances, &[&key]) {
                let entry = pair?.1;
                if !entry.known {
                    stats.instances += 1;
                    stats.bytes += entry.listed.size;
                }
            }
            found.push(stats);
        }
        found.sort_unstable_by(|a, b| a.owner.cmp(&b.owner));
        let (all, stored) = (found.iter().map(|owner| owner.bytes).sum::<u64>(), self.stats()?.bytes_stored);
        for owner in &mut found {
            owner.stored_share = share(stored, owner.bytes, all);
        }
        Ok(found)
    }
}

/// `part` of `whole` of `octets`.
fn share(octets: u64, part: u64, whole: u64) -> u64 {
    let share = (u128::from(octets) * u128::from(part)).checked_div(u128::from(whole)).unwrap_or_default();
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// Octets of all files below a folder; 0 when it is not there.
fn tree_len(disk: &dyn Disk, dir: &Path) -> StoreResult<u64> {
    let entries = match disk.list(dir) {
        Err(error) if error.is_missing() => return Ok(0),
        other => other?,
    };
    let lens =
        entries.iter().map(|entry| if entry.is_dir { tree_len(disk, &dir.join(&entry.name)) } else { Ok(entry.len) });
    lens.sum()
}

fn collected(entry: CollectedEntry) -> Collected {
    let receipt = entry.receipt.as_deref().and_then(decode_entry);
    Collected {
        source: entry.source,
        host: entry.host,
        mailbox: entry.mailbox,
        uidl: entry.uidl,
        node: receipt.as_ref().map(|receipt| receipt.node),
        seq: receipt.as_ref().map(|receipt| receipt.body.seq),
        receipt,
        raw_sha256: Digest(entry.raw_sha256.0),
        size: entry.size,
        outcome: entry.outcome,
        appearances: entry.appearances,
        collected_ms: entry.collected_ms,
    }
}

/// What was known when the report came, and where it has gone since.
fn envelope(report: &ReportRecord, filed: &Filed) -> Value {
    let receipt = report.receipt.as_deref().and_then(decode_entry);
    let hex = |octets: &[u8]| HEXLOWER.encode(octets);
    let verdict = &filed.verdict;
    let receipt = receipt.map(|entry| {
        json!({
            "node": entry.node.id(),
            "node_key": hex(&entry.node.0),
            "mailbox": entry.body.mailbox.to_string(),
            "seq": entry.body.seq,
            "time": rfc3339_ms(entry.body.time_ms),
            "uidl": entry.body.uidl.to_string(),
            "size": entry.body.size,
            "digest": entry.body.digest.to_string(),
            "hash": entry.hash().to_string(),
            "signature": entry.verify().is_ok(),
            "entry": report.receipt,
        })
    });
    json!({
        "source": report.source,
        "host": report.host,
        "mailbox": report.mailbox,
        "uidl": report.uidl,
        "collected_at": rfc3339_ms(report.collected_ms),
        "outcome": filed.outcome,
        "kind": verdict.kind,
        "handling": verdict.handling,
        "reason": verdict.reason,
        "warnings": verdict.warnings,
        "sender": verdict.sender,
        "on_behalf_of": verdict.on_behalf_of,
        "recipients": verdict.recipients,
        "subject": verdict.subject,
        "message_id": verdict.message_id,
        "message": filed.message.as_ref().map(|message| hex(&message.id.0)),
        "message_sha256": filed.message.as_ref().map(|message| hex(&message.sha256.0)),
        "alternates": filed.alternates,
        "instances": filed.instances.iter().map(instance).collect::<Vec<_>>(),
        "unowned": filed.unowned,
        "decisions": filed.decisions,
        "report_sha256": hex(&report.raw.sha256.0),
        "report_size": report.raw.size,
        "receipt": receipt,
        "evidence": report.evidence,
    })
}

fn instance((instance, filed_ms, by): &(InstanceRecord, u64, Option<FiledBy>)) -> Value {
    json!({
        "owner": instance.owner,
        "folder": instance.folder,
        "because": instance.because,
        "filed_at": rfc3339_ms(*filed_ms),
        "filed_by": by.map_or(json!("collection"), |by| json!(by)),
    })
}
