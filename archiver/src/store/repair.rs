//! Salvaging what is whole of a damaged store, and saying exactly what is not.
//!
//! Records first (`copies.rs`), then packs: whole chunks of a damaged pack are appended to new packs, the pack goes to
//! `damaged/`. Then everything is read; what cannot be put together any more is recorded (`loss`), so that it is known
//! from then on and told once. Nothing damaged is ever removed; nothing is invented. In the end the store verifies,
//! `store.toml` excepted, which only `store rekey` can mend.

use super::{
    Store, StoreError, StoreResult, Unlock,
    catalog::Space,
    copies::{RebuiltRecords, damaged_folder, finish_exchange, rebuild_records},
    entry::{LossRecord, Record, ReportName},
    format::pack::{ChunkId, Form, PackId},
    index::{CollectedEntry, Gone, MessageEntry},
    open::remove_catalog,
    packs::{PackFile, Place},
    recipe::Hex,
    records::{Head, Read},
    scan::{each_chunk, read_head, scan_pack},
};
use data_encoding::HEXLOWER;
use postkeep_shared::{
    disk::{Disk, create_dirs},
    run::now_ms,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A message or report that is lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LostContent {
    /// Message id; `None` for a report whose message is whole or was never taken out.
    pub message: Option<String>,
    /// SHA-256 of its octets.
    pub sha256: Option<String>,
    /// Subject, where it is known.
    pub subject: Option<String>,
    /// Where it appears: owner and folder.
    pub appears: Vec<(String, String)>,
    /// Reports it came with: source and uidl, the gateway's name for it.
    pub reports: Vec<(String, String)>,
    /// What is wrong.
    pub reason: String,
}

/// What `store repair` did. Field names are those of `store repair --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Nothing is lost.
    pub ok: bool,
    /// Something was damaged.
    pub damaged: bool,
    /// Messages that are whole.
    pub messages: u64,
    /// Reports that are whole.
    pub reports: u64,
    /// What was done with the records.
    pub records: RebuiltRecords,
    /// Packs that were damaged, with what was saved of each.
    pub packs: Vec<String>,
    /// What is not whole, and was not known before.
    pub lost: Vec<LostContent>,
    /// Where the damaged files are.
    pub moved_to: Vec<String>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// Repairs the store in `dir`. The caller holds the writer's lock. `progress` hears of packs and records.
///
/// # Errors
/// [`StoreError`]. Stopped anywhere, it can be said again.
pub fn repair(
    dir: &Path,
    unlock: &Unlock<'_>,
    disk: &Arc<dyn Disk>,
    progress: &mut dyn FnMut(u64, u64),
) -> StoreResult<Repaired> {
    // Before an empty folder takes the place of record files that were made and not yet put there.
    finish_exchange(dir, &**disk)?;
    for folder in ["packs", "records"] {
        create_dirs(&**disk, &dir.join(folder))?;
    }
    // What the catalog knows of records that are gone is known nowhere else.
    let before = Store::open_read(dir, unlock, Arc::clone(disk)).ok();
    let known = before.map(|store| store.known_by_record()).transpose().ok().flatten().unwrap_or_default();
    let mut told = Repaired { records: rebuild_records_anyway(dir, unlock, disk, progress)?, ..Repaired::default() };
    told.damaged = told.records.rebuilt;
    told.moved_to.extend(told.records.moved_to.clone());
    let last = told.records.records + told.records.lost.len() as u64;
    told.records.lost.extend(known.keys().filter(|number| **number > last));
    for number in told.records.lost.clone() {
        told.lost.extend(known.get(&number).into_iter().flatten().cloned());
    }
    remove_catalog(&dir.join("catalog"), &**disk)?;
    let mut store = Store::open(dir, unlock, Arc::clone(disk))?;
    store.salvage_packs(&mut told, progress)?;
    // Places of chunks in packs that are gone must be gone too.
    drop(store);
    remove_catalog(&dir.join("catalog"), &**disk)?;
    let mut store = Store::open(dir, unlock, Arc::clone(disk))?;
    store.find_losses(&mut told)?;
    told.ok = told.lost.is_empty() && told.records.lost.is_empty();
    told.damaged |= !told.ok || !told.packs.is_empty();
    Ok(told)
}

/// A catalog that knows more than the records must not stop what makes the records again.
fn rebuild_records_anyway(
    dir: &Path,
    unlock: &Unlock<'_>,
    disk: &Arc<dyn Disk>,
    progress: &mut dyn FnMut(u64, u64),
) -> StoreResult<RebuiltRecords> {
    match rebuild_records(dir, unlock, disk, progress) {
        Err(StoreError::Damaged { .. } | StoreError::CatalogDamaged | StoreError::Catalog { .. }) => {
            remove_catalog(&dir.join("catalog"), &**disk)?;
            rebuild_records(dir, unlock, disk, progress)
        }
        other => other,
    }
}

impl Store {
    /// What the catalog knows of messages and reports, by the record that holds them.
    fn known_by_record(&self) -> StoreResult<BTreeMap<u64, Vec<LostContent>>> {
        let mut known: BTreeMap<u64, Vec<LostContent>> = BTreeMap::new();
        let damaged = self.records.read_on(Head::default(), &mut |_| Ok(()))?;
        if damaged.damage.is_empty() && damaged.torn.is_none() && damaged.head.number >= self.head.number {
            return Ok(known);
        }
        let reason = "its record is lost".to_owned();
        let mut places: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for owner in self.owners()? {
            self.list(&owner, None, &mut |listed| {
                places.entry(listed.id).or_default().push((owner.clone(), listed.folder));
                Ok(())
            })?;
        }
        let mut reports: BTreeMap<u64, Vec<(String, String)>> = BTreeMap::new();
        for pair in super::catalog::sealed_pairs::<CollectedEntry>(&*self.catalog, &self.keys, Space::Collected, &[]) {
            let entry = pair?.1;
            reports.entry(entry.record).or_default().push((entry.source, entry.uidl));
        }
        for pair in super::catalog::sealed_pairs::<MessageEntry>(&*self.catalog, &self.keys, Space::Messages, &[]) {
            let MessageEntry { summary, record, .. } = pair?.1;
            let id = HEXLOWER.encode(&summary.id.0);
            known.entry(record).or_default().push(LostContent {
                appears: places.get(&id).cloned().unwrap_or_default(),
                message: Some(id),
                sha256: Some(HEXLOWER.encode(&summary.sha256.0)),
                subject: summary.subject,
                reports: reports.get(&record).cloned().unwrap_or_default(),
                reason: reason.clone(),
            });
        }
        for (record, reports) in reports {
            let lost = known.entry(record).or_default();
            if lost.is_empty() {
                lost.push(LostContent { reports, reason: reason.clone(), ..LostContent::default() });
            }
        }
        Ok(known)
    }

    /// Moves whole chunks of damaged packs to new ones, and the packs to `damaged/`.
    fn salvage_packs(&mut self, told: &mut Repaired, progress: &mut dyn FnMut(u64, u64)) -> StoreResult<()> {
        self.packs.leave_open_pack()?;
        let (packs, others) = self.packs.list()?;
        told.notes.extend(others.iter().map(|path| format!("{} is no pack and was left alone", path.display())));
        let total = packs.len() as u64;
        for (done, pack) in (1..).zip(packs) {
            let scan = self.packs.scan(&pack, true)?;
            if !scan.damage.is_empty() {
                self.salvage(&pack, told)?;
            }
            progress(done, total);
        }
        Ok(())
    }

    /// Appends what is whole of a pack to new ones, reads it back, and only then moves the pack: stopped anywhere, the
    /// pack or what was saved of it is in `packs/`.
    fn salvage(&mut self, pack: &PackFile, told: &mut Repaired) -> StoreResult<()> {
        let (keys, file) = (Arc::clone(&self.keys), self.disk.open(&pack.path)?);
        let (mut id, mut scan) = (pack.id, scan_pack(&keys, &*file, &pack.id, true)?);
        let mut misnamed = false;
        if scan.entries.is_empty()
            && let Some(named) = Form::named(&read_head(&*file)?, &keys)
            && named != id
        {
            // A pack opens under the name in its header alone.
            (id, scan) = (named, scan_pack(&keys, &*file, &named, true)?);
            misnamed = !scan.entries.is_empty();
        }
        self.packs.fresh();
        let (mut saved, mut elsewhere) = (0_u64, 0_u64);
        each_chunk(&keys, &*file, &id, &scan, &mut |id, plain| {
            if self.stands_elsewhere(&id, &pack.id)? {
                elsewhere += 1;
            } else {
                self.packs.append(id, plain)?;
                saved += 1;
            }
            Ok(())
        })?;
        let fresh = self.sync_packs()?;
        self.packs.fresh();
        for (id, _) in &fresh {
            let place = self.clear_value(Space::Chunks, &[id])?.and_then(|octets| Place::decode(&octets));
            self.packs.read(id, &place.ok_or(StoreError::CatalogDamaged)?)?;
        }
        self.packs.cached();
        let to = self.move_away(pack)?;
        told.moved_to.push(to.display().to_string());
        let name = pack.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let what = if misnamed { " is a pack of another name" } else { "" };
        told.packs.push(format!("{name}{what}: {saved} chunks saved, {elsewhere} stand whole elsewhere"));
        Ok(())
    }

    /// Whether a chunk can be read from another pack than `pack`.
    fn stands_elsewhere(&self, id: &ChunkId, pack: &PackId) -> StoreResult<bool> {
        let place = self.clear_value(Space::Chunks, &[id])?.and_then(|octets| Place::decode(&octets));
        Ok(place.is_some_and(|place| place.pack != *pack && self.packs.read(id, &place).is_ok()))
    }

    fn move_away(&mut self, pack: &PackFile) -> StoreResult<PathBuf> {
        let folder = damaged_folder(&self.dir, &*self.disk)?.join("packs");
        create_dirs(&*self.disk, &folder)?;
        let to = folder.join(pack.path.file_name().unwrap_or_default());
        self.packs.forget(&pack.id);
        self.disk.rename_new(&pack.path, &to)?;
        self.disk.open_dir(&folder)?.sync()?;
        if let Some(parent) = pack.path.parent() {
            self.disk.open_dir(parent)?.sync()?;
        }
        Ok(to)
    }

    /// Reads everything; records what cannot be put together.
    fn find_losses(&mut self, told: &mut Repaired) -> StoreResult<()> {
        let (mut messages, mut reports): (BTreeSet<Hex<16>>, BTreeSet<ReportName>) = Default::default();
        let mut whole: BTreeSet<Hex<16>> = BTreeSet::new();
        let mut reasons: BTreeMap<Hex<16>, String> = BTreeMap::new();
        let mut lost_reports = Vec::new();
        self.packs.fresh();
        self.records.read_on(Head::default(), &mut |Read { record, number, .. }| {
            for message in record.messages() {
                let (id, sha256, size) = (message.summary.id, message.summary.sha256, message.summary.size);
                let gone = self.clear_value(Space::Gone, &[&id.0])?.and_then(|octets| Gone::decode(&octets));
                if gone.is_some_and(|gone| number < gone.record) || self.is_moved_message(&id.0)? {
                    continue;
                }
                match self.rebuild_checked(&message.recipe, sha256, size, "", &mut io::sink()) {
                    Ok(()) => drop(whole.insert(id)),
                    Err(error) => {
                        messages.insert(id);
                        reasons.insert(id, error.to_string());
                    }
                }
            }
            if let Record::Report(report) = &record {
                let name = ReportName {
                    source: report.source.clone(),
                    mailbox: report.mailbox.clone(),
                    uidl: report.uidl.clone(),
                };
                let entry = self.collected_entry(&name.source, name.mailbox.as_deref(), &name.uidl)?;
                let current = entry.as_ref().is_none_or(|entry| entry.record == number);
                let gone = entry.and_then(|entry| entry.gone).is_some_and(|gone| number < gone.record);
                let moved = self.is_moved_report(&name.source, name.mailbox.as_deref(), &name.uidl)?;
                if !current || gone || moved {
                    return Ok(());
                }
                let raw = &report.raw;
                match self.rebuild_checked(&raw.recipe, raw.sha256, raw.size, &report.uidl, &mut io::sink()) {
                    Ok(()) => told.reports += 1,
                    Err(error) => {
                        reports.insert(name.clone());
                        lost_reports.push((name, report.message.as_ref().map(|m| m.id), error.to_string()));
                    }
                }
            }
            Ok(())
        })?;
        self.packs.cached();
        // Stored again since, and whole there.
        messages.retain(|id| !whole.contains(id));
        told.messages = whole.len() as u64;
        for id in &messages {
            told.lost.push(self.describe(id, reasons.remove(id).unwrap_or_default())?);
        }
        for (name, message, reason) in lost_reports {
            if message.is_none_or(|id| !messages.contains(&id)) {
                let reports = vec![(name.source, name.uidl)];
                told.lost.push(LostContent { reports, reason, ..LostContent::default() });
            }
        }
        if messages.is_empty() && reports.is_empty() {
            return Ok(());
        }
        let record = LossRecord {
            found_ms: now_ms(),
            messages: messages.into_iter().collect(),
            reports: reports.into_iter().collect(),
        };
        self.put_record(&Record::Loss(Box::new(record)))?;
        let _ = self.commit()?;
        Ok(())
    }

    fn describe(&self, id: &Hex<16>, reason: String) -> StoreResult<LostContent> {
        let name = HEXLOWER.encode(&id.0);
        let Ok(entry) = self.message_entry(&name) else {
            return Ok(LostContent { message: Some(name), reason, ..LostContent::default() });
        };
        let places = self.places(&entry.summary.identity)?;
        let mut reports = BTreeSet::new();
        for number in self.numbers_of(&entry.summary.identity.0)? {
            let report = self.report(number)?;
            reports.insert((report.source, report.uidl));
        }
        Ok(LostContent {
            message: Some(name),
            sha256: Some(HEXLOWER.encode(&entry.summary.sha256.0)),
            subject: entry.summary.subject,
            appears: places.into_iter().map(|at| (at.owner, at.folder)).collect(),
            reports: reports.into_iter().collect(),
            reason,
        })
    }
}
