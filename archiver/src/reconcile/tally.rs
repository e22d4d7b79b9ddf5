//! The arithmetic of `reconcile`. Pure.
//!
//! It is fed what gateways say (entries of ledgers, what waits) and what the store's records say (reports with their
//! receipts, decisions about them, ledger entries), in any order and as often as anybody likes, and knows 8 octets per
//! number of a ledger. Names of messages are looked up afterwards, for the few that do not add up.

use super::{
    numbers::Numbers,
    row::{Counts, Day, Fate, Row},
    slots::{Fact, Slot, Slots},
};
use crate::store::Outcome;
use postkeep_shared::{
    mail::{Digest, Uidl},
    receipt::{Entry, Event, NodeKey},
};
use std::collections::{BTreeMap, HashMap, HashSet};
use time::OffsetDateTime;

/// Sentences about one ledger; the rest is counted.
const MAX_SAID: usize = 20;

/// A ledger entry, as much of it as the arithmetic needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// What happened.
    pub(super) event: Event,
    /// Its number.
    pub(super) seq: u64,
    /// The entry that brought the message in, or the one it was accepted with elsewhere.
    pub(super) refers_to: u64,
    /// When.
    pub(super) time_ms: u64,
    /// The message.
    pub(super) uidl: Uidl,
    /// The entry's hash.
    pub(super) hash: Digest,
    /// Of a message that was moved in: hash of the entry it was accepted with.
    pub(super) origin: Option<Box<Digest>>,
}

impl From<&Entry> for Seen {
    fn from(entry: &Entry) -> Self {
        let body = &entry.body;
        Self {
            event: body.event,
            seq: body.seq,
            refers_to: body.refers_to,
            time_ms: body.time_ms,
            uidl: body.uidl,
            hash: entry.hash(),
            origin: (body.event == Event::MovedIn).then(|| Box::new(body.digest)),
        }
    }
}

/// One node's ledger.
#[derive(Debug, Default)]
struct Ledger {
    slots: Slots,
    /// The last entry that the store keeps, for the chain.
    kept: Option<Entry>,
    /// The last one up to which it keeps all.
    solid: Option<Entry>,
    highest: u64,
    hosts: Vec<String>,
    said: Vec<String>,
    unsaid: u64,
}

impl Ledger {
    fn say(&mut self, text: String) {
        if self.said.len() < MAX_SAID { self.said.push(text) } else { self.unsaid += 1 }
    }
}

/// A message that came from another node.
#[derive(Debug)]
struct Moved {
    receipt: Digest,
    refers_to: u64,
    node: NodeKey,
    seq: u64,
}

/// Adds up one source with one mailbox of gateways.
#[derive(Debug)]
pub(super) struct Tally {
    source: String,
    mailbox: String,
    ledgers: BTreeMap<NodeKey, Ledger>,
    /// What waits, and whether a ledger knows it.
    waiting: HashMap<Uidl, bool>,
    /// What waits under names that no gateway gives.
    strange: u64,
    moved: Vec<Moved>,
    /// Reports that are not simply filed: a later decision may change that.
    undecided: HashMap<Uidl, (NodeKey, u64)>,
    /// Reports that are in the store without a receipt that holds.
    bare: HashMap<Uidl, Outcome>,
    unasked: bool,
    /// Numbers beyond these came after the question was asked.
    until: BTreeMap<NodeKey, u64>,
}

impl Tally {
    /// Nothing known yet.
    #[must_use]
    pub(super) fn new(source: &str, mailbox: &str) -> Self {
        Self {
            source: source.to_owned(),
            mailbox: mailbox.to_owned(),
            ledgers: BTreeMap::new(),
            waiting: HashMap::new(),
            strange: 0,
            moved: Vec::new(),
            undecided: HashMap::new(),
            bare: HashMap::new(),
            unasked: false,
            until: BTreeMap::new(),
        }
    }

    /// Leaves out what came to these nodes behind these numbers.
    pub(super) fn until(&mut self, until: BTreeMap<NodeKey, u64>) {
        self.until = until;
    }

    /// A host could not be asked: what is not known to wait may wait there.
    pub(super) fn not_asked(&mut self) {
        self.unasked = true;
    }

    /// A host showed this node's ledger.
    pub(super) fn host(&mut self, node: NodeKey, host: &str) {
        self.ledgers.entry(node).or_default().hosts.push(host.to_owned());
    }

