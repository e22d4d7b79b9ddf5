//! Takes over what waits in the data folder of a node that is gone.
//!
//! Per message: its sealed file is copied and synced, gets its name, an entry `moved in` that names the receipt it was
//! accepted with; only then the old folder gets an entry `moved out` (where its node key is there) and the file goes to
//! the trash there. Before all that the old ledger itself is copied. Killed anywhere and begun again, each message is
//! here once: what this ledger has ever seen is not taken again. The old node must not run.

use super::{
    Job, Spool, SpoolError,
    format::{MAX_AGE_HEADER, age_geometry},
    layout::{Folder, Layout},
    trash,
    writer::{Facts, Sealed, Temporary},
};
use crate::{
    ledger::{Head, Header, Ledger, Origins, Scan, keep_origin},
    mailbox::Mailboxes,
    node::Node,
};
use postkeep_shared::{
    disk::{Disk, DiskError},
    mail::{Digest, Hasher, MailboxId, Uidl},
    receipt::{Entry, EntryBody, Event, Flags},
    run::now_ms,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{ErrorKind, Read as _, Write as _},
    path::Path,
    sync::Arc,
};

/// Messages that share their syncs.
const BATCH: usize = 64;

/// What was taken over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedIn {
    /// Messages taken over now, with the receipts they were accepted with.
    pub moved: u64,
    /// Waiting there by its ledger, and taken over before.
    pub known: u64,
    /// Whole files without entry there: nobody was told that they were accepted. Taken over, too.
    pub unrecorded: u64,
    /// What was not taken over and why, one sentence each.
    pub problems: Vec<String>,
}

/// The old node's folder, as far as one mailbox goes.
struct Old {
    header: Header,
    head: Head,
    /// Octets behind the last whole entry.
    torn: bool,
    /// Entries of what waits, by uidl.
    waiting: BTreeMap<Uidl, Entry>,
    /// What left there; a crash may have kept its file in `new/`.
    gone: BTreeSet<Uidl>,
}

impl Spool {
    /// Takes over what waits below `from`, the data folder of another node. Blocking, and long.
    ///
    /// # Errors
    /// [`SpoolError`]; what was moved before it stays moved. [`SpoolError::Locked`] where a node still serves `from`.
    pub fn move_in(&self, from: &Path) -> Result<MovedIn, SpoolError> {
        self.may_write()?;
        let (inner, there) = (&self.inner, Layout::new(from));
        let disk = inner.disk.as_ref();
        let same = |path: &Path| std::fs::canonicalize(path).ok();
        if same(from).is_none() || same(from) == same(inner.layout.root()) {
            return Err(SpoolError::NotAnother(from.to_owned()));
        }
        let lock = match disk.lock(&there.lock()) {
            Ok(lock) => Some(lock),
            Err(e) if e.source.kind() == ErrorKind::WouldBlock => return Err(SpoolError::Locked(from.to_owned())),
            // A copy that cannot be written to: nobody serves it, and nothing will be written there.
            Err(_) => None,
        };
        let node = lock.as_ref().and_then(|_| Node::load(from, disk).ok()).map(Arc::new);
        if node.as_ref().is_some_and(|node| node.public() == self.node()) {
            return Err(SpoolError::NotAnother(from.to_owned()));
        }
        let mut moved = MovedIn::default();
        for mailbox in there.mailboxes(disk)? {
            self.mailbox_in(&there, mailbox, node.as_ref(), &mut moved)?;
        }
        Ok(moved)
    }

