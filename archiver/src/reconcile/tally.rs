//! The arithmetic of `reconcile`. Pure.

use crate::store::{Collected, Outcome};
use postkeep_shared::{
    mail::{Digest, Uidl},
    receipt::{Entry, Event, NodeKey},
};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// One line of `reconcile --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The source.
    pub source: String,
    /// The mailbox.
    pub mailbox: String,
    /// The node's short name; `None` for a server that is no gateway, or one that was never reached.
    pub node: Option<String>,
    /// Hosts that showed this node's ledger just now.
    pub hosts: Vec<String>,
    /// Messages the node accepted, by its ledger, and those moved to it whose acceptance elsewhere is not known here.
    pub accepted: u64,
    /// Messages that were moved to the node from another one that had accepted them; each is counted there.
    pub moved_in: u64,
    /// Of those, in the store.
    pub collected: u64,
    /// Of those collected, filed to an owner.
    pub filed: u64,
    /// Of those collected, in `@catchall`.
    pub catchall: u64,
    /// Of those collected, kept whole and filed nowhere, since nobody can say whose they are.
    pub dead_letters: u64,
    /// Of those collected, kept whole and filed nowhere: held until an administrator decides, or rejected by one.
    pub quarantined: u64,
    /// Of those quarantined, rejected.
    pub rejected: u64,
    /// Not collected, and waiting at the node.
    pub waiting: u64,
    /// Not collected, and removed from the node by somebody else.
    pub removed_by_others: u64,
    /// Not collected, not waiting, not removed: lost.
    pub missing: u64,
    /// Not collected and not removed, while a host could not be asked what waits there.
    pub unknown: u64,
    /// Numbers that the ledger does not show.
    pub gaps: u64,
    /// Everything adds up, and nothing is missing or was taken by others.
    pub ok: bool,
    /// Sentences.
    pub problems: Vec<String>,
}

/// What happened to one message at its node.
#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    accepted: bool,
    removed: bool,
    /// Hash of the receipt it was accepted with elsewhere.
    moved_from: Option<Digest>,
    /// It went on to another node.
    moved_out: bool,
}

#[derive(Debug, Default)]
struct Ledger {
    fates: HashMap<Uidl, Fate>,
    /// Hashes of the acceptances.
    accepted: HashSet<Digest>,
    entries: u64,
    highest: u64,
}

/// Adds up one source with one mailbox.
#[derive(Debug)]
pub struct Tally {
    source: String,
    mailbox: String,
    ledgers: BTreeMap<NodeKey, Ledger>,
    hosts: BTreeMap<NodeKey, Vec<String>>,
    waiting: HashSet<String>,
    collected: Vec<Kept>,
    unasked: bool,
}

#[derive(Debug)]
struct Kept {
    uidl: Option<Uidl>,
    node: Option<NodeKey>,
    receipt: Option<Digest>,
    outcome: Outcome,
}

impl Tally {
    /// Nothing known yet.
    #[must_use]
    pub fn new(source: &str, mailbox: &str) -> Self {
        Self {
            source: source.to_owned(),
            mailbox: mailbox.to_owned(),
            ledgers: BTreeMap::new(),
            hosts: BTreeMap::new(),
            waiting: HashSet::new(),
            collected: Vec::new(),
            unasked: false,
        }
    }

    /// A host could not be asked: what is not known to wait may wait there.
    pub fn unasked(&mut self) {
        self.unasked = true;
    }

    /// A ledger entry; those of one node in order, each once.
    pub fn entry(&mut self, entry: &Entry) {
        let ledger = self.ledgers.entry(entry.node).or_default();
        ledger.entries += 1;
        ledger.highest = ledger.highest.max(entry.body.seq);
        let fate = ledger.fates.entry(entry.body.uidl).or_default();
        match entry.body.event {
            Event::Accepted => {
                fate.accepted = true;
                ledger.accepted.insert(entry.hash());
            }
            Event::MovedIn => fate.moved_from = Some(entry.body.digest),
            Event::Removed => fate.removed = true,
            Event::MovedOut => fate.moved_out = true,
        }
    }

