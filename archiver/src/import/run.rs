//! Storing what the files hold, in batches, and counting it.
//!
//! Each message is added, and with its batch made durable and read back, before it counts. What was counted by an import
//! that was killed counts again the same way: the store knows what each message brought when it came.

use super::{File, Form, mailstore, mbox};
use crate::{
    archive::Archive,
    collect::{check_owner, examine::context},
    config::{ArchiverConfig, Source},
    export::{Facts, Told},
    filing::{CATCH_ALL, Instance, Owners, Plan, Rules, assign},
    journal::{self, Context, Handling, Profile},
    octets::{FileOctets, Octets, Slice, Staging},
    review::{IMPORT_SOURCE, import_mailbox},
    store::{NewReport, Outcome, Pending, StoreError},
};
use postkeep_shared::{
    mail::{Digest, Hasher},
    run::{Failure, now_ms},
};
use serde::Serialize;
use std::{collections::HashSet, io};

/// Messages of one batch at most.
const BATCH: usize = 64;
/// Octets after which a batch takes no further message.
const BATCH_OCTETS: u64 = 32 * 1024 * 1024;
/// Sentences kept; the rest is counted.
const MAX_PROBLEMS: usize = 100;
/// The mailbox that messages imported for a source are kept under.
const SOURCE_MAILBOX: &str = "import";

/// Whose messages are imported.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// Those of a source: read and filed by its settings.
    Source(&'a Source),
    /// Those of one owner.
    Owner(&'a str),
}

/// What an import did; every message read is in exactly one of the numbers behind `read`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Messages read.
    pub read: u64,
    /// Filed to an owner.
    pub filed: u64,
    /// Filed to the catch-all archive.
    pub catchall: u64,
    /// In the archive already, from elsewhere or from this import: nothing new appears.
    pub duplicates: u64,
    /// Kept whole and filed nowhere.
    pub dead_letters: u64,
    /// Kept whole and filed nowhere until an administrator decides.
    pub quarantined: u64,
    /// Not stored, since they concern no owner and the source says `leave`.
    pub left: u64,
    /// Could not be read or stored; see the problems.
    pub failed: u64,
    /// Of those read: in the store already from this import, before it was started this time.
    pub before: u64,
    /// New appearances (owner and folder) of this run.
    pub instances: u64,
    /// Octets read.
    pub bytes_in: u64,
    /// Octets added to the store in this run.
    pub bytes_stored: u64,
    /// Sentences.
    pub problems: Vec<String>,
    /// Problems without a sentence here.
    pub more_problems: u64,
}

impl Counts {
    /// Whether every message that was read went somewhere.
    #[must_use]
    pub fn add_up(&self) -> bool {
        let gone = self.filed + self.catchall + self.duplicates + self.dead_letters + self.quarantined + self.left;
        self.read == gone + self.failed
    }

    /// Whether a person should look.
    #[must_use]
    pub fn need_attention(&self) -> bool {
        self.dead_letters + self.quarantined + self.left + self.failed > 0
            || !self.problems.is_empty()
            || !self.add_up()
    }

    /// Notes a problem.
    pub fn problem(&mut self, text: String) {
        tracing::warn!("{text}");
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text);
        } else {
            self.more_problems += 1;
        }
    }

    fn class(&mut self, outcome: Outcome, instances: u64) {
        match outcome {
            Outcome::Filed | Outcome::CatchAll if instances == 0 => self.duplicates += 1,
            Outcome::Filed => self.filed += 1,
            Outcome::CatchAll => self.catchall += 1,
            Outcome::DeadLetter => self.dead_letters += 1,
            Outcome::Quarantine | Outcome::Rejected => self.quarantined += 1,
        }
    }
}

/// An import at work.
pub struct Import<'a> {
    store: &'a mut Archive,
    staging: &'a Staging,
    owners: &'a Owners,
    name: &'a str,
    mailbox: String,
    context: Context,
    owner: Option<&'a str>,
    rules: Rules,
    mailstore: bool,
    dialect: Option<mbox::Dialect>,
    /// Names of this run, 16 octets each.
    seen: HashSet<[u8; 16]>,
    batch: Vec<(String, Pending)>,
    /// What has been done so far.
    pub counts: Counts,
}

