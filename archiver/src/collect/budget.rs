//! How much one round may take from one host (`max_per_round`); what is left is the next round's, and counted.

use crate::config::MaxPerRound;

/// What a visit may still take.
#[derive(Debug)]
pub(super) struct Budget {
    messages: u64,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(most: MaxPerRound) -> Self {
        Self { messages: most.messages.unwrap_or(u64::MAX), bytes: most.bytes.unwrap_or(u64::MAX) }
    }

    /// How many of the messages with these sizes may be taken, in order. One that is larger than what is left of the
    /// octets is taken as long as any are left: it would never be otherwise.
    pub(super) fn grant(&mut self, sizes: impl Iterator<Item = u64>) -> usize {
        let mut granted = 0;
        for size in sizes {
            if self.is_spent() {
                break;
            }
            self.messages -= 1;
            self.bytes = self.bytes.saturating_sub(size);
            granted += 1;
        }
        granted
    }

    pub(super) fn is_spent(&self) -> bool {
        self.messages == 0 || self.bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_octets_end_it() {
        let mut budget = Budget::new(MaxPerRound { messages: Some(3), bytes: None });
        assert_eq!(budget.grant([5, 5].into_iter()), 2);
        assert_eq!(budget.grant([5, 5].into_iter()), 1);
        assert!(budget.is_spent() && budget.grant([5].into_iter()) == 0);

        let mut budget = Budget::new(MaxPerRound { messages: None, bytes: Some(10) });
        assert_eq!(budget.grant([4, 4, 4, 4].into_iter()), 3);
        assert!(budget.is_spent());
        // Larger than all that is allowed, and taken all the same.
        let mut budget = Budget::new(MaxPerRound { messages: None, bytes: Some(10) });
        assert_eq!(budget.grant([400, 4].into_iter()), 1);
        assert_eq!(Budget::new(MaxPerRound::default()).grant([u64::MAX, 1].into_iter()), 1);
    }
}
