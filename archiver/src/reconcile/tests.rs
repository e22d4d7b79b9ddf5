//! The sums, from made-up ledgers.

use super::{
    row::{Fate, Row},
    tally::{Plain, Seen, Suspects, Tally},
};
use crate::{
    collect::samples::{MAILBOX, accepted, ledger_salted, node, removed},
    store::Outcome,
};
use ed25519_dalek::SigningKey;
use postkeep_shared::{
    mail::{Digest, Uidl},
    receipt::{Entry, EntryBody, Event, NodeKey},
};
use std::collections::BTreeMap;

fn uidl(n: u8) -> Uidl {
    Uidl([n; 16])
}

/// A ledger of acceptances 1 to `last`, and the removal of number 1.
fn ledger(last: u8) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for n in 1..=last {
        let prev = entries.last().map_or(Digest::default(), Entry::hash);
        entries.push(accepted(u64::from(n), uidl(n), b"x", 9, prev));
    }
    let prev = entries.last().map_or(Digest::default(), Entry::hash);
    entries.push(removed(u64::from(last) + 1, uidl(1), 1, prev));
    entries
}

/// Number 1 filed, 2 catch-all, 3 quarantine, 4 waits; what follows is missing.
fn tally(last: u8) -> Tally {
    let mut tally = Tally::new("s", &MAILBOX.to_string());
    tally.host(node(), "h:995");
    tally.waits(&uidl(4).to_string());
    let entries = ledger(last);
    for (n, outcome) in [(0, Outcome::Filed), (1, Outcome::CatchAll), (2, Outcome::Quarantine)] {
        tally.collected(&entries[n], outcome);
    }
    entries.into_iter().for_each(|entry| tally.kept(entry));
    tally
}

fn one(tally: &mut Tally) -> (Row, Suspects) {
    let mut rows = tally.rows(&|_, _| false);
    assert_eq!(rows.len(), 1, "{rows:?}");
    let (_, row, suspects) = rows.remove(0);
    (row, suspects)
}

#[test]
fn all_well() {
    let (row, suspects) = one(&mut tally(4));
    let counts = &row.counts;
    assert_eq!((counts.accepted, counts.collected, counts.waiting, counts.missing), (4, 3, 1, 0));
    assert_eq!((counts.filed, counts.catchall, counts.quarantined), (1, 1, 1));
    assert!(row.ok && suspects.is_empty(), "{:?}", row.problems);
    assert_eq!((row.days.len(), row.days[0].day.as_str()), (1, "2026-08-18"));
    assert_eq!(row.days[0].counts, row.counts);
}

#[test]
fn told_as_often_as_one_likes() {
    let mut twice = tally(4);
    let entries = ledger(4);
    entries.iter().for_each(|entry| twice.entry(node(), &Seen::from(entry)));
    twice.collected(&entries[0], Outcome::Filed);
    assert_eq!(one(&mut twice).0, one(&mut tally(4)).0);
}

#[test]
fn decisions_come_later() {
    let mut decided = tally(4);
    decided.decided(&uidl(3).to_string(), Outcome::Filed);
    decided.decided(&uidl(2).to_string(), Outcome::Rejected);
    let counts = one(&mut decided).0.counts;
    assert_eq!((counts.filed, counts.catchall, counts.quarantined, counts.rejected), (2, 0, 1, 1));
}

#[test]
fn missing_numbers_are_named() {
    let (row, suspects) = one(&mut tally(7));
    assert_eq!((row.counts.missing, row.missing_numbers.to_string().as_str(), row.ok), (3, "5-7", false));
    assert_eq!(suspects, [(5, Fate::Missing), (6, Fate::Missing), (7, Fate::Missing)]);
    assert!(row.problems.iter().any(|text| text.ends_with(": 5-7")), "{:?}", row.problems);
}

#[test]
fn a_host_that_is_down_loses_nothing() {
    let mut down = tally(6);
    down.not_asked();
    let (row, suspects) = one(&mut down);
    assert_eq!((row.counts.missing, row.counts.unknown, row.ok), (0, 2, false));
    assert_eq!((row.unknown_numbers.to_string().as_str(), suspects[0].1), ("5-6", Fate::Unknown));
}

