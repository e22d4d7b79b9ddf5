//! Two checkpoints against the records that are there: is the older one's end of every chain an ancestor of the newer
//! one's, and is every link between them there?
//!
//! The records may be a copy (a backup of a store's folder); nothing else of the archive is needed.

use super::text::{Checkpoint, LedgerHead, StoreHead};
use crate::store::{
    Log,
    entry::{Record, decode_entry},
};
use postkeep_shared::{
    mail::Digest,
    receipt::{Entry, NodeKey},
    run::Failure,
};
use std::collections::BTreeMap;

/// A store to verify against.
pub struct Copy {
    /// For sentences.
    pub name: String,
    /// Its records.
    pub log: Log,
}

/// What the verification showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Links between the two checkpoints that were followed: records.
    pub records: u64,
    /// The same for ledger entries.
    pub entries: u64,
    /// What does not fit, one sentence each; empty: nothing between the two was rewritten.
    pub problems: Vec<String>,
}

/// Source, mailbox and node.
type Name = (String, Digest, NodeKey);

/// One ledger while it is followed.
struct Following {
    old: Option<LedgerHead>,
    new: LedgerHead,
    last: Option<Entry>,
    old_seen: bool,
    new_seen: bool,
}

/// Verifies `old` and `new`, whose signatures were verified, against the records in `copies`.
///
/// # Errors
/// The disk's, and a store that cannot be opened; what does not fit is in the verdict.
pub fn verify(old: &Checkpoint, new: &Checkpoint, copies: &[Copy]) -> Result<Verdict, Failure> {
    let mut verdict = Verdict::default();
    if old.time > new.time {
        verdict.problems.push("the first checkpoint is the newer one: name the older one first".to_owned());
        return Ok(verdict);
    }
    if old.key != new.key {
        verdict.problems.push(format!("they are signed by different keys: {} and {}", old.key, new.key));
    }
    for store in &old.stores {
        match new.stores.iter().find(|other| other.id == store.id) {
            None => verdict
                .problems
                .push(format!("store {} is in the older checkpoint and not in the newer one", store.name)),
            Some(other) if other.number < store.number => verdict.problems.push(format!(
                "store {} had {} records in the older checkpoint and has {} in the newer one",
                store.name, store.number, other.number
            )),
            Some(_) => {}
        }
    }
    let mut ledgers = following(old, new, &mut verdict);
    for store in &new.stores {
        match copies.iter().find(|copy| copy.log.id() == store.id) {
            Some(copy) => {
                let before = old.stores.iter().find(|other| other.id == store.id);
                follow_store(copy, before, store, &mut ledgers, &mut verdict)?;
            }
            None => verdict.problems.push(format!("store {} ({}) is not here: name its folder", store.name, store.id)),
        }
    }
    for ((source, mailbox, node), ledger) in ledgers {
        let name = format!("ledger of node {} for source {source}, mailbox {}…", node.id(), mailbox.short(8));
        if let Some(old) = ledger.old.as_ref().filter(|_| !ledger.old_seen) {
            verdict.problems.push(format!("{name}: entry {} of the older checkpoint is not in the store", old.seq));
        }
        if !ledger.new_seen {
            verdict
                .problems
                .push(format!("{name}: entry {} of the newer checkpoint is not in the store", ledger.new.seq));
        }
    }
    Ok(verdict)
}

fn following(old: &Checkpoint, new: &Checkpoint, verdict: &mut Verdict) -> BTreeMap<Name, Following> {
    let name = |head: &LedgerHead| (head.source.clone(), head.mailbox, head.node);
    let mut ledgers: BTreeMap<Name, Following> = BTreeMap::new();
    for head in &new.ledgers {
        let following = Following { old: None, new: head.clone(), last: None, old_seen: false, new_seen: false };
        ledgers.insert(name(head), following);
    }
    for head in &old.ledgers {
        let shown = format!("the ledger of node {} for source {}", head.node.id(), head.source);
        match ledgers.get_mut(&name(head)) {
            None => verdict.problems.push(format!("{shown} is in the older checkpoint and not in the newer one")),
            Some(ledger) => {
                if ledger.new.seq < head.seq {
                    let (was, is) = (head.seq, ledger.new.seq);
                    verdict.problems.push(format!(
                        "{shown} had {was} entries in the older checkpoint and has {is} in the newer one"
                    ));
                }
                ledger.old = Some(head.clone());
            }
        }
    }
    ledgers
}

