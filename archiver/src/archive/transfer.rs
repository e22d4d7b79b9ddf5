//! Moving reports from one store to another: all of them (`store merge`), or those of an owner or of before a day
//! (`store transfer`).
//!
//! In batches: written to the one store, committed, read back past the page cache and compared; only then taken out of
//! the other, by record. Killed anywhere, a report is in one store or in both, never in none; both are shown as one; said
//! again, the command goes on.

use super::{Archive, Member, ReportRef, write::Others};
use crate::{
    octets::Staging,
    store::{Bundle, Store, StoreError, StoreResult},
};
use serde::Serialize;

/// Reports of one batch at most.
const BATCH: usize = 64;
/// Octets after which a batch takes no further report.
const BATCH_OCTETS: u64 = 32 * 1024 * 1024;

/// Which reports go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// All, and the ledger entries with them.
    All,
    /// Those that appear in an owner's archive; what others have of them goes along.
    Owner(&'a str),
    /// Those collected before this moment, milliseconds since 1970-01-01 UTC.
    Before(u64),
}

/// What was moved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Reports that lie in the other store now.
    pub reports: u64,
    /// Of those, found there already: an interrupted run had written them.
    pub before: u64,
    /// Their octets.
    pub bytes: u64,
    /// Reports that stay.
    pub left: u64,
    /// Of those, reports whose messages were deleted: nothing but their records is left.
    pub deleted: u64,
    /// Why reports that should go stay: their names and the reason.
    pub problems: Vec<String>,
}

impl Archive {
    /// Moves reports from the store `from` to the store `into`. `progress` hears how many are done, of how many.
    ///
    /// # Errors
    /// [`StoreError`]; what was moved before is moved, and said again it goes on. Reports that cannot be read stay, and
    /// are told in [`Moved::problems`].
    pub fn transfer(
        &mut self,
        (from, into): (&str, &str),
        which: Which<'_>,
        staging: &Staging,
        now_ms: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> StoreResult<Moved> {
        let (from, into) = (self.place_of(from)?, self.place_of(into)?);
        if from == into {
            let name = self.members.get(from).map(|member| member.name.clone()).unwrap_or_default();
            return Err(StoreError::Refused { name, detail: "it cannot be moved into itself".to_owned() });
        }
        // Both must take records.
        self.store_mut(from)?;
        self.store_mut(into)?;
        if which == Which::All {
            self.take_ledger(from, into)?;
        }
        let (mut moved, mut batch, mut octets) = (Moved::default(), Vec::new(), 0);
        let all: Vec<ReportRef> = self.all_reports()?.into_iter().filter(|report| report.member == from).collect();
        let total = all.len() as u64;
        for (done, report) in (1..).zip(all) {
            match self.wanted(report, which) {
                Ok(true) if self.store(from)?.is_given_up(report.number)? => {
                    moved.left += 1;
                    moved.deleted += 1;
                    continue;
                }
                Ok(true) => {}
                Ok(false) => {
                    moved.left += 1;
                    continue;
                }
                Err(error) => {
                    moved.stays(&format!("record {}", report.number), &error);
                    continue;
                }
            }
            match self.store(from)?.bundle(report.number) {
                Ok(bundle) => {
                    octets += bundle.size();
                    batch.push(bundle);
                }
                Err(error) => moved.stays(&format!("record {}", report.number), &error),
            }
            if batch.len() >= BATCH || octets >= BATCH_OCTETS {
                self.move_batch((from, into), std::mem::take(&mut batch), staging, now_ms, &mut moved)?;
                octets = 0;
                progress(done, total);
            }
        }
        self.move_batch((from, into), batch, staging, now_ms, &mut moved)?;
        progress(total, total);
        Ok(moved)
    }

    fn place_of(&self, name: &str) -> StoreResult<usize> {
        let at = self.members.iter().position(|member| member.name == name);
        at.ok_or_else(|| StoreError::NoSuchStore(name.to_owned()))
    }

    fn wanted(&self, report: ReportRef, which: Which<'_>) -> StoreResult<bool> {
        Ok(match which {
            Which::All => true,
            Which::Owner(owner) => self.filed(report)?.instances.iter().any(|(instance, ..)| instance.owner == owner),
            Which::Before(moment) => self.filed(report)?.collected_ms < moment,
        })
    }

    /// Two stores to write to, and the ones beside them.
    fn pair(&mut self, from: usize, into: usize) -> StoreResult<(&mut Store, &mut Store, Others<'_>)> {
        let family = self.store(into)?.family();
        let (mut source, mut target, mut others) = (None, None, Vec::new());
        for (at, member) in self.members.iter_mut().enumerate() {
            if at == from {
                source = Some(&mut member.store);
            } else if at == into {
                target = Some(&mut member.store);
            } else {
                others.push(&*member);
            }
        }
        let members: Vec<&Member> = others;
        match (source, target) {
            (Some(source), Some(target)) => Ok((source, target, Others { family, members })),
            _ => Err(StoreError::CatalogDamaged),
        }
    }

    /// What gateways signed is kept where their reports are.
    fn take_ledger(&mut self, from: usize, into: usize) -> StoreResult<()> {
        let (source, target, _) = self.pair(from, into)?;
        source.ledger_records(&mut |name, host, entries| target.add_ledger(name, host, &entries))?;
        let _ = target.commit()?;
        Ok(())
    }

    fn move_batch(
        &mut self,
        (from, into): (usize, usize),
        batch: Vec<Bundle>,
        staging: &Staging,
        now_ms: u64,
        moved: &mut Moved,
    ) -> StoreResult<()> {
        let (source, target, others) = self.pair(from, into)?;
        let mut written = Vec::new();
        for bundle in batch {
            let (name, mailbox, uidl) = bundle.name();
            let before = target.is_collected(name, mailbox, uidl)?;
            let other = before.as_ref().is_some_and(|before| before.raw_sha256.0 != bundle.report.raw.sha256.0);
            if other {
                let text = "another report has this name there; both stay where they are";
                moved.stays(&format!("{name} {uidl}"), &text);
                continue;
            }
            match target.take_over(source, &bundle, staging, &others) {
                Ok(()) => written.push((bundle, before.is_some())),
                // The report's fault or its store's: nothing of it was recorded.
                Err(error) if error.is_input() || error.is_damage() && target.is_sound() => {
                    moved.stays(&format!("{name} {uidl}"), &error);
                }
                Err(error) => return Err(error),
            }
        }
        let commit = target.commit()?;
        for (uidl, error) in &commit.failures {
            moved.stays(uidl, error);
        }
        let to = target.id();
        for (bundle, before) in written {
            let (name, _, uidl) = bundle.name();
            match target.has_whole(&bundle, source) {
                Ok(true) => {}
                Ok(false) => {
                    moved.stays(&format!("{name} {uidl}"), &"it is not whole in the other store");
                    continue;
                }
                Err(error) => {
                    moved.stays(&format!("{name} {uidl}"), &error);
                    continue;
                }
            }
            source.give_away(&bundle, to, now_ms)?;
            moved.reports += 1;
            moved.before += u64::from(before);
            moved.bytes += bundle.report.raw.size;
        }
        let _ = source.commit()?;
        Ok(())
    }
}

impl Moved {
    fn stays(&mut self, name: &str, why: &dyn std::fmt::Display) {
        self.left += 1;
        self.problems.push(format!("{name}: {why}"));
    }
}
