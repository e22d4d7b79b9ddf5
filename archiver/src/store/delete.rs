//! Taking messages out of an archive, by record (docs/formats/record.md, `deletion`): who, when, why, and what nobody
//! needs any more because of it.
//!
//! An appearance (owner and folder) goes. When none is left in any archive, the octets of the message, of its variants
//! and of the reports it came in are not needed any more; `store compact` gives their space back. A report that waits
//! for a decision (dead letter, quarantine, rejected) is kept with everything in it. What was known of the message
//! (envelope, addresses, subject, receipts) stays in the records: that it was there, and who removed it, must not vanish.

use super::{
    Outcome, Store, StoreError, StoreResult,
    catalog::{Space, key},
    entry::{Appearance, DeletionRecord, Record, ReportName, ReportRecord, Summary, TakenOut, TakenReport},
    file::{Filed, trailing},
    index::{Gone, owner_key, part_name, place_key, rfc3339_ms},
    recipe::{Hex, Piece},
    store_file::StoreFile,
};
use data_encoding::HEXLOWER;
use serde::Serialize;
use std::collections::BTreeSet;

/// What is to be taken out.
#[derive(Debug, Clone)]
pub struct Deletion<'a> {
    /// From whose archive.
    pub owner: &'a str,
    /// The message, as a listing names it.
    pub id: &'a str,
    /// Only from this folder.
    pub folder: Option<&'a str>,
    /// Why.
    pub reason: &'a str,
    /// Who decided.
    pub who: Option<String>,
    /// When, milliseconds since 1970-01-01 UTC.
    pub deleted_ms: u64,
}

/// What was taken out. Field names are those of `delete --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deleted {
    /// The message.
    pub id: String,
    /// The owner.
    pub owner: String,
    /// Folders it was in.
    pub folders: Vec<String>,
    /// Stored messages (the message and its variants) that nobody needs any more.
    pub messages: u64,
    /// Reports that nobody needs any more.
    pub reports: u64,
}

impl Deleted {
    /// With what another store gave up.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.folders.extend(other.folders);
        self.folders.sort();
        self.folders.dedup();
        self.messages += other.messages;
        self.reports += other.reports;
        self
    }
}

/// A report with what names it.
struct Bringer {
    name: ReportName,
    record: ReportRecord,
    filed: Filed,
    gone: bool,
}

impl Store {
    /// Takes a message out of an owner's archive; durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::NotThere`], [`StoreError::Protected`] and the others.
    pub fn delete(&mut self, deletion: &Deletion<'_>) -> StoreResult<Deleted> {
        let summary = self.message_entry(deletion.id)?.summary;
        let (id, owner) = (deletion.id.to_owned(), deletion.owner.to_owned());
        self.delete_summary(&summary, deletion)?.ok_or(StoreError::NotThere { id, owner })
    }

    /// As [`Self::delete`], by what a listing shows of the message or of one with the same identity. `None` when it is
    /// not in this archive here.
    pub(crate) fn delete_summary(
        &mut self,
        summary: &Summary,
        deletion: &Deletion<'_>,
    ) -> StoreResult<Option<Deleted>> {
        let instances = self.wanted(deletion, summary)?;
        if instances.is_empty() {
            return Ok(None);
        }
        self.check_writable()?;
        self.check_changeable()?;
        let out = self.dispensable(summary.identity, instances)?;
        let deleted = Deleted {
            id: HEXLOWER.encode(&summary.id.0),
            owner: deletion.owner.to_owned(),
            folders: out.instances.iter().map(|at| at.folder.clone()).collect(),
            messages: out.messages.len() as u64,
            reports: out.reports.len() as u64,
        };
        let record = DeletionRecord {
            deleted_ms: deletion.deleted_ms,
            who: deletion.who.clone(),
            reason: deletion.reason.to_owned(),
            message: summary.id,
            sha256: summary.sha256,
            out,
        };
        let put = self.put_record(&Record::Deletion(Box::new(record)));
        self.fail_on(put)?;
        // Nothing of it waits to be read back.
        let _ = self.commit()?;
        Ok(Some(deleted))
    }

    /// Whether there is anything to take out here.
    pub(crate) fn is_in(&self, deletion: &Deletion<'_>, summary: &Summary) -> StoreResult<bool> {
        Ok(!self.wanted(deletion, summary)?.is_empty())
    }

    fn wanted(&self, deletion: &Deletion<'_>, summary: &Summary) -> StoreResult<Vec<Appearance>> {
        let mut places = self.places(&summary.identity)?;
        places.retain(|at| at.owner == deletion.owner && deletion.folder.is_none_or(|folder| folder == at.folder));
        Ok(places)
    }

    /// Why there is no message with this id.
    pub(crate) fn absence(&self, id: &str) -> StoreResult<StoreError> {
        let octets = HEXLOWER.decode(id.as_bytes()).ok().filter(|octets| octets.len() == 16).unwrap_or_default();
        let gone = self.clear_value(Space::Gone, &[&octets])?.and_then(|octets| Gone::decode(&octets));
        Ok(match gone.map(|gone| self.record(gone.record)).transpose()? {
            Some(Record::Deletion(deletion)) => StoreError::Deleted {
                id: id.to_owned(),
                when: rfc3339_ms(deletion.deleted_ms),
                who: deletion.who.unwrap_or_else(|| "somebody".to_owned()),
                reason: deletion.reason,
            },
            _ => StoreError::NoSuchMessage(id.chars().take(64).collect()),
        })
    }