    /// A message waits at a host. Told before any entry of a ledger.
    pub(super) fn waits(&mut self, name: &str) {
        match name.parse() {
            Ok(uidl) => drop(self.waiting.insert(uidl, false)),
            Err(_) => self.strange += 1,
        }
    }

    /// Something about a node's ledger that is not arithmetic.
    pub(super) fn say(&mut self, node: NodeKey, text: String) {
        self.ledgers.entry(node).or_default().say(text);
    }

    /// A ledger entry.
    pub(super) fn entry(&mut self, node: NodeKey, entry: &Seen) {
        let ledger = self.ledgers.entry(node).or_default();
        ledger.highest = ledger.highest.max(entry.seq);
        if !ledger.slots.at(entry.seq).is_of(&entry.hash, entry.time_ms) {
            let text =
                format!("entry {} of the ledger is another than the one known before: it was changed", entry.seq);
            return ledger.say(text);
        }
        let again = ledger.slots.get(entry.seq).has(Fact::Listed);
        let slot = ledger.slots.at(entry.seq);
        slot.set(Fact::Listed);
        match entry.event {
            Event::Accepted => slot.set(Fact::Accepted),
            Event::MovedIn => {
                slot.set(Fact::MovedIn);
                if let (Some(receipt), false) = (entry.origin.as_deref(), again) {
                    let (refers_to, seq) = (entry.refers_to, entry.seq);
                    self.moved.push(Moved { receipt: *receipt, refers_to, node, seq });
                }
            }
            Event::Removed | Event::MovedOut if entry.refers_to == 0 || entry.refers_to >= entry.seq => {
                let (seq, refers_to) = (entry.seq, entry.refers_to);
                ledger.say(format!("entry {seq} of the ledger refers to entry {refers_to}, which is not before it"));
            }
            Event::Removed => ledger.slots.at(entry.refers_to).set(Fact::Removed),
            Event::MovedOut => ledger.slots.at(entry.refers_to).set(Fact::MovedOut),
        }
        if let (Event::Accepted, Some(outcome)) = (entry.event, self.bare.get(&entry.uidl)) {
            slot_of(&mut self.ledgers, node, entry.seq).set(Fact::Collected);
            slot_of(&mut self.ledgers, node, entry.seq).set_outcome(*outcome);
        }
        if matches!(entry.event, Event::Accepted | Event::MovedIn)
            && let Some(known) = self.waiting.get_mut(&entry.uidl)
        {
            *known = true;
            self.ledgers.entry(node).or_default().slots.at(entry.seq).set(Fact::Waits);
        }
    }

    /// A ledger entry that the store keeps; its chain is followed here.
    pub(super) fn kept(&mut self, entry: Entry) {
        self.entry(entry.node, &Seen::from(&entry));
        let ledger = self.ledgers.entry(entry.node).or_default();
        if entry.body.seq == ledger.solid.as_ref().map_or(0, |solid| solid.body.seq) + 1 {
            ledger.solid = Some(entry.clone());
        }
        match ledger.kept.take() {
            Some(before) if before.body.seq >= entry.body.seq => ledger.kept = Some(before),
            Some(before) if before.body.seq + 1 == entry.body.seq => {
                if entry.body.prev != before.hash() {
                    ledger.say(format!("entry {} of the ledger does not continue the one before it", entry.body.seq));
                }
                ledger.kept = Some(entry);
            }
            before => {
                // The chain begins anew: what stands before it is vouched for by the signature of its last entry.
                ledger.signed(before.as_ref());
                ledger.kept = Some(entry);
            }
        }
    }

    /// The last entry that the store keeps of each node.
    #[must_use]
    pub(super) fn last_kept(&self) -> BTreeMap<NodeKey, Entry> {
        self.ledgers.iter().filter_map(|(node, ledger)| Some((*node, ledger.kept.clone()?))).collect()
    }

    /// The last entry of each node up to which the store keeps all.
    #[must_use]
    pub(super) fn solid(&self) -> BTreeMap<NodeKey, Entry> {
        self.ledgers.iter().filter_map(|(node, ledger)| Some((*node, ledger.solid.clone()?))).collect()
    }

    /// The highest number known of each node.
    #[must_use]
    pub(super) fn highest(&self) -> BTreeMap<NodeKey, u64> {
        self.ledgers.iter().map(|(node, ledger)| (*node, ledger.highest)).collect()
    }

