//! How many visits work at once, and that slow hosts cannot keep others from it.
//!
//! A visit waits for a slot and gives it back when it ends, or when it has had it for [`LONG`]. So any number of hosts
//! that dribble delay the others by at most that once, and then no more. What a visit without a slot fetches is staged
//! on disk and not in memory: memory is bounded by the number of slots, not by the number of slow hosts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    task::{AbortHandle, spawn},
    time::sleep,
};

/// How long a visit keeps others waiting at most.
pub const LONG: Duration = Duration::from_secs(30);

/// The slots of a running archiver. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Semaphore>);

/// One slot; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    given_back: GivenBack,
    /// Holds the permit, for as long as it may.
    holder: Option<AbortHandle>,
}

/// Whether a slot went to somebody else already, because its visit takes long. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct GivenBack(Arc<AtomicBool>);

impl GivenBack {
    /// See the type.
    #[must_use]
    pub fn is_given_back(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Slots {
    /// So many visits at once.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// Waits for a slot, first come, first served.
    pub async fn take(&self) -> Slot {
        let given_back = GivenBack::default();
        let flag = given_back.clone();
        // Nobody closes the semaphore.
        let Ok(permit) = Arc::clone(&self.0).acquire_owned().await else { return Slot { given_back, holder: None } };
        let holder = spawn(async move {
            sleep(LONG).await;
            flag.0.store(true, Ordering::Relaxed);
            drop(permit);
        });
        Slot { given_back, holder: Some(holder.abort_handle()) }
    }
}

impl Slot {
    /// Tells whether it went to somebody else.
    #[must_use]
    pub fn given_back(&self) -> GivenBack {
        self.given_back.clone()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(holder) = &self.holder {
            holder.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};

    #[tokio::test(start_paused = true)]
    async fn slow_visits_delay_others_once_and_not_for_ever() {
        let slots = Slots::new(2);
        let (slow, slower) = (slots.take().await, slots.take().await);
        assert!(timeout(LONG / 2, slots.take()).await.is_err(), "a third slot of two");
        let before = Instant::now();
        let next = slots.take().await;
        assert!(
            before.elapsed() <= LONG
                && slow.given_back.is_given_back()
                && slower.given_back.is_given_back()
                && !next.given_back.is_given_back()
        );
        // Both go on, and the others have their two slots all the time.
        let other = timeout(Duration::from_millis(1), slots.take()).await.expect("a slot at once");
        drop((next, other));
        for _ in 0..10 {
            timeout(Duration::from_millis(1), slots.take()).await.expect("a slot at once");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_visit_that_ends_gives_its_slot_back_at_once() {
        let slots = Slots::new(1);
        for _ in 0..100 {
            timeout(Duration::from_millis(1), slots.take()).await.expect("a slot at once");
        }
    }
}
