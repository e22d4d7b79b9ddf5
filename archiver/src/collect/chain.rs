//! Whether ledger entries continue what was seen before: same node, same mailbox, signed, numbered without gaps, each
//! naming the hash of the one before. Pure.

use postkeep_shared::{
    mail::{Digest, MailboxId},
    receipt::{Entry, NodeKey, Verifier},
};

/// Follows one ledger.
#[derive(Debug, Clone)]
pub struct Chain {
    node: NodeKey,
    /// `None` where its key is none: it signed nothing.
    verifier: Option<Verifier>,
    mailbox: MailboxId,
    last: Option<(u64, Digest)>,
    /// The entry that was seen last must come first again, so that a ledger that was set back is noticed.
    repeat: bool,
}

/// What one entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// The entry seen last, unchanged.
    Known,
    /// The next one.
    New,
    /// A good entry, but these numbers before it are missing (first and last).
    AfterGap(u64, u64),
}

/// Why entries cannot be trusted. Sentences for the alarm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Another node's entry.
    #[error("ledger entry {0} is of another node or mailbox")]
    Foreign(u64),
    /// Wrong signature.
    #[error("ledger entry {0} is not signed by the node")]
    Signature(u64),
    /// The hash of the entry before is another.
    #[error("ledger entry {0} does not continue the entry before it: the ledger was changed")]
    Broken(u64),
    /// A number that was there already, with other content or out of order.
    #[error("ledger entry {0} was seen before with other content: the ledger was set back or replaced")]
    Rewritten(u64),
    /// Nothing came where at least the entry seen last had to come.
    #[error("the ledger ends before entry {0}, which was seen there before: it was set back or replaced")]
    SetBack(u64),
}

impl Chain {
    /// Continues behind `last`, the last entry seen of this node and mailbox.
    #[must_use]
    pub fn new(node: NodeKey, mailbox: MailboxId, last: Option<&Entry>) -> Self {
        let last = last.map(|entry| (entry.body.seq, entry.hash()));
        Self { node, verifier: Verifier::new(node).ok(), mailbox, last, repeat: last.is_some() }
    }

    /// The number to ask for: the last one seen, so that it can be compared.
    #[must_use]
    pub fn from(&self) -> u64 {
        self.last.map_or(1, |(seq, _)| seq)
    }

    /// Looks at the next entry.
    ///
    /// # Errors
    /// [`ChainError`]; nothing after it can be trusted.
    pub fn follow(&mut self, entry: &Entry) -> Result<Link, ChainError> {
        let seq = entry.body.seq;
        if entry.node != self.node || entry.body.mailbox != self.mailbox {
            return Err(ChainError::Foreign(seq));
        }
        let signed = self.verifier.as_ref().is_some_and(|verifier| verifier.verify(entry).is_ok());
        if !signed {
            return Err(ChainError::Signature(seq));
        }
        let (before, hash) = self.last.unwrap_or_default();
        let now = (seq, entry.hash());
        if self.repeat {
            return if self.last == Some(now) {
                self.repeat = false;
                Ok(Link::Known)
            } else {
                Err(if seq > before { ChainError::SetBack(before) } else { ChainError::Rewritten(seq) })
            };
        }
        if seq <= before {
            return Err(ChainError::Rewritten(seq));
        }
        let next = seq == before + 1;
        // The first entry names the hash of the ledger's file header, which is not handed out.
        if next && before > 0 && entry.body.prev != hash {
            return Err(ChainError::Broken(seq));
        }
        self.last = Some(now);
        Ok(if next { Link::New } else { Link::AfterGap(before + 1, seq - 1) })
    }

    /// No more entries come.
    ///
    /// # Errors
    /// [`ChainError::SetBack`].
    pub fn finish(&self) -> Result<(), ChainError> {
        match self.last {
            Some((seq, _)) if self.repeat => Err(ChainError::SetBack(seq)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{MAILBOX, ledger, node};
    use super::*;

    fn follow(chain: &mut Chain, entries: &[Entry]) -> Result<Vec<Link>, ChainError> {
        let links: Result<Vec<Link>, ChainError> = entries.iter().map(|e| chain.follow(e)).collect();
        links.and_then(|links| chain.finish().map(|()| links))
    }

    #[test]
    fn a_ledger_that_continues() {
        let entries = ledger(5);
        let mut chain = Chain::new(node(), MAILBOX, None);
        assert_eq!(chain.from(), 1);
        assert_eq!(follow(&mut chain, &entries), Ok(vec![Link::New; 5]));
        let mut again = Chain::new(node(), MAILBOX, Some(&entries[2]));
        assert_eq!(again.from(), 3);
        assert_eq!(follow(&mut again, &entries[2..]), Ok(vec![Link::Known, Link::New, Link::New]));
    }

    #[test]
    fn ledgers_that_do_not() {
        let entries = ledger(5);
        let from = |last: usize| Chain::new(node(), MAILBOX, Some(&entries[last]));
        assert_eq!(follow(&mut from(4), &[]), Err(ChainError::SetBack(5)), "truncated");
        assert_eq!(follow(&mut from(2), &entries[3..]), Err(ChainError::SetBack(3)), "our last one is not shown");
        let other = &super::super::samples::ledger_salted(5, 77)[2];
        assert_eq!(follow(&mut from(2), std::slice::from_ref(other)), Err(ChainError::Rewritten(3)), "rewritten");
        let mut fresh = Chain::new(node(), MAILBOX, None);
        let gap = [entries[0].clone(), entries[3].clone()];
        assert_eq!(follow(&mut fresh, &gap), Ok(vec![Link::New, Link::AfterGap(2, 3)]));
        let mut fresh = Chain::new(node(), MAILBOX, None);
        let mixed = [entries[0].clone(), super::super::samples::ledger_salted(5, 77)[1].clone()];
        assert_eq!(follow(&mut fresh, &mixed), Err(ChainError::Broken(2)));
        let mut fresh = Chain::new(node(), MAILBOX, None);
        assert_eq!(follow(&mut fresh, &[entries[1].clone(), entries[0].clone()]), Err(ChainError::Rewritten(1)));
        let mut forged = entries[0].clone();
        forged.body.size += 1;
        let mut fresh = Chain::new(node(), MAILBOX, None);
        assert_eq!(follow(&mut fresh, &[forged]), Err(ChainError::Signature(1)));
        let mut fresh = Chain::new(NodeKey([1; 32]), MAILBOX, None);
        assert_eq!(follow(&mut fresh, &entries), Err(ChainError::Foreign(1)));
    }
}