#[test]
fn removed_by_others_or_lost_from_the_store() {
    let mut tally = Tally::new("s", &MAILBOX.to_string());
    ledger(1).into_iter().for_each(|entry| tally.kept(entry));
    let rows = tally.rows(&|_, _| false);
    assert_eq!((rows[0].1.counts.removed_by_others, &rows[0].2), (1, &vec![(1, Fate::RemovedByOthers)]));
    let mut tally = Tally::new("s", &MAILBOX.to_string());
    ledger(1).into_iter().for_each(|entry| tally.kept(entry));
    let rows = tally.rows(&|of, number| of == node() && number == 1);
    assert_eq!((rows[0].1.counts.missing, &rows[0].2), (1, &vec![(1, Fate::LostFromStore)]));
    assert!(rows[0].1.problems.iter().any(|text| text.contains("records of the store are gone: 1")));
}

#[test]
fn gaps_unlisted_receipts_and_strange_messages_show() {
    let mut gap = tally(4);
    gap.waits(&uidl(9).to_string());
    gap.kept(accepted(9, uidl(9), b"x", 9, Digest::default()));
    let (row, _) = one(&mut gap);
    assert_eq!((row.gaps, row.gap_numbers.to_string().as_str(), row.ok), (3, "6-8", false));
    let mut unlisted = tally(4);
    unlisted.collected(&accepted(12, uidl(12), b"x", 9, Digest::default()), Outcome::Filed);
    let (row, _) = one(&mut unlisted);
    assert!(row.problems.iter().any(|text| text.ends_with("does not show: 12")), "{:?}", row.problems);
    let mut strange = tally(4);
    strange.waits(&uidl(77).to_string());
    assert!(!one(&mut strange).0.ok);
}

#[test]
fn changed_entries_and_broken_chains_show() {
    let said = |tally: &mut Tally, text: &str| {
        let (row, _) = one(tally);
        assert!(!row.ok && row.problems.iter().any(|problem| problem.contains(text)), "{text}: {:?}", row.problems);
    };
    let mut changed = tally(4);
    changed.entry(node(), &Seen::from(&ledger_salted(2, 7)[1]));
    said(&mut changed, "entry 2 of the ledger is another");
    let mut broken = tally(4);
    broken.waits(&uidl(6).to_string());
    broken.kept(accepted(6, uidl(6), b"x", 9, Digest([1; 32])));
    said(&mut broken, "entry 6 of the ledger does not continue");
    let mut forged = tally(4);
    let mut entry = ledger(5).remove(5);
    entry.signature[0] ^= 1;
    forged.kept(entry);
    said(&mut forged, "entry 6 of the ledger is not signed");
    let mut other = tally(4);
    other.collected(&accepted(4, uidl(4), b"y", 9, Digest([3; 32])), Outcome::Filed);
    said(&mut other, "with another receipt 4");
}

#[test]
fn what_came_behind_the_question_is_left_out() {
    let mut late = tally(6);
    late.until(BTreeMap::from([(node(), 4)]));
    let (row, _) = one(&mut late);
    assert!(row.ok && row.counts.accepted == 4, "{:?}", row.problems);
}

#[test]
fn a_ledger_that_was_set_back() {
    let whole = tally(4);
    let shown = |range: std::ops::RangeInclusive<usize>| {
        ledger(4).iter().filter(|e| range.contains(&(e.body.seq as usize))).map(|e| (e.body.seq, e.hash())).collect()
    };
    let (gone, changed) = whole.diverged(node(), &shown(1..=3));
    assert_eq!((gone.to_string().as_str(), changed.is_empty()), ("4-5", true));
    let mut forked: BTreeMap<u64, Digest> = shown(1..=5);
    forked.insert(4, Digest([9; 32]));
    let (gone, changed) = whole.diverged(node(), &forked);
    assert_eq!((gone.is_empty(), changed.to_string().as_str()), (true, "4"));
    assert_eq!(whole.has(node(), 4, &ledger(4)[3].hash()), Some(true));
    assert_eq!((whole.has(node(), 4, &Digest([9; 32])), whole.has(node(), 9, &Digest([9; 32]))), (Some(false), None));
}

/// Another node that took a message over.
fn took_over(of: &Entry, removed: bool) -> (NodeKey, Vec<Entry>) {
    let key = SigningKey::from_bytes(&[8; 32]);
    let body = EntryBody {
        event: Event::MovedIn,
        seq: 1,
        refers_to: of.body.seq,
        digest: of.hash(),
        prev: Digest::default(),
        ..of.body.clone()
    };
    let first = body.sign(&key);
    let gone = EntryBody { event: Event::Removed, seq: 2, refers_to: 1, prev: first.hash(), ..first.body.clone() };
    let mut entries = vec![first];
    if removed {
        entries.push(gone.sign(&key));
    }
    (NodeKey(key.verifying_key().to_bytes()), entries)
}

