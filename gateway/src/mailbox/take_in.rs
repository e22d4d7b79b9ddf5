//! Definitions from elsewhere: from a bundle, a backup or a peer. All under one lock, all files written before the
//! first gets its name; what a crash interrupts is finished by doing it again.

use super::{Conflict, Mailbox, MailboxError, Mailboxes};
use crate::verify::Verifier;
use postkeep_shared::{disk, mail::MailboxId};
use std::{path::Path, sync::Arc};

/// What became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakenIn {
    /// Mailboxes that were not here.
    pub new: Vec<MailboxId>,
    /// Mailboxes whose password, keys or state are newer there.
    pub changed: Vec<MailboxId>,
    /// How many are the same, or newer here.
    pub unchanged: usize,
    /// Mailboxes that were deleted here: they are not made again.
    pub deleted: Vec<MailboxId>,
    /// What a person has to decide; those mailboxes stay as they are.
    pub conflicts: Vec<String>,
}

/// What happens to the rest when there is a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// Nothing is changed at all.
    ChangeNothing,
    /// The others are taken in.
    GoOn,
}

impl Mailboxes {
    /// Takes in definitions from `peer` (as it is to be named in sentences).
    ///
    /// # Errors
    /// [`MailboxError`]; then some may have been taken in and others not.
    pub fn take_in(&self, theirs: &[Mailbox], peer: &str, on_conflict: OnConflict) -> Result<TakenIn, MailboxError> {
        disk::create_dirs(self.disk.as_ref(), &self.folder)?;
        let _changing = self.changing()?;
        let mut taken = TakenIn::default();
        let mut files = Vec::new();
        for mailbox in theirs {
            let id = mailbox.id;
            let Some(ours) = self.lookup(&id)? else {
                if self.is_deleted(&id)? {
                    taken.deleted.push(id);
                    continue;
                }
                taken.new.push(id);
                files.push((self.file(id), self.text(mailbox)?));
                continue;
            };
            match ours.merged(mailbox, peer, || self.waits(id)) {
                Ok(None) => taken.unchanged += 1,
                Ok(Some(merged)) => {
                    taken.changed.push(id);
                    files.push((self.file(id), self.text(&merged)?));
                }
                Err(Conflict(text)) => taken.conflicts.push(text),
            }
        }
        if on_conflict == OnConflict::ChangeNothing && !taken.conflicts.is_empty() {
            return Ok(TakenIn { conflicts: taken.conflicts, ..TakenIn::default() });
        }
        let files: Vec<(&Path, &[u8])> = files.iter().map(|(path, text)| (path.as_path(), text.as_bytes())).collect();
        disk::replace_files(self.disk.as_ref(), &self.folder, &files)?;
        Ok(taken)
    }

    /// Whether anything waits; where nobody can tell, it does.
    fn waits(&self, id: MailboxId) -> bool {
        let Some(data_dir) = self.folder.parent() else { return true };
        let verifier = Verifier::new(data_dir, Arc::clone(&self.disk), self.clone());
        verifier.summary(id).map_or(true, |summary| summary.messages > 0)
    }
}
