//! Several syncs at once, so that the file system joins them in one commit of its journal instead of making one each.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    thread,
};

/// Does the work for every item, all at the same time, and gives the results in their order. One item costs no thread;
/// where no thread can be had, one item follows the other.
pub(super) fn together<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    if items.len() < 2 {
        return items.into_iter().map(work).collect();
    }
    let helpers = items.len() - 1;
    let waiting: Mutex<VecDeque<(usize, T)>> = Mutex::new(items.into_iter().enumerate().collect());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let done = Mutex::new(Vec::new());
    let work_on = || {
        while let Some((place, item)) = next() {
            let result = work(item);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..helpers {
            // Without a helper the others do its work.
            let _ = thread::Builder::new().name("sync".into()).spawn_scoped(scope, work_on);
        }
        work_on();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn all_at_once_and_in_order() {
        let barrier = Barrier::new(5);
        let results = together((0..5).collect(), |n| {
            barrier.wait();
            n * 2
        });
        assert_eq!(results, [0, 2, 4, 6, 8]);
        assert_eq!(together(vec![7], |n| n), [7]);
    }
}
