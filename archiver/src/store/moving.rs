//! A report on its way from one store to another: with its messages, and with all that was decided about it.
//!
//! First everything is written to the store it goes to (chunks, then records, as for new mail), committed and read back;
//! then the store it came from records `moved`. In between both have it, and readers show it once. Ids and identities
//! are those of the store it goes to; the old ids go on naming the messages. Not here: which reports (`archive::transfer`).

use super::{
    Store, StoreError, StoreReceipt, StoreResult,
    add::Waiting,
    beside::Elsewhere,
    catalog::{Space, View, key},
    entry::{
        AlternateRecord, Appearance as Place, FilingRecord, InstanceRecord, LedgerRecord, MessageRecord, MovedRecord,
        Record, ReportRecord, Summary, decode_entry,
    },
    header::summarise,
    index::{InstanceEntry, is_stored, owner_key, part_name, place_key, report_key, source_key},
    recipe::{ChunkRef, Hex, Part, Piece, Recipe},
    records::Head,
    write::Writer,
};
use crate::{
    filing::{CATCH_ALL, Instance},
    octets::Staging,
};
use data_encoding::HEXLOWER;
use postkeep_shared::{mail::Digest, receipt::Entry};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

/// A report with everything that belongs to it.
pub(crate) struct Bundle {
    number: u64,
    pub(crate) report: ReportRecord,
    filings: Vec<FilingRecord>,
    messages: BTreeMap<[u8; 16], MessageRecord>,
    /// Appearances that are counted for another report, here or in another store.
    later: BTreeSet<Place>,
}

impl Bundle {
    /// Octets that are written at most.
    pub(crate) fn size(&self) -> u64 {
        self.report.raw.size + self.messages.values().map(|message| message.summary.size).sum::<u64>()
    }

    /// Source, mailbox and name.
    pub(crate) fn name(&self) -> (&str, Option<&str>, &str) {
        (&self.report.source, self.report.mailbox.as_deref(), &self.report.uidl)
    }
}

/// Is handed source, host and entries.
pub(crate) type EachLedger<'a> = dyn FnMut(&str, &str, Vec<Entry>) -> StoreResult<()> + 'a;

/// Appearances, each with the claim to be counted: the smallest has it.
type Brought = BTreeMap<Place, (bool, u64)>;

/// Ids and summaries in the other store, by the ids here.
type Named = BTreeMap<[u8; 16], Summary>;

impl Store {
    /// The store.
    pub(crate) fn id(&self) -> [u8; 16] {
        self.keys.id
    }

    /// Everything that belongs to the report of record `number`.
    pub(crate) fn bundle(&self, number: u64) -> StoreResult<Bundle> {
        let mut report = self.report(number)?;
        let mut filings = self.filings(&report.source, report.mailbox.as_deref(), &report.uidl)?;
        let identity = self.filed(number)?.message.map(|message| message.identity.0);
        self.keep_appearances(&mut report.instances, identity)?;
        for filing in &mut filings {
            self.keep_appearances(&mut filing.instances, identity)?;
        }
        let mut wanted: BTreeSet<[u8; 16]> = pieces(&report.raw.recipe).collect();
        wanted.extend(report.message.iter().map(|message| message.id.0));
        wanted.extend(report.alternates.iter().map(|alternate| alternate.message.0));
        for filing in &filings {
            wanted.extend(filing.message.iter().map(|message| message.id.0));
            wanted.extend(filing.alternates.iter().map(|alternate| alternate.message.0));
        }
        let mut messages = BTreeMap::new();
        while let Some(id) = wanted.pop_first() {
            let entry = self.message_entry(&HEXLOWER.encode(&id))?;
            let record = self.record(entry.record)?;
            let message = record.messages().get(entry.slot).filter(|message| message.summary.id.0 == id);
            let message = message.ok_or(StoreError::CatalogDamaged)?.clone();
            wanted.extend(pieces(&message.recipe).filter(|id| !messages.contains_key(id)));
            messages.insert(id, message);
        }
        let mut bundle = Bundle { number, report, filings, messages, later: BTreeSet::new() };
        if let Some(message) = self.filed(number)?.message {
            let others = self.brought_by_others(number, &message.identity.0)?;
            for (place, mine) in self.brought(number)? {
                let counted_elsewhere = self.is_known(&place, &message.identity.0)?;
                if counted_elsewhere || others.get(&place).is_some_and(|other| *other < mine) {
                    bundle.later.insert(place);
                }
            }
        }
        Ok(bundle)
    }

