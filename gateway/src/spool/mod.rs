//! The spool: sealed messages on stable storage, waiting to be collected (`docs/formats/spool.md`).
//!
//! Way in: [`Spool::begin`] → [`Incoming::write`] … → [`Spool::commit`] → [`Receipt`]. Way out:
//! [`Spool::open_session`] → [`Maildrop`] → [`MessageReader`] and [`Maildrop::remove`].
//!
//! Invariants: a [`Receipt`] exists only for a message whose file, file name and ledger entry were synced; nothing is
//! removed from the spool before its removal stands in the ledger; after one failed sync nothing is written any more
//! ([`SpoolError::Failed`]). Where the disk does not pass the first test of a start, nothing is written at all and what
//! waits can still be read ([`SpoolError::ReadOnly`]). Plaintext never reaches the disk. This module knows neither SMTP
//! nor POP3.

mod committer;
mod error;
mod failstop;
mod format;
mod index;
mod layout;
mod lines;
mod maildrop;
mod move_in;
mod probe;
mod read_only;
mod reader;
mod recover;
mod reserve;
mod together;
mod trash;
mod writer;

#[cfg(test)]
mod tests;

pub use crate::ledger::{Problem, ProblemKind};
pub use error::SpoolError;
pub use format::{MAX_AGE_HEADER, Origin, age_geometry, sealed_trace};
pub use index::Tally;
pub use layout::{Folder, Layout};
pub use maildrop::{LedgerEntries, Maildrop};
pub use move_in::MovedIn;
pub use reader::{MessageReader, open_message};
pub use recover::Recovery;
pub use writer::{Incoming, Receipt};

use crate::{
    ledger::Origins,
    mailbox::{self, Mailbox, Mailboxes},
};
use committer::{Answer, Committer, Job};
use failstop::FailStop;
use index::Index;
use lines::Lines;
use maildrop::{Exclusive, InUse};
use postkeep_shared::{
    disk::{self, Disk, DiskLock},
    mail::MailboxId,
    receipt::{Entry, Event, NodeKey},
};
use probe::Verdict;
use recover::Recover;
use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};
use tokio::sync::{oneshot, watch};

/// Octets that stay free for what the messages already begun still need.
const KEEP_FREE: u64 = 64 * 1024 * 1024;
/// And this part of the file system (a twentieth).
const KEEP_PART: u64 = 20;
/// Files that must still be possible.
const KEEP_INODES: u64 = 1000;

/// The spool of a running gateway. Cheap to clone; the data directory's lock is held until the last clone is gone.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    disk: Arc<dyn Disk>,
    mailboxes: Mailboxes,
    hostname: String,
    state: State,
    failstop: FailStop,
    in_use: InUse,
    threads: Mutex<Threads>,
    /// Dropped last: until then nobody else may open the data directory.
    _lock: Box<dyn DiskLock>,
}

/// A mailbox in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What waits.
    pub waiting: Tally,
    /// When the oldest of it came, milliseconds since 1970-01-01 UTC.
    pub oldest_ms: Option<u64>,
    /// Entries of its ledger.
    pub entries: u64,
}

/// What the disk may be used for.
enum State {
    Working {
        index: Index,
        /// Waiting messages without file.
        missing: BTreeSet<(MailboxId, u64)>,
        lines: Arc<Lines>,
    },
    /// Reading only, and why.
    ReadOnly(String),
}

/// The thread that empties the trash; it ends when its sender is gone.
#[derive(Default)]
struct Threads {
    trash: Option<mpsc::Sender<u64>>,
    running: Option<JoinHandle<()>>,
}