    fn mailbox_in(
        &self,
        there: &Layout,
        mailbox: MailboxId,
        node: Option<&Arc<Node>>,
        moved: &mut MovedIn,
    ) -> Result<(), SpoolError> {
        let (inner, disk) = (&self.inner, self.inner.disk.as_ref());
        let path = there.ledger(mailbox);
        let old = match disk.entry(&path) {
            Ok(_) => Some(Old::read(disk, &path, mailbox, moved)?),
            Err(e) if e.is_missing() => None,
            Err(e) => return Err(e.into()),
        };
        let files = names(disk, there, mailbox)?;
        let waiting = old.as_ref().map(|old| &old.waiting);
        if files.is_empty() && waiting.is_none_or(BTreeMap::is_empty) {
            return Ok(());
        }
        let problem = |text: String| format!("mailbox {mailbox}: {text}");
        match inner.mailboxes.lookup(&mailbox)? {
            None => {
                let text = "is not here; take it in with `mailbox import` or `mailbox sync` first".to_owned();
                moved.problems.push(problem(text));
                return Ok(());
            }
            Some(here) => {
                let key = old.as_ref().and_then(|old| Mailboxes::foreign(there.root(), disk, mailbox, old.header.node));
                if let Some(theirs) = key.filter(|theirs| !here.has_key(&theirs.recipient)) {
                    let text = format!("its mail there is sealed to key {}, which is not here", theirs.key_id);
                    moved.problems.push(problem(text));
                    return Ok(());
                }
            }
        }
        let seen = self.ever_seen(mailbox)?;
        let origins = self.keep_origins(there, mailbox, old.as_ref())?;
        let mut batch = Vec::new();
        for (uidl, entry) in waiting.into_iter().flatten() {
            if seen.contains(uidl) {
                moved.known += 1;
                continue;
            }
            let origin = if entry.body.event == Event::MovedIn { origins.resolve(entry)? } else { Some(entry.clone()) };
            let Some(origin) = origin else {
                moved.problems.push(problem(format!("message {uidl}: the ledger it was accepted with is not there")));
                continue;
            };
            match self.copied(there, mailbox, *uidl, Some(&origin)) {
                Ok(Some(sealed)) => batch.push(sealed),
                Ok(None) => {
                    moved.problems.push(problem(format!("message {uidl}: its file is not the one of its entry")))
                }
                Err(SpoolError::Disk(e)) if e.is_missing() => {
                    moved.problems.push(problem(format!("message {uidl} is in the ledger but its file is missing")));
                }
                Err(e) => return Err(e),
            }
            if batch.len() == BATCH {
                moved.moved += self.commit_moved(std::mem::take(&mut batch))?;
            }
        }
        moved.moved += self.commit_moved(batch)?;
        let recorded =
            |uidl: &Uidl| old.as_ref().is_some_and(|o| o.waiting.contains_key(uidl) || o.gone.contains(uidl));
        for uidl in files.iter().filter(|uidl| !seen.contains(uidl) && !recorded(uidl)) {
            match self.copied(there, mailbox, *uidl, None)? {
                Some(sealed) => moved.unrecorded += self.commit_moved(vec![sealed])?,
                None => moved.problems.push(problem(format!("the file {uidl} is no whole message and stays there"))),
            }
        }
        if let (Some(old), Some(node)) = (&old, node) {
            self.move_out(there, old, node, moved)?;
        }
        Ok(())
    }

    /// Every message that ever came to a mailbox here.
    fn ever_seen(&self, mailbox: MailboxId) -> Result<BTreeSet<Uidl>, SpoolError> {
        let mut seen = BTreeSet::new();
        let Some(head) = self.index()?.head(mailbox)? else { return Ok(seen) };
        let path = self.inner.layout.ledger(mailbox);
        for slot in Scan::open(self.inner.disk.as_ref(), &path, mailbox)?.until(head.end) {
            if let Ok(entry) = slot?.entry {
                seen.insert(entry.body.uidl);
            }
        }
        Ok(seen)
    }

    /// Copies the old ledger, and those its own moved messages came with.
    fn keep_origins(&self, there: &Layout, mailbox: MailboxId, old: Option<&Old>) -> Result<Origins, SpoolError> {
        let (disk, ledgers) = (self.inner.disk.as_ref(), self.inner.layout.ledgers());
        if let Some(old) = old.filter(|old| !old.waiting.is_empty()) {
            keep_origin(disk, &ledgers, &there.ledger(mailbox), &old.header, old.head.end)?;
        }
        let theirs = Origins::open(disk, &there.ledgers(), mailbox)?;
        for path in theirs.paths() {
            let scan = Scan::open(disk, path, mailbox)?;
            keep_origin(disk, &ledgers, path, &scan.header(), scan.end())?;
        }
        Ok(theirs)
    }