    /// A report in the store.
    pub fn collected(&mut self, report: &Collected) {
        let receipt = report.receipt.as_ref().map(Entry::hash);
        self.collected.push(Kept {
            uidl: report.uidl.parse().ok(),
            node: report.node,
            receipt,
            outcome: report.outcome,
        });
    }

    /// A host showed this node's ledger.
    pub fn host(&mut self, node: NodeKey, host: &str) {
        self.ledgers.entry(node).or_default();
        self.hosts.entry(node).or_default().push(host.to_owned());
    }

    /// A message waits at a host.
    pub fn waits(&mut self, name: String) {
        self.waiting.insert(name);
    }

    /// One row per node, sorted.
    #[must_use]
    pub fn rows(self) -> Vec<Row> {
        let Self { source, mailbox, mut ledgers, mut hosts, waiting, collected, unasked } = self;
        // A moved message's receipt was seen with it: it counts where it was accepted, though that ledger's end may be gone
        // with its node.
        let moved: HashSet<Digest> =
            ledgers.values().flat_map(|ledger| ledger.fates.values()).filter_map(|fate| fate.moved_from).collect();
        for report in &collected {
            if let (Some(uidl), Some(node), Some(receipt)) = (report.uidl, report.node, report.receipt)
                && moved.contains(&receipt)
            {
                let ledger = ledgers.entry(node).or_default();
                ledger.fates.entry(uidl).or_default().accepted = true;
                ledger.accepted.insert(receipt);
            }
        }
        let counted: HashSet<Digest> = ledgers.values().flat_map(|ledger| ledger.accepted.iter().copied()).collect();
        // Who took it away after it was moved tells what became of it.
        let removed: HashSet<Uidl> = ledgers
            .values()
            .flat_map(|ledger| &ledger.fates)
            .filter(|(_, fate)| fate.removed)
            .map(|(uidl, _)| *uidl)
            .collect();
        let mut unlisted: BTreeMap<NodeKey, u64> = BTreeMap::new();
        let mut kept: HashMap<Uidl, Outcome> = HashMap::new();
        for report in &collected {
            let Some(uidl) = report.uidl else { continue };
            kept.insert(uidl, report.outcome);
            if let Some(node) = report.node {
                let listed = ledgers.get(&node).and_then(|l| l.fates.get(&uidl)).is_some_and(|fate| fate.accepted);
                *unlisted.entry(node).or_default() += u64::from(!listed);
            }
        }
        let nodes: BTreeMap<NodeKey, Ledger> = {
            let mut nodes = ledgers;
            unlisted.keys().for_each(|node| {
                nodes.entry(*node).or_default();
            });
            nodes
        };
        let rows = nodes.into_iter().map(|(node, ledger)| {
            let mut row = Row {
                source: source.clone(),
                mailbox: mailbox.clone(),
                node: Some(node.id()),
                hosts: hosts.remove(&node).unwrap_or_default(),
                gaps: ledger.highest.saturating_sub(ledger.entries),
                ..Row::default()
            };
            for (uidl, fate) in &ledger.fates {
                row.moved_in += u64::from(fate.moved_from.is_some());
                let here = fate.accepted || fate.moved_from.is_some_and(|receipt| !counted.contains(&receipt));
                if here {
                    row.count(kept.get(uidl), waiting.contains(&uidl.to_string()), removed.contains(uidl));
                }
            }
            if unasked {
                row.unknown = std::mem::take(&mut row.missing);
            }
            row.judge(unlisted.get(&node).copied().unwrap_or_default());
            row
        });
        rows.collect()
    }

    /// The row of a server that keeps no ledger: nothing can be missing that anybody knows of.
    #[must_use]
    pub fn without_ledger(self) -> Row {
        let mut row = Row { source: self.source, mailbox: self.mailbox, ..Row::default() };
        self.collected.iter().for_each(|report| row.count(Some(&report.outcome), false, false));
        row.waiting = self.waiting.len() as u64;
        row.accepted += row.waiting;
        row.judge(0);
        row
    }
}

