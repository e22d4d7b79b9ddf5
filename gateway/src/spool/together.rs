//! Several syncs at once, so that the file system joins them in one commit of its journal instead of making one each.

use std::{sync::mpsc, thread};

/// Threads that help; what is more waits its turn.
const HELPERS: usize = 7;

type Work = Box<dyn FnOnce() + Send>;

/// A few threads, started when first needed and kept. They end with their owner.
#[derive(Default)]
pub(super) struct Together {
    helpers: Vec<mpsc::Sender<Work>>,
}

impl Together {
    /// Does the work for every item, all at the same time, and gives the results in the order of the items. One item is
    /// done here; where no thread can be had, one item follows the other.
    pub(super) fn run<T, R>(&mut self, mut items: Vec<T>, work: fn(T) -> R) -> Vec<R>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        let Some(last) = items.pop() else { return Vec::new() };
        let count = items.len();
        if count == 0 {
            return vec![work(last)];
        }
        self.start(count);
        let (done, results) = mpsc::channel();
        for (place, item) in items.into_iter().enumerate() {
            let done = done.clone();
            let task = move || {
                // Whoever waits is there until all results are.
                let _ = done.send((place, work(item)));
            };
            self.give(place, Box::new(task));
        }
        drop(done);
        let last = work(last);
        let mut all: Vec<(usize, R)> = results.iter().collect();
        // A panic in a helper is one here: whoever waits for the commit hears that storage has stopped.
        assert_eq!(all.len(), count, "a sync broke off");
        all.sort_unstable_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, result)| result).chain([last]).collect()
    }

    fn start(&mut self, count: usize) {
        while self.helpers.len() < count.min(HELPERS) {
            let (sender, tasks) = mpsc::channel::<Work>();
            let help = move || tasks.iter().for_each(|task| task());
            if thread::Builder::new().name("sync".into()).spawn(help).is_err() {
                return;
            }
            self.helpers.push(sender);
        }
    }

    fn give(&self, place: usize, task: Work) {
        let Some(helper) = self.helpers.get(place % self.helpers.len().max(1)) else { return task() };
        if let Err(mpsc::SendError(task)) = helper.send(task) {
            task();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier};

    #[test]
    fn all_at_once_and_in_order() {
        let mut together = Together::default();
        for _ in 0..3 {
            let barrier = Arc::new(Barrier::new(5));
            let items = (0..5).map(|n| (n, Arc::clone(&barrier))).collect();
            let results = together.run(items, |(n, barrier)| {
                barrier.wait();
                n * 2
            });
            assert_eq!(results, [0, 2, 4, 6, 8]);
        }
        assert_eq!(together.run((0..40).collect(), |n| n), (0..40).collect::<Vec<i32>>());
        assert_eq!(together.run(vec![7], |n| n), [7]);
        assert!(together.run(Vec::new(), |n: u8| n).is_empty());
    }
}