impl Spool {
    /// Takes the lock, reads the node key, recovers. Blocking; `hostname` is for `Received`.
    ///
    /// # Errors
    /// [`SpoolError`]; [`SpoolError::Locked`] where another process serves this directory.
    pub fn open(data_dir: &Path, hostname: &str, disk: Arc<dyn Disk>) -> Result<(Self, Recovery), SpoolError> {
        let layout = Layout::new(data_dir);
        disk::create_dirs(disk.as_ref(), data_dir)?;
        let lock = disk.lock(&layout.lock()).map_err(|e| match e.source.kind() {
            std::io::ErrorKind::WouldBlock => SpoolError::Locked(data_dir.to_owned()),
            _ => e.into(),
        })?;
        // The index cannot even be opened without room.
        reserve::give_up_if_short(disk.as_ref(), &layout);
        let verdict = probe::run(disk.as_ref(), data_dir)?;
        let mailboxes = Mailboxes::open(data_dir, Arc::clone(&disk))?;
        let failstop = FailStop::new();
        let (state, found, threads) = match verdict {
            Verdict::Sound => {
                let index = Index::open(&layout.index(), disk.as_ref())?;
                reserve::keep(disk.as_ref(), &layout);
                let (found, missing) = recover(&layout, disk.as_ref(), &index, &mailboxes)?;
                let committer = Committer {
                    layout: layout.clone(),
                    disk: Arc::clone(&disk),
                    node: Arc::clone(mailboxes.node()),
                    index: index.clone(),
                    failstop: failstop.clone(),
                };
                let threads = Threads::start(layout.clone(), Arc::clone(&disk))?;
                (State::Working { index, missing, lines: Arc::new(Lines::new(committer)) }, found, threads)
            }
            Verdict::Failing(error) => {
                tracing::error!("ALARM: {error}; mail can be collected, but none is taken and none removed");
                (State::ReadOnly(error.to_string()), Recovery::default(), Threads::default())
            }
        };
        let (hostname, threads) = (hostname.to_owned(), Mutex::new(threads));
        let in_use = InUse::default();
        let inner = Inner { layout, disk, mailboxes, hostname, state, failstop, in_use, threads, _lock: lock };
        Ok((Self { inner: Arc::new(inner) }, found))
    }

    /// Why the disk may only be read, where that was found at the start.
    #[must_use]
    pub fn read_only(&self) -> Option<&str> {
        match &self.inner.state {
            State::Working { .. } => None,
            State::ReadOnly(reason) => Some(reason),
        }
    }

    /// The mailboxes beside this spool.
    #[must_use]
    pub fn mailboxes(&self) -> &Mailboxes {
        &self.inner.mailboxes
    }