    /// What somebody deleted here does not come up again elsewhere. The catch-all archive is left by a record of its own.
    fn keep_appearances(&self, instances: &mut Vec<InstanceRecord>, identity: Option<[u8; 16]>) -> StoreResult<()> {
        let Some(identity) = identity else { return Ok(()) };
        let mut kept = Vec::new();
        for instance in instances.drain(..) {
            if instance.owner == CATCH_ALL || self.appears(&instance.owner, &instance.folder, &identity)? {
                kept.push(instance);
            }
        }
        *instances = kept;
        Ok(())
    }

    /// Whether a report's octets were given up here: everything it brought was deleted.
    pub(crate) fn is_given_up(&self, number: u64) -> StoreResult<bool> {
        let report = self.report(number)?;
        let collected = self.collected_entry(&report.source, report.mailbox.as_deref(), &report.uidl)?;
        Ok(collected.and_then(|entry| entry.gone).is_some_and(|gone| !gone.lost))
    }

    /// Whether another store counts an appearance that is here too.
    fn is_known(&self, place: &Place, identity: &[u8; 16]) -> StoreResult<bool> {
        let key = place_key(&self.keys, &place.owner, &place.folder, identity);
        let entry: Option<InstanceEntry> =
            self.value(Space::Instances, &[&owner_key(&self.keys, &place.owner), &key])?;
        Ok(entry.is_some_and(|entry| entry.known))
    }

    /// Appearances that a report brought, each with whether another store had it, and the first record that says so.
    fn brought(&self, number: u64) -> StoreResult<Brought> {
        let report = self.report(number)?;
        let mut found = Brought::new();
        let mut add = |instance: &InstanceRecord, at: u64| {
            let claim = found.entry(Place::from(instance)).or_insert((instance.known, at));
            *claim = (*claim).min((instance.known, at));
        };
        report.instances.iter().for_each(|instance| add(instance, number));
        for (at, filing) in self.numbered_filings(&report.source, report.mailbox.as_deref(), &report.uidl)? {
            filing.instances.iter().for_each(|instance| add(instance, at));
        }
        Ok(found)
    }

    /// The same of every other report of a message that is still here.
    fn brought_by_others(&self, number: u64, identity: &[u8; 16]) -> StoreResult<Brought> {
        let mut found = Brought::new();
        for other in self.numbers_of(identity)?.into_iter().filter(|other| *other != number) {
            if !self.is_here(&self.report(other)?)? {
                continue;
            }
            if self.filed(other)?.message.is_some_and(|message| message.identity.0 == *identity) {
                for (place, claim) in self.brought(other)? {
                    let first = found.entry(place).or_insert(claim);
                    *first = claim.min(*first);
                }
            }
        }
        Ok(found)
    }

    /// Writes what is not here yet of a report that `from` holds; durable with the next commit. `others` are the stores
    /// beside the two.
    pub(crate) fn take_over(
        &mut self,
        from: &Store,
        bundle: &Bundle,
        staging: &Staging,
        others: &dyn Elsewhere,
    ) -> StoreResult<()> {
        self.check_writable()?;
        let result = self.take_bundle(from, bundle, staging, others);
        match result {
            // What cannot be read there was not begun to be written here: records come last.
            Err(error) if error.is_damage() => Err(error),
            other => self.fail_on(other),
        }
    }

