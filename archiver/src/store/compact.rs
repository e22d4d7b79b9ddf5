//! Giving back the space of chunks that nobody needs any more.
//!
//! Order: what is needed of a pack is appended to newer packs; those are synced and read back past the page cache; the
//! catalog and a record (`compaction`) follow; the old pack is removed last. Killed anywhere, every chunk that is needed
//! has a place, and what was not removed yet goes with the next call: a chunk counts only where the catalog says it lies.
//! A store whose log is damaged is not touched, since what is needed is not known then.

use super::{
    Store, StoreError, StoreResult,
    catalog::{Space, View},
    entry::{CompactionRecord, Record},
    format::record::RecordError,
    index::Gone,
    keyring::is_copy_id,
    packs::{PackFile, Place},
    recipe::{Hex, Recipe},
    records::{Head, Read},
};
use postkeep_shared::run::now_ms;
use serde::Serialize;
use std::collections::{BTreeSet, HashSet};

/// Octets that are moved before old packs are removed: how much more space it takes while it works.
const MOVED_AT_ONCE: u64 = 64 * 1024 * 1024;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compacting {
    /// Packs of which at least this part (0 to 1) of the octets is not needed.
    pub least: f64,
    /// Also packs that are sealed with the key of an earlier epoch.
    pub old_epochs: bool,
}

/// What `store compact` did. Field names are those of `store compact --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// Packs that were given up.
    pub packs: u64,
    /// Chunks that nobody needed.
    pub chunks_dropped: u64,
    /// Chunks that were moved.
    pub chunks_moved: u64,
    /// Octets of packs before …
    pub bytes_before: u64,
    /// … and after.
    pub bytes_after: u64,
    /// Packs that were left because they are damaged.
    pub left: Vec<String>,
}

/// What is to become of a pack.
struct Plan {
    pack: PackFile,
    needed: Vec<([u8; 32], Place)>,
    dropped: Vec<[u8; 32]>,
}

