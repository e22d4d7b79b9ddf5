//! Reports that were kept whole and filed nowhere, looked at again.
//!
//! Quarantine waits for a person, who releases a report (it is filed as a fresh one from a source nobody doubts) or
//! rejects it (it stays, marked). Dead letters are tried again: after an update that understands them, or with other
//! owners. The report's octets come from the store; each decision is a record with reason, user and time. Doing the same
//! twice changes nothing. Nothing is ever removed.

use crate::{
    archive::Archive,
    collect::{check_owner, examine::context},
    config::ArchiverConfig,
    filing::{Owners, Plan, Rules, Unknown, assign, assign_all},
    journal::{self, Content, Context, Handling, Profile, Verdict},
    octets::{Octets as _, Staged, Staging},
    store::{Held, NewFiling, Outcome, StoreError, entry::FiledBy},
};
use postkeep_shared::{
    mail::Digest,
    run::{Exit, Failure, now_ms},
};
use std::{
    collections::BTreeSet,
    io::{self, Write},
};

/// Source of messages that were imported for one owner; no `[[source]]` can have this name.
pub const IMPORT_SOURCE: &str = "@import";
/// What stands before the owner's name where the mailbox of an import is named.
const OWNER_MAILBOX: &str = "owner ";

/// The mailbox that messages are kept under that were imported for `owner`.
#[must_use]
pub fn import_mailbox(owner: &str) -> String {
    format!("{OWNER_MAILBOX}{owner}")
}

/// What became of one report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It was decided, and goes there with so many new appearances; durable with the next commit.
    Decided(FiledBy, Outcome, u64),
    /// It had been decided like this before; nothing was changed.
    Before(Outcome),
    /// It still cannot be filed; nothing was changed.
    Stays(String),
}

/// Everything a decision needs.
pub struct Review<'a> {
    /// Open for writing.
    pub store: &'a mut Archive,
    /// For reports on their way.
    pub staging: &'a Staging,
    /// Where the sources are.
    pub config: &'a ArchiverConfig,
    /// Who owns what now.
    pub owners: &'a Owners,
    /// Who decides.
    pub by: Option<String>,
}

/// How the messages of a report's source are read and filed.
struct Reading {
    context: Context,
    owner: Option<String>,
    rules: Rules,
}