    fn take_bundle(
        &mut self,
        from: &Store,
        bundle: &Bundle,
        staging: &Staging,
        others: &dyn Elsewhere,
    ) -> StoreResult<()> {
        let named = self.names(from, bundle, staging)?;
        let (source, mailbox, uidl) = bundle.name();
        let known = |instances: &[InstanceRecord], message: Option<&Summary>| {
            let one = |instance: &InstanceRecord| {
                let mut instance = instance.clone();
                // Within a family it was noted when it was filed; but the other report may stay behind.
                instance.known |= bundle.later.contains(&Place::from(&instance));
                if let (Some(message), true) = (message, from.family() != self.family()) {
                    instance.known = instance.known || others.appears(message, &Instance::from(&instance))?;
                }
                Ok(instance)
            };
            instances.iter().map(one).collect::<StoreResult<Vec<_>>>()
        };
        let mapped =
            |message: &Option<Summary>| message.as_ref().map(|message| new_name(&named, message.id)).transpose();
        let there = self.collected_entry(source, mailbox, uidl)?.is_some();
        let mut records = Vec::new();
        if !there {
            let message = mapped(&bundle.report.message)?;
            let instances = known(&bundle.report.instances, message.as_ref())?;
            let alternates = renamed(&named, &bundle.report.alternates)?;
            records.push(Record::Report(Box::new(ReportRecord {
                message,
                instances,
                alternates,
                messages: Vec::new(),
                ..bundle.report.clone()
            })));
        }
        // One write may have been cut off between the report and what was decided about it.
        let before = self.filings(source, mailbox, uidl)?.len();
        for filing in bundle.filings.iter().skip(before) {
            let message = mapped(&filing.message)?;
            let instances = known(&filing.instances, message.as_ref())?;
            let alternates = renamed(&named, &filing.alternates)?;
            let filing = FilingRecord { message, instances, alternates, messages: Vec::new(), ..filing.clone() };
            records.push(Record::Filing(Box::new(filing)));
        }
        let mut messages = self.take_messages(from, bundle, &named)?;
        if let Some(Record::Report(report)) = records.first_mut() {
            report.raw.recipe = self.take_recipe(from, &bundle.report.raw.recipe, &named)?;
            report.messages = std::mem::take(&mut messages);
        } else if let Some(Record::Filing(filing)) = records.first_mut() {
            filing.messages = std::mem::take(&mut messages);
        }
        let mut number = None;
        for record in &records {
            let (at, _) = self.put_record(record)?;
            number = number.or(matches!(record, Record::Report(_)).then_some(at));
        }
        if let Some(number) = number {
            let raw = &bundle.report.raw;
            let receipt = StoreReceipt {
                source: source.to_owned(),
                mailbox: mailbox.map(str::to_owned),
                uidl: uidl.to_owned(),
                raw_sha256: Digest(raw.sha256.0),
                size: raw.size,
                outcome: bundle.report.outcome,
            };
            self.pending.push(Waiting { receipt, number });
            self.uncommitted += raw.size;
        }
        Ok(())
    }

    /// What the messages are called here. A store of the same family calls them the same.
    fn names(&self, from: &Store, bundle: &Bundle, staging: &Staging) -> StoreResult<Named> {
        let mut named = Named::new();
        for (id, message) in &bundle.messages {
            let summary = if from.family() == self.family() {
                message.summary.clone()
            } else {
                let mut out = Into(staging.begin());
                from.read_message(&HEXLOWER.encode(id), &mut out)?;
                summarise(&self.keys, &out.0.finish()?)?
            };
            named.insert(*id, summary);
        }
        Ok(named)
    }

    /// The messages that are not here yet, their chunks written.
    fn take_messages(&mut self, from: &Store, bundle: &Bundle, named: &Named) -> StoreResult<Vec<MessageRecord>> {
        let mut taken = Vec::new();
        for (id, message) in &bundle.messages {
            let summary = new_name(named, Hex(*id))?;
            let view = View { catalog: &*self.catalog, batch: &mut self.batch, keys: &self.keys };
            if is_stored(&view, &summary.id.0)? && !self.heal {
                continue;
            }
            let recipe = self.take_recipe(from, &message.recipe, named)?;
            let was = (summary.id.0 != *id).then_some(Hex(*id));
            taken.push(MessageRecord { summary, recipe, was });
        }
        Ok(taken)
    }

    fn take_recipe(&mut self, from: &Store, recipe: &Recipe, named: &Named) -> StoreResult<Recipe> {
        let glue = self.take_chunks(from, &recipe.glue)?;
        let mut parts = Vec::new();
        for part in &recipe.parts {
            parts.push(Part { chunks: self.take_chunks(from, &part.chunks)?, b64: part.b64 });
        }
        let piece = |piece: &Piece| match piece {
            Piece::Message(id) => Ok(Piece::Message(new_name(named, *id)?.id)),
            other => Ok(*other),
        };
        Ok(Recipe { glue, parts, pieces: recipe.pieces.iter().map(piece).collect::<StoreResult<_>>()? })
    }

