//! Questions to all stores at once.

use super::{Archive, ReportRef};
use crate::store::{
    Appearance, Collected, Examined, Filed, Held, HeldKey, Listed, Outcome, OwnerStats, Stats, StoreError, StoreResult,
    Unowned, entry::Summary,
};
use data_encoding::HEXLOWER;
use postkeep_shared::receipt::{Entry, NodeKey};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet, btree_map},
    io::Write,
};

/// Family of the store, and what is the same there for the same appearance.
type Key = ([u8; 16], [u8; 16]);

/// An appearance, and where it lies.
struct Placed {
    date: Option<i64>,
    id: String,
    member: usize,
    place: [u8; 16],
}

impl Archive {
    /// As [`crate::store::Store::is_collected`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_collected(&self, source: &str, mailbox: Option<&str>, uidl: &str) -> StoreResult<Option<Collected>> {
        Ok(self.collected_in(source, mailbox, uidl)?.map(|(_, collected)| collected))
    }

    pub(super) fn collected_in(
        &self,
        source: &str,
        mailbox: Option<&str>,
        uidl: &str,
    ) -> StoreResult<Option<(usize, Collected)>> {
        for (at, member) in self.ordered() {
            if let Some(collected) = member.store.is_collected(source, mailbox, uidl)? {
                return Ok(Some((at, collected)));
            }
        }
        Ok(None)
    }

    /// Whether a store that is asked before the one at `at` has this report too.
    fn is_shadowed(&self, at: usize, source: &str, mailbox: Option<&str>, uidl: &str) -> StoreResult<bool> {
        for (_, member) in self.ordered().take_while(|(other, _)| *other != at) {
            if member.store.is_collected(source, mailbox, uidl)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every report collected from a source, in no order.
    pub fn collected<'a>(&'a self, source: &'a str) -> impl Iterator<Item = StoreResult<Collected>> + use<'a> {
        self.ordered().flat_map(move |(at, member)| {
            member.store.collected(source).filter_map(move |one| {
                let one = match one {
                    Ok(one) => one,
                    Err(error) => return Some(Err(error)),
                };
                match self.is_shadowed(at, &one.source, one.mailbox.as_deref(), &one.uidl) {
                    Ok(shadowed) => (!shadowed).then_some(Ok(one)),
                    Err(error) => Some(Err(error)),
                }
            })
        })
    }

    /// Every ledger entry kept for a source; those of one node and mailbox in the order of their numbers within each
    /// store.
    pub fn ledger_entries<'a>(&'a self, source: &'a str) -> impl Iterator<Item = StoreResult<Entry>> + use<'a> {
        self.ordered().flat_map(move |(at, member)| {
            member.store.ledger_entries(source).filter_map(move |entry| {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => return Some(Err(error)),
                };
                let mut before = self.ordered().take_while(|(other, _)| *other != at);
                let known = before.try_fold(false, |known, (_, member)| {
                    Ok::<_, StoreError>(known || member.store.has_ledger_entry(source, &entry)?)
                });
                match known {
                    Ok(known) => (!known).then_some(Ok(entry)),
                    Err(error) => Some(Err(error)),
                }
            })
        })
    }

    /// The highest ledger entry kept of a node's mailbox.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last_ledger_entry(&self, source: &str, mailbox: &str, node: &NodeKey) -> StoreResult<Option<Entry>> {
        let mut last: Option<Entry> = None;
        for (_, member) in self.ordered() {
            let one = member.store.last_ledger_entry(source, mailbox, node)?;
            let higher = |one: &Entry| last.as_ref().is_none_or(|last| one.body.seq > last.body.seq);
            if let Some(one) = one.filter(higher) {
                last = Some(one);
            }
        }
        Ok(last)
    }

    /// As [`crate::store::Store::list`]: every appearance once, whichever stores know it.
    ///
    /// # Errors
    /// [`StoreError`], and what `each` gives.
    pub fn list(
        &self,
        owner: &str,
        folder: Option<&str>,
        each: &mut dyn FnMut(Listed) -> StoreResult<()>,
    ) -> StoreResult<()> {
        if let [member] = self.members.as_slice() {
            return member.store.list(owner, folder, each);
        }
        let mut order = self.appearances(owner, folder)?;
        order.sort_unstable_by(|a, b| (a.date, &a.id, &a.place).cmp(&(b.date, &b.id, &b.place)));
        for one in order {
            if let Some(listed) = self.store(one.member)?.listed(owner, &one.place)? {
                each(listed)?;
            }
        }
        Ok(())
    }

    /// Each appearance once: from the store that had it first.
    fn appearances(&self, owner: &str, folder: Option<&str>) -> StoreResult<Vec<Placed>> {
        // Stores of a family give an appearance the same key; in others only the same octets are the same message.
        let mut by_key: BTreeMap<Key, (bool, usize, Appearance)> = BTreeMap::new();
        for (at, member) in self.members.iter().enumerate() {
            let family = member.store.family();
            member.store.appearances(owner, folder, &mut |one| {
                let key = (family, one.place);
                match by_key.get(&key) {
                    Some((false, ..)) => {}
                    Some(_) if one.known => {}
                    _ => drop(by_key.insert(key, (one.known, at, one))),
                }
                Ok(())
            })?;
        }
        let families: BTreeSet<_> = self.members.iter().map(|member| member.store.family()).collect();
        let mut seen = HashSet::new();
        let mut kept: Vec<_> = by_key.into_values().collect();
        if families.len() > 1 {
            kept.sort_by_key(|(known, at, _)| (*known, *at));
            kept.retain(|(_, _, one)| seen.insert(one.exact));
        }
        let placed = |(_, member, one): (bool, usize, Appearance)| {
            let Appearance { date, id, place, .. } = one;
            Placed { date, id, member, place }
        };
        Ok(kept.into_iter().map(placed).collect())
    }

    /// Every owner who has at least one appearance, sorted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn owners(&self) -> StoreResult<Vec<String>> {
        let mut owners = BTreeSet::new();
        for member in &self.members {
            owners.extend(member.store.owners()?);
        }
        Ok(owners.into_iter().collect())
    }

    /// Where a message is: by its id in any store, or by the SHA-256 of its octets.
    pub(super) fn find(&self, id: &str) -> StoreResult<(usize, Summary)> {
        let sha256 = HEXLOWER.decode(id.as_bytes()).ok().and_then(|octets| <[u8; 32]>::try_from(octets).ok());
        for (at, member) in self.ordered() {
            let named = sha256.map(|sha256| member.store.id_of(&sha256));
            match member.store.summary(named.as_deref().unwrap_or(id)) {
                Err(StoreError::NoSuchMessage(_)) => {}
                other => return Ok((at, other?)),
            }
        }
        // What a message was called in a store that it came from.
        for (at, member) in self.ordered() {
            if let Some(id) = member.store.alias(id)? {
                return Ok((at, member.store.summary(&id)?));
            }
        }
        for (_, member) in self.ordered() {
            let named = sha256.map(|sha256| member.store.id_of(&sha256));
            match member.store.absence(named.as_deref().unwrap_or(id))? {
                StoreError::NoSuchMessage(_) => {}
                deleted => return Err(deleted),
            }
        }
        Err(StoreError::NoSuchMessage(id.chars().take(64).collect()))
    }

    /// Octets of all catalogs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn catalog_bytes(&self) -> StoreResult<u64> {
        self.members.iter().map(|member| member.store.catalog_bytes()).sum()
    }

    /// Numbers of every owner's archive, sorted by name: those of all stores together.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn owner_stats(&self) -> StoreResult<Vec<OwnerStats>> {
        let mut all: BTreeMap<String, OwnerStats> = BTreeMap::new();
        for member in &self.members {
            for one in member.store.owner_stats()? {
                let sum = all
                    .entry(one.owner.clone())
                    .or_insert_with(|| OwnerStats { owner: one.owner.clone(), ..OwnerStats::default() });
                sum.instances += one.instances;
                sum.bytes += one.bytes;
                sum.stored_share += one.stored_share;
            }
        }
        Ok(all.into_values().collect())
    }

    /// The identity of a message in every store that has it, or another one of that identity.
    fn identities(&self, id: &str) -> StoreResult<Vec<(usize, [u8; 16])>> {
        let (home, summary) = self.find(id)?;
        let family = self.store(home)?.family();
        let mut found = Vec::new();
        for (at, member) in self.ordered() {
            if member.store.family() == family {
                found.push((at, summary.identity.0));
                continue;
            }
            match member.store.summary(&member.store.id_of(&summary.sha256.0)) {
                Err(StoreError::NoSuchMessage(_)) => {}
                other => found.push((at, other?.identity.0)),
            }
        }
        Ok(found)
    }

    /// What a listing shows of a message.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMessage`] and the others.
    pub fn summary(&self, id: &str) -> StoreResult<Summary> {
        Ok(self.find(id)?.1)
    }

    /// Writes the exact octets of a message to `out`, see [`crate::store::Store::read_message`].
    ///
    /// # Errors
    /// [`StoreError::NoSuchMessage`] and the others.
    pub fn read_message(&self, id: &str, out: &mut dyn Write) -> StoreResult<()> {
        let (at, summary) = self.find(id)?;
        self.store(at)?.read_message(&HEXLOWER.encode(&summary.id.0), out)
    }

    /// Writes the exact octets of a report.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMessage`] (naming the uidl) and the others.
    pub fn read_report(&self, source: &str, mailbox: Option<&str>, uidl: &str, out: &mut dyn Write) -> StoreResult<()> {
        let found = self.collected_in(source, mailbox, uidl)?;
        let (at, _) = found.ok_or_else(|| StoreError::NoSuchMessage(uidl.to_owned()))?;
        self.store(at)?.read_report(source, mailbox, uidl, out)
    }

    /// Every report that brought this message, or one of the same identity, in the order of their coming.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMessage`] and the others.
    pub fn envelopes(&self, id: &str) -> StoreResult<Vec<Value>> {
        let mut found = Vec::new();
        for (at, number) in self.numbers(id)? {
            found.push(self.store(at)?.envelope_at(number)?);
        }
        found.sort_by_key(|(collected_ms, _)| *collected_ms);
        Ok(found.into_iter().map(|(_, envelope)| envelope).collect())
    }

    /// The same reports, with all that was filed of them later.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMessage`] and the others.
    pub fn reports_of(&self, id: &str) -> StoreResult<Vec<Filed>> {
        let mut found = Vec::new();
        for (at, number) in self.numbers(id)? {
            found.push(self.store(at)?.filed(number)?);
        }
        found.sort_by_key(|filed| filed.collected_ms);
        Ok(found)
    }

    fn numbers(&self, id: &str) -> StoreResult<Vec<(usize, u64)>> {
        let mut numbers = Vec::new();
        for (at, identity) in self.identities(id)? {
            let store = self.store(at)?;
            for number in store.numbers_of(&identity)? {
                if self.members.len() > 1 {
                    let filed = store.filed(number)?;
                    if self.is_shadowed(at, &filed.source, filed.mailbox.as_deref(), &filed.uidl)? {
                        continue;
                    }
                }
                numbers.push((at, number));
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// A report put together and compared with everything that was promised of it.
    pub(crate) fn examine(&self, report: ReportRef) -> StoreResult<Examined> {
        self.store(report.member)?.examine(report.number)
    }

    /// A report with all that was filed of it later.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn filed(&self, report: ReportRef) -> StoreResult<Filed> {
        self.store(report.member)?.filed(report.number)
    }

    /// A report by its name, `None` when it was never collected.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn filed_named(&self, source: &str, mailbox: Option<&str>, uidl: &str) -> StoreResult<Option<Filed>> {
        match self.collected_in(source, mailbox, uidl)? {
            Some((at, _)) => self.store(at)?.filed_named(source, mailbox, uidl),
            None => Ok(None),
        }
    }

    /// Reports that nobody owns, and those with an address without owner that `wanted` says yes to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn waiting_for(&self, wanted: &dyn Fn(&str) -> bool) -> StoreResult<BTreeSet<ReportRef>> {
        let mut found = BTreeSet::new();
        for (member, one) in self.members.iter().enumerate() {
            let numbers = one.store.waiting_for(wanted)?;
            found.extend(numbers.into_iter().map(|number| ReportRef { member, number }));
        }
        Ok(found)
    }

    /// All reports.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all_reports(&self) -> StoreResult<BTreeSet<ReportRef>> {
        let mut found = BTreeSet::new();
        for (member, one) in self.members.iter().enumerate() {
            let numbers = one.store.all_reports()?;
            found.extend(numbers.into_iter().map(|number| ReportRef { member, number }));
        }
        Ok(found)
    }

    /// Every address that should have an owner and has none, sorted, with its messages.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unowned(&self) -> StoreResult<Vec<Unowned>> {
        if let [member] = self.members.as_slice() {
            return member.store.unowned();
        }
        let mut found: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
        for member in &self.members {
            for (address, entries) in member.store.unowned_entries()? {
                let messages = found.entry(address).or_default();
                for (identity, entry) in entries {
                    // Stores stand in the order of their making: the first report is in the first of them.
                    if let btree_map::Entry::Vacant(place) = messages.entry((member.store.family(), identity)) {
                        place.insert(member.store.unowned_message(&entry)?);
                    }
                }
            }
        }
        Ok(found
            .into_iter()
            .map(|(address, messages)| Unowned::of(address, messages.into_values().collect()))
            .collect())
    }

    /// How many addresses that is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unowned_count(&self) -> StoreResult<u64> {
        if let [member] = self.members.as_slice() {
            return member.store.unowned_count();
        }
        let mut addresses = HashSet::new();
        for member in &self.members {
            member.store.unowned_addresses(&mut |address| {
                addresses.insert(address);
            })?;
        }
        Ok(addresses.len() as u64)
    }

    /// Hands every report that was ever kept whole to `each`, in the order of their coming.
    ///
    /// # Errors
    /// [`StoreError`], and what `each` gives.
    pub fn held(
        &self,
        wanted: &dyn Fn(Outcome) -> bool,
        each: &mut dyn FnMut(Held) -> StoreResult<()>,
    ) -> StoreResult<()> {
        let mut found = self.held_keys(wanted)?;
        found.sort_by_key(|(at, one)| (one.entry.collected_ms, *at, one.entry.record));
        found.into_iter().try_for_each(|(at, one)| each(self.store(at)?.open_held_key(one)?))
    }

    fn held_keys(&self, wanted: &dyn Fn(Outcome) -> bool) -> StoreResult<Vec<(usize, HeldKey)>> {
        let mut found = Vec::new();
        for (at, member) in self.members.iter().enumerate() {
            for one in member.store.held_keys(wanted)? {
                let entry = &one.entry;
                if !self.is_shadowed(at, &entry.source, entry.mailbox.as_deref(), &entry.uidl)? {
                    found.push((at, one));
                }
            }
        }
        Ok(found)
    }

    /// How many dead letters and how many reports in quarantine wait for somebody.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_held(&self) -> StoreResult<(u64, u64)> {
        let held = self.held_keys(&Outcome::is_held)?;
        let dead = held.iter().filter(|(_, one)| one.entry.outcome == Outcome::DeadLetter).count();
        Ok((dead as u64, (held.len() - dead) as u64))
    }

    /// Those whose id begins with `prefix`; more than one when it is too short.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find_held(&self, prefix: &str) -> StoreResult<Vec<Held>> {
        let mut found = Vec::new();
        for (at, one) in self.held_keys(&|_| true)? {
            if one.id.starts_with(prefix) {
                found.push(self.store(at)?.open_held_key(one)?);
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

    /// Numbers of all stores together: what two stores hold is counted in both, but an appearance in the first only.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn stats(&self) -> StoreResult<Stats> {
        let mut all = Stats::default();
        for member in &self.members {
            all.add(&member.store.stats()?);
        }
        Ok(all)
    }

    /// The same without the number of chunks, which takes long to count.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn figures(&self) -> StoreResult<Stats> {
        let mut all = Stats::default();
        for member in &self.members {
            all.add(&member.store.figures()?);
        }
        Ok(all)
    }
}
