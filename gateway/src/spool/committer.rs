//! The committer gives synced files their names and writes the ledgers.
//!
//! Group commit: it is given whatever waits for a mailbox (`lines.rs`), at most 64 messages, and shares the directory's and
//! the ledger's sync among them; an idle gateway adds no delay. Of a transaction to several mailboxes the directories are
//! synced at the same time, then the ledgers. Order for a batch: rename, sync `new/`, append and sync the ledgers, index,
//! answer. Any failed sync or append answers the whole batch with [`SpoolError::Failed`] and ends all writing.

use super::{
    Receipt, SpoolError,
    failstop::FailStop,
    index::{Changes, Index},
    layout::{Folder, Layout},
    together::Together,
    trash,
    writer::Sealed,
};
use crate::{
    ledger::{Head, Ledger, LedgerError},
    node::Node,
};
use postkeep_shared::{
    disk::{Disk, DiskDir, DiskError},
    mail::{Digest, MailboxId},
    receipt::{Entry, EntryBody, Event},
    run::now_ms,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};
use tokio::sync::oneshot;

/// Messages in one batch.
pub(super) const MAX_BATCH: usize = 64;
/// What the committer answers.
pub(super) type Answer<T> = oneshot::Sender<Result<T, SpoolError>>;

/// Work for the committer.
pub(super) enum Job {
    /// Accept the messages of one transaction, all or none.
    Accept { messages: Vec<Sealed>, answer: Answer<Vec<Receipt>> },
    /// Record removals, then move the files to the trash. All or none.
    Remove { entries: Vec<Entry>, answer: Answer<()> },
}

impl Job {
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Accept { messages, .. } => messages.len(),
            Self::Remove { .. } => 1,
        }
    }

    /// Those whose ledgers it writes to.
    pub(super) fn mailboxes(&self) -> BTreeSet<MailboxId> {
        match self {
            Self::Accept { messages, .. } => messages.iter().map(|message| message.facts.mailbox).collect(),
            Self::Remove { entries, .. } => entries.iter().map(|entry| entry.body.mailbox).collect(),
        }
    }

    pub(super) fn refuse(self, error: SpoolError) {
        // Whoever asked may be gone; nobody else needs the answer.
        match self {
            Self::Accept { answer, .. } => drop(answer.send(Err(error))),
            Self::Remove { answer, .. } => drop(answer.send(Err(error))),
        }
    }
}

/// What every commit needs.
pub(super) struct Committer {
    pub(super) layout: Layout,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) node: Arc<Node>,
    pub(super) index: Index,
    pub(super) failstop: FailStop,
}

/// What whoever commits has before him; nobody else may have the same mailbox open.
#[derive(Default)]
pub(super) struct Desk {
    /// Mailboxes in use, opened when first needed.
    pub(super) open: BTreeMap<MailboxId, OpenMailbox>,
    pub(super) together: Together,
}

/// What is held open of a mailbox.
pub(super) struct OpenMailbox {
    ledger: Ledger,
    /// Held across renames, so that an error of the directory cannot be missed.
    new: Arc<dyn DiskDir>,
}

impl Committer {
    /// Carries out what came together, and answers.
    pub(super) fn batch(&self, jobs: Vec<Job>, desk: &mut Desk) {
        let mut named = Vec::with_capacity(jobs.len());
        for mut job in jobs {
            match self.failstop.check().and_then(|()| self.name(&mut job, desk)) {
                Ok(()) => named.push(job),
                Err(error) => job.refuse(error),
            }
        }
        match self.failstop.check().and_then(|()| self.make_durable(&named, desk)) {
            Ok(entries) => self.finish(named, entries),
            Err(error) => {
                let (full, reason) = (error.is_full(), self.failstop.reason().unwrap_or_default());
                let again = |reason| if full { SpoolError::Full(reason) } else { SpoolError::Failed(reason) };
                named.into_iter().for_each(|job| job.refuse(again(reason.clone())));
            }
        }
    }

    /// Opens the mailboxes concerned and gives the files their final names; for a transaction all or none.
    fn name(&self, job: &mut Job, desk: &mut Desk) -> Result<(), SpoolError> {
        for mailbox in job.mailboxes() {
            self.open(mailbox, desk)?;
        }
        let Job::Accept { messages, .. } = job else { return Ok(()) };
        let mut done: Vec<(PathBuf, PathBuf)> = Vec::new();
        for message in messages.iter() {
            let from = message.temporary.path().to_owned();
            let to = self.layout.message(message.facts.mailbox, Folder::New, message.facts.uidl);
            if let Err(error) = self.disk.rename_new(&from, &to) {
                return Err(self.undo(&done, error));
            }
            done.push((from, to));
        }
        messages.iter_mut().for_each(|message| message.temporary.keep());
        Ok(())
    }

    /// Nothing of a transaction may stay in `new/` when its sender is told to come again.
    fn undo(&self, done: &[(PathBuf, PathBuf)], error: DiskError) -> SpoolError {
        for (from, to) in done {
            if let Err(e) = self.disk.rename_new(to, from) {
                return self.failstop.stop(e);
            }
        }
        self.failstop.writing(error)
    }

