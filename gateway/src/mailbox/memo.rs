//! Definitions that were read and checked before.
//!
//! Every lookup reads the file all the same, so what a command changed counts at once; only where its octets are the
//! very ones that were checked is the check of the signature spared, which costs more than all else of a lookup. Holds
//! no secret: a definition file has none in clear.

use super::Mailbox;
use postkeep_shared::mail::MailboxId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Definitions kept; beyond that all are forgotten. One takes about 2 KiB.
const MAX: usize = 1024;

/// A file's octets and what they define.
type Checked = (Vec<u8>, Mailbox);

/// Shared by all clones of [`Mailboxes`](super::Mailboxes).
#[derive(Clone, Default)]
pub(super) struct Memo(Arc<Mutex<HashMap<MailboxId, Checked>>>);

impl Memo {
    /// What these octets were found to define.
    pub(super) fn get(&self, id: &MailboxId, octets: &[u8]) -> Option<Mailbox> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(id).filter(|(before, _)| before == octets).map(|(_, mailbox)| mailbox.clone())
    }

    /// Keeps what was read and checked.
    pub(super) fn put(&self, octets: Vec<u8>, mailbox: &Mailbox) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX {
            known.clear();
        }
        known.insert(mailbox.id, (octets, mailbox.clone()));
    }
}
