//! What waits on a disk that may only be read: found in the ledgers and folders alone, past the page cache, without the
//! index. Nothing is written, so nothing is recovered either: a file without entry was never acknowledged and waits for
//! the next start on a sound disk.

use super::{
    SpoolError,
    layout::{Folder, Layout},
};
use crate::ledger::{LedgerError, Scan};
use postkeep_shared::{
    disk::Disk,
    mail::MailboxId,
    receipt::{Entry, Event},
};
use std::collections::{BTreeMap, BTreeSet};

/// The ledger of a mailbox from its beginning; `None` where nothing ever came.
pub(super) fn ledger(disk: &dyn Disk, layout: &Layout, mailbox: MailboxId) -> Result<Option<Scan>, SpoolError> {
    let path = layout.ledger(mailbox);
    match disk.open(&path) {
        // What the page cache shows after a failed sync is not what the disk holds.
        Ok(file) => file.drop_cache()?,
        Err(e) if e.is_missing() => return Ok(None),
        Err(e) => return Err(e.into()),
    }
    Ok(Some(Scan::open(disk, &path, mailbox)?))
}

/// What waits in a mailbox, by number, as far as it can be read.
pub(super) fn waiting(disk: &dyn Disk, layout: &Layout, mailbox: MailboxId) -> Result<Vec<Entry>, SpoolError> {
    let scan = match ledger(disk, layout, mailbox) {
        Ok(Some(scan)) => scan,
        Ok(None) => return Ok(Vec::new()),
        Err(SpoolError::Ledger(e @ LedgerError::Damaged { .. })) => {
            tracing::error!(%mailbox, "ALARM: {e}");
            return Ok(Vec::new());
        }
        Err(e) => return Err(e),
    };
    let mut waiting = BTreeMap::new();
    for slot in scan {
        // Damage in the middle or a torn end: the rest is still good.
        let Ok(entry) = slot?.entry else { continue };
        match entry.body.event {
            Event::Accepted | Event::MovedIn => drop(waiting.insert(entry.body.seq, entry)),
            Event::Removed | Event::MovedOut => drop(waiting.remove(&entry.body.refers_to)),
        }
    }
    let names: BTreeSet<String> = match disk.list(&layout.folder(mailbox, Folder::New)) {
        Ok(entries) => entries.into_iter().map(|entry| entry.name).collect(),
        Err(e) if e.is_missing() => BTreeSet::new(),
        Err(e) => return Err(e.into()),
    };
    Ok(waiting.into_values().filter(|entry| names.contains(&entry.body.uidl.to_string())).collect())
}