    /// Reading checks each chunk against its name; writing gives it the name it has here.
    fn take_chunks(&mut self, from: &Store, chunks: &[ChunkRef]) -> StoreResult<Vec<ChunkRef>> {
        let same = from.family() == self.family();
        let mut taken = Vec::new();
        for chunk in chunks {
            let mut view = View { catalog: &*self.catalog, batch: &mut self.batch, keys: &self.keys };
            let heal = self.heal;
            let mut writer = Writer { view: &mut view, packs: &mut self.packs, heal, limited: false };
            if same && writer.known(chunk.id())? {
                taken.push(*chunk);
                continue;
            }
            taken.push(writer.chunk(&from.chunk(chunk)?)?);
        }
        Ok(taken)
    }

    /// Whether the store that a report was taken over by has all of it, read back past the page cache.
    pub(crate) fn has_whole(&mut self, bundle: &Bundle, from: &Store) -> StoreResult<bool> {
        let (source, mailbox, uidl) = bundle.name();
        let Some(receipt) = self.confirm(source, mailbox, uidl)? else { return Ok(false) };
        if receipt.raw_sha256().0 != bundle.report.raw.sha256.0
            || self.filings(source, mailbox, uidl)?.len() < bundle.filings.len()
        {
            return Ok(false);
        }
        self.packs.fresh();
        self.records.fresh();
        let whole = bundle.messages.values().try_for_each(|message| {
            let id = match from.family() == self.family() {
                true => HEXLOWER.encode(&message.summary.id.0),
                false => self.id_of(&message.summary.sha256.0),
            };
            self.read_message(&id, &mut io::sink())
        });
        self.packs.cached();
        whole.map(|()| true)
    }

    /// Records that a report lies in the store `to` now, and takes it out of the catalog; durable with the next commit.
    pub(crate) fn give_away(&mut self, bundle: &Bundle, to: [u8; 16], moved_ms: u64) -> StoreResult<()> {
        self.check_writable()?;
        let record = self.moved_record(bundle, to, moved_ms)?;
        let put = self.put_record(&Record::Moved(Box::new(record)));
        self.fail_on(put).map(drop)
    }

    /// What goes with the report: worked out here, so that the catalog needs nothing else to follow.
    fn moved_record(&self, bundle: &Bundle, to: [u8; 16], moved_ms: u64) -> StoreResult<MovedRecord> {
        let filed = self.filed(bundle.number)?;
        let (source, mailbox, uidl) = bundle.name();
        let mut identities: BTreeSet<[u8; 16]> = filed.message.iter().map(|message| message.identity.0).collect();
        identities.extend(bundle.messages.values().map(|message| message.summary.identity.0));
        let mut others = Vec::new();
        for identity in &identities {
            for number in self.numbers_of(identity)?.into_iter().filter(|number| *number != bundle.number) {
                let other = self.report(number)?;
                // Those of this very batch are still in the catalog.
                if self.is_here(&other)? {
                    others.push((number, other));
                }
            }
        }
        let (mut places, mut kept) = (BTreeSet::new(), BTreeSet::new());
        if let Some(message) = &filed.message {
            let mine: BTreeSet<Place> = filed.instances.iter().map(|(instance, ..)| Place::from(instance)).collect();
            let staying = self.brought_by_others(bundle.number, &message.identity.0)?;
            let name = [source_key(&self.keys, source), report_key(&self.keys, mailbox, uidl)].concat();
            let waits = |key: &[u8]| !key.ends_with(&name);
            let mut nobody = false;
            for pair in self.catalog.prefix(&key(Space::CatchAll, &[&message.identity.0])) {
                let key = pair?.0;
                nobody |= waits(&key) && !matches!(self.batch.get(&key), Some(None));
            }
            let stays = |place: &Place| if place.owner == CATCH_ALL { nobody } else { staying.contains_key(place) };
            let (stay, go): (BTreeSet<Place>, _) = mine.into_iter().partition(stays);
            // What this report brought first is counted where it goes.
            kept.extend(stay.into_iter().filter(|place| !bundle.later.contains(place)));
            places = go;
        }
        let mut needed: BTreeSet<[u8; 16]> = BTreeSet::new();
        for (number, other) in &others {
            needed.extend(pieces(&other.raw.recipe));
            let other = self.filed(*number)?;
            needed.extend(other.message.iter().map(|message| message.id.0));
            needed.extend(other.alternates.iter().map(|alternate| alternate.message.0));
        }
        let messages: Vec<Hex<16>> =
            bundle.messages.keys().filter(|id| !needed.contains(*id)).map(|id| Hex(*id)).collect();
        let gone = messages.iter().filter_map(|id| bundle.messages.get(&id.0)).map(|message| &message.recipe);
        let recipes = std::iter::once(&bundle.report.raw.recipe).chain(gone);
        let parts: Vec<[u8; 16]> =
            recipes.flat_map(|recipe| &recipe.parts).map(|part| part_name(&self.keys, part)).collect();
        let unowned: BTreeSet<&String> =
            bundle.report.unowned.iter().chain(bundle.filings.iter().flat_map(|filing| &filing.unowned)).collect();
        Ok(MovedRecord {
            source: source.to_owned(),
            mailbox: mailbox.map(str::to_owned),
            uidl: uidl.to_owned(),
            moved_ms,
            to: Hex(to),
            size: bundle.report.raw.size,
            identities: identities.into_iter().map(Hex).collect(),
            appearance_of: filed.message.map(|message| message.identity),
            places: places.into_iter().collect(),
            kept: kept.into_iter().collect(),
            messages,
            parts: parts.into_iter().map(Hex).collect(),
            unowned: unowned.into_iter().cloned().collect(),
        })
    }

