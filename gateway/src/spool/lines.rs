//! The lines in front of the committer: one for each mailbox, and one for transactions to several. Whoever brings work and
//! finds nobody at a line carries out what waits in it, his own and what others bring meanwhile; the others go back to
//! theirs at once. So a message that comes alone is committed by the thread that sealed it, without waking another, messages
//! to one mailbox share their syncs, and no mailbox waits for another's. A transaction to several mailboxes is all or none:
//! nobody else commits meanwhile.

use super::{
    SpoolError,
    committer::{Committer, Desk, Job, MAX_BATCH},
    failstop::FailStop,
};
use parking_lot::RwLock;
use postkeep_shared::mail::MailboxId;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// Mailboxes kept open; each takes two descriptors.
const MAX_OPEN: usize = if cfg!(test) { 4 } else { 128 };

pub(super) struct Lines {
    state: Mutex<State>,
    /// Nobody is at work.
    idle: Condvar,
    /// Held for reading by whoever commits to one mailbox, for writing by whoever commits to several. Of a kind that is
    /// fair: neither can be kept waiting by a stream of the other.
    turn: RwLock<()>,
    several: Line,
    failstop: FailStop,
}

struct State {
    /// `None` once closed, so that whoever is late holds nothing open.
    committer: Option<Arc<Committer>>,
    lines: BTreeMap<MailboxId, Arc<Line>>,
    /// Those who have brought work and not gone back.
    at_work: usize,
}

#[derive(Default)]
struct Line {
    waiting: Mutex<Waiting>,
    /// Taken only by whoever has the turn.
    desk: Mutex<Desk>,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Somebody is at work, and looks again before he leaves.
    busy: bool,
}

impl Lines {
    pub(super) fn new(committer: Committer) -> Self {
        let failstop = committer.failstop.clone();
        let state = State { committer: Some(Arc::new(committer)), lines: BTreeMap::new(), at_work: 0 };
        Self {
            state: Mutex::new(state),
            idle: Condvar::new(),
            turn: RwLock::new(()),
            several: Line::default(),
            failstop,
        }
    }

    /// Brings work; its answer comes from whoever is at work, or at once from here when the lines are closed. Blocking: that
    /// may be the caller, for as long as others bring more.
    pub(super) fn bring(&self, job: Job) {
        let Some((committer, _visit)) = self.enter() else { return job.refuse(stopping()) };
        let mut mailboxes = job.mailboxes().into_iter();
        match (mailboxes.next(), mailboxes.next()) {
            (Some(only), None) => {
                let line = self.line(only);
                line.bring(job, &self.failstop, |batch| {
                    let _turn = self.turn.read();
                    committer.batch(batch, &mut line.desk());
                });
            }
            _ => self.several.bring(job, &self.failstop, |batch| self.commit_to_several(&committer, batch)),
        }
    }

    /// Carries out transactions to several mailboxes, with what is open of these.
    fn commit_to_several(&self, committer: &Committer, batch: Vec<Job>) {
        let _alone = self.turn.write();
        let mailboxes: BTreeSet<MailboxId> = batch.iter().flat_map(Job::mailboxes).collect();
        let lines: Vec<(MailboxId, Arc<Line>)> = mailboxes.into_iter().map(|id| (id, self.line(id))).collect();
        let mut desk = self.several.desk();
        for (_, line) in &lines {
            desk.open.append(&mut line.desk().open);
        }
        committer.batch(batch, &mut desk);
        for (mailbox, line) in lines {
            if let Some(open) = desk.open.remove(&mailbox) {
                line.desk().open.insert(mailbox, open);
            }
        }
    }

    /// Lets nobody in any more, waits for what was brought before and closes all that is open.
    pub(super) fn close(&self) {
        let mut state = self.state();
        let committer = state.committer.take();
        while state.at_work > 0 {
            state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.lines.clear();
        drop(state);
        *self.several.desk() = Desk::default();
        drop(committer);
    }

    fn enter(&self) -> Option<(Arc<Committer>, Visit<'_>)> {
        let mut state = self.state();
        let committer = Arc::clone(state.committer.as_ref()?);
        state.at_work += 1;
        Some((committer, Visit(self)))
    }

    /// The line of a mailbox.
    fn line(&self, mailbox: MailboxId) -> Arc<Line> {
        let lines = &mut self.state().lines;
        if lines.len() >= MAX_OPEN && !lines.contains_key(&mailbox) {
            // Whoever is at a line, or on his way to it, has it too.
            lines.retain(|_, line| Arc::strong_count(line) > 1);
        }
        Arc::clone(lines.entry(mailbox).or_default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can break off is done while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who brought work.
struct Visit<'a>(&'a Lines);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.at_work -= 1;
        if state.at_work == 0 {
            self.0.idle.notify_all();
        }
    }
}

impl Line {
    /// Brings work, and carries out what waits unless somebody does.
    fn bring(&self, job: Job, failstop: &FailStop, mut commit: impl FnMut(Vec<Job>)) {
        let mut waiting = self.waiting();
        waiting.jobs.push_back(job);
        if waiting.busy {
            return;
        }
        waiting.busy = true;
        drop(waiting);
        let mut at_work = AtWork { line: self, failstop, is_done: false };
        while let Some(batch) = self.next() {
            commit(batch);
        }
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
        waiting.busy = !batch.is_empty();
        waiting.busy.then_some(batch)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can break off is done while it is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // After a commit that broke off storage has stopped, and the committer refuses everything.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stopping() -> SpoolError {
    SpoolError::Failed("the gateway is stopping".into())
}

/// Somebody is at work. When that breaks off nobody knows what was written: storage stops, and whoever waits hears it.
struct AtWork<'a> {
    line: &'a Line,
    failstop: &'a FailStop,
    is_done: bool,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let broke_off = || self.failstop.stop("a commit broke off");
        broke_off();
        let mut waiting = self.line.waiting();
        waiting.busy = false;
        let left = std::mem::take(&mut waiting.jobs);
        drop(waiting);
        left.into_iter().for_each(|job| job.refuse(broke_off()));
    }
}
