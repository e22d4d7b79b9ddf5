//! Checks a ledger entry by entry: number, chain, signature, sense.

use super::{Head, Header, Problem, ProblemKind, Slot};
use postkeep_shared::{
    mail::{Digest, MailboxId, Uidl},
    receipt::{Entry, Event},
};
use std::collections::BTreeMap;

/// Takes a ledger's slots in order and says what is wrong with each. Memory: the messages waiting.
pub struct Check {
    header: Header,
    head: Head,
    gap: bool,
    waiting: BTreeMap<u64, Waiting>,
    /// Entries that brought a message in.
    pub accepted: u64,
    /// Entries that took one away.
    pub removed: u64,
    /// Entries that brought in a message which another node had accepted.
    pub moved_in: u64,
    /// Entries that gave one to another node.
    pub moved_out: u64,
}

/// What has to be in the spool for one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The message.
    pub uidl: Uidl,
    /// Octets of the message as received; of a recovered one the octets that were sealed.
    pub size: u64,
    /// SHA-256 of the sealed file.
    pub sealed_sha256: Digest,
    /// Octets that were sealed.
    pub sealed_content: u64,
    /// When it came.
    pub time_ms: u64,
}

impl Check {
    /// Begins behind the header.
    #[must_use]
    pub fn new(header: Header) -> Self {
        let head = Head::of(&header);
        Self { header, head, gap: false, waiting: BTreeMap::new(), accepted: 0, removed: 0, moved_in: 0, moved_out: 0 }
    }

    /// What waits after the entries taken so far, by number of the entry.
    #[must_use]
    pub fn waiting(&self) -> &BTreeMap<u64, Waiting> {
        &self.waiting
    }

    /// The last entry taken.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Takes the next slot. `signatures`: whether to check them (most of the work).
    pub fn take(&mut self, slot: &Slot, signatures: bool, problems: &mut Vec<Problem>) {
        match &slot.entry {
            Ok(entry) => {
                self.chain(entry, problems);
                self.sense(entry, problems);
                if signatures && (entry.verify().is_err() || entry.node != self.header.node) {
                    let detail = "the entry was not signed by the ledger's node";
                    problems.push(about(entry, ProblemKind::WrongSignature, detail.into()));
                }
                self.head = Head { seq: entry.body.seq, hash: entry.hash(), end: slot.end() };
                self.gap = false;
            }
            Err(error) => {
                self.gap = true;
                problems.push(Problem {
                    kind: ProblemKind::DamagedEntry,
                    mailbox: self.header.mailbox,
                    uidl: None,
                    seq: Some(slot.seq()),
                    detail: format!("ledger octet {}: {error}", slot.offset),
                });
            }
        }
    }

    fn chain(&self, entry: &Entry, problems: &mut Vec<Problem>) {
        let body = &entry.body;
        let detail = if body.mailbox != self.header.mailbox {
            format!("entry {} belongs to {}", body.seq, body.mailbox)
        } else if self.gap {
            // The damaged entry before it was reported; what it was cannot be checked against this one.
            return;
        } else if body.seq != self.head.seq + 1 {
            format!("entry {} follows entry {}", body.seq, self.head.seq)
        } else if body.prev != self.head.hash {
            format!("entry {} does not continue entry {}", body.seq, self.head.seq)
        } else {
            return;
        };
        problems.push(about(entry, ProblemKind::BrokenChain, detail));
    }

    fn sense(&mut self, entry: &Entry, problems: &mut Vec<Problem>) {
        let body = &entry.body;
        match body.event {
            Event::Accepted | Event::MovedIn => {
                self.accepted += u64::from(body.event == Event::Accepted);
                self.moved_in += u64::from(body.event == Event::MovedIn);
                let size = if entry.is_measured() { body.size } else { body.sealed_content };
                let (sealed_sha256, sealed_content) = (body.sealed_sha256, body.sealed_content);
                let waiting = Waiting { uidl: body.uidl, size, sealed_sha256, sealed_content, time_ms: body.time_ms };
                self.waiting.insert(body.seq, waiting);
            }
            Event::Removed | Event::MovedOut => {
                self.removed += u64::from(body.event == Event::Removed);
                self.moved_out += u64::from(body.event == Event::MovedOut);
                if self.waiting.remove(&body.refers_to).is_none_or(|w| w.uidl != body.uidl) {
                    let detail = format!("entry {} removes entry {}, which is not waiting", body.seq, body.refers_to);
                    problems.push(about(entry, ProblemKind::Contradiction, detail));
                }
            }
        }
    }

    /// The mailbox of this ledger.
    #[must_use]
    pub fn mailbox(&self) -> MailboxId {
        self.header.mailbox
    }
}

fn about(entry: &Entry, kind: ProblemKind, detail: String) -> Problem {
    let body = &entry.body;
    Problem { kind, mailbox: body.mailbox, uidl: Some(body.uidl), seq: Some(body.seq), detail }
}
