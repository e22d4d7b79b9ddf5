//! What starts after a crash have done to a mailbox: nothing is wrong with it any more, but a person may want to know.

use super::Verifier;
use crate::spool::Folder;
use postkeep_shared::{
    disk::DiskResult,
    mail::{MailboxId, Uidl},
    receipt::{Entry, Flags},
};

/// Something that was put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What kind.
    pub kind: NoteKind,
    /// The mailbox concerned.
    pub mailbox: MailboxId,
    /// The message concerned, where one is.
    pub uidl: Option<Uidl>,
    /// One sentence: what was done and where it is.
    pub detail: String,
}

/// Kinds of [`Note`]; written in JSON as [`NoteKind::name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum NoteKind {
    /// A whole file without entry that got one.
    Recovered,
    /// A file that was moved to the quarantine.
    Quarantined,
    /// Octets that were cut off the end of the ledger.
    CutTail,
}

impl NoteKind {
    /// The kind as printed: `recovered` …
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Quarantined => "quarantined",
            Self::CutTail => "cut-tail",
        }
    }
}

/// The note an entry deserves.
pub(super) fn of_entry(entry: &Entry) -> Option<Note> {
    let body = &entry.body;
    if !body.flags.has(Flags::RECOVERED) || !matches!(body.event, postkeep_shared::receipt::Event::Accepted) {
        return None;
    }
    let detail = format!("entry {} was written for a whole file that had none when the server started", body.seq);
    Some(Note { kind: NoteKind::Recovered, mailbox: body.mailbox, uidl: Some(body.uidl), detail })
}

impl Verifier {
    /// What lies in the quarantines.
    pub(super) fn put_aside(&self, id: MailboxId) -> DiskResult<Vec<Note>> {
        let mut notes = Vec::new();
        let folder = self.layout.folder(id, Folder::Quarantine);
        for name in self.names(&folder)? {
            let uidl = name.split_once('.').and_then(|(uidl, _)| uidl.parse().ok());
            let detail = format!("{} was moved there by a start of the server", folder.join(&name).display());
            notes.push(Note { kind: NoteKind::Quarantined, mailbox: id, uidl, detail });
        }
        let folder = self.layout.ledgers().join("quarantine");
        let own = format!("{id}.");
        for name in self.names(&folder)?.iter().filter(|name| name.starts_with(&own)) {
            let detail = format!("the torn end of the ledger was cut off and moved to {}", folder.join(name).display());
            notes.push(Note { kind: NoteKind::CutTail, mailbox: id, uidl: None, detail });
        }
        Ok(notes)
    }
}
