//! The store behind its one lock: many visits, one writer.
//!
//! Invariant: nobody holds it while a server or anything else is waited for; the closures of [`StoreLock::with`] cannot
//! wait. How long it has been held is visible, for the health of the service.

use crate::archive::Archive;
use postkeep_shared::run::now_ms;
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The store of a running archiver.
pub struct StoreLock {
    store: Mutex<Archive>,
    /// Since when it is held, milliseconds since 1970-01-01 UTC; 0: it is free.
    since_ms: AtomicU64,
}

impl StoreLock {
    pub(super) fn new(store: Archive) -> Self {
        Self { store: Mutex::new(store), since_ms: AtomicU64::new(0) }
    }

    /// Works with the store as soon as nobody else does. Blocks the thread; other tasks of the runtime go on meanwhile.
    pub fn with<T>(&self, work: impl FnOnce(&mut Archive) -> T) -> T {
        tokio::task::block_in_place(|| {
            // A panic in the store has ended the round it was in, and with it the program; whatever it left is not
            // committed.
            let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
            self.since_ms.store(now_ms(), Ordering::Relaxed);
            let done = work(&mut store);
            self.since_ms.store(0, Ordering::Relaxed);
            done
        })
    }

    /// The store where nobody works with it this moment.
    pub fn try_with<T>(&self, work: impl FnOnce(&Archive) -> T) -> Option<T> {
        let store: MutexGuard<'_, Archive> = match self.store.try_lock() {
            Ok(store) => store,
            Err(_) => return None,
        };
        Some(work(&store))
    }

    /// How long one piece of work has been going on with it.
    #[must_use]
    pub fn held_for(&self) -> Option<Duration> {
        let since = self.since_ms.load(Ordering::Relaxed);
        (since > 0).then(|| Duration::from_millis(now_ms().saturating_sub(since)))
    }
}