    /// When the first message that waits in a mailbox was accepted, milliseconds since 1970-01-01 UTC; `None` also where
    /// the disk may only be read. Blocking, and short however many wait.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn oldest_waiting(&self, mailbox: MailboxId) -> Result<Option<u64>, SpoolError> {
        match &self.inner.state {
            State::Working { index, .. } => index.oldest(mailbox),
            State::ReadOnly(_) => Ok(None),
        }
    }

    /// What waits in a mailbox, when the oldest of it came (milliseconds since 1970-01-01 UTC), and how many entries
    /// its ledger has. `None` while the disk may only be read. Blocking; the first call counts everything that waits.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn standing(&self, mailbox: MailboxId) -> Result<Option<Standing>, SpoolError> {
        let State::Working { index, .. } = &self.inner.state else { return Ok(None) };
        let (waiting, oldest_ms) = index.tally(mailbox)?;
        let entries = index.head(mailbox)?.map_or(0, |head| head.seq);
        Ok(Some(Standing { waiting, oldest_ms, entries }))
    }

    /// Room on the file system of the data directory. Blocking.
    ///
    /// # Errors
    /// [`SpoolError::Disk`].
    pub fn space(&self) -> Result<disk::Space, SpoolError> {
        Ok(self.inner.disk.space(self.inner.layout.root())?)
    }

    /// The public key of this node.
    #[must_use]
    pub fn node(&self) -> NodeKey {
        self.inner.mailboxes.node().public()
    }

    /// Starts a message: makes the temporary file and seals the trace header. Short blocking I/O.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn begin(&self, mailbox: &Mailbox, origin: &Origin) -> Result<Incoming, SpoolError> {
        let Inner { layout, disk, failstop, hostname, .. } = self.inner.as_ref();
        self.may_write()?;
        let incoming = Incoming::begin(&writer::Desk { layout, disk, failstop, hostname }, mailbox, origin)?;
        // Whoever suspends a mailbox and then sees its `tmp/` empty may rely on it that nothing arrives any more: so
        // the state is asked once more now that the file is there.
        match self.inner.mailboxes.lookup(&mailbox.id)? {
            Some(now) if now.state == mailbox::State::Active => Ok(incoming),
            _ => Err(SpoolError::Suspended),
        }
    }

    /// Removes everything that waits in a mailbox, which must be exactly `messages` messages: recorded as removed, the
    /// files go to the trash. Nobody may have the mailbox open.
    ///
    /// # Errors
    /// [`SpoolError::InUse`], [`SpoolError::Count`]; then nothing was removed.
    pub async fn discard(&self, mailbox: MailboxId, messages: u64) -> Result<(), SpoolError> {
        let _exclusive = Exclusive::take(&self.inner.in_use, mailbox)?;
        let index = self.index()?.clone();
        let waiting = tokio::task::spawn_blocking(move || index.waiting(mailbox)).await;
        let entries = waiting.map_err(|_| self.inner.failstop.stop("reading the index broke off"))??;
        if entries.len() as u64 != messages {
            return Err(SpoolError::Count { asked: messages, found: entries.len() as u64 });
        }
        if entries.is_empty() {
            return Ok(());
        }
        self.ask(|answer| Some(Job::Remove { entries, answer })).await
    }

    /// Brings the messages of one transaction to stable storage; receipts in the same order. All or none.
    ///
    /// # Errors
    /// [`SpoolError`]; then none of them was accepted.
    pub async fn commit(&self, messages: Vec<Incoming>) -> Result<Vec<Receipt>, SpoolError> {
        self.commit_with(messages, Vec::new()).await
    }

    /// As [`Self::commit`], with the last octets of the message, which are sealed by the thread that syncs: for most
    /// messages these are all.
    ///
    /// # Errors
    /// [`SpoolError`]; then none of them was accepted.
    pub async fn commit_with(&self, messages: Vec<Incoming>, last: Vec<u8>) -> Result<Vec<Receipt>, SpoolError> {
        self.may_write()?;
        // Each connection syncs its own file, so that the file system can join concurrent syncs.
        let seal_one = move |mut incoming: Incoming| incoming.write(&last).and_then(|()| incoming.seal());
        self.ask(move |answer| match messages.into_iter().map(seal_one).collect() {
            Ok(messages) => Some(Job::Accept { messages, answer }),
            Err(error) => {
                // Whoever asked may be gone.
                let _ = answer.send(Err(error));
                None
            }
        })
        .await
    }

    /// Whether a message of `size` octets may be begun: twice its size, 64 MiB and a twentieth of the file system must
    /// be free, and 1,000 inodes.
    ///
    /// # Errors
    /// [`SpoolError::Full`]; [`SpoolError::Failed`], also when the file system has become read-only;
    /// [`SpoolError::ReadOnly`].
    pub fn check_room(&self, size: Option<u64>) -> Result<(), SpoolError> {
        let Inner { layout, disk, failstop, .. } = self.inner.as_ref();
        self.may_write()?;
        let space = disk.space(layout.root())?;
        if space.read_only {
            return Err(failstop.stop(format!("{} is on a file system mounted read-only", layout.root().display())));
        }
        let need = size.unwrap_or_default().saturating_mul(2).max(KEEP_FREE).max(space.total / KEEP_PART);
        let short = if space.free < need {
            format!("{} octets are free, {need} are needed", space.free)
        } else if space.free_inodes < KEEP_INODES {
            format!("{} inodes are free, {KEEP_INODES} are needed", space.free_inodes)
        } else {
            return Ok(());
        };
        tracing::error!("ALARM: no mail is taken: {short}");
        // There is room for this still, and whatever else fills the disk may not leave any.
        reserve::keep(disk.as_ref(), layout);
        if let Some(trash) = &self.inner.threads().trash {
            // When the thread is gone the program is ending and nothing needs room any more.
            let _ = trash.send(need);
        }
        Err(SpoolError::Full(short))
    }

    /// Leaves out messages whose files have been taken away since the start: what is not there must not be said to wait.
    fn without_gone(&self, mailbox: MailboxId, mut entries: Vec<Entry>) -> Result<Vec<Entry>, SpoolError> {
        if entries.is_empty() {
            return Ok(entries);
        }
        let folder = self.inner.layout.folder(mailbox, Folder::New);
        let listed = match self.inner.disk.list(&folder) {
            Err(error) if error.is_missing() => Vec::new(),
            other => other?,
        };
        let names: HashSet<String> = listed.into_iter().map(|entry| entry.name).collect();
        entries.retain(|entry| {
            let (uidl, seq) = (entry.body.uidl, entry.body.seq);
            let there = names.contains(&uidl.to_string());
            if !there {
                tracing::error!(%mailbox, %uidl, seq, "ALARM: the file of a waiting message is gone");
            }
            there
        });
        Ok(entries)
    }

    /// Opens a mailbox for one client. Blocking (reads the index): seconds for a million messages.
    ///
    /// # Errors
    /// [`SpoolError::InUse`] while another client has it.
    pub fn open_session(&self, mailbox: &Mailbox) -> Result<Maildrop, SpoolError> {
        let inner = &self.inner;
        let exclusive = Exclusive::take(&inner.in_use, mailbox.id)?;
        let own = match &inner.state {
            State::Working { index, missing, .. } => {
                let mut entries = index.waiting(mailbox.id)?;
                entries.retain(|entry| !missing.contains(&(mailbox.id, entry.body.seq)));
                self.without_gone(mailbox.id, entries)?
            }
            State::ReadOnly(_) => read_only::waiting(inner.disk.as_ref(), &inner.layout, mailbox.id)?,
        };
        let mut origins = None;
        let mut messages = Vec::with_capacity(own.len());
        for entry in own {
            if entry.body.event != Event::MovedIn {
                messages.push((entry.clone(), entry));
                continue;
            }
            if origins.is_none() {
                origins = Some(Origins::open(inner.disk.as_ref(), &inner.layout.ledgers(), mailbox.id)?);
            }
            match origins.as_ref().map_or(Ok(None), |origins| origins.resolve(&entry))? {
                Some(receipt) => messages.push((receipt, entry)),
                None => {
                    let (mailbox, uidl) = (mailbox.id, entry.body.uidl);
                    tracing::error!(%mailbox, %uidl, "ALARM: the ledger that a moved message came with is missing");
                }
            }
        }
        Ok(Maildrop::new(self.clone(), mailbox.id, messages, exclusive))
    }

    /// `Some(reason)` once storage has failed: accept nothing any more and exit 3.
    #[must_use]
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.inner.failstop.watch()
    }

    /// Finishes what waits, stops the committer, flushes the index. Blocking. Other clones refuse work afterwards.
    pub fn close(self) {
        self.inner.shut_down();
    }

    fn index(&self) -> Result<&Index, SpoolError> {
        match &self.inner.state {
            State::Working { index, .. } => Ok(index),
            State::ReadOnly(reason) => Err(SpoolError::ReadOnly(reason.clone())),
        }
    }

    fn may_write(&self) -> Result<(), SpoolError> {
        match self.read_only() {
            Some(reason) => Err(SpoolError::ReadOnly(reason.to_owned())),
            None => self.inner.failstop.check(),
        }
    }

    /// Makes a job in a thread that may block, and brings it to the committer from there. `None` has answered already.
    async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(Answer<T>) -> Option<Job> + Send + 'static,
    ) -> Result<T, SpoolError> {
        self.may_write()?;
        let (answer, answered) = oneshot::channel();
        let lines = Arc::clone(self.lines()?);
        let ask = move || {
            if let Some(job) = job(answer) {
                lines.bring(job);
            }
        };
        drop(tokio::task::spawn_blocking(ask));
        answered.await.map_err(|_| self.inner.failstop.stop("a commit broke off"))?
    }

    fn lines(&self) -> Result<&Arc<Lines>, SpoolError> {
        match &self.inner.state {
            State::Working { lines, .. } => Ok(lines),
            State::ReadOnly(reason) => Err(SpoolError::ReadOnly(reason.clone())),
        }
    }
}