    /// A report in the store, with its receipt.
    pub(super) fn collected(&mut self, receipt: &Entry, outcome: Outcome) {
        let (node, seq, uidl) = (receipt.node, receipt.body.seq, receipt.body.uidl);
        let ledger = self.ledgers.entry(node).or_default();
        if !ledger.slots.at(seq).is_of(&receipt.hash(), receipt.body.time_ms) {
            return ledger
                .say(format!("message {uidl} was collected with another receipt {seq} than the ledger shows"));
        }
        let slot = ledger.slots.at(seq);
        slot.set(Fact::Collected);
        // The same report stored once more undoes no decision.
        if slot.outcome().is_none() {
            slot.set_outcome(outcome);
        }
        if outcome != Outcome::Filed {
            self.undecided.insert(uidl, (node, seq));
        }
    }

    /// A report in the store whose receipt does not hold, or a later decision about one. It counts by its name, with the
    /// entry that is told after it.
    pub(super) fn collected_bare(&mut self, uidl: &str, outcome: Outcome) {
        if let Ok(uidl) = uidl.parse() {
            self.bare.insert(uidl, outcome);
        }
    }

    /// Whether there is such a report.
    #[must_use]
    pub(super) fn has_bare(&self) -> bool {
        !self.bare.is_empty()
    }

    /// A later decision about a report.
    pub(super) fn decided(&mut self, uidl: &str, outcome: Outcome) {
        if let Some(bare) = uidl.parse().ok().and_then(|uidl: Uidl| self.bare.get_mut(&uidl)) {
            *bare = outcome;
        }
        let place = uidl.parse().ok().and_then(|uidl: Uidl| self.undecided.get(&uidl)).copied();
        if let Some((node, seq)) = place {
            self.ledgers.entry(node).or_default().slots.at(seq).set_outcome(outcome);
        }
    }

    /// A report that the store holds no more: it was told to delete it, or has given it up.
    pub(super) fn gone(&mut self, receipt: &Entry, why: Fact) {
        let ledger = self.ledgers.entry(receipt.node).or_default();
        if ledger.slots.get(receipt.body.seq).is_known_as(&receipt.hash()) {
            ledger.slots.at(receipt.body.seq).set(why);
        }
    }

