//! New mail goes to the current store, what becomes of a report to the store of the report.

use super::{Archive, Member, ReportRef};
use crate::{
    filing::Instance,
    store::{
        Commit, Deleted, Deletion, Elsewhere, NewFiling, NewReport, Pending, Store, StoreError, StoreReceipt,
        StoreResult, StoreState, Unlock, entry::Summary,
    },
};
use postkeep_shared::receipt::Entry;
use std::sync::Arc;

/// The other stores of an archive, seen from one of them.
pub(super) struct Others<'a> {
    pub(super) family: [u8; 16],
    pub(super) members: Vec<&'a Member>,
}

impl Elsewhere for Others<'_> {
    fn appears(&self, message: &Summary, instance: &Instance) -> StoreResult<bool> {
        for Member { store, .. } in &self.members {
            let identity = match store.family() == self.family {
                true => message.identity,
                false => match store.summary(&store.id_of(&message.sha256.0)) {
                    Err(StoreError::NoSuchMessage(_)) => continue,
                    other => other?.identity,
                },
            };
            if store.appears(&instance.owner, &instance.folder, &identity.0)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Archive {
    /// A store and what stands beside it.
    fn split(&mut self, at: usize) -> StoreResult<(&mut Store, Others<'_>)> {
        self.store_mut(at)?;
        let family = self.store(at)?.family();
        let place = at.min(self.members.len());
        let (before, rest) = self.members.split_at_mut(place);
        let (member, after) = rest.split_first_mut().ok_or(StoreError::NoCurrent)?;
        Ok((&mut member.store, Others { family, members: before.iter().chain(&*after).collect() }))
    }

    /// Takes a message out of an owner's archive, in every store that has it there; durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::NotThere`]; [`StoreError::WriteProtected`] before anything is changed where one of the stores is.
    pub fn delete(&mut self, deletion: &Deletion<'_>) -> StoreResult<Deleted> {
        let (home, summary) = self.find(deletion.id)?;
        let family = self.store(home)?.family();
        let mut concerned = Vec::new();
        for at in 0..self.members.len() {
            let store = self.store(at)?;
            // Stores of another family have another name for it.
            let summary = match store.family() == family {
                true => Some(summary.clone()),
                false => store.summary(&store.id_of(&summary.sha256.0)).ok(),
            };
            let Some(summary) = summary else { continue };
            if store.is_in(deletion, &summary)? {
                self.store_mut(at)?;
                concerned.push((at, summary));
            }
        }
        let mut done: Option<Deleted> = None;
        for (at, summary) in concerned {
            let Some(one) = self.store_mut(at)?.delete_summary(&summary, deletion)? else { continue };
            done = Some(match done {
                None => one,
                Some(before) => before.and(one),
            });
        }
        let (id, owner) = (deletion.id.to_owned(), deletion.owner.to_owned());
        done.ok_or(StoreError::NotThere { id, owner })
    }

    fn current(&self) -> StoreResult<usize> {
        self.current.ok_or(StoreError::NoCurrent)
    }

    /// As [`Store::add`], to the current store.
    ///
    /// # Errors
    /// [`StoreError`].
    #[expect(clippy::needless_pass_by_value, reason = "the form of Store::add")]
    pub fn add(&mut self, report: NewReport<'_>) -> StoreResult<Pending> {
        let current = self.current()?;
        let (store, others) = self.split(current)?;
        store.add_beside(&report, &others)
    }

    /// As [`Store::add_ledger`]: what another store keeps is not kept again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_ledger(&mut self, source: &str, host: &str, entries: &[Entry]) -> StoreResult<()> {
        let current = self.current()?;
        let (store, others) = self.split(current)?;
        let mut fresh = Vec::new();
        for entry in entries {
            let mut known = false;
            for member in &others.members {
                known |= member.store.has_ledger_entry(source, entry)?;
            }
            if !known {
                fresh.push(entry.clone());
            }
        }
        store.add_ledger(source, host, &fresh)
    }

    /// As [`Store::add_filing`], in the store of the report.
    ///
    /// # Errors
    /// [`StoreError::WriteProtected`]; [`StoreError`].
    pub fn add_filing(&mut self, filing: NewFiling<'_>) -> StoreResult<u64> {
        let filed = filing.filed;
        let found = self.collected_in(&filed.source, filed.mailbox.as_deref(), &filed.uidl)?;
        let (at, _) = found.ok_or_else(|| StoreError::NoSuchMessage(filed.uidl.clone()))?;
        let (store, others) = self.split(at)?;
        store.add_filing_beside(filing, &others)
    }

    /// Whether something may be recorded of this report.
    #[must_use]
    pub fn takes_filings(&self, report: ReportRef) -> bool {
        self.members.get(report.member).is_some_and(|member| member.store.is_writable())
    }

    /// Octets of reports that were added since the last commit.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> u64 {
        self.members.iter().map(|member| member.store.uncommitted_bytes()).sum()
    }

    /// As [`Store::commit`], in every store that something was added to. Afterwards the next store begins when the
    /// current one is full.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is acknowledged then, and the archive must be opened again.
    pub fn commit(&mut self) -> StoreResult<Commit> {
        let mut all = Commit::default();
        for member in self.members.iter_mut().filter(|member| member.store.has_uncommitted()) {
            let one = member.store.commit()?;
            all.pack_bytes += one.pack_bytes;
            all.record_bytes += one.record_bytes;
            all.receipts.extend(one.receipts);
            all.failures.extend(one.failures);
        }
        if let Err(error) = self.roll() {
            // What was committed is committed; the next commit tries again.
            tracing::warn!("ALARM: the next store cannot be begun, mail goes on to the full one: {error}");
        }
        Ok(all)
    }

    /// Begins the next store when the current one has as many messages as it shall have.
    fn roll(&mut self) -> StoreResult<()> {
        let Some((current, folder)) = self.current.zip(self.folder.as_ref()) else { return Ok(()) };
        let Some(member) = self.members.get(current) else { return Ok(()) };
        if member.store.message_count() < self.new_store_at {
            return Ok(());
        }
        let found = folder.begin_next(&member.name)?;
        let (disk, key) = (Arc::clone(member.store.disk()), folder.unlock_key()?);
        tracing::info!("store {} has {} messages; {} is current now", member.name, self.new_store_at, found.name);
        // It may be open already: made by hand, or by a process that was killed before it became current.
        let next = match self.members.iter().position(|member| member.name == found.name) {
            Some(at) => at,
            None => {
                let store = Store::open_within(&found.dir, &Unlock::Key(&key), disk, self.catalog_memory)?;
                self.members.push(Member { name: found.name, state: StoreState::Current, store });
                self.members.len() - 1
            }
        };
        for (at, state) in [(current, StoreState::Normal), (next, StoreState::Current)] {
            if let Some(member) = self.members.get_mut(at) {
                member.state = state;
            }
        }
        self.current = Some(next);
        Ok(())
    }

    /// As [`Store::confirm`], in the store that has the report.
    ///
    /// # Errors
    /// [`StoreError`]; on damage ([`StoreError::is_damage`]) collect it again and [`Self::add`] it again.
    pub fn confirm(&mut self, source: &str, mailbox: Option<&str>, uidl: &str) -> StoreResult<Option<StoreReceipt>> {
        match self.collected_in(source, mailbox, uidl)? {
            Some((at, _)) => {
                let member = self.members.get_mut(at).ok_or(StoreError::NoCurrent)?;
                member.store.confirm(source, mailbox, uidl)
            }
            None => Ok(None),
        }
    }
}