    /// Whether a message lies in another store now: its record stays, its octets are not needed here any more.
    pub(super) fn is_moved_message(&self, id: &[u8; 16]) -> StoreResult<bool> {
        let moved = self.clear_value(Space::Moved, &[id])?.is_some();
        Ok(moved && self.clear_value(Space::Messages, &[id])?.is_none())
    }

    /// The same of a report.
    pub(super) fn is_moved_report(&self, source: &str, mailbox: Option<&str>, uidl: &str) -> StoreResult<bool> {
        let name = (source_key(&self.keys, source), report_key(&self.keys, mailbox, uidl));
        let moved = self.clear_value(Space::Moved, &[&name.0, &name.1])?.is_some();
        Ok(moved && self.collected_entry(source, mailbox, uidl)?.is_none())
    }

    /// Whether a report is in this store still, what waits for the commit included.
    fn is_here(&self, report: &ReportRecord) -> StoreResult<bool> {
        let (source, name) =
            (source_key(&self.keys, &report.source), report_key(&self.keys, report.mailbox.as_deref(), &report.uidl));
        Ok(match self.batch.get(&key(Space::Collected, &[&source, &name])) {
            Some(change) => change.is_some(),
            None => self.clear_value(Space::Collected, &[&source, &name])?.is_some(),
        })
    }

    /// Every record with ledger entries: source, host and entries.
    pub(crate) fn ledger_records(&self, each: &mut EachLedger<'_>) -> StoreResult<()> {
        let read = self.records.read_on(Head::default(), &mut |read| match read.record {
            Record::Ledger(LedgerRecord { source, host, entries }) => {
                each(&source, &host, entries.iter().filter_map(|text| decode_entry(text)).collect())
            }
            _ => Ok(()),
        });
        read.map(drop)
    }

    /// What a message that came from another store is called here, by its id there.
    pub(crate) fn alias(&self, id: &str) -> StoreResult<Option<String>> {
        let Some(octets) = HEXLOWER.decode(id.as_bytes()).ok().filter(|octets| octets.len() == 16) else {
            return Ok(None);
        };
        let found = self.clear_value(Space::Alias, &[&octets])?;
        Ok(found.map(|octets| HEXLOWER.encode(&octets)))
    }
}

fn pieces(recipe: &Recipe) -> impl Iterator<Item = [u8; 16]> {
    recipe.pieces.iter().filter_map(|piece| match piece {
        Piece::Message(id) => Some(id.0),
        _ => None,
    })
}

fn new_name(named: &Named, id: Hex<16>) -> StoreResult<Summary> {
    named.get(&id.0).cloned().ok_or(StoreError::CatalogDamaged)
}

fn renamed(named: &Named, alternates: &[AlternateRecord]) -> StoreResult<Vec<AlternateRecord>> {
    let one = |alternate: &AlternateRecord| {
        Ok(AlternateRecord { role: alternate.role, message: new_name(named, alternate.message)?.id })
    };
    alternates.iter().map(one).collect()
}

struct Into(crate::octets::Stager);

impl Write for Into {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.write(octets)?;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
