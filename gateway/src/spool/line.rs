//! The line in front of the committer. Whoever brings work and finds nobody at it carries out what waits, his own and
//! what others bring meanwhile; the others go back to theirs at once. So a message that comes alone is committed by the
//! thread that sealed it, without waking another, and messages that come together share their syncs.

use super::{
    SpoolError,
    committer::{Committer, Job, MAX_BATCH},
    failstop::FailStop,
};
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

pub(super) struct Line {
    waiting: Mutex<Waiting>,
    /// Nobody is at work.
    idle: Condvar,
    /// Held by the one who is at work; `None` once closed, so that whoever is late holds nothing open.
    committer: Mutex<Option<Committer>>,
    failstop: FailStop,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Somebody is at work, and looks again before he leaves.
    busy: bool,
    closed: bool,
}

impl Line {
    pub(super) fn new(committer: Committer) -> Self {
        let failstop = committer.failstop.clone();
        Self { waiting: Mutex::default(), idle: Condvar::new(), committer: Mutex::new(Some(committer)), failstop }
    }

    /// Brings work; its answer comes from whoever is at work, or at once from here when the line is closed. Blocking: that
    /// may be the caller, for as long as others bring more.
    pub(super) fn bring(&self, job: Job) {
        let mut waiting = self.waiting();
        if waiting.closed {
            drop(waiting);
            return job.refuse(stopping());
        }
        waiting.jobs.push_back(job);
        if waiting.busy {
            return;
        }
        waiting.busy = true;
        drop(waiting);
        let mut at_work = AtWork { line: self, is_done: false };
        let mut committer = self.committer();
        while let Some(batch) = self.next() {
            match committer.as_mut() {
                Some(committer) => committer.batch(batch),
                None => batch.into_iter().for_each(|job| job.refuse(stopping())),
            }
        }
        drop(committer);
        at_work.is_done = true;
    }

    /// What waits, as much as goes into one batch; when nothing does the caller is not at work any more.
    fn next(&self) -> Option<Vec<Job>> {
        let mut waiting = self.waiting();
        let (mut batch, mut weight) = (Vec::new(), 0);
        while weight < MAX_BATCH
            && let Some(job) = waiting.jobs.pop_front()
        {
            weight += job.weight();
            batch.push(job);
        }
        if batch.is_empty() {
            waiting.busy = false;
            self.idle.notify_all();
            return None;
        }
        Some(batch)
    }

    /// Lets nobody in any more, waits for what was brought before and closes all that the committer has open.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        while waiting.busy {
            waiting = self.idle.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        drop(waiting);
        *self.committer() = None;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can break off is done while it is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn committer(&self) -> MutexGuard<'_, Option<Committer>> {
        // After a commit that broke off storage has stopped, and it refuses everything.
        self.committer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stopping() -> SpoolError {
    SpoolError::Failed("the gateway is stopping".into())
}

/// Somebody is at work. When that breaks off nobody knows what was written: storage stops, and whoever waits hears it.
struct AtWork<'a> {
    line: &'a Line,
    is_done: bool,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut waiting = self.line.waiting();
        waiting.closed = true;
        waiting.busy = false;
        let left = std::mem::take(&mut waiting.jobs);
        drop(waiting);
        let broke_off = || self.line.failstop.stop("a commit broke off");
        broke_off();
        left.into_iter().for_each(|job| job.refuse(broke_off()));
        self.line.idle.notify_all();
    }
}
