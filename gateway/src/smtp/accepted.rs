//! What the spool tells the machine at the end of a message.

use crate::spool::{Receipt, SpoolError};
use postkeep_shared::receipt::Entry;

/// A message on stable storage in one mailbox. Made of a [`Receipt`] and of nothing else: without one there is no `250`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted(String);

impl Accepted {
    fn of(entry: &Entry) -> Self {
        Self(format!("{} seq={} receipt={}", entry.body.uidl, entry.body.seq, entry.hash().short(16)))
    }

    /// The group in the `250`: uidl, number and the first 16 hex digits of the receipt's hash.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// For tests of the pure machine.
    #[cfg(test)]
    pub(super) fn pretend(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<&Receipt> for Accepted {
    fn from(receipt: &Receipt) -> Self {
        Self::of(receipt.entry())
    }
}

/// Why a message cannot be taken now; never a reason for a `5xx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Space, quota or inodes ran out: `452 4.3.1`.
    Full,
    /// Storage has failed for good, until somebody restarts the gateway: `451 4.3.0`, at MAIL `421 4.3.0`.
    Stopped,
    /// Anything else: `451 4.3.0`.
    Other,
}

impl From<&SpoolError> for Trouble {
    /// The one place that maps the spool's errors to replies.
    fn from(error: &SpoolError) -> Self {
        match error {
            error if error.is_full() => Self::Full,
            SpoolError::Failed(_) => Self::Stopped,
            _ => Self::Other,
        }
    }
}
