//! One client's exclusive view of a mailbox: a snapshot of what waits, reading, removing.

use super::{Job, MessageReader, Spool, SpoolError, State, layout::Folder, open_message, read_only, reserve};
use crate::{
    ledger::{Origins, Scan, offset_of},
    mailbox::Identity,
};
use postkeep_shared::{
    mail::MailboxId,
    receipt::{Entry, NodeKey},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// The mailboxes open in a session.
pub(super) type InUse = Arc<Mutex<BTreeSet<MailboxId>>>;

/// One client's exclusive view of a mailbox; dropping it lets the next client in.
pub struct Maildrop {
    spool: Spool,
    mailbox: MailboxId,
    /// What messages were accepted with; for one that was moved here that is another node's entry.
    entries: Vec<Entry>,
    /// The entries of this ledger that brought them in.
    own: Vec<Entry>,
    _exclusive: Exclusive,
}

/// Held while a mailbox is open.
pub(super) struct Exclusive {
    in_use: InUse,
    mailbox: MailboxId,
}

impl Exclusive {
    pub(super) fn take(in_use: &InUse, mailbox: MailboxId) -> Result<Self, SpoolError> {
        let mut held = in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.insert(mailbox) {
            return Err(SpoolError::InUse);
        }
        Ok(Self { in_use: Arc::clone(in_use), mailbox })
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.mailbox);
    }
}

impl Maildrop {
    pub(super) fn new(spool: Spool, mailbox: MailboxId, messages: Vec<(Entry, Entry)>, exclusive: Exclusive) -> Self {
        let (entries, own) = messages.into_iter().unzip();
        Self { spool, mailbox, entries, own, _exclusive: exclusive }
    }

    /// The waiting messages by number, as they were when the session was opened. A message whose file was missing at
    /// start is not among them; the ledger still says that it came.
    #[must_use]
    pub fn list(&self) -> &[Entry] {
        &self.entries
    }

    /// Opens the `i`-th message of [`Self::list`] (from 0). Blocking, as reading is.
    ///
    /// # Errors
    /// [`SpoolError::Missing`] (also for an `i` beyond the list), [`SpoolError::Damaged`], [`SpoolError::WrongKey`] and
    /// disk errors.
    pub fn open(&self, i: usize, identity: &Identity) -> Result<MessageReader, SpoolError> {
        let entry = self.entries.get(i).ok_or(SpoolError::NoSuchMessage)?;
        let path = self.spool.inner.layout.message(self.mailbox, Folder::New, entry.body.uidl);
        open_message(self.spool.inner.disk.as_ref(), &path, entry, identity)
    }

    /// Removes messages: entries synced first, then the files go to the trash folder. All or none; what is removed
    /// already is left alone.
    ///
    /// # Errors
    /// [`SpoolError`]; then nothing was removed.
    pub async fn remove(&self, which: &[usize]) -> Result<(), SpoolError> {
        let wanted: BTreeSet<usize> = which.iter().copied().collect();
        let entries = wanted.iter().map(|i| self.own.get(*i).cloned().ok_or(SpoolError::NoSuchMessage));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        if entries.is_empty() {
            return Ok(());
        }
        self.spool.may_write()?;
        let spool = self.spool.clone();
        // Removing must work on a full disk; the ledger has a reserve of its own.
        let give_up = move || reserve::give_up_if_short(spool.inner.disk.as_ref(), &spool.inner.layout);
        if tokio::task::spawn_blocking(give_up).await.is_err() {
            tracing::warn!("the reserve could not be looked at");
        }
        self.spool.ask(|answer| Some(Job::Remove { entries, answer })).await
    }

    /// All entries of this mailbox from number `from` on, up to the last one committed now; read in blocks. Blocking.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn ledger(&self, from: u64) -> Result<LedgerEntries, SpoolError> {
        let inner = &self.spool.inner;
        let index = match &inner.state {
            State::Working { index, .. } => index,
            State::ReadOnly(_) => {
                let scan = read_only::ledger(inner.disk.as_ref(), &inner.layout, self.mailbox)?;
                return Ok(LedgerEntries(scan.map(|scan| scan.from(offset_of(from)))));
            }
        };
        let Some(head) = index.head(self.mailbox)? else {
            return Ok(LedgerEntries(None));
        };
        let scan = Scan::open(inner.disk.as_ref(), &inner.layout.ledger(self.mailbox), self.mailbox)?;
        // Entries that are not synced yet must not be told to anybody.
        Ok(LedgerEntries(Some(scan.from(offset_of(from)).until(head.end))))
    }

    /// The nodes whose ledgers are kept here because their messages were moved here, with how many entries each has.
    /// Blocking.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn origins(&self) -> Result<Vec<(NodeKey, u64)>, SpoolError> {
        let scans = self.origin_scans()?;
        Ok(scans.into_iter().map(|scan| (scan.header().node, scan.entries())).collect())
    }

    /// As [`Self::ledger`], of such a node; `None` where it has no ledger here.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn origin(&self, node: &NodeKey, from: u64) -> Result<Option<LedgerEntries>, SpoolError> {
        let scan = self.origin_scans()?.into_iter().find(|scan| scan.header().node == *node);
        Ok(scan.map(|scan| LedgerEntries(Some(scan.from(offset_of(from))))))
    }

    fn origin_scans(&self) -> Result<Vec<Scan>, SpoolError> {
        let (disk, ledgers) = (self.spool.inner.disk.as_ref(), self.spool.inner.layout.ledgers());
        let origins = Origins::open(disk, &ledgers, self.mailbox)?;
        let scans = origins.paths().map(|path| Scan::open(disk, path, self.mailbox));
        Ok(scans.collect::<Result<_, _>>()?)
    }
}

/// Entries of a ledger in order; damaged places are left out and logged (`verify` tells more).
pub struct LedgerEntries(Option<Scan>);

impl Iterator for LedgerEntries {
    type Item = Result<Entry, SpoolError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.as_mut()?.next()? {
                Ok(slot) => match slot.entry {
                    Ok(entry) => return Some(Ok(entry)),
                    Err(e) => tracing::error!("ledger entry {} left out: {e}", slot.seq()),
                },
                Err(e) => return Some(Err(e.into())),
            }
        }
    }
}
