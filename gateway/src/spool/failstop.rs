//! Fail-stop: once a sync has failed nobody knows what the disk holds, so nothing is written any more in this process.

use super::SpoolError;
use postkeep_shared::disk::DiskError;
use std::sync::Arc;
use tokio::sync::watch;

/// Whether storage has failed, and why. Cheap to clone.
#[derive(Clone)]
pub(super) struct FailStop(Arc<watch::Sender<Option<String>>>);

impl FailStop {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Stops storage for good; the first reason stays.
    pub(super) fn stop(&self, reason: impl std::fmt::Display) -> SpoolError {
        let reason = reason.to_string();
        self.0.send_if_modified(|held| {
            let first = held.is_none();
            if first {
                tracing::error!("storage stops: {reason}");
                *held = Some(reason.clone());
            }
            first
        });
        SpoolError::Failed(self.reason().unwrap_or(reason))
    }

    /// A failed write: running out of space is harmless, anything else stops storage.
    pub(super) fn writing(&self, error: DiskError) -> SpoolError {
        if error.is_full() { SpoolError::Full(error.to_string()) } else { self.stop(error) }
    }

    /// A failed sync ends storage whatever it said. Where the disk only was full, the peer hears that.
    pub(super) fn syncing(&self, error: DiskError) -> SpoolError {
        let full = error.is_full();
        match self.stop(error) {
            SpoolError::Failed(reason) if full => SpoolError::Full(reason),
            stopped => stopped,
        }
    }

    /// Anything else that failed on the way to a message's file or ledger. A failed sync must stop storage here too: a
    /// folder that is there is not synced again, so a second try would build on it.
    pub(super) fn preparing(&self, error: DiskError) -> SpoolError {
        const EIO: i32 = 5;
        if error.operation.starts_with("sync") {
            self.syncing(error)
        } else if error.is_full() {
            SpoolError::Full(error.to_string())
        } else if error.is_read_only() || error.source.raw_os_error() == Some(EIO) {
            self.stop(error)
        } else {
            // Out of descriptors, a permission: nothing was begun and the next message may find it mended.
            error.into()
        }
    }

    pub(super) fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    pub(super) fn check(&self) -> Result<(), SpoolError> {
        self.reason().map_or(Ok(()), |reason| Err(SpoolError::Failed(reason)))
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.0.subscribe()
    }
}
