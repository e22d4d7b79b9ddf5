//! Turns at a source: a mailbox takes one client at a time, so rounds and reconciles of one process wait for each other
//! instead of being turned away.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::OwnedMutexGuard;

/// A turn; dropping it lets the next one come.
pub type Turn = OwnedMutexGuard<()>;

/// Who is at which source.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for a turn at a source.
    pub async fn take(&self, source: &str) -> Turn {
        let of_source = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(source.to_owned()).or_default())
        };
        of_source.lock_owned().await
    }
}
