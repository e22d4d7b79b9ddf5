//! Some octets of the disk set aside while there is plenty, to be given up when it is full: collecting needs a little
//! room for the index before it makes any. The ledgers hold a reserve of their own (`ledger::RESERVE`).

use super::layout::Layout;
use postkeep_shared::disk::{Disk, DiskResult};

/// Octets set aside.
pub(super) const RESERVE: u64 = 8 * 1024 * 1024;

/// Sets the octets aside where there are ten times as many, if that is not done.
pub(super) fn keep(disk: &dyn Disk, layout: &Layout) {
    let path = layout.reserve();
    let made = || -> DiskResult<()> {
        match disk.entry(&path) {
            Err(e) if e.is_missing() && disk.space(layout.root())?.free > 10 * RESERVE => {
                disk.create(&path)?.reserve(RESERVE)
            }
            Err(e) if !e.is_missing() => Err(e),
            _ => Ok(()),
        }
    };
    // The index writes behind our back, a second late: without room in its own file its next change would fail.
    let index = || -> DiskResult<()> {
        match disk.open_append(&layout.index().join("db")) {
            Ok(mut file) => file.reserve(RESERVE),
            Err(e) if e.is_missing() => Ok(()),
            Err(e) => Err(e),
        }
    };
    if let Err(e) = made().and_then(|()| index()) {
        // Mail is taken all the same; only emptying a full disk may need a hand.
        tracing::warn!("no reserve for a full disk: {e}");
    }
}

/// Gives the octets up when the disk has fewer left than that.
pub(super) fn give_up_if_short(disk: &dyn Disk, layout: &Layout) {
    if !disk.space(layout.root()).is_ok_and(|space| space.free < RESERVE) {
        return;
    }
    match disk.remove_file(&layout.reserve()) {
        Ok(()) => tracing::error!("ALARM: the disk is full; its reserve was given up so that mail can be collected"),
        Err(e) if e.is_missing() => {}
        Err(e) => tracing::warn!("{e}"),
    }
}