impl Inner {
    fn threads(&self) -> std::sync::MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shut_down(&self) {
        let State::Working { index, lines, .. } = &self.state else { return };
        lines.close();
        let Threads { trash, running } = std::mem::take(&mut *self.threads());
        drop(trash);
        if running.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a storage thread broke off");
        }
        if let Err(e) = index.flush() {
            // The next start replays the ledger.
            tracing::warn!("{e}");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Threads {
    fn start(layout: Layout, disk: Arc<dyn Disk>) -> Result<Self, SpoolError> {
        let (trash, wanted) = mpsc::channel();
        let root = layout.root().to_owned();
        let empty = move || trash::run(&disk, &layout, &wanted);
        let running = std::thread::Builder::new().name("trash".into()).spawn(empty);
        let running = running.map_err(|e| disk::DiskError::new("start the storage threads of", &root, e))?;
        Ok(Self { trash: Some(trash), running: Some(running) })
    }
}

fn recover(
    layout: &Layout,
    disk: &dyn Disk,
    index: &Index,
    mailboxes: &Mailboxes,
) -> Result<(Recovery, BTreeSet<(MailboxId, u64)>), SpoolError> {
    let found = Recovery::default();
    let mut recover = Recover { layout, disk, index, mailboxes, found, missing: BTreeSet::new() };
    recover.run()?;
    Ok((recover.found, recover.missing))
}
