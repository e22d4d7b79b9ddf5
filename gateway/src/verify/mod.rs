//! Recomputes spool and ledger, without keys and without the index, also while the server runs.
//!
//! Each entry: number, chain, signature, sense. Each waiting file: SHA-256 and length against its entry. Files without
//! entry, entries without file, mailboxes without definition. What a running server is just about to finish looks like
//! a gap for a moment; such findings count only when they are still there a second later. What starts after a crash put
//! right (files in the quarantine, entries for files that had none, torn ends of ledgers) is noted. Nothing is changed.

mod notes;
mod summary;

pub use notes::{Note, NoteKind};
pub use summary::Summary;

use crate::{
    ledger::{Check, LedgerError, Problem, ProblemKind, Scan, Waiting},
    mailbox::{MailboxError, Mailboxes},
    spool::{Folder, Layout, MAX_AGE_HEADER, age_geometry},
};
use postkeep_shared::{
    disk::{Disk, DiskError, DiskResult},
    mail::{Hasher, MailboxId, Uidl},
    run::Failure,
};
use std::{
    collections::BTreeSet,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Longer than a commit takes from its rename to its ledger entry.
const SETTLE: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Waiting messages whose files were checked.
    pub messages: u64,
    /// Everything that is not as it should be.
    pub problems: Vec<Problem>,
    /// What was put right at starts; not a reason to worry.
    pub notes: Vec<Note>,
}

/// Why it could not be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A ledger of a later release.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The definitions cannot be read.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Mailbox(e) => e.into(),
            _ => Self::cannot(error),
        }
    }
}

/// Reads the data directory of a gateway.
pub struct Verifier {
    layout: Layout,
    disk: Arc<dyn Disk>,
    mailboxes: Mailboxes,
}

/// One pass over one ledger.
struct Pass {
    check: Check,
    problems: Vec<Problem>,
    notes: Vec<Note>,
}

impl Verifier {
    /// Reads `data_dir`.
    #[must_use]
    pub fn new(data_dir: &Path, disk: Arc<dyn Disk>, mailboxes: Mailboxes) -> Self {
        Self { layout: Layout::new(data_dir), disk, mailboxes }
    }

    /// Checks one mailbox, or all of them and whatever else is there.
    ///
    /// # Errors
    /// [`VerifyError`]: nothing can be said then.
    pub fn run(&self, only: Option<MailboxId>) -> Result<Outcome, VerifyError> {
        let mut ids: BTreeSet<MailboxId> = only.into_iter().collect();
        if only.is_none() {
            ids.extend(self.mailboxes.ids()?);
            ids.extend(self.layout.mailboxes(self.disk.as_ref())?);
        }
        let mut outcome = Outcome::default();
        for id in ids {
            self.mailbox(id, &mut outcome)?;
        }
        Ok(outcome)
    }