impl Store {
    /// Rewrites packs that hold enough of what nobody needs. `progress` hears of packs.
    ///
    /// # Errors
    /// [`StoreError`]; what was done before stays, and the call can be made again.
    pub fn compact(
        &mut self,
        wanted: Compacting,
        who: Option<&str>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> StoreResult<Compacted> {
        self.check_writable()?;
        self.check_changeable()?;
        let result = self.compact_packs(wanted, who, progress);
        self.fail_on(result)
    }

    fn compact_packs(
        &mut self,
        wanted: Compacting,
        who: Option<&str>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> StoreResult<Compacted> {
        let needed = self.needed_chunks()?;
        // From here on nothing is appended to a pack that may go.
        self.packs.leave_open_pack()?;
        let (packs, _) = self.packs.list()?;
        let mut told = Compacted { bytes_before: packs.iter().map(|pack| pack.len).sum(), ..Compacted::default() };
        let total = packs.len() as u64;
        let (mut plans, mut waiting) = (Vec::new(), 0);
        self.packs.fresh();
        for (done, pack) in (1..).zip(packs) {
            if let Some(plan) = self.plan(pack, &needed, wanted, &mut told)? {
                waiting += plan.pack.len;
                plans.push(plan);
            }
            if waiting >= MOVED_AT_ONCE {
                self.move_chunks(std::mem::take(&mut plans), who, &mut told)?;
                waiting = 0;
            }
            progress(done, total);
        }
        self.move_chunks(plans, who, &mut told)?;
        self.packs.cached();
        told.bytes_after = self.packs.list()?.0.iter().map(|pack| pack.len).sum();
        Ok(told)
    }

    /// The beginnings of the names of all chunks that are needed: two that begin alike keep each other.
    fn needed_chunks(&self) -> StoreResult<HashSet<u64>> {
        let mut needed = HashSet::new();
        let end = self.records.read_on(Head::default(), &mut |Read { record, number, .. }| {
            let dead = |gone: Option<Gone>| gone.is_some_and(|gone| !gone.lost && number < gone.record);
            for message in record.messages() {
                let id = &message.summary.id.0;
                if self.is_moved_message(id)? {
                    continue;
                }
                let gone = self.clear_value(Space::Gone, &[id])?;
                if !dead(gone.and_then(|octets| Gone::decode(&octets))) {
                    take(&message.recipe, &mut needed);
                }
            }
            if let Record::Report(report) = &record
                && !self.is_moved_report(&report.source, report.mailbox.as_deref(), &report.uidl)?
            {
                let entry = self.collected_entry(&report.source, report.mailbox.as_deref(), &report.uidl)?;
                if !dead(entry.and_then(|entry| entry.gone)) {
                    take(&report.raw.recipe, &mut needed);
                }
            }
            Ok(())
        })?;
        let torn = end.torn.filter(|(_, _, error)| !matches!(error, RecordError::Short | RecordError::Zeros));
        let damage = end.damage.into_iter().next().or(torn.map(|(path, at, error)| (path, at, error.to_string())));
        if let Some((path, at, detail)) = damage {
            return Err(StoreError::damaged(&path, at, detail));
        }
        if end.head.number != self.head.number {
            let path = self.records.path(self.head.file);
            return Err(StoreError::damaged(&path, self.head.end, "records are missing; run `store rebuild-records`"));
        }
        Ok(needed)
    }

    /// What to do with a pack; `None` when it stays.
    fn plan(
        &self,
        pack: PackFile,
        needed: &HashSet<u64>,
        wanted: Compacting,
        told: &mut Compacted,
    ) -> StoreResult<Option<Plan>> {
        let scan = self.packs.scan(&pack, true)?;
        if !scan.damage.is_empty() {
            told.left.push(pack.path.display().to_string());
            return Ok(None);
        }
        let old = scan.form.is_none_or(|form| form.epoch() < self.keys.current());
        let mut plan = Plan { needed: Vec::new(), dropped: Vec::new(), pack };
        let (mut all, mut dead) = (0_u64, 0_u64);
        for entry in scan.entries {
            let place = Place { pack: plan.pack.id, offset: entry.offset, index: entry.index };
            all += u64::from(entry.len);
            let here = self.clear_value(Space::Chunks, &[&entry.id])?.is_some_and(|at| at == place.encode());
            // Copies of records are named nowhere else.
            if here && (needed.contains(&short(&entry.id)) || is_copy_id(&entry.id)) {
                plan.needed.push((entry.id, place));
                continue;
            }
            dead += u64::from(entry.len);
            if here {
                plan.dropped.push(entry.id);
            }
        }
        let worth = dead > 0 && dead as f64 >= wanted.least * all as f64;
        Ok((worth || (wanted.old_epochs && old)).then_some(plan))
    }

    fn move_chunks(&mut self, plans: Vec<Plan>, who: Option<&str>, told: &mut Compacted) -> StoreResult<()> {
        if plans.is_empty() {
            return Ok(());
        }
        for (id, place) in plans.iter().flat_map(|plan| &plan.needed) {
            let plain = self.packs.read(id, place)?;
            self.packs.append(*id, &plain)?;
            told.chunks_moved += 1;
        }
        let synced = self.packs.sync()?;
        self.packs.fresh();
        let mut moved = BTreeSet::new();
        for (id, place) in &synced.places {
            // Past the page cache, and compared with its name.
            self.packs.read(id, place)?;
            moved.insert(*id);
        }
        if let Some((id, place)) = plans.iter().flat_map(|plan| &plan.needed).find(|(id, _)| !moved.contains(id)) {
            let detail = format!("chunk {} was not moved", data_encoding::HEXLOWER.encode(id));
            return Err(StoreError::damaged(&self.packs.path(&place.pack), place.offset, detail));
        }
        let mut view = View { catalog: &*self.catalog, batch: &mut self.batch, keys: &self.keys };
        for (id, place) in &synced.places {
            view.put_clear(Space::Chunks, &[id], place.encode());
        }
        for (pack, len) in &synced.lengths {
            view.put_clear(Space::Packs, &[pack], len.to_be_bytes().to_vec());
        }
        for id in plans.iter().flat_map(|plan| &plan.dropped) {
            view.remove(Space::Chunks, &[id]);
            told.chunks_dropped += 1;
        }
        let packs: Vec<_> = plans.iter().map(|plan| Hex(plan.pack.id)).collect();
        let chunks = plans.iter().map(|plan| plan.dropped.len() as u64).sum();
        let record = CompactionRecord { done_ms: now_ms(), who: who.map(str::to_owned), packs, chunks };
        self.put_record(&Record::Compaction(record))?;
        // Nothing of it waits to be read back.
        let _ = self.commit()?;
        self.catalog.persist()?;
        for plan in plans {
            self.packs.forget(&plan.pack.id);
            self.disk.remove_file(&plan.pack.path)?;
            if let Some(folder) = plan.pack.path.parent() {
                self.disk.open_dir(folder)?.sync()?;
            }
            told.packs += 1;
        }
        self.packs.fresh();
        Ok(())
    }
}

fn take(recipe: &Recipe, needed: &mut HashSet<u64>) {
    needed.extend(recipe.chunks().map(|chunk| short(chunk.id())));
}

fn short(id: &[u8; 32]) -> u64 {
    id.first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets))
}
