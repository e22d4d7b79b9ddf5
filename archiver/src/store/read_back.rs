//! Reading back what was committed, past the page cache: what a receipt is given for.
//!
//! Rebuilding a report is work for a processor, and those of a commit are apart from each other: all processors do it, up
//! to [`THREADS`], a few reports at a time, so that neighbours share the groups that were opened.

use super::{
    Store, StoreError, StoreReceipt, StoreResult, add::Waiting, catalog::Space, entry::Record, format::pack::ChunkId,
    packs::Place,
};
use postkeep_shared::mail::Digest;
use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Each holds a chunk of at most 4 MiB, and what it is made from.
const THREADS: usize = 4;
/// Reports that a thread takes at a time.
const AT_ONCE: usize = 4;

impl Store {
    /// What became of each report of a commit, in order; `copies` are the second copy of its records.
    pub(super) fn read_all_back(
        &self,
        waiting: Vec<Waiting>,
        copies: &[ChunkId],
    ) -> Vec<(StoreReceipt, StoreResult<()>)> {
        self.packs.fresh();
        self.records.fresh();
        // Once for all of them; each has its own error where one is damaged.
        let copied = copies.iter().all(|id| self.copy_is_whole(id).is_ok());
        let unread = if copied { &[] } else { copies };
        let one = |waiting: &Waiting| {
            unread.iter().try_for_each(|id| self.copy_is_whole(id))?;
            self.read_back(waiting.number, &waiting.receipt)
        };
        let results = on_all_processors(&waiting, &one);
        self.packs.cached();
        waiting.into_iter().map(|waiting| waiting.receipt).zip(results).collect()
    }

    /// Reads the second copy of a batch.
    fn copy_is_whole(&self, id: &[u8; 32]) -> StoreResult<()> {
        let place = self.clear_value(Space::Chunks, &[id])?.and_then(|octets| Place::decode(&octets));
        self.packs.read(id, &place.ok_or(StoreError::CatalogDamaged)?).map(drop)
    }

    /// Rebuilds the whole report from the disk.
    fn read_back(&self, number: u64, receipt: &StoreReceipt) -> StoreResult<()> {
        let record = self.shared_record(number)?;
        let Record::Report(report) = &*record else { return Err(StoreError::CatalogDamaged) };
        if report.uidl != receipt.uidl || report.raw.sha256.0 != receipt.raw_sha256.0 {
            return Err(StoreError::CatalogDamaged);
        }
        self.rebuild_checked(&report.raw.recipe, report.raw.sha256, receipt.size, &receipt.uidl, &mut io::sink())
    }

    /// Reads a report that was committed before back past the page cache and gives a receipt for it: for what was
    /// stored by a round that was killed before it could delete. `None` when it was never committed. For a report whose
    /// message a person deleted since there is nothing to read back; what is recorded of that stands for it.
    ///
    /// # Errors
    /// [`StoreError`]; on damage ([`StoreError::is_damage`]) collect it again and [`Self::add`] it again.
    pub fn confirm(&mut self, source: &str, mailbox: Option<&str>, uidl: &str) -> StoreResult<Option<StoreReceipt>> {
        let Some(entry) = self.collected_entry(source, mailbox, uidl)? else { return Ok(None) };
        let receipt = StoreReceipt {
            source: entry.source,
            mailbox: entry.mailbox,
            uidl: entry.uidl,
            raw_sha256: Digest(entry.raw_sha256.0),
            size: entry.size,
            outcome: entry.outcome,
        };
        if entry.gone.is_some_and(|gone| !gone.lost) {
            // A person took it out of the archive after it was stored: it must not come back, nor wait for ever.
            return Ok(Some(receipt));
        }
        self.packs.fresh();
        self.records.fresh();
        let result = self.read_back(entry.record, &receipt);
        self.packs.cached();
        self.heal |= result.is_err();
        result.map(|()| Some(receipt))
    }
}

/// The results of `each`, in the order of `all`.
fn on_all_processors<T: Sync, R: Send>(all: &[T], each: &(dyn Fn(&T) -> R + Sync)) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let first = next.fetch_add(AT_ONCE, Ordering::Relaxed);
            let Some(rest) = all.get(first..).filter(|rest| !rest.is_empty()) else { return done };
            done.extend((first..).zip(rest.iter().take(AT_ONCE).map(each)));
        }
    };
    let processors = thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let others = processors.min(all.len().div_ceil(AT_ONCE)).saturating_sub(1);
    let mut done = thread::scope(|scope| {
        // Where no thread can be started, the others do its share.
        let start = |_| thread::Builder::new().name("read back".to_owned()).spawn_scoped(scope, work).ok();
        let started: Vec<_> = (0..others).filter_map(start).collect();
        let mut done = work();
        for thread in started {
            match thread.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{panic, sync::Mutex};

    #[test]
    fn results_keep_their_order_and_every_item_is_taken_once() {
        for count in [0, 1, AT_ONCE, AT_ONCE + 1, 257] {
            let items: Vec<usize> = (0..count).collect();
            let taken = Mutex::new(Vec::new());
            let results = on_all_processors(&items, &|item| {
                taken.lock().expect("no panic").push(*item);
                item * 2
            });
            assert_eq!(results, items.iter().map(|item| item * 2).collect::<Vec<_>>());
            let mut taken = taken.into_inner().expect("no panic");
            taken.sort_unstable();
            assert_eq!(taken, items);
        }
    }

    #[test]
    fn a_panic_is_not_a_result() {
        let items: Vec<usize> = (0..100).collect();
        let broken = |item: &usize| assert!(*item != 50, "broken");
        assert!(panic::catch_unwind(|| on_all_processors(&items, &broken)).is_err());
    }
}
