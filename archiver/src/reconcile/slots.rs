//! One small slot for each number of a ledger: what became of the message that it stands for. A million entries take
//! 8 MiB, whatever the messages are.

use crate::store::Outcome;
use postkeep_shared::mail::Digest;
use std::collections::BTreeMap;

/// Slots that are made at once.
const BLOCK: u64 = 1024;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What is known of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Slot {
    facts: u16,
    day: u16,
    /// The beginning of the entry's hash: which entry has this number.
    tag: [u8; 4],
}

/// A fact of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Fact {
    /// The ledger has an entry with this number.
    Listed = 1,
    /// That entry is an acceptance.
    Accepted = 2,
    /// That entry moved a message in.
    MovedIn = 4,
    /// The message that came with that entry was removed by a client.
    Removed = 8,
    /// The message that came with that entry went to another node.
    MovedOut = 16,
    /// The store has a report with the receipt of this number.
    Collected = 32,
    /// The message waits at a gateway.
    Waits = 64,
    /// The store deleted the report because it was told to.
    Deleted = 128,
    /// The store has given the report up: its octets are damaged beyond repair.
    Lost = 256,
}

/// Where the bits of an outcome begin.
const OUTCOME: u32 = 12;

impl Slot {
    /// Whether a fact is known.
    #[must_use]
    pub(super) fn has(&self, fact: Fact) -> bool {
        self.facts & fact as u16 != 0
    }

    /// Notes a fact.
    pub(super) fn set(&mut self, fact: Fact) {
        self.facts |= fact as u16;
    }

    /// Notes which entry has this number; `false` where another one had it.
    pub(super) fn is_of(&mut self, hash: &Digest, time_ms: u64) -> bool {
        let tag = hash.0.first_chunk().copied().unwrap_or_default();
        if self.facts & (Fact::Listed as u16 | Fact::Collected as u16) == 0 {
            self.tag = tag;
            self.day = u16::try_from(time_ms / DAY_MS).unwrap_or(u16::MAX);
        }
        self.tag == tag
    }

    /// Whether something is known of this number and it is of this entry.
    #[must_use]
    pub(super) fn is_known_as(&self, hash: &Digest) -> bool {
        self.facts & (Fact::Listed as u16 | Fact::Collected as u16) != 0 && hash.0.starts_with(&self.tag)
    }

    /// Days since 1970-01-01 at which it came.
    #[must_use]
    pub(super) fn day(&self) -> u16 {
        self.day
    }

    /// Where the report is.
    pub(super) fn set_outcome(&mut self, outcome: Outcome) {
        let word: u16 = match outcome {
            Outcome::Filed => 1,
            Outcome::CatchAll => 2,
            Outcome::DeadLetter => 3,
            Outcome::Quarantine => 4,
            Outcome::Rejected => 5,
        };
        self.facts = self.facts & !(u16::MAX << OUTCOME) | word << OUTCOME;
    }

    /// Where the report is; `None` where none was collected.
    #[must_use]
    pub(super) fn outcome(&self) -> Option<Outcome> {
        match self.facts >> OUTCOME {
            1 => Some(Outcome::Filed),
            2 => Some(Outcome::CatchAll),
            3 => Some(Outcome::DeadLetter),
            4 => Some(Outcome::Quarantine),
            5 => Some(Outcome::Rejected),
            _ => None,
        }
    }
}

/// The slots of one ledger, by number.
#[derive(Debug, Default)]
pub(super) struct Slots(BTreeMap<u64, Box<[Slot]>>);

impl Slots {
    /// The slot of a number, made where there is none.
    pub(super) fn at(&mut self, number: u64) -> &mut Slot {
        let block = self.0.entry(number / BLOCK).or_insert_with(|| vec![Slot::default(); BLOCK as usize].into());
        let within = usize::try_from(number % BLOCK).unwrap_or_default();
        // `within` is less than the block's length.
        &mut block[within]
    }

    /// The slot of a number as far as anything is known.
    #[must_use]
    pub(super) fn get(&self, number: u64) -> Slot {
        let block = self.0.get(&(number / BLOCK));
        let within = usize::try_from(number % BLOCK).unwrap_or_default();
        block.and_then(|block| block.get(within)).copied().unwrap_or_default()
    }

    /// Every number of which something is known, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Slot)> + '_ {
        let blocks = self.0.iter();
        let slots =
            blocks.flat_map(|(at, block)| (0..).zip(block.iter()).map(move |(n, slot)| (at * BLOCK + n, *slot)));
        slots.filter(|(_, slot)| slot.facts != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_and_places() {
        let mut slots = Slots::default();
        for number in [1, 1023, 1024, u64::MAX] {
            slots.at(number).set(Fact::Accepted);
        }
        assert!(slots.at(1).is_of(&Digest([1; 32]), 20_000 * DAY_MS));
        slots.at(1).set(Fact::Listed);
        assert!(!slots.at(1).is_of(&Digest([2; 32]), 0));
        slots.at(1).set_outcome(Outcome::CatchAll);
        assert_eq!(slots.get(1).outcome(), Some(Outcome::CatchAll));
        assert_eq!((slots.get(1).day(), slots.get(2)), (20_000, Slot::default()));
        assert!(!slots.get(1).has(Fact::Removed));
        let numbers: Vec<u64> = slots.iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [1, 1023, 1024, u64::MAX]);
        assert_eq!(size_of::<Slot>(), 8);
    }
}