    /// The numbers of every report in the store, by node.
    pub(super) fn collected_numbers(&self) -> impl Iterator<Item = (NodeKey, impl Iterator<Item = u64> + '_)> + '_ {
        self.ledgers.iter().map(|(node, ledger)| {
            let numbers = ledger.slots.iter().filter(|(_, slot)| slot.has(Fact::Collected));
            (*node, numbers.map(|(number, _)| number))
        })
    }

    /// A moved message counts where it was accepted, and what became of it after it was moved is told there.
    fn settle_moved(&mut self) {
        for moved in std::mem::take(&mut self.moved) {
            let here = self.ledgers.get(&moved.node).map(|ledger| ledger.slots.get(moved.seq)).unwrap_or_default();
            let first = self.ledgers.iter_mut().find(|(node, ledger)| {
                **node != moved.node && ledger.slots.get(moved.refers_to).is_known_as(&moved.receipt)
            });
            let slot = match first {
                // The end of that ledger may be gone with its node; the receipt tells that it accepted the message.
                Some((_, ledger)) => ledger.slots.at(moved.refers_to),
                None => self.ledgers.entry(moved.node).or_default().slots.at(moved.seq),
            };
            slot.set(Fact::Accepted);
            [Fact::Removed, Fact::Waits].into_iter().filter(|fact| here.has(*fact)).for_each(|fact| slot.set(fact));
        }
    }

    /// One row per node, sorted, and the numbers that want a name. `was_collected` tells what the list of collected
    /// messages knows of a number.
    #[must_use]
    pub(super) fn rows(&mut self, was_collected: &dyn Fn(NodeKey, u64) -> bool) -> Vec<(NodeKey, Row, Suspects)> {
        self.settle_moved();
        let unasked = self.unasked;
        let mut rows = Vec::new();
        for (node, ledger) in &mut self.ledgers {
            ledger.signed(ledger.kept.clone().as_ref());
            let limit = self.until.get(node).copied().unwrap_or(u64::MAX);
            let mut sum = Sum::default();
            for (number, slot) in ledger.slots.iter().take_while(|(number, _)| *number <= limit) {
                sum.add(number, slot, unasked, &|| was_collected(*node, number));
            }
            sum.gaps.push_range(sum.listed_to + 1, ledger.highest.min(limit));
            let mut row = Row {
                source: self.source.clone(),
                mailbox: self.mailbox.clone(),
                node: Some(node.id()),
                hosts: ledger.hosts.clone(),
                highest: ledger.highest,
                ..Row::default()
            };
            row.problems = std::mem::take(&mut ledger.said);
            if ledger.unsaid > 0 {
                row.problems.push(format!("and {} more of the kind", ledger.unsaid));
            }
            let suspects = sum.into_row(&mut row);
            rows.push((*node, row, suspects));
        }
        let unknown = self.waiting.values().filter(|known| !**known).count() as u64 + self.strange;
        if let (Some((_, row, _)), 1..) = (rows.first_mut(), unknown) {
            row.fail(format!("{unknown} messages wait that no ledger shows"));
        }
        rows
    }

    /// What a server shows now (number and hash of each entry) against what is known of a node's ledger: numbers that
    /// are gone, and numbers that are other entries now.
    #[must_use]
    pub(super) fn diverged(&self, node: NodeKey, shown: &BTreeMap<u64, Digest>) -> (Numbers, Numbers) {
        let (mut gone, mut changed) = (Numbers::default(), Numbers::default());
        let slots = self.ledgers.get(&node).into_iter().flat_map(|ledger| ledger.slots.iter());
        for (number, slot) in slots.filter(|(_, slot)| slot.has(Fact::Listed)) {
            match shown.get(&number) {
                None => gone.push(number),
                Some(hash) if !slot.is_known_as(hash) => changed.push(number),
                Some(_) => {}
            }
        }
        (gone, changed)
    }

    /// Whether a node's ledger has this very entry; `None`: it has none of this number.
    #[must_use]
    pub(super) fn has(&self, node: NodeKey, number: u64, hash: &Digest) -> Option<bool> {
        let slot = self.ledgers.get(&node)?.slots.get(number);
        slot.has(Fact::Listed).then(|| slot.is_known_as(hash))
    }
}

impl Ledger {
    /// The signature of the last entry of a chain vouches for all before it.
    fn signed(&mut self, last: Option<&Entry>) {
        if let Some(entry) = last
            && entry.verify().is_err()
        {
            self.say(format!("entry {} of the ledger is not signed by the node", entry.body.seq));
        }
    }
}

fn slot_of(ledgers: &mut BTreeMap<NodeKey, Ledger>, node: NodeKey, number: u64) -> &mut Slot {
    ledgers.entry(node).or_default().slots.at(number)
}

/// Numbers that do not add up, with what is wrong with them.
pub(super) type Suspects = Vec<(u64, Fate)>;

/// The sums of one node.
#[derive(Default)]
struct Sum {
    counts: Counts,
    days: BTreeMap<u16, Counts>,
    moved_in: u64,
    missing: Numbers,
    removed: Numbers,
    unknown: Numbers,
    lost: Numbers,
    gaps: Numbers,
    unlisted: Numbers,
    listed_to: u64,
    suspects: Suspects,
}

impl Sum {
    fn add(&mut self, number: u64, slot: Slot, unasked: bool, was_collected: &dyn Fn() -> bool) {
        if slot.has(Fact::Listed) {
            self.gaps.push_range(self.listed_to + 1, number.saturating_sub(1));
            self.listed_to = number;
        }
        self.moved_in += u64::from(slot.has(Fact::MovedIn));
        if !slot.has(Fact::Accepted) {
            if slot.has(Fact::Collected) {
                self.unlisted.push(number);
            }
            return;
        }
        let fate = fate(slot, unasked, was_collected);
        match fate {
            Some(Fate::Missing | Fate::MovedAway) => self.missing.push(number),
            Some(Fate::LostFromStore) => {
                self.missing.push(number);
                self.lost.push(number);
            }
            Some(Fate::RemovedByOthers) => self.removed.push(number),
            Some(Fate::Unknown) => self.unknown.push(number),
            None => {}
        }
        self.suspects.extend(fate.filter(|_| self.suspects.len() < super::row::MAX_NAMED).map(|fate| (number, fate)));
        self.counts.count(slot, fate);
        self.days.entry(slot.day()).or_default().count(slot, fate);
    }

