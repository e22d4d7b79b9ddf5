//! A mailbox in numbers, from its ledger.

use super::{Verifier, VerifyError};
use postkeep_shared::mail::MailboxId;

/// What a mailbox holds and has held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Messages waiting.
    pub messages: u64,
    /// Octets of those messages as received; a recovered message counts with its sealed octets.
    pub bytes: u64,
    /// When the oldest of them came, milliseconds since 1970-01-01 UTC.
    pub oldest_ms: Option<u64>,
    /// Messages ever accepted.
    pub accepted: u64,
    /// Messages ever removed.
    pub removed: u64,
    /// Messages ever taken over from other nodes; those nodes had accepted them.
    pub moved_in: u64,
    /// Messages ever given to other nodes.
    pub moved_out: u64,
}

impl Verifier {
    /// Counts without checking signatures or files.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn summary(&self, id: MailboxId) -> Result<Summary, VerifyError> {
        let Some(pass) = self.ledger(id, false)? else {
            return Ok(Summary::default());
        };
        let waiting = pass.check.waiting().values();
        Ok(Summary {
            messages: pass.check.waiting().len() as u64,
            bytes: waiting.clone().map(|w| w.size).sum(),
            oldest_ms: waiting.map(|w| w.time_ms).min(),
            accepted: pass.check.accepted,
            removed: pass.check.removed,
            moved_in: pass.check.moved_in,
            moved_out: pass.check.moved_out,
        })
    }
}