    fn open(&self, mailbox: MailboxId, desk: &mut Desk) -> Result<(), SpoolError> {
        if desk.open.contains_key(&mailbox) {
            return Ok(());
        }
        let disk = self.disk.as_ref();
        self.layout.make_folders(disk, mailbox).map_err(|e| self.failstop.preparing(e))?;
        let path = self.layout.ledger(mailbox);
        let head = match self.index.head(mailbox)? {
            Some(head) => head,
            None => {
                let head = Ledger::create(disk, &path, mailbox, &self.node, now_ms());
                let head = Head::of(&head.map_err(|e| self.stop(e))?);
                let mut changes = Changes::default();
                changes.head(mailbox, head);
                self.index.apply(changes)?;
                head
            }
        };
        let ledger = Ledger::open(disk, &path, head, Arc::clone(&self.node)).map_err(|e| self.stop(e))?;
        let new = disk.open_dir(&self.layout.folder(mailbox, Folder::New)).map_err(|e| self.failstop.preparing(e))?;
        desk.open.insert(mailbox, OpenMailbox { ledger, new: Arc::from(new) });
        Ok(())
    }

    /// Everything that must be on stable storage before anybody is told. Every error ends all writing.
    fn make_durable(&self, jobs: &[Job], desk: &mut Desk) -> Result<Vec<Vec<Entry>>, SpoolError> {
        let arrivals = arrivals(jobs);
        let folders = arrivals.iter().filter_map(|mailbox| desk.open.get(mailbox));
        let folders = folders.map(|open| Arc::clone(&open.new)).collect();
        for synced in desk.together.run(folders, |new: Arc<dyn DiskDir>| new.sync()) {
            synced.map_err(|e| self.failstop.syncing(e))?;
        }
        let time_ms = now_ms();
        let mut touched = BTreeSet::new();
        let mut entries = Vec::with_capacity(jobs.len());
        for job in jobs {
            let mut of_job = Vec::new();
            for body in self.bodies(job, time_ms)? {
                let mailbox = body.mailbox;
                let open = desk.open.get_mut(&mailbox).ok_or_else(|| self.failstop.stop("a mailbox was not opened"))?;
                of_job.push(open.ledger.stage(body));
                touched.insert(mailbox);
            }
            entries.push(of_job);
        }
        let mut changes = Changes::default();
        let ledgers = touched.iter().filter_map(|mailbox| desk.open.remove_entry(mailbox)).collect();
        let commit = |(mailbox, mut open): (MailboxId, OpenMailbox)| {
            let committed = open.ledger.commit();
            (mailbox, open, committed)
        };
        let mut failed = None;
        for (mailbox, open, committed) in desk.together.run(ledgers, commit) {
            match committed {
                Ok(()) => changes.head(mailbox, open.ledger.head()),
                Err(LedgerError::Disk(e)) => failed = Some(self.failstop.syncing(e)),
                Err(e) => failed = Some(self.failstop.stop(e)),
            }
            desk.open.insert(mailbox, open);
        }
        if let Some(error) = failed {
            return Err(error);
        }
        entries.iter().flatten().for_each(|entry| changes.entry(entry));
        self.index.apply(changes).map_err(|e| self.failstop.stop(e))?;
        Ok(entries)
    }

    fn bodies(&self, job: &Job, time_ms: u64) -> Result<Vec<EntryBody>, SpoolError> {
        match job {
            Job::Accept { messages, .. } => Ok(messages.iter().map(|m| m.body(time_ms)).collect()),
            Job::Remove { entries, .. } => {
                let mut bodies = Vec::with_capacity(entries.len());
                for entry in entries {
                    let still = self.index.entry(entry.body.mailbox, entry.body.seq);
                    if still.map_err(|e| self.failstop.stop(e))?.is_some() {
                        bodies.push(removal(entry, time_ms));
                    }
                }
                Ok(bodies)
            }
        }
    }

    fn finish(&self, jobs: Vec<Job>, entries: Vec<Vec<Entry>>) {
        for (job, entries) in jobs.into_iter().zip(entries) {
            match job {
                Job::Accept { answer, .. } => {
                    // A client that went away meanwhile gets its message kept all the same.
                    drop(answer.send(Ok(entries.into_iter().map(Receipt::new).collect())));
                }
                Job::Remove { answer, .. } => {
                    for entry in &entries {
                        trash::put(self.disk.as_ref(), &self.layout, entry.body.mailbox, entry.body.uidl);
                    }
                    drop(answer.send(Ok(())));
                }
            }
        }
    }

    fn stop(&self, error: LedgerError) -> SpoolError {
        match error {
            LedgerError::Disk(e) => self.failstop.preparing(e),
            other => other.into(),
        }
    }
}

/// The entry that says a message left.
fn removal(entry: &Entry, time_ms: u64) -> EntryBody {
    let refers_to = entry.body.seq;
    EntryBody { event: Event::Removed, seq: 0, time_ms, refers_to, prev: Digest::default(), ..entry.body.clone() }
}

/// Mailboxes in which something got its name.
fn arrivals(jobs: &[Job]) -> BTreeSet<MailboxId> {
    jobs.iter().filter(|job| matches!(job, Job::Accept { .. })).flat_map(Job::mailboxes).collect()
}
