//! What happens at start, before anybody is let in. Nothing is deleted.
//!
//! Per mailbox: unfinished files go to the quarantine; the ledger is read from where the index stands, a torn tail is
//! put aside and cut; files and ledger are compared. A whole file without entry gets one (`RECOVERED`), a file whose
//! removal is recorded goes to the trash, an entry without file is a problem that names the number.

use super::{
    SpoolError,
    format::{MAX_AGE_HEADER, age_geometry},
    index::{Changes, Index},
    layout::{Folder, Layout},
    trash,
};
use crate::{
    ledger::{Head, Ledger, LedgerError, Origins, Problem, ProblemKind, Scan},
    mailbox::Mailboxes,
};
use postkeep_shared::{
    disk::{self, Disk},
    mail::{Digest, Hasher, MailboxId, Uidl},
    receipt::{ENTRY_LEN, EntryBody, Event, Flags},
    run::now_ms,
};
use std::{collections::BTreeSet, io::Read as _, path::Path, sync::Arc};

/// Entries put into the index at once.
const BATCH: u64 = 2000;

/// What opening found and did.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    /// What a person should look at; the spool works all the same.
    pub problems: Vec<Problem>,
    /// Whole files without entry that got one.
    pub adopted: u64,
    /// Files moved to a quarantine folder.
    pub quarantined: u64,
    /// Messages waiting.
    pub waiting: u64,
}

/// Recovers a data directory.
pub(super) struct Recover<'a> {
    pub(super) layout: &'a Layout,
    pub(super) disk: &'a dyn Disk,
    pub(super) index: &'a Index,
    pub(super) mailboxes: &'a Mailboxes,
    pub(super) found: Recovery,
    /// Waiting messages without file: mailbox and number.
    pub(super) missing: BTreeSet<(MailboxId, u64)>,
}