fn follow_store(
    copy: &Copy,
    old: Option<&StoreHead>,
    new: &StoreHead,
    ledgers: &mut BTreeMap<Name, Following>,
    verdict: &mut Verdict,
) -> Result<(), Failure> {
    let (mut old_seen, mut new_seen) = (old.is_none_or(|old| old.number == 0), new.number == 0);
    let from = old.map_or(0, |old| old.number);
    let name = &copy.name;
    let walked = copy.log.walk(&mut |record, head| {
        let mut compare = |wanted: Option<&StoreHead>, which: &str| {
            let Some(wanted) = wanted.filter(|wanted| wanted.number == head.number) else { return false };
            if wanted.hash.0 != head.hash {
                let number = head.number;
                verdict.problems.push(format!(
                    "store {name}: record {number} is not the one that the {which} checkpoint names: records up to it were rewritten"
                ));
            }
            true
        };
        old_seen |= compare(old, "older");
        new_seen |= compare(Some(new), "newer");
        verdict.records += u64::from(head.number > from && head.number <= new.number);
        if let Record::Ledger(ledger) = record {
            for entry in ledger.entries.iter().filter_map(|text| decode_entry(text)) {
                let mailbox = Digest::of(entry.body.mailbox.to_string().as_bytes());
                if let Some(of) = ledgers.get_mut(&(ledger.source.clone(), mailbox, entry.node)) {
                    of.follow(entry, verdict);
                }
            }
        }
        Ok(())
    })?;
    if let Some(old) = old.filter(|_| !old_seen) {
        verdict.problems.push(format!("store {name}: record {} of the older checkpoint is not there", old.number));
    }
    if !new_seen {
        let (wanted, end) = (new.number, walked.head.number);
        verdict
            .problems
            .push(format!("store {name}: it ends with record {end}; the newer checkpoint names record {wanted}"));
    }
    verdict.problems.extend(walked.damage.into_iter().map(|text| format!("store {name}: {text}")));
    Ok(())
}

impl Following {
    fn follow(&mut self, entry: Entry, verdict: &mut Verdict) {
        let (seq, hash, node) = (entry.body.seq, entry.hash(), entry.node.id());
        if let Some(old) = self.old.as_ref().filter(|old| old.seq == seq) {
            self.old_seen = true;
            if old.hash != hash {
                verdict
                    .problems
                    .push(format!("ledger of node {node}: entry {seq} is not the one that the older checkpoint names"));
            }
        }
        if self.new.seq == seq {
            self.new_seen = true;
            if self.new.hash != hash {
                verdict
                    .problems
                    .push(format!("ledger of node {node}: entry {seq} is not the one that the newer checkpoint names"));
            }
        }
        let from = self.old.as_ref().map_or(0, |old| old.seq);
        if seq > from && seq <= self.new.seq {
            verdict.entries += 1;
            let last = self.last.as_ref().map(|last| (last.body.seq, last.hash()));
            match last {
                Some((before, _)) if seq > before + 1 => {
                    let first = before + 1;
                    verdict
                        .problems
                        .push(format!("ledger of node {node}: entries {first} to {} are not in the store", seq - 1));
                }
                None if seq > 1 => {
                    verdict
                        .problems
                        .push(format!("ledger of node {node}: entries 1 to {} are not in the store", seq - 1));
                }
                Some((before, hash)) if seq == before + 1 && entry.body.prev != hash => {
                    verdict
                        .problems
                        .push(format!("ledger of node {node}: entry {seq} does not continue the one before it"));
                }
                _ => {}
            }
        }
        if self.last.as_ref().is_none_or(|last| last.body.seq < seq) {
            self.last = Some(entry);
        }
    }
}
