//! Hosts that fail are asked less and less often: after the interval of the source, twice that, four times, up to a cap.
//!
//! Each host of each source counts for itself, so the others keep their rhythm. One answer that is right ends it. Kept in
//! memory only: a start asks everybody at once. `run --once` knows no back-off, since somebody wants to know now.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// What is known of a host that failed.
#[derive(Debug, Clone)]
pub struct Wait {
    /// Failures in a row.
    pub failures: u32,
    /// When it is asked again.
    pub until: Instant,
    /// What it failed with last.
    pub error: String,
}

/// The hosts that have to wait.
#[derive(Debug)]
pub struct Backoff {
    most: Mutex<Duration>,
    hosts: Mutex<HashMap<(String, String), Wait>>,
}

impl Backoff {
    /// None has to wait yet; `most`: the cap.
    #[must_use]
    pub fn new(most: Duration) -> Self {
        Self { most: Mutex::new(most), hosts: Mutex::default() }
    }

    /// Another cap, for failures from now on.
    pub fn set_most(&self, most: Duration) {
        *self.most.lock().unwrap_or_else(PoisonError::into_inner) = most;
    }

    /// Why a host is not asked now.
    #[must_use]
    pub fn waits(&self, source: &str, host: &str) -> Option<Wait> {
        let wait = self.hosts().get(&key(source, host)).cloned()?;
        (wait.until > Instant::now()).then_some(wait)
    }

    /// It answered: from now on it is asked at every interval.
    pub fn well(&self, source: &str, host: &str) {
        self.hosts().remove(&key(source, host));
    }

    /// It failed; when it is asked again.
    pub fn failed(&self, source: &str, host: &str, interval: Duration, error: &str) -> Wait {
        let most = *self.most.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hosts = self.hosts();
        let wait = hosts.entry(key(source, host)).or_insert_with(|| Wait {
            failures: 0,
            until: Instant::now(),
            error: String::new(),
        });
        wait.failures = wait.failures.saturating_add(1);
        wait.until = Instant::now() + pause(interval, wait.failures, most);
        error.clone_into(&mut wait.error);
        wait.clone()
    }

    /// Forgets every wait: somebody has mended something and wants to see it.
    pub fn clear(&self) {
        self.hosts().clear();
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<(String, String), Wait>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(source: &str, host: &str) -> (String, String) {
    (source.to_owned(), host.to_owned())
}

/// From the end of the visit that failed; never shorter than the interval, whatever the cap.
fn pause(interval: Duration, failures: u32, most: Duration) -> Duration {
    let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    interval.saturating_mul(factor).min(most.max(interval))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn doubles_up_to_the_cap() {
        let minutes = |failures| pause(MINUTE, failures, 15 * MINUTE).as_secs() / 60;
        assert_eq!([1, 2, 3, 4, 5, 6, 100].map(minutes), [1, 2, 4, 8, 15, 15, 15]);
        assert_eq!(pause(60 * MINUTE, 9, 15 * MINUTE), 60 * MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn each_host_waits_for_itself_until_it_answers() {
        let backoff = Backoff::new(15 * MINUTE);
        for failures in 1..=3 {
            assert_eq!(backoff.failed("m365", "msgw1:995", MINUTE, "no route").failures, failures);
        }
        let wait = backoff.waits("m365", "msgw1:995").expect("it waits");
        assert_eq!((wait.failures, wait.error.as_str()), (3, "no route"));
        assert!(backoff.waits("m365", "msgw2:995").is_none() && backoff.waits("other", "msgw1:995").is_none());
        advance(4 * MINUTE).await;
        assert!(backoff.waits("m365", "msgw1:995").is_none(), "its time has come");
        assert_eq!(backoff.failed("m365", "msgw1:995", MINUTE, "no route").failures, 4);
        backoff.well("m365", "msgw1:995");
        assert_eq!(backoff.failed("m365", "msgw1:995", MINUTE, "no route").failures, 1);
        backoff.clear();
        assert!(backoff.waits("m365", "msgw1:995").is_none());
    }
}