    fn mailbox(&self, id: MailboxId, outcome: &mut Outcome) -> Result<(), VerifyError> {
        let problem = |kind, detail| Problem { kind, mailbox: id, uidl: None, seq: None, detail };
        match self.mailboxes.lookup(&id) {
            Ok(Some(_)) => {}
            Ok(None) if self.mailboxes.is_deleted(&id)? && self.files(id)?.is_empty() => {}
            Ok(None) => {
                let text = "messages or a ledger are here, but no definition of this mailbox".to_owned();
                outcome.problems.push(problem(ProblemKind::MailboxDefinition, text));
            }
            Err(e) => outcome.problems.push(problem(ProblemKind::MailboxDefinition, e.to_string())),
        }
        outcome.notes.extend(self.put_aside(id)?);
        // The listing comes first: a file in it had its entry, or was about to get it, when the ledger is read.
        let files = self.files(id)?;
        let pass = match self.ledger(id, true) {
            Ok(pass) => pass,
            Err(VerifyError::Ledger(LedgerError::Damaged { path, detail })) => {
                let text = format!("{} {detail}", path.display());
                outcome.problems.push(problem(ProblemKind::DamagedLedger, text));
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        outcome.notes.extend(pass.iter().flat_map(|pass| pass.notes.clone()));
        let mut found = pass.as_ref().map(|pass| pass.problems.clone()).unwrap_or_default();
        if let Some(pass) = &pass {
            for (seq, waiting) in pass.check.waiting() {
                outcome.messages += 1;
                found.extend(self.file(id, *seq, waiting)?);
            }
        }
        found.extend(unrecorded(id, &files, pass.as_ref()));
        if found.iter().any(is_passing) {
            self.look_again(id, &mut found)?;
        }
        outcome.problems.extend(found);
        Ok(())
    }

    /// Drops what was only a server at work.
    fn look_again(&self, id: MailboxId, found: &mut Vec<Problem>) -> Result<(), VerifyError> {
        std::thread::sleep(SETTLE);
        let files = self.files(id)?;
        let pass = self.ledger(id, false)?;
        let mut still = unrecorded(id, &files, pass.as_ref());
        if let Some(pass) = &pass {
            still.extend(pass.problems.clone());
            for (seq, waiting) in pass.check.waiting() {
                still.extend(self.is_missing(id, waiting.uidl)?.then(|| missing(id, *seq, waiting.uidl)));
            }
        }
        found.retain(|problem| {
            !is_passing(problem) || still.iter().any(|s| s.kind == problem.kind && s.uidl == problem.uidl)
        });
        Ok(())
    }

    /// `None`: no ledger, so nothing was ever accepted.
    fn ledger(&self, id: MailboxId, signatures: bool) -> Result<Option<Pass>, VerifyError> {
        let path = self.layout.ledger(id);
        let scan = match Scan::open(self.disk.as_ref(), &path, id) {
            Ok(scan) => scan,
            Err(LedgerError::Disk(e)) if e.is_missing() => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let (header, end) = (scan.header(), scan.end());
        let mut pass = Pass { check: Check::new(header), problems: Vec::new(), notes: Vec::new() };
        if header.node != self.mailboxes.node().public() {
            let detail = "the ledger was begun by another node".to_owned();
            let kind = ProblemKind::DamagedLedger;
            pass.problems.push(Problem { kind, mailbox: id, uidl: None, seq: None, detail });
        }
        let mut damaged = Vec::new();
        for slot in scan {
            let slot = slot?;
            if slot.entry.is_err() {
                damaged.push(slot);
                continue;
            }
            pass.notes.extend(slot.entry.as_ref().ok().and_then(notes::of_entry));
            for slot in damaged.drain(..).chain([slot]) {
                pass.check.take(&slot, signatures, &mut pass.problems);
            }
        }
        if let Some(first) = damaged.first() {
            let detail = format!("{} octets at octet {} are no entry", end - first.offset, first.offset);
            let kind = ProblemKind::TornTail;
            pass.problems.push(Problem { kind, mailbox: id, uidl: None, seq: Some(first.seq()), detail });
        }
        Ok(Some(pass))
    }

    fn files(&self, id: MailboxId) -> DiskResult<Vec<String>> {
        self.names(&self.layout.folder(id, Folder::New))
    }

    fn names(&self, folder: &Path) -> DiskResult<Vec<String>> {
        match self.disk.list(folder) {
            Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
            Err(e) if e.is_missing() => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    fn is_missing(&self, id: MailboxId, uidl: Uidl) -> DiskResult<bool> {
        match self.disk.entry(&self.path(id, uidl)) {
            Ok(_) => Ok(false),
            Err(e) if e.is_missing() => Ok(true),
            Err(e) => Err(e),
        }
    }

    fn path(&self, id: MailboxId, uidl: Uidl) -> PathBuf {
        self.layout.message(id, Folder::New, uidl)
    }

    /// Compares a waiting message's file with its entry.
    fn file(&self, id: MailboxId, seq: u64, waiting: &Waiting) -> DiskResult<Option<Problem>> {
        let path = self.path(id, waiting.uidl);
        let damaged = |detail: String| {
            Some(Problem {
                kind: ProblemKind::DamagedFile,
                mailbox: id,
                uidl: Some(waiting.uidl),
                seq: Some(seq),
                detail,
            })
        };
        let mut file = match self.disk.open(&path) {
            Ok(file) => file,
            Err(e) if e.is_missing() => return Ok(Some(missing(id, seq, waiting.uidl))),
            Err(e) => return Ok(damaged(e.to_string())),
        };
        let len = file.len()?;
        let mut start = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(MAX_AGE_HEADER)];
        file.read_at(&mut start, 0)?;
        if age_geometry(&start, len) != Some(waiting.sealed_content) {
            return Ok(damaged(format!("{} has another length than entry {seq} says", path.display())));
        }
        let (mut hasher, mut block) = (Hasher::default(), vec![0; 64 * 1024]);
        loop {
            match file.read(&mut block) {
                Ok(0) => break,
                Ok(read) => hasher.update(block.get(..read).unwrap_or_default()),
                Err(e) => return Ok(damaged(DiskError::new("read", &path, e).to_string())),
            }
        }
        if hasher.finish() != waiting.sealed_sha256 {
            return Ok(damaged(format!("{} is not the file that entry {seq} names", path.display())));
        }
        Ok(None)
    }
}

/// Findings that a server at work also makes.
fn is_passing(problem: &Problem) -> bool {
    matches!(problem.kind, ProblemKind::MissingFile | ProblemKind::UnrecordedFile | ProblemKind::TornTail)
}

fn missing(id: MailboxId, seq: u64, uidl: Uidl) -> Problem {
    let detail = format!("entry {seq} was accepted and not removed, but its file is missing");
    Problem { kind: ProblemKind::MissingFile, mailbox: id, uidl: Some(uidl), seq: Some(seq), detail }
}

fn unrecorded(id: MailboxId, files: &[String], pass: Option<&Pass>) -> Vec<Problem> {
    let waiting: BTreeSet<Uidl> =
        pass.iter().flat_map(|pass| pass.check.waiting().values()).map(|waiting| waiting.uidl).collect();
    let strays = files.iter().filter(|name| !name.parse().is_ok_and(|uidl: Uidl| waiting.contains(&uidl)));
    let problem = |name: &String| Problem {
        kind: ProblemKind::UnrecordedFile,
        mailbox: id,
        uidl: name.parse().ok(),
        seq: None,
        detail: format!("the file {name} has no entry in the ledger; the next start of the server adopts it"),
    };
    strays.map(problem).collect()
}

#[cfg(test)]
mod tests;