impl Recover<'_> {
    /// Every mailbox that has files, a ledger or a place in the index.
    pub(super) fn run(&mut self) -> Result<(), SpoolError> {
        let mut ids: BTreeSet<MailboxId> = self.layout.mailboxes(self.disk)?.into_iter().collect();
        ids.extend(self.index.mailboxes()?);
        for id in ids {
            self.mailbox(id)?;
        }
        for id in self.mailboxes.ids()? {
            if let Err(e) = self.mailboxes.lookup(&id) {
                self.problem(ProblemKind::MailboxDefinition, id, None, e.to_string());
            }
        }
        Ok(())
    }

    fn mailbox(&mut self, id: MailboxId) -> Result<(), SpoolError> {
        let tmp = self.layout.folder(id, Folder::Tmp);
        for entry in self.list(&tmp)? {
            self.quarantine(id, &tmp, &entry.name)?;
        }
        let ledger = self.layout.ledger(id);
        let head = match self.disk.entry(&ledger) {
            Ok(_) => self.ledger(id, &ledger)?,
            Err(e) if e.is_missing() => self.no_ledger(id)?,
            Err(e) => return Err(e.into()),
        };
        let Some(usable) = head else { return Ok(()) };
        self.files(id, usable)?;
        if self.mailboxes.lookup(&id).is_ok_and(|mailbox| mailbox.is_none()) && !self.is_over(id)? {
            let text = "messages or a ledger are here, but no definition of this mailbox; restore it from a backup";
            self.problem(ProblemKind::MailboxDefinition, id, None, text.into());
        }
        Ok(())
    }

    /// Whether the mailbox was deleted and nothing waits in it: then its ledger is all there should be.
    fn is_over(&self, id: MailboxId) -> Result<bool, SpoolError> {
        Ok(self.mailboxes.is_deleted(&id)? && self.index.names(id)?.is_empty())
    }

    /// `Some(None)`: a ledger can be begun.
    fn no_ledger(&mut self, id: MailboxId) -> Result<Option<Option<Head>>, SpoolError> {
        if let Some(head) = self.index.head(id)?.filter(|head| head.seq > 0) {
            let text = format!("the ledger with {} entries is missing; restore it from a backup", head.seq);
            self.problem(ProblemKind::DamagedLedger, id, None, text);
        }
        self.index.forget(id)?;
        Ok(Some(None))
    }

    /// Brings the index up to the ledger and cuts a torn tail. `None`: the ledger cannot be used at all.
    fn ledger(&mut self, id: MailboxId, path: &Path) -> Result<Option<Option<Head>>, SpoolError> {
        let scan = match Scan::open(self.disk, path, id) {
            Ok(scan) => scan,
            Err(LedgerError::Damaged { path, detail }) => {
                let text = format!("{} {detail}; restore it from a backup", path.display());
                self.problem(ProblemKind::DamagedLedger, id, None, text);
                self.index.forget(id)?;
                return Ok(None);
            }
            Err(e) => return Err(e.into()),
        };
        let start = Head::of(&scan.header());
        let head = match self.index.head(id)? {
            Some(known) if self.continues(id, path, start, known)? => known,
            _ => {
                self.index.forget(id)?;
                start
            }
        };
        let file_end = scan.end();
        let head = self.replay(id, scan.from(head.end), head)?;
        if file_end > head.end {
            self.cut(id, path, head.end, file_end)?;
        }
        // A killed process may have left entries unsynced; nobody may see them before they are durable.
        self.disk.open_append(path)?.sync()?;
        Ok(Some(Some(head)))
    }

    /// Whether the ledger still is the one the index was made from.
    fn continues(&self, id: MailboxId, path: &Path, start: Head, known: Head) -> Result<bool, SpoolError> {
        if known.seq == 0 {
            return Ok(known == start);
        }
        let mut last =
            Scan::open(self.disk, path, id)?.from(known.end.saturating_sub(ENTRY_LEN as u64)).until(known.end);
        let last = last.next().transpose()?.and_then(|slot| slot.entry.ok());
        Ok(last.is_some_and(|entry| entry.body.seq == known.seq && entry.hash() == known.hash))
    }

    fn replay(&mut self, id: MailboxId, scan: Scan, mut head: Head) -> Result<Head, SpoolError> {
        let mut changes = Changes::default();
        let (mut count, mut damaged) = (0, Vec::new());
        for slot in scan {
            let slot = slot?;
            let Ok(entry) = &slot.entry else {
                damaged.push(slot.seq());
                continue;
            };
            // Something whole follows, so this is damage and no torn tail.
            for seq in damaged.drain(..) {
                let text = format!("ledger entry {seq} is damaged; restore the ledger from a backup or the archive");
                self.found.problems.push(Problem {
                    kind: ProblemKind::DamagedEntry,
                    mailbox: id,
                    uidl: None,
                    seq: Some(seq),
                    detail: text,
                });
            }
            changes.entry(entry);
            head = Head { seq: entry.body.seq, hash: entry.hash(), end: slot.end() };
            count += 1;
            if count % BATCH == 0 {
                changes.head(id, head);
                self.index.apply(std::mem::take(&mut changes))?;
            }
        }
        changes.head(id, head);
        self.index.apply(changes)?;
        Ok(head)
    }

    /// Octets behind the last whole entry: nobody was told of them. They are copied before they are cut off.
    fn cut(&mut self, id: MailboxId, path: &Path, from: u64, to: u64) -> Result<(), SpoolError> {
        let folder = self.layout.ledgers().join("quarantine");
        disk::create_dirs(self.disk, &folder)?;
        let mut file = self.disk.open_append(path)?;
        let mut octets = vec![0; usize::try_from(to - from).unwrap_or_default()];
        file.read_at(&mut octets, from)?;
        let copy = folder.join(format!("{id}.{from}.{}", now_ms()));
        disk::write_new_file(self.disk, &copy, &octets)?;
        file.set_len(from)?;
        file.sync()?;
        let text = format!("{} octets behind the last whole entry were moved to {}", to - from, copy.display());
        self.problem(ProblemKind::TornTail, id, None, text);
        self.found.quarantined += 1;
        Ok(())
    }

    fn files(&mut self, id: MailboxId, head: Option<Head>) -> Result<(), SpoolError> {
        let folder = self.layout.folder(id, Folder::New);
        let waiting = self.index.names(id)?;
        let mut seen = BTreeSet::new();
        let mut strays = Vec::new();
        for entry in self.list(&folder)? {
            match entry.name.parse::<Uidl>().ok().filter(|_| entry.is_file) {
                Some(uidl) => match waiting.binary_search_by_key(&uidl, |(name, _)| *name) {
                    Ok(at) => drop(seen.insert(at)),
                    Err(_) => strays.push(uidl),
                },
                None => {
                    self.quarantine(id, &folder, &entry.name)?;
                    let text = format!("{} is no message; it was moved to the quarantine", entry.name);
                    self.problem(ProblemKind::UnrecordedFile, id, None, text);
                }
            }
        }
        if !seen.is_empty() {
            self.disk.open_dir(&folder)?.sync()?;
        }
        self.found.waiting += seen.len() as u64;
        for (_, (uidl, seq)) in waiting.iter().enumerate().filter(|(at, _)| !seen.contains(at)) {
            let text = format!("entry {seq} was accepted and not removed, but its file is missing");
            self.problem(ProblemKind::MissingFile, id, Some((*uidl, *seq)), text);
            self.missing.insert((id, *seq));
        }
        if strays.is_empty() { Ok(()) } else { self.strays(id, head, &strays) }
    }

    /// Files that no waiting entry names.
    fn strays(&mut self, id: MailboxId, head: Option<Head>, strays: &[Uidl]) -> Result<(), SpoolError> {
        let path = self.layout.ledger(id);
        let mut removed = BTreeSet::new();
        if head.is_some() {
            for slot in Scan::open(self.disk, &path, id)? {
                if let Ok(entry) = slot?.entry
                    && matches!(entry.body.event, Event::Removed | Event::MovedOut)
                {
                    removed.insert(entry.body.uidl);
                }
            }
        }
        // A message that was being moved here when the process ended keeps the receipt it was accepted with.
        let moving = Origins::open(self.disk, &self.layout.ledgers(), id)?.accepted(self.disk)?;
        let mut adopted = Vec::new();
        for uidl in strays {
            if removed.contains(uidl) {
                trash::put(self.disk, self.layout, id, *uidl);
            } else if let Some(body) = self.measure(id, *uidl)? {
                let origin = moving.get(uidl).filter(|origin| origin.body.sealed_sha256 == body.sealed_sha256);
                adopted.push(match origin {
                    Some(origin) => EntryBody {
                        event: Event::MovedIn,
                        time_ms: body.time_ms,
                        refers_to: origin.body.seq,
                        digest: origin.hash(),
                        ..origin.body.clone()
                    },
                    None => body,
                });
            } else {
                let text = "a file without entry is no whole age file; it was moved to the quarantine".to_owned();
                self.quarantine(id, &self.layout.folder(id, Folder::New), &uidl.to_string())?;
                self.problem(ProblemKind::UnrecordedFile, id, Some((*uidl, 0)), text);
            }
        }
        if adopted.is_empty() { Ok(()) } else { self.adopt(id, head, adopted) }
    }

    /// What can be said of a sealed file without the key; `None` when it is not whole.
    fn measure(&self, id: MailboxId, uidl: Uidl) -> Result<Option<EntryBody>, SpoolError> {
        let mut file = self.disk.open(&self.layout.message(id, Folder::New, uidl))?;
        let len = file.len()?;
        let mut start = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(MAX_AGE_HEADER)];
        file.read_at(&mut start, 0)?;
        let Some(sealed_content) = age_geometry(&start, len).filter(|content| *content > 0) else {
            return Ok(None);
        };
        // The process that wrote it may have been killed before its sync.
        file.sync()?;
        // What the page cache shows after a failed sync is not what the disk holds.
        file.drop_cache()?;
        let (mut hasher, mut block) = (Hasher::default(), vec![0; 64 * 1024]);
        loop {
            let read = file.read(&mut block).map_err(|e| disk::DiskError::new("read", file.path(), e))?;
            if read == 0 {
                break;
            }
            hasher.update(block.get(..read).unwrap_or_default());
        }
        Ok(Some(EntryBody {
            event: Event::Accepted,
            flags: Flags::RECOVERED,
            seq: 0,
            time_ms: now_ms(),
            mailbox: id,
            uidl,
            size: 0,
            sealed_content,
            refers_to: 0,
            sealed_sha256: hasher.finish(),
            digest: Digest::default(),
            prev: Digest::default(),
        }))
    }

    fn adopt(&mut self, id: MailboxId, head: Option<Head>, bodies: Vec<EntryBody>) -> Result<(), SpoolError> {
        let path = self.layout.ledger(id);
        let node = self.mailboxes.node();
        let head = match head {
            Some(head) => head,
            None => Head::of(&Ledger::create(self.disk, &path, id, node, now_ms())?),
        };
        self.disk.open_dir(&self.layout.folder(id, Folder::New))?.sync()?;
        let mut ledger = Ledger::open(self.disk, &path, head, Arc::clone(node))?;
        let mut changes = Changes::default();
        for body in bodies {
            let entry = ledger.stage(body);
            tracing::warn!(mailbox = %id, uidl = %entry.body.uidl, seq = entry.body.seq, "adopted a file without entry");
            changes.entry(&entry);
            self.found.adopted += 1;
            self.found.waiting += 1;
        }
        ledger.commit()?;
        changes.head(id, ledger.head());
        self.index.apply(changes)
    }

    fn quarantine(&mut self, id: MailboxId, folder: &Path, name: &str) -> Result<(), SpoolError> {
        let target = self.layout.folder(id, Folder::Quarantine);
        disk::create_dirs(self.disk, &target)?;
        self.disk.rename_new(&folder.join(name), &target.join(format!("{name}.{}", now_ms())))?;
        tracing::info!(mailbox = %id, "{name} moved to the quarantine");
        self.found.quarantined += 1;
        Ok(())
    }

    fn list(&self, folder: &Path) -> Result<Vec<disk::DirEntry>, SpoolError> {
        match self.disk.list(folder) {
            Ok(entries) => Ok(entries),
            Err(e) if e.is_missing() => Ok(Vec::new()),
            Err(e) => Err(e.into()),
        }
    }

    fn problem(&mut self, kind: ProblemKind, mailbox: MailboxId, about: Option<(Uidl, u64)>, detail: String) {
        tracing::error!(%mailbox, kind = kind.name(), "{detail}");
        let (uidl, seq) = (about.map(|(uidl, _)| uidl), about.map(|(_, seq)| seq).filter(|seq| *seq > 0));
        self.found.problems.push(Problem { kind, mailbox, uidl, seq, detail });
    }
}
