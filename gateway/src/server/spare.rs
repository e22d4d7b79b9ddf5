//! When no descriptor is left: connections are told to come back, with a descriptor kept for that, until a tenth of all
//! descriptors is free again. Without the wait the first client to leave would let one in that takes the last descriptor,
//! and messages under way would find none for their files.

use super::{Listener, busy};
use postkeep_shared::run::Shutdown;
use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Wait after a connection could not be taken at all: trying at once would only burn a core.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the descriptors in use are counted.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How many listeners are out of descriptors. All of them stop then: what one gives up another must not take.
#[derive(Clone, Default)]
pub(super) struct Shortage(Arc<AtomicUsize>);

/// Counts while it is held.
struct Short<'a>(&'a AtomicUsize);

impl Drop for Short<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A descriptor kept for the moment when there is no other.
pub(super) struct Spare {
    kept: Option<File>,
    shortage: Shortage,
}

impl Spare {
    pub(super) fn new(shortage: Shortage) -> Self {
        let mut spare = Self { kept: None, shortage };
        spare.keep();
        spare
    }

    fn keep(&mut self) {
        self.kept = File::open("/dev/null").ok();
    }

    /// Whether connections are to be turned away although this one could be taken.
    pub(super) fn is_short(&self) -> bool {
        self.shortage.0.load(Ordering::Relaxed) > 0
    }

    /// After a connection could not be taken: turns clients away until descriptors are free again. Returns after a pause
    /// where something else was the reason.
    pub(super) async fn relieve(&mut self, listener: &Listener, error: &std::io::Error, stopping: &mut Shutdown) {
        use rustix::io::Errno;
        if !matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE)) {
            tracing::error!(%error, kind = %listener.kind, "ALARM: a connection could not be taken");
            return tokio::time::sleep(PAUSE).await;
        }
        tracing::error!(%error, kind = %listener.kind, "ALARM: no connection is taken until a tenth of the descriptors is free");
        let shortage = self.shortage.clone();
        shortage.0.fetch_add(1, Ordering::Relaxed);
        let _short = Short(&shortage.0);
        let mut turned_away = 0_u64;
        while !self.is_relieved() {
            let look = tokio::time::sleep(LOOK_EVERY);
            tokio::pin!(look);
            loop {
                tokio::select! {
                    biased;
                    () = stopping.fired() => return,
                    () = &mut look => break,
                    told = self.turn_away(listener) => turned_away += u64::from(told),
                }
            }
        }
        tracing::info!(turned_away, kind = %listener.kind, "connections are taken again");
    }

    /// Takes one connection only to tell it to come back. Dropping this future loses no client.
    async fn turn_away(&mut self, listener: &Listener) -> bool {
        if self.kept.is_none() {
            self.keep();
        }
        let accepted = match listener.socket.accept().await {
            Ok(accepted) => Ok(accepted),
            Err(_) => {
                // Another task may be faster with the descriptor, and the client may be gone.
                self.kept = None;
                tokio::time::timeout(PAUSE, listener.socket.accept()).await.unwrap_or_else(|late| Err(late.into()))
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                tracing::debug!(%peer, kind = %listener.kind, "turned away: out of descriptors");
                // An empty send buffer takes a line at once; a client that does not even get that loses nothing.
                let _ = stream.try_write(&busy(listener.kind));
                true
            }
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                false
            }
        }
    }

    /// Whether a tenth of the descriptors is free.
    fn is_relieved(&mut self) -> bool {
        use rustix::process::{Resource, getrlimit};
        // Counting takes one as well.
        self.kept = None;
        let counted = std::fs::read_dir("/proc/self/fd").map(|open| open.count() as u64);
        self.keep();
        match (counted, getrlimit(Resource::Nofile).current) {
            (Ok(open), Some(all)) => open <= all / 10 * 9,
            (Err(error), _) => error.kind() == std::io::ErrorKind::NotFound && self.kept.is_some(),
            (Ok(_), None) => true,
        }
    }
}