impl<'a> Import<'a> {
    /// Prepares an import. With `mailstore` the files are an export of MailStore: its header fields name archive and
    /// folder. `dialect` is that of every mbox file; without it each file is looked at.
    ///
    /// # Errors
    /// Exit 2 where there is no such owner.
    pub fn new(
        store: &'a mut Archive,
        staging: &'a Staging,
        config: &ArchiverConfig,
        owners: &'a Owners,
        target: Target<'a>,
        mailstore: bool,
        dialect: Option<mbox::Dialect>,
    ) -> Result<Self, Failure> {
        let (name, mailbox, context, owner, rules) = match target {
            Target::Source(source) => {
                check_owner(source, owners)?;
                let owner = source.reading.owner.as_deref();
                (
                    source.name.as_str(),
                    SOURCE_MAILBOX.to_owned(),
                    context(source, None),
                    owner,
                    config.rules(&source.name),
                )
            }
            Target::Owner(wanted) => {
                let owner = owners.named(wanted).ok_or_else(|| {
                    Failure::usage(format!("there is no owner `{wanted}`; add it with `owner add`, or check --owner"))
                })?;
                let context = Context { profile: Profile::Single, ..Context::default() };
                let rules = config.rules(IMPORT_SOURCE);
                (IMPORT_SOURCE, import_mailbox(&owner.name), context, Some(owner.name.as_str()), rules)
            }
        };
        Ok(Self {
            store,
            staging,
            owners,
            name,
            mailbox,
            context,
            owner,
            rules,
            mailstore,
            dialect,
            seen: HashSet::new(),
            batch: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// Imports one file. A file that cannot be read is a problem, not an error.
    ///
    /// # Errors
    /// The store's: nothing goes on.
    pub fn file(&mut self, file: &File, exports: &[Facts]) -> Result<(), Failure> {
        let octets = match FileOctets::open(&file.path) {
            Ok(octets) => octets,
            Err(error) => {
                self.counts.read += 1;
                self.fail(file, &error);
                return Ok(());
            }
        };
        match file.form {
            Form::Message => {
                let told = told(file, exports, None);
                self.message(file, &octets, told)
            }
            Form::Mbox => self.mbox(file, &octets, exports),
        }
    }

    /// Makes durable what the last batch holds. Call it at the end.
    ///
    /// # Errors
    /// The store's.
    pub fn finish(&mut self) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let commit = self.store.commit()?;
        self.counts.bytes_stored += commit.bytes_stored();
        let failed: HashSet<String> = commit.failures.iter().map(|(name, _)| name.clone()).collect();
        for (name, error) in commit.failures {
            self.counts
                .problem(format!("message {name} could not be read back from the store: {error}; import it again"));
        }
        for (name, pending) in std::mem::take(&mut self.batch) {
            if failed.contains(&name) {
                self.counts.failed += 1;
                continue;
            }
            self.counts.class(pending.outcome, pending.instances);
            self.counts.instances += pending.instances;
        }
        Ok(())
    }

    fn mbox(&mut self, file: &File, octets: &FileOctets, exports: &[Facts]) -> Result<(), Failure> {
        let known = if file.of_export.is_some() { Some(mbox::Dialect::Mboxrd) } else { self.dialect };
        if let Some(wanted) = &file.sha256
            && digest(octets).is_ok_and(|found| found.to_string() != *wanted)
        {
            self.counts.problem(format!(
                "{} is not what the export's manifest says; it is imported all the same",
                file.path.display()
            ));
        }
        let mut number = 0;
        let dialect = match known.map_or_else(|| mbox::detect(octets), Ok) {
            Ok(dialect) => dialect,
            Err(error) => {
                self.counts.read += 1;
                self.fail(file, &error);
                return Ok(());
            }
        };
        let mut reader = mbox::Reader::new(octets, dialect);
        loop {
            let found = match reader.next_message() {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.counts.read += 1;
                    self.fail(file, &error);
                    return Ok(());
                }
            };
            let mut stager = self.staging.begin();
            let staged = mbox::unquoted(octets, &found, dialect, &mut |block| stager.write(block));
            match staged.and_then(|()| stager.finish()) {
                Ok(staged) => self.message(file, &staged, told(file, exports, Some(number)))?,
                Err(error) => {
                    self.counts.read += 1;
                    self.fail(file, &error);
                }
            }
            number += 1;
        }
    }

    fn message(&mut self, file: &File, raw: &dyn Octets, told: Option<&Told>) -> Result<(), Failure> {
        self.counts.read += 1;
        match self.take(file, raw, told) {
            Ok(()) => Ok(()),
            Err(StoreError::Input(error)) => {
                self.fail(file, &error);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn fail(&mut self, file: &File, error: &io::Error) {
        self.counts.failed += 1;
        self.counts.problem(format!("{} could not be read: {error}; was it changed meanwhile?", file.path.display()));
    }

    fn take(&mut self, file: &File, raw: &dyn Octets, told: Option<&Told>) -> Result<(), StoreError> {
        let header = told.map_or(0, |told| told.header);
        let message = Slice::new(raw, header..raw.len());
        let sha256 = digest(&message)?;
        self.counts.bytes_in += raw.len();
        let is_whole_file = matches!(file.form, Form::Message);
        if is_whole_file
            && let Some(wanted) = &file.sha256
            && *wanted != (if header == 0 { sha256 } else { digest(raw)? }).to_string()
        {
            self.counts.problem(format!(
                "{} is not what the export's manifest says; it is imported all the same",
                file.path.display()
            ));
        }
        let raw: &dyn Octets = &message;
        let place = self.place(file, raw)?;
        let name = name(sha256, place.as_ref());
        if !self.seen.insert(short(&name)) {
            self.counts.duplicates += 1;
            return Ok(());
        }
        if let Some(before) = self.store.is_collected(self.name, Some(&self.mailbox), &name)? {
            self.counts.class(before.outcome, before.appearances);
            self.counts.before += 1;
            return Ok(());
        }
        let mut verdict = journal::examine(raw, &self.context)?;
        if let Some(told) = told.filter(|told| told.sender.is_some() || !told.recipients.is_empty()) {
            verdict.sender.clone_from(&told.sender);
            verdict.on_behalf_of.clone_from(&told.on_behalf_of);
            verdict.recipients.clone_from(&told.recipients);
        }
        let mut plan = assign(&verdict, self.owner, self.owners, &self.rules);
        if let (Some(place), true) = (place, verdict.handling != Handling::Quarantine) {
            plan = at(place);
        }
        if plan.leave {
            self.counts.left += 1;
            self.counts.problem(format!("{} concerns no owner and is left where it is", file.path.display()));
            return Ok(());
        }
        let pending = self.store.add(NewReport {
            source: self.name,
            host: "files",
            mailbox: Some(self.mailbox.clone()),
            uidl: name.clone(),
            receipt: None,
            evidence: None,
            raw,
            raw_sha256: sha256,
            verdict: &verdict,
            plan: &plan,
            collected_ms: now_ms(),
        })?;
        self.batch.push((name, pending));
        if self.batch.len() >= BATCH || self.store.uncommitted_bytes() >= BATCH_OCTETS {
            self.finish().map_err(|failure| StoreError::Failed(failure.to_string()))?;
        }
        Ok(())
    }

    /// Archive and folder that the file itself names: an export's. For one owner also the folder it lies in.
    fn place(&self, file: &File, raw: &dyn Octets) -> io::Result<Option<Instance>> {
        if let Some(archive) = &file.archive {
            let owner = match self.owners.named(archive) {
                Some(owner) => Some(owner.name.clone()),
                None => Some(archive.clone()).filter(|name| name == CATCH_ALL),
            };
            if let Some(owner) = owner {
                return Ok(Some(Instance::new(owner, file.folder.clone())));
            }
        }
        if self.mailstore {
            let fields = journal::outer_fields(raw, &mailstore::FOLDER_FIELDS)?;
            if let Some(place) = mailstore::place(&fields, self.owners) {
                return Ok(Some(place));
            }
        }
        let owner = self.owner.filter(|_| self.name == IMPORT_SOURCE && !file.folder.is_empty());
        Ok(owner.map(|owner| Instance::new(owner, file.folder.clone())))
    }
}

/// What the export that a file is of says of one of its messages.
fn told<'e>(file: &File, exports: &'e [Facts], number: Option<usize>) -> Option<&'e Told> {
    let (export, name) = file.of_export.as_ref()?;
    exports.get(*export)?.of(name, number)
}

fn at(place: Instance) -> Plan {
    let catchall = place.owner == CATCH_ALL;
    Plan { instances: vec![place], catchall, ..Plan::default() }
}

/// Names a message by what it is and where it is meant to be.
fn name(sha256: Digest, place: Option<&Instance>) -> String {
    match place {
        None => sha256.to_string(),
        Some(place) => {
            let place = Digest::of(format!("{}\0{}", place.owner, place.folder).as_bytes());
            format!("{sha256}@{}", place.short(16))
        }
    }
}

fn short(name: &str) -> [u8; 16] {
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().zip(Digest::of(name.as_bytes()).0) {
        *to = from;
    }
    short
}

fn digest(raw: &dyn Octets) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    raw.for_each_block(0..raw.len(), &mut |block| {
        hasher.update(block);
        Ok(())
    })?;
    Ok(hasher.finish())
}