    fn into_row(self, row: &mut Row) -> Suspects {
        row.counts = self.counts;
        row.moved_in = self.moved_in;
        row.gaps = self.gaps.count();
        row.missing_numbers = self.missing;
        row.removed_by_others_numbers = self.removed;
        row.unknown_numbers = self.unknown;
        row.gap_numbers = self.gaps;
        row.days = self.days.into_iter().map(|(day, counts)| Day { day: date(day), counts }).collect();
        row.judge(&self.unlisted, &self.lost);
        self.suspects
    }
}

/// What is wrong with an accepted message; `None` where all is well.
fn fate(slot: Slot, unasked: bool, was_collected: &dyn Fn() -> bool) -> Option<Fate> {
    if slot.has(Fact::Deleted) || slot.has(Fact::Waits) && !slot.has(Fact::Lost) {
        None
    } else if slot.has(Fact::Lost) {
        Some(Fate::LostFromStore)
    } else if slot.has(Fact::Collected) {
        None
    } else if was_collected() {
        Some(Fate::LostFromStore)
    } else if slot.has(Fact::Removed) {
        Some(Fate::RemovedByOthers)
    } else if unasked {
        Some(Fate::Unknown)
    } else if slot.has(Fact::MovedOut) {
        Some(Fate::MovedAway)
    } else {
        Some(Fate::Missing)
    }
}

impl Counts {
    fn count(&mut self, slot: Slot, fate: Option<Fate>) {
        self.accepted += 1;
        match fate {
            Some(Fate::Missing | Fate::MovedAway | Fate::LostFromStore) => self.missing += 1,
            Some(Fate::RemovedByOthers) => self.removed_by_others += 1,
            Some(Fate::Unknown) => self.unknown += 1,
            None if slot.has(Fact::Deleted) => self.deleted += 1,
            None if slot.has(Fact::Collected) => self.collected(slot.outcome()),
            None => self.waiting += 1,
        }
    }

    fn collected(&mut self, outcome: Option<Outcome>) {
        self.collected += 1;
        match outcome {
            Some(Outcome::CatchAll) => self.catchall += 1,
            Some(Outcome::DeadLetter) => self.dead_letters += 1,
            Some(Outcome::Quarantine) => self.quarantined += 1,
            Some(Outcome::Rejected) => {
                self.quarantined += 1;
                self.rejected += 1;
            }
            Some(Outcome::Filed) | None => self.filed += 1,
        }
    }
}

fn date(day: u16) -> String {
    let time = OffsetDateTime::from_unix_timestamp(i64::from(day) * 86_400).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.date().to_string()
}

/// Counts the reports of a source without ledger: nothing can be missing that anybody knows of.
#[derive(Debug, Default)]
pub(super) struct Plain {
    /// Reports by a short hash of their names.
    reports: HashMap<[u8; 16], Outcome>,
    waiting: HashSet<[u8; 16]>,
}

impl Plain {
    fn key(name: &str) -> [u8; 16] {
        Digest::of(name.as_bytes()).0.first_chunk().copied().unwrap_or_default()
    }

    /// A report in the store, or a decision about one.
    pub(super) fn report(&mut self, uidl: &str, outcome: Outcome) {
        self.reports.insert(Self::key(uidl), outcome);
    }

    /// A report that the store holds no more.
    pub(super) fn gone(&mut self, uidl: &str) {
        self.reports.remove(&Self::key(uidl));
    }

    /// A message waits.
    pub(super) fn waits(&mut self, name: &str) {
        self.waiting.insert(Self::key(name));
    }

    /// The row. What waits and is collected already is counted once.
    #[must_use]
    pub(super) fn row(&self, source: &str, mailbox: &str) -> Row {
        let mut counts = Counts::default();
        self.reports.values().for_each(|outcome| counts.collected(Some(*outcome)));
        counts.waiting = self.waiting.iter().filter(|name| !self.reports.contains_key(*name)).count() as u64;
        counts.accepted = counts.collected + counts.waiting;
        let (source, mailbox) = (source.to_owned(), mailbox.to_owned());
        let mut row = Row { source, mailbox, counts, ..Row::default() };
        row.judge(&Numbers::default(), &Numbers::default());
        row
    }
}
