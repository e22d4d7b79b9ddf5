//! Turns: attempts that belong together (one address, one mailbox name) come one after the other, the later the more of
//! them failed.
//!
//! A turn is given before any work is done for it. Nothing is locked: after [`FORGIVEN`] without a failure, or after
//! [`Turns::forgive`], the next attempt comes at once.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// A key is forgotten after this time without a failure.
pub(super) const FORGIVEN: Duration = Duration::from_secs(900);
/// Keys remembered; beyond it the one that failed longest ago goes.
pub(super) const REMEMBERED: usize = 10_000;

/// The turns of all keys.
pub(super) struct Turns<K> {
    /// Milliseconds between attempts after one, two, three failures; the last counts for all further ones.
    gaps: &'static [u64],
    /// A turn later than this is not given.
    longest: Duration,
    table: Mutex<HashMap<K, Turn>>,
}

#[derive(Clone, Copy)]
struct Turn {
    failures: usize,
    last: Instant,
    /// When the next attempt may begin.
    next: Instant,
}

/// Too many attempts are ahead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl<K: Copy + Eq + Hash> Turns<K> {
    pub(super) fn new(gaps: &'static [u64], longest: Duration) -> Self {
        Self { gaps, longest, table: Mutex::default() }
    }

    /// How long the next attempt has to wait; the one after it waits for this one.
    pub(super) fn take(&self, key: K, now: Instant) -> Result<Duration, TooLong> {
        let mut table = self.table();
        let Some(turn) = table.get_mut(&key) else { return Ok(Duration::ZERO) };
        if now.saturating_duration_since(turn.last) >= FORGIVEN {
            table.remove(&key);
            return Ok(Duration::ZERO);
        }
        let start = turn.next.max(now);
        let wait = start.saturating_duration_since(now);
        if wait > self.longest {
            return Err(TooLong);
        }
        turn.next = start + gap(self.gaps, turn.failures);
        Ok(wait)
    }

    /// Whether it failed lately.
    pub(super) fn has_failed(&self, key: K, now: Instant) -> bool {
        self.table().get(&key).is_some_and(|turn| now.saturating_duration_since(turn.last) < FORGIVEN)
    }

    /// An attempt failed.
    pub(super) fn failed(&self, key: K, now: Instant) {
        let mut table = self.table();
        if table.len() >= REMEMBERED && !table.contains_key(&key) {
            table.retain(|_, turn| now.saturating_duration_since(turn.last) < FORGIVEN);
            let oldest = table.iter().min_by_key(|(_, turn)| turn.last).map(|(key, _)| *key);
            if let Some(oldest) = oldest.filter(|_| table.len() >= REMEMBERED) {
                table.remove(&oldest);
            }
        }
        let turn = table.entry(key).or_insert(Turn { failures: 0, last: now, next: now });
        turn.failures = turn.failures.saturating_add(1);
        turn.last = now;
        turn.next = turn.next.max(now + gap(self.gaps, turn.failures));
    }

    /// An attempt succeeded.
    pub(super) fn forgive(&self, key: K) {
        self.table().remove(&key);
    }

    fn table(&self) -> MutexGuard<'_, HashMap<K, Turn>> {
        // No panic can happen while it is held; a poisoned table is as good as a whole one.
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn gap(gaps: &[u64], failures: usize) -> Duration {
    let index = failures.checked_sub(1).map(|index| index.min(gaps.len().saturating_sub(1)));
    Duration::from_millis(index.and_then(|index| gaps.get(index)).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAPS: &[u64] = &[2000, 4000, 8000];

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn failures_slow_down_and_success_forgives() {
        let (turns, mut now) = (Turns::new(GAPS, seconds(20)), Instant::now());
        for wait in [0, 2, 4, 8, 8] {
            assert_eq!(turns.take(1, now), Ok(seconds(wait)));
            now += seconds(wait);
            turns.failed(1, now);
        }
        assert_eq!(turns.take(2, now), Ok(Duration::ZERO));
        turns.forgive(1);
        assert_eq!(turns.take(1, now), Ok(Duration::ZERO));
    }

    #[test]
    fn attempts_at_the_same_time_come_one_after_the_other() {
        let (turns, now) = (Turns::new(GAPS, seconds(5)), Instant::now());
        turns.failed(1, now);
        let waits: Vec<_> = (0..4).map(|_| turns.take(1, now)).collect();
        assert_eq!(waits, [Ok(seconds(2)), Ok(seconds(4)), Err(TooLong), Err(TooLong)]);
        // Those who are refused do not make the others wait longer.
        assert_eq!(turns.take(1, now + seconds(6)), Ok(Duration::ZERO));
    }

    #[test]
    fn nothing_is_held_against_anybody_for_ever() {
        let (turns, now) = (Turns::new(GAPS, seconds(5)), Instant::now());
        (0..1000).for_each(|_| turns.failed(1, now));
        assert!(turns.has_failed(1, now));
        assert_eq!(turns.take(1, now + seconds(8)), Ok(Duration::ZERO));
        assert!(!turns.has_failed(1, now + FORGIVEN));
        assert_eq!(turns.take(1, now + FORGIVEN), Ok(Duration::ZERO));
    }

    #[test]
    fn the_table_is_bounded() {
        let (turns, now) = (Turns::new(GAPS, seconds(5)), Instant::now());
        (0..REMEMBERED + 5).for_each(|key| turns.failed(key, now));
        assert!(turns.table().len() <= REMEMBERED);
    }
}
