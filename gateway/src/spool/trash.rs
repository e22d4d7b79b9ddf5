//! The trash: files of removed messages stay for seven days, for the case that a client lost what it took.
//!
//! A file is there under `<uidl>.<milliseconds of its removal>`. What is purged is logged; the ledger knew before.

use super::{
    KEEP_INODES,
    layout::{Folder, Layout},
    reserve,
};
use postkeep_shared::{
    disk::{DirEntry, Disk},
    mail::{MailboxId, Uidl},
    run::now_ms,
};
use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, UNIX_EPOCH},
};

/// How long a removed message's file stays.
pub(super) const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often the trash and the space left are looked at.
const EVERY: Duration = Duration::from_secs(300);
/// With less than this part of the file system free (a tenth), the trash is given up early.
const SHORT: u64 = 10;

/// Empties the trash: what is old, what a full disk needs, what was asked for. Ends when every sender is gone.
pub(super) fn run(disk: &Arc<dyn Disk>, layout: &Layout, wanted: &mpsc::Receiver<u64>) {
    loop {
        purge(disk.as_ref(), layout);
        match disk.space(layout.root()) {
            Ok(space) if space.free < space.total / SHORT => give_up(disk.as_ref(), layout, space.total / SHORT),
            Ok(_) => reserve::keep(disk.as_ref(), layout),
            Err(e) => tracing::warn!("{e}"),
        }
        match wanted.recv_timeout(EVERY) {
            Ok(need) => give_up(disk.as_ref(), layout, need),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Moves a removed message's file to the trash. What fails here is found at the next start.
pub(super) fn put(disk: &dyn Disk, layout: &Layout, mailbox: MailboxId, uidl: Uidl) {
    let from = layout.message(mailbox, Folder::New, uidl);
    let to = layout.folder(mailbox, Folder::Trash).join(format!("{uidl}.{}", now_ms()));
    match disk.rename_new(&from, &to) {
        // Even the name needs room; what was removed goes before what waits.
        Err(e) if e.is_full() => match disk.remove_file(&from) {
            Ok(()) => tracing::error!("ALARM: the disk is full; {uidl} was removed without a stay in the trash"),
            Err(e) => tracing::warn!("the file of a removed message stays until the next start: {e}"),
        },
        Err(e) if e.is_missing() => tracing::warn!("the file of the removed message {uidl} was gone already"),
        Err(e) => tracing::warn!("the file of a removed message stays until the next start: {e}"),
        Ok(()) => {}
    }
}

/// Removes files that were in the trash for longer than [`KEEP`].
pub(super) fn purge(disk: &dyn Disk, layout: &Layout) {
    let keep = u64::try_from(KEEP.as_millis()).unwrap_or(u64::MAX);
    let now = now_ms();
    for (_, path) in files(disk, layout).into_iter().filter(|(removed, _)| removed.saturating_add(keep) <= now) {
        match disk.remove_file(&path) {
            Ok(()) => tracing::info!("{}: removed from the trash after seven days", path.display()),
            Err(e) => tracing::warn!("cannot empty the trash: {e}"),
        }
    }
}

/// Removes files from the trash, the oldest first, until `need` octets (and inodes) are free: room for new mail is
/// worth more.
pub(super) fn give_up(disk: &dyn Disk, layout: &Layout, need: u64) {
    let mut files = files(disk, layout);
    files.sort_unstable();
    for (_, path) in files {
        if disk.space(layout.root()).is_ok_and(|space| space.free >= need && space.free_inodes >= KEEP_INODES) {
            return;
        }
        match disk.remove_file(&path) {
            Ok(()) => tracing::error!("ALARM: {}: removed from the trash early, since space is short", path.display()),
            Err(e) => tracing::warn!("cannot empty the trash: {e}"),
        }
    }
}

/// Every file in any trash with the time it came there.
fn files(disk: &dyn Disk, layout: &Layout) -> Vec<(u64, PathBuf)> {
    let mut files = Vec::new();
    for mailbox in layout.mailboxes(disk).unwrap_or_default() {
        let folder = layout.folder(mailbox, Folder::Trash);
        let entries = disk.list(&folder).unwrap_or_default();
        files.extend(entries.iter().filter(|e| e.is_file).map(|e| (removed_ms(e), folder.join(&e.name))));
    }
    files
}

/// When a file came to the trash: by its name, else its modification time; never when neither is known.
fn removed_ms(entry: &DirEntry) -> u64 {
    let named = entry.name.split_once('.').and_then(|(_, ms)| ms.parse().ok());
    let modified = || entry.modified?.duration_since(UNIX_EPOCH).ok()?.as_millis().try_into().ok();
    named.or_else(modified).unwrap_or(u64::MAX)
}