#[test]
fn moved_messages_count_once_where_they_were_accepted() {
    let entries = ledger(4);
    // Waiting at the other node, its first ledger known.
    let (other, moved) = took_over(&entries[3], false);
    let mut known = tally(4);
    moved.iter().for_each(|entry| known.entry(other, &Seen::from(entry)));
    let rows = known.rows(&|_, _| false);
    assert!(rows.iter().all(|(_, row, _)| row.ok), "{rows:?}");
    let total: u64 = rows.iter().map(|(_, row, _)| row.counts.accepted).sum();
    assert_eq!((rows.len(), total), (2, 4));
    // Removed at the other node by somebody else.
    let (other, moved) = took_over(&entries[3], true);
    let mut taken = Tally::new("s", &MAILBOX.to_string());
    entries.iter().for_each(|entry| taken.kept(entry.clone()));
    (0..3).for_each(|n| taken.collected(&entries[n], Outcome::Filed));
    moved.iter().for_each(|entry| taken.entry(other, &Seen::from(entry)));
    let rows = taken.rows(&|_, _| false);
    let removed: Vec<_> = rows.iter().filter(|(_, row, _)| row.counts.removed_by_others > 0).collect();
    assert!(removed.len() == 1 && removed[0].0 == node() && removed[0].2 == [(4, Fate::RemovedByOthers)], "{rows:?}");
    // The first ledger is not known: it counts where it was moved to.
    let mut unknown = Tally::new("s", &MAILBOX.to_string());
    let (other, moved) = took_over(&entries[3], false);
    unknown.waits(&uidl(4).to_string());
    moved.iter().for_each(|entry| unknown.entry(other, &Seen::from(entry)));
    let (row, _) = one(&mut unknown);
    assert_eq!((row.counts.accepted, row.counts.waiting, row.moved_in, row.ok), (1, 1, 1, true));
}

#[test]
fn servers_without_ledger() {
    let mut plain = Plain::default();
    plain.report("a", Outcome::CatchAll);
    plain.report("a", Outcome::Filed);
    plain.waits("a");
    plain.waits("b");
    let row = plain.row("s", "ann at host");
    assert!(row.ok);
    let counts = row.counts;
    assert_eq!((counts.accepted, counts.collected, counts.filed, counts.waiting), (2, 1, 1, 1));
}

/// A million numbers.
#[test]
fn a_million_entries() {
    // Unoptimised it would take a minute.
    const ENTRIES: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let mut tally = Tally::new("s", &MAILBOX.to_string());
    let template = ledger(1).remove(0);
    for seq in 1..=ENTRIES {
        let mut body = template.body.clone();
        (body.seq, body.uidl) = (seq, Uidl(u128::from(seq).to_be_bytes()));
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&seq.to_be_bytes());
        let seen = Seen {
            event: Event::Accepted,
            seq,
            refers_to: 0,
            time_ms: body.time_ms + seq * 1000,
            uidl: body.uidl,
            hash: Digest(hash),
            origin: None,
        };
        tally.entry(node(), &seen);
    }
    let (row, suspects) = one(&mut tally);
    assert_eq!((row.counts.accepted, row.counts.missing), (ENTRIES, ENTRIES));
    assert_eq!(row.missing_numbers.to_string(), format!("1-{ENTRIES}"));
    assert_eq!(suspects.len(), super::MAX_NAMED);
    assert!(row.days.len() > 1, "{}", row.days.len());
}

/// A message that was kept although its receipt did not hold is in the store, whatever became of it at the gateway.
#[test]
fn a_report_without_receipt_counts_by_its_name() {
    let mut bare = Tally::new("s", &MAILBOX.to_string());
    bare.collected_bare(&uidl(1).to_string(), Outcome::Quarantine);
    ledger(1).into_iter().for_each(|entry| bare.kept(entry));
    let (row, _) = one(&mut bare);
    assert_eq!((row.counts.collected, row.counts.quarantined, row.counts.removed_by_others, row.ok), (1, 1, 0, true));
}