impl Row {
    fn count(&mut self, kept: Option<&Outcome>, waits: bool, removed: bool) {
        self.accepted += 1;
        match kept {
            Some(outcome) => {
                self.collected += 1;
                match outcome {
                    Outcome::Filed => self.filed += 1,
                    Outcome::CatchAll => self.catchall += 1,
                    Outcome::DeadLetter => self.dead_letters += 1,
                    Outcome::Quarantine => self.quarantined += 1,
                    Outcome::Rejected => {
                        self.quarantined += 1;
                        self.rejected += 1;
                    }
                }
            }
            None if waits => self.waiting += 1,
            None if removed => self.removed_by_others += 1,
            None => self.missing += 1,
        }
    }

    fn judge(&mut self, unlisted: u64) {
        let mut problem = |count: u64, text: &str| {
            if count > 0 {
                self.problems.push(format!("{count} {text}"));
            }
        };
        problem(self.missing, "messages were accepted and are neither in the store nor at the gateway");
        problem(self.unknown, "messages were accepted and are not in the store; whether they wait is not known");
        problem(self.removed_by_others, "messages were removed from the gateway before they were collected");
        problem(self.gaps, "numbers are missing in the ledger");
        problem(unlisted, "collected messages have receipts that the ledger does not show");
        self.ok = self.problems.is_empty();
    }