impl Review<'_> {
    /// Files a report from quarantine like a fresh one from a source nobody doubts. What still contradicts itself, or
    /// was cut off, is filed as it is.
    ///
    /// # Errors
    /// Exit 2 for a report that is not in quarantine, or whose source is not configured any more; the store's.
    pub fn release(&mut self, held: &Held, reason: &str) -> Result<Done, Failure> {
        match held.outcome {
            Outcome::Quarantine | Outcome::Rejected => {}
            Outcome::Filed | Outcome::CatchAll => return Ok(Done::Before(held.outcome)),
            Outcome::DeadLetter => {
                return Err(Failure::usage(format!(
                    "{} is a dead letter and not in quarantine; use `dead-letter retry`",
                    held.id
                )));
            }
        }
        let reading = self.reading(held)?;
        let raw = self.raw(held)?;
        let mut verdict = journal::examine(&raw, &reading.context).map_err(unreadable)?;
        if verdict.handling == Handling::Quarantine {
            verdict.handling = Handling::ArchiveAsIs;
            verdict.content = Some(Content::Range(0..raw.len()));
        }
        let plan = assign_all(&verdict, reading.owner.as_deref(), self.owners, &reading.rules);
        self.decide(held, FiledBy::Release, Some(reason), &plan, Some((&raw, &verdict)))
    }

    /// Marks a report in quarantine as rejected. It is kept all the same.
    ///
    /// # Errors
    /// Exit 5 for a report that is filed already; exit 2 for one that is not in quarantine.
    pub fn reject(&mut self, held: &Held, reason: &str) -> Result<Done, Failure> {
        match held.outcome {
            Outcome::Quarantine => self.decide(held, FiledBy::Reject, Some(reason), &Plan::default(), None),
            Outcome::Rejected => Ok(Done::Before(held.outcome)),
            Outcome::Filed | Outcome::CatchAll => Err(Failure::new(
                Exit::Refused,
                format!("{} was released and is in an archive; what is filed cannot be rejected", held.id),
            )),
            Outcome::DeadLetter => Err(Failure::usage(format!("{} is a dead letter and not in quarantine", held.id))),
        }
    }

    /// Tries to file a dead letter again.
    ///
    /// # Errors
    /// Exit 2 for a report that is no dead letter, or whose source is not configured any more; the store's.
    pub fn retry(&mut self, held: &Held) -> Result<Done, Failure> {
        match held.outcome {
            Outcome::DeadLetter => {}
            Outcome::Filed | Outcome::CatchAll => return Ok(Done::Before(held.outcome)),
            Outcome::Quarantine | Outcome::Rejected => {
                return Err(Failure::usage(format!("{} is no dead letter; use `quarantine release`", held.id)));
            }
        }
        let reading = self.reading(held)?;
        let raw = self.raw(held)?;
        let verdict = journal::examine(&raw, &reading.context).map_err(unreadable)?;
        let plan = assign(&verdict, reading.owner.as_deref(), self.owners, &reading.rules);
        if plan.is_dead() || verdict.content.is_none() {
            return Ok(Done::Stays(verdict.reason));
        }
        self.decide(held, FiledBy::Retry, None, &plan, Some((&raw, &verdict)))
    }

    fn decide(
        &mut self,
        held: &Held,
        by: FiledBy,
        reason: Option<&str>,
        plan: &Plan,
        examined: Option<(&Staged, &Verdict)>,
    ) -> Result<Done, Failure> {
        let filed = self.store.filed_named(&held.source, held.mailbox.as_deref(), &held.uidl)?;
        let filed = filed.ok_or_else(|| StoreError::NoSuchMessage(held.uidl.clone()))?;
        let sha256 = Digest::from_hex(&held.sha256).ok_or(StoreError::CatalogDamaged)?;
        let unowned: BTreeSet<&String> = plan.unowned.iter().collect();
        let settled = filed.unowned.iter().filter(|address| !unowned.contains(address)).cloned().collect();
        let instances = self.store.add_filing(NewFiling {
            filed: &filed,
            by,
            who: self.by.clone().filter(|_| reason.is_some()),
            reason: reason.map(str::to_owned),
            plan,
            settled,
            examined: examined.map(|(raw, verdict)| (raw as &dyn crate::octets::Octets, sha256, verdict)),
            filed_ms: now_ms(),
        })?;
        let outcome = match by {
            FiledBy::Reject => Outcome::Rejected,
            _ if plan.catchall => Outcome::CatchAll,
            _ => Outcome::Filed,
        };
        Ok(Done::Decided(by, outcome, instances))
    }

    /// What has left its source cannot be left there: nobody's mail goes to the catch-all archive.
    fn reading(&self, held: &Held) -> Result<Reading, Failure> {
        let rcpt = held.evidence.as_ref().map(|evidence| evidence.rcpt_to.clone());
        if let Some(source) = self.config.sources.iter().find(|source| source.name == held.source) {
            check_owner(source, self.owners)?;
            let rules = Rules { unknown: Unknown::CatchAll, ..self.config.rules(&source.name) };
            return Ok(Reading { context: context(source, rcpt), owner: source.reading.owner.clone(), rules });
        }
        let owner = held.mailbox.as_deref().and_then(|mailbox| mailbox.strip_prefix(OWNER_MAILBOX));
        match owner.filter(|_| held.source == IMPORT_SOURCE) {
            Some(owner) => Ok(Reading {
                context: Context { profile: Profile::Single, ..Context::default() },
                owner: Some(owner.to_owned()),
                rules: self.config.rules(IMPORT_SOURCE),
            }),
            None => Err(Failure::usage(format!(
                "{} came from source `{}`, which is not in {} any more; put its [[source]] back",
                held.id,
                held.source,
                self.config.file.display()
            ))),
        }
    }

    /// The report's octets, from the store.
    fn raw(&self, held: &Held) -> Result<Staged, Failure> {
        let mut out = Into { stager: self.staging.begin() };
        self.store.read_held(held, &mut out)?;
        out.stager.finish().map_err(unreadable)
    }
}

fn unreadable(error: io::Error) -> Failure {
    StoreError::Input(error).into()
}

struct Into {
    stager: crate::octets::Stager,
}

impl Write for Into {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.stager.write(octets)?;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