    /// Whether the store may be changed by people: not when it is write-protected or disabled.
    pub(super) fn check_changeable(&self) -> StoreResult<()> {
        let file = StoreFile::read(&self.dir, &*self.disk)?;
        match file.state.as_str() {
            "write-protected" | "disabled" => Err(StoreError::Protected { dir: self.dir.clone(), state: file.state }),
            _ => Ok(()),
        }
    }

    /// Where a message, by its identity, appears now.
    pub(super) fn places(&self, identity: &Hex<16>) -> StoreResult<Vec<Appearance>> {
        let mut found = BTreeSet::new();
        for bringer in self.bringers(identity)? {
            let main = bringer.filed.message.as_ref().is_some_and(|message| message.identity == *identity);
            for (instance, ..) in bringer.filed.instances.into_iter().filter(|_| main) {
                let owner = owner_key(&self.keys, &instance.owner);
                let place = place_key(&self.keys, &instance.owner, &instance.folder, &identity.0);
                if self.clear_value(Space::Instances, &[&owner, &place])?.is_some() {
                    found.insert(Appearance { owner: instance.owner, folder: instance.folder });
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Every report that brought messages of this identity.
    fn bringers(&self, identity: &Hex<16>) -> StoreResult<Vec<Bringer>> {
        let mut found = Vec::new();
        for pair in self.catalog.prefix(&key(Space::Envelopes, &[&identity.0])) {
            let number = trailing(&pair?.0);
            let (record, filed) = (self.report(number)?, self.filed(number)?);
            let name =
                ReportName { source: filed.source.clone(), mailbox: filed.mailbox.clone(), uidl: filed.uidl.clone() };
            let collected = self.collected_entry(&name.source, name.mailbox.as_deref(), &name.uidl)?;
            let gone = collected.is_some_and(|entry| entry.gone.is_some_and(|gone| !gone.lost));
            found.push(Bringer { name, record, filed, gone });
        }
        Ok(found)
    }

    /// What nobody needs any more when these appearances of `identity` are gone.
    ///
    /// # Errors
    /// [`StoreError`]; a report that cannot be looked at keeps everything.
    pub(super) fn dispensable(&self, identity: Hex<16>, instances: Vec<Appearance>) -> StoreResult<TakenOut> {
        let rest = self.places(&identity)?.into_iter().any(|at| !instances.contains(&at));
        let mut out = TakenOut { identity, instances, ..TakenOut::default() };
        if rest {
            return Ok(out);
        }
        let (mut names, mut candidates) = (BTreeSet::new(), BTreeSet::new());
        for bringer in self.bringers(&identity)? {
            let Bringer { name, record, filed, gone } = bringer;
            let main = filed.message.as_ref().is_some_and(|message| message.identity == identity);
            if !main || gone || filed.outcome.is_held() || filed.outcome == Outcome::Rejected {
                continue;
            }
            candidates.extend(record.message.iter().chain(&filed.message).map(|message| message.id));
            candidates.extend(record.alternates.iter().chain(&filed.alternates).map(|alternate| alternate.message));
            if names.insert(name.clone()) {
                out.parts.extend(record.raw.recipe.parts.iter().map(|part| Hex(part_name(&self.keys, part))));
                out.reports.push(TakenReport { name, unowned: filed.unowned });
            }
        }
        for pair in self.catalog.prefix(&key(Space::Variants, &[&identity.0])) {
            candidates.extend(pair?.0.last_chunk::<16>().map(|id| Hex(*id)));
        }
        for id in candidates {
            self.give_up(id, &names, &mut out)?;
        }
        Ok(out)
    }

    /// Adds a message to what goes, unless it appears somewhere or another report needs it.
    fn give_up(&self, id: Hex<16>, names: &BTreeSet<ReportName>, out: &mut TakenOut) -> StoreResult<()> {
        let Ok(entry) = self.message_entry(&HEXLOWER.encode(&id.0)) else { return Ok(()) };
        let identity = entry.summary.identity;
        if identity != out.identity && !self.places(&identity)?.is_empty() {
            return Ok(());
        }
        for other in self.bringers(&identity)? {
            let pieces = &other.record.raw.recipe.pieces;
            let needs = pieces.contains(&Piece::Message(id)) || other.filed.message.is_some_and(|m| m.id == id);
            if needs && !other.gone && !names.contains(&other.name) {
                return Ok(());
            }
        }
        let record = self.record(entry.record)?;
        let message = record.messages().get(entry.slot).ok_or(StoreError::CatalogDamaged)?;
        out.parts.extend(message.recipe.parts.iter().map(|part| Hex(part_name(&self.keys, part))));
        out.messages.push(id);
        Ok(())
    }
}