    /// Adds a problem that is not arithmetic.
    pub fn fail(&mut self, text: String) {
        self.problems.push(text);
        self.ok = false;
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!(
            "{} {} node {}{}: accepted {}, collected {} (filed {}, catch-all {}, dead letters {}, quarantined {}), waiting {}, removed by \
             others {}, missing {}, unknown {}: {}",
            self.source,
            self.mailbox,
            self.node.as_deref().unwrap_or("none"),
            if self.moved_in > 0 { format!(" ({} moved there)", self.moved_in) } else { String::new() },
            self.accepted,
            self.collected,
            self.filed,
            self.catchall,
            self.dead_letters,
            self.quarantined,
            self.waiting,
            self.removed_by_others,
            self.missing,
            self.unknown,
            if self.ok { "ok" } else { "NOT OK" },
        );
        for problem in &self.problems {
            line += &format!("\n  {problem}");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::samples::{MAILBOX, accepted, node, removed};
    use ed25519_dalek::SigningKey;
    use postkeep_shared::receipt::EntryBody;

    fn uidl(n: u8) -> Uidl {
        Uidl([n; 16])
    }

    fn kept(n: u8, outcome: Outcome) -> Collected {
        let receipt = accepted(u64::from(n), uidl(n), b"x", 9, Digest::default());
        Collected {
            source: "s".into(),
            host: "h:995".into(),
            mailbox: Some(MAILBOX.to_string()),
            uidl: uidl(n).to_string(),
            node: Some(receipt.node),
            seq: Some(receipt.body.seq),
            receipt: Some(receipt),
            raw_sha256: Digest::default(),
            size: 1,
            outcome,
            appearances: 0,
            collected_ms: 0,
        }
    }

    /// Six accepted; 1 filed, 2 catch-all, 3 dead letter, 4 waits, 5 taken by others, 6 missing unless told.
    fn tally(last: u8) -> Tally {
        let mut tally = Tally::new("s", &MAILBOX.to_string());
        tally.host(node(), "h:995");
        for n in 1..=last {
            tally.entry(&accepted(u64::from(n), uidl(n), b"x", 9, Digest::default()));
        }
        tally.entry(&removed(u64::from(last) + 1, uidl(1), 1, Digest::default()));
        tally.collected(&kept(1, Outcome::Filed));
        tally.collected(&kept(2, Outcome::CatchAll));
        tally.collected(&kept(3, Outcome::Quarantine));
        tally.waits(uidl(4).to_string());
        tally
    }

    #[test]
    fn all_well() {
        let row = tally(4).rows().remove(0);
        assert_eq!((row.accepted, row.collected, row.waiting, row.missing), (4, 3, 1, 0));
        assert_eq!((row.filed, row.catchall, row.dead_letters, row.quarantined), (1, 1, 0, 1));
        assert_eq!(row.collected, row.filed + row.catchall + row.dead_letters + row.quarantined);
        assert!(row.ok, "{row:?}");
        assert_eq!(row.hosts, ["h:995"]);
    }

    #[test]
    fn losses_show() {
        let mut tally = tally(6);
        tally.entry(&removed(8, uidl(5), 5, Digest::default()));
        let row = tally.rows().remove(0);
        assert_eq!((row.removed_by_others, row.missing), (1, 1));
        assert_eq!(row.accepted, row.collected + row.waiting + row.removed_by_others + row.missing);
        assert!(!row.ok);
        assert_eq!(row.problems.len(), 2);
    }

    /// Accepted by one node that is gone, moved to another: counted once, where it was accepted.
    #[test]
    fn moved_messages_count_once() {
        let other = SigningKey::from_bytes(&[0x77; 32]);
        let moved = |seq: u64, receipt: &Entry| {
            let body = EntryBody { event: Event::MovedIn, seq, refers_to: receipt.body.seq, ..receipt.body.clone() };
            EntryBody { digest: receipt.hash(), ..body }.sign(&other)
        };
        let receipts: Vec<Entry> =
            (1..=3).map(|n| accepted(u64::from(n), uidl(n), b"x", 9, Digest::default())).collect();
        // Nothing known of the old ledger: what waits counts at the new node, what was collected at the old one.
        let mut tally = Tally::new("s", &MAILBOX.to_string());
        receipts.iter().enumerate().for_each(|(i, receipt)| tally.entry(&moved(i as u64 + 1, receipt)));
        tally.waits(uidl(2).to_string());
        tally.waits(uidl(3).to_string());
        tally.collected(&kept(1, Outcome::Filed));
        let rows = tally.rows();
        assert_eq!(rows.iter().map(|r| r.accepted).sum::<u64>(), 3, "{rows:?}");
        assert!(rows.iter().all(|r| r.ok), "{rows:?}");
        // The whole old ledger known: all of it counts there.
        let mut tally = Tally::new("s", &MAILBOX.to_string());
        receipts.iter().for_each(|receipt| tally.entry(receipt));
        receipts.iter().enumerate().for_each(|(i, receipt)| tally.entry(&moved(i as u64 + 1, receipt)));
        (1..=3).for_each(|n| tally.collected(&kept(n, Outcome::Filed)));
        let rows = tally.rows();
        let of = |key: NodeKey| rows.iter().find(|r| r.node == Some(key.id())).expect("a row");
        assert_eq!((of(node()).accepted, of(node()).collected), (3, 3));
        let there = of(NodeKey(other.verifying_key().to_bytes()));
        assert_eq!((there.accepted, there.moved_in, there.ok), (0, 3, true));
    }

    #[test]
    fn a_host_that_is_down_loses_nothing() {
        let mut tally = tally(6);
        tally.unasked();
        let row = tally.rows().remove(0);
        assert_eq!((row.missing, row.unknown, row.ok), (0, 2, false));
    }

    #[test]
    fn gaps_and_unlisted_receipts_show() {
        let mut gap = tally(4);
        gap.entry(&accepted(9, uidl(9), b"x", 9, Digest::default()));
        gap.waits(uidl(9).to_string());
        let row = gap.rows().remove(0);
        assert_eq!(row.gaps, 3);
        assert!(!row.ok);
        let mut unlisted = tally(4);
        unlisted.collected(&kept(7, Outcome::Filed));
        assert!(!unlisted.rows().remove(0).ok);
    }

    #[test]
    fn servers_without_ledger() {
        let mut tally = Tally::new("s", "ann");
        tally.collected(&kept(1, Outcome::Filed));
        tally.waits("x".into());
        let row = tally.without_ledger();
        assert!(row.ok);
        assert_eq!((row.accepted, row.collected, row.waiting), (2, 1, 1));
    }
}