    /// Copies a sealed file to `tmp/` here, synced. `None`: it is not what its entry says, or no whole message.
    fn copied(
        &self,
        there: &Layout,
        mailbox: MailboxId,
        uidl: Uidl,
        origin: Option<&Entry>,
    ) -> Result<Option<Sealed>, SpoolError> {
        let (inner, disk) = (&self.inner, self.inner.disk.as_ref());
        let from = there.message(mailbox, Folder::New, uidl);
        let mut source = disk.open(&from)?;
        let len = source.len()?;
        let mut start = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(MAX_AGE_HEADER)];
        source.read_at(&mut start, 0)?;
        let Some(sealed_content) = age_geometry(&start, len).filter(|content| *content > 0) else { return Ok(None) };
        inner.layout.make_folders(disk, mailbox).map_err(|e| inner.failstop.preparing(e))?;
        let to = inner.layout.message(mailbox, Folder::Tmp, uidl);
        let mut target = disk.create(&to).map_err(|e| inner.failstop.preparing(e))?;
        let temporary = Temporary::new(&inner.disk, &to);
        let (mut hasher, mut block) = (Hasher::default(), vec![0; 64 * 1024]);
        loop {
            let read = source.read(&mut block).map_err(|e| DiskError::new("read", &from, e))?;
            let octets = block.get(..read).unwrap_or_default();
            if octets.is_empty() {
                break;
            }
            hasher.update(octets);
            target.write_all(octets).map_err(|e| inner.failstop.writing(DiskError::new("write", &to, e)))?;
        }
        target.sync().map_err(|e| inner.failstop.syncing(e))?;
        let sealed_sha256 = hasher.finish();
        let Some(origin) = origin else {
            let facts = Facts { mailbox, uidl, flags: Flags::RECOVERED, size: 0, sealed_content };
            return Ok(Some(Sealed { facts, temporary, sealed_sha256, digest: Digest::default(), origin: None }));
        };
        let body = &origin.body;
        if body.sealed_sha256 != sealed_sha256 || body.sealed_content != sealed_content {
            return Ok(None);
        }
        let facts = Facts { mailbox, uidl, flags: body.flags, size: body.size, sealed_content };
        let named = Some((body.seq, origin.hash()));
        Ok(Some(Sealed { facts, temporary, sealed_sha256, digest: body.digest, origin: named }))
    }

    fn commit_moved(&self, messages: Vec<Sealed>) -> Result<u64, SpoolError> {
        if messages.is_empty() {
            return Ok(0);
        }
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.lines()?.bring(Job::Accept { messages, answer });
        let moved = answered.blocking_recv().map_err(|_| self.inner.failstop.stop("a commit broke off"))??;
        Ok(moved.len() as u64)
    }

    /// Writes into the old ledger that its messages are here now, and puts their files away there.
    fn move_out(&self, there: &Layout, old: &Old, node: &Arc<Node>, moved: &mut MovedIn) -> Result<(), SpoolError> {
        let (disk, mailbox) = (self.inner.disk.as_ref(), old.header.mailbox);
        if node.public() != old.header.node || old.torn {
            let text = format!("mailbox {mailbox}: the old ledger cannot be continued; never start the old node again");
            moved.problems.push(text);
            return Ok(());
        }
        let seen = self.ever_seen(mailbox)?;
        let leaving: Vec<&Entry> = old.waiting.iter().filter(|(uidl, _)| seen.contains(uidl)).map(|(_, e)| e).collect();
        if leaving.is_empty() {
            return Ok(());
        }
        let mut ledger = Ledger::open(disk, &there.ledger(mailbox), old.head, Arc::clone(node))?;
        for entry in &leaving {
            let (event, refers_to, time_ms) = (Event::MovedOut, entry.body.seq, now_ms());
            ledger.stage(EntryBody { event, refers_to, time_ms, ..entry.body.clone() });
        }
        ledger.commit()?;
        leaving.iter().for_each(|entry| trash::put(disk, there, mailbox, entry.body.uidl));
        Ok(())
    }
}

impl Old {
    fn read(disk: &dyn Disk, path: &Path, mailbox: MailboxId, moved: &mut MovedIn) -> Result<Self, SpoolError> {
        let scan = Scan::open(disk, path, mailbox)?;
        let (header, end) = (scan.header(), scan.end());
        let mut old =
            Self { header, head: Head::of(&header), torn: false, waiting: BTreeMap::new(), gone: BTreeSet::new() };
        let (mut by_seq, mut damaged) = (BTreeMap::new(), 0);
        for slot in scan {
            let slot = slot?;
            let Ok(entry) = &slot.entry else { continue };
            if entry.node != header.node || entry.body.mailbox != mailbox || entry.verify().is_err() {
                damaged += 1;
                continue;
            }
            old.head = Head { seq: entry.body.seq, hash: entry.hash(), end: slot.end() };
            match entry.body.event {
                Event::Accepted | Event::MovedIn => drop(by_seq.insert(entry.body.seq, entry.clone())),
                Event::Removed | Event::MovedOut => {
                    by_seq.remove(&entry.body.refers_to);
                    old.gone.insert(entry.body.uidl);
                }
            }
        }
        old.torn = old.head.end != end;
        if damaged > 0 {
            moved.problems.push(format!("mailbox {mailbox}: {damaged} entries of the old ledger are damaged"));
        }
        old.waiting = by_seq.into_values().map(|entry| (entry.body.uidl, entry)).collect();
        Ok(old)
    }
}

/// Names of the messages in `new/` there.
fn names(disk: &dyn Disk, there: &Layout, mailbox: MailboxId) -> Result<Vec<Uidl>, SpoolError> {
    match disk.list(&there.folder(mailbox, Folder::New)) {
        Ok(entries) => Ok(entries.iter().filter(|e| e.is_file).filter_map(|e| e.name.parse().ok()).collect()),
        Err(e) if e.is_missing() => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}
