//! Reading and recomputing everything a store holds.

use super::{
    Store, StoreError, StoreResult,
    catalog::{Space, key},
    entry::{FilingRecord, MessageRecord, Record, ReportRecord, decode_entry},
    format::record::RecordError,
    open::read_store_file,
    packs::PackFile,
    records::{Head, LogEnd},
};
use data_encoding::HEXLOWER;
use postkeep_shared::mail::Hasher;
use serde::Serialize;
use std::{
    collections::HashMap,
    io::{self, Write},
    path::Path,
};

/// One thing that `store verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Word for programs: `pack-damaged`, `pack-truncated`, `pack-missing`, `catalog-incomplete`, `record-damaged`,
    /// `record-missing`, `message-damaged`, `report-damaged`, `store-file-damaged`.
    pub kind: &'static str,
    /// File and octet, message id, or source and uidl.
    pub r#where: String,
    /// For people.
    pub detail: String,
}

/// What `store verify` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// No problem was found.
    pub ok: bool,
    /// Messages rebuilt and compared.
    pub messages: u64,
    /// Reports rebuilt and compared.
    pub reports: u64,
    /// Distinct parts.
    pub parts: u64,
    /// Pack files read.
    pub packs: u64,
    /// Records read.
    pub records: u64,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// What is no problem but worth knowing, such as the torn end of a write that a crash cut off.
    pub notes: Vec<String>,
}

impl Verified {
    /// Adds what was found in another store.
    pub fn add(&mut self, other: Self) {
        self.ok &= other.ok;
        self.messages += other.messages;
        self.reports += other.reports;
        self.parts += other.parts;
        self.packs += other.packs;
        self.records += other.records;
        self.problems.extend(other.problems);
        self.notes.extend(other.notes);
    }

    fn problem(&mut self, kind: &'static str, r#where: impl Into<String>, detail: impl ToString) {
        self.problems.push(Problem { kind, r#where: r#where.into(), detail: detail.to_string() });
    }
}

impl Store {
    /// Reads and recomputes everything, past the page cache: every frame of every pack, every record and their chain,
    /// every message and report.
    ///
    /// # Errors
    /// Only when it cannot go on at all; damage is in [`Verified::problems`].
    pub fn verify(&self) -> StoreResult<Verified> {
        let mut found = Verified { parts: self.totals.parts, ..Verified::default() };
        self.verify_store_file(&mut found)?;
        self.verify_packs(&mut found)?;
        self.packs.fresh();
        let end = self.records.read_on(Head::default(), &mut |record, _, _| {
            found.records += 1;
            match record {
                Record::Report(report) => self.verify_report(&report, &mut found),
                Record::Ledger(_) => Ok(()),
                Record::Filing(filing) => self.verify_filing(&filing, &mut found),
            }
        });
        self.packs.cached();
        self.verify_log(end?, &mut found);
        found.ok = found.problems.is_empty();
        Ok(found)
    }

    /// Both wraps of the store key: one of them is needed only on a bad day.
    fn verify_store_file(&self, found: &mut Verified) -> StoreResult<()> {
        let file = read_store_file(&self.dir, &*self.disk)?;
        match &file.check {
            Some(check) if *check == file.checked_by(&self.keys) => {}
            Some(_) => found.problem(
                "store-file-damaged",
                self.dir.join("store.toml").display().to_string(),
                "it was changed or has decayed; restore it from a backup",
            ),
            None => found.notes.push("store.toml is of an earlier build and has no check".to_owned()),
        }
        Ok(())
    }

    fn verify_packs(&self, found: &mut Verified) -> StoreResult<()> {
        let (packs, others) = self.packs.list()?;
        found.notes.extend(others.iter().map(|path| format!("{} is no pack and was left alone", path.display())));
        let mut known = self.known_packs()?;
        for pack in packs {
            let len = known.remove(&pack.id).unwrap_or_default();
            if pack.len < len {
                let detail = format!("{} octets, {len} were there before", pack.len);
                found.problem("pack-truncated", pack.path.display().to_string(), detail);
            }
            match self.verify_pack(&pack, found) {
                Err(StoreError::Disk(error)) => {
                    found.problem("pack-damaged", pack.path.display().to_string(), error);
                }
                other => other?,
            }
            found.packs += 1;
        }
        for id in known.into_keys() {
            found.problem("pack-missing", self.packs.path(&id).display().to_string(), "the file is not there");
        }
        Ok(())
    }

    fn known_packs(&self) -> StoreResult<HashMap<[u8; 16], u64>> {
        let pairs = self.catalog.prefix(&key(Space::Packs, &[]));
        let known = pairs.map(|pair| {
            let (key, value) = pair?;
            let id = key.last_chunk().copied().ok_or(StoreError::CatalogDamaged)?;
            let len = value.first_chunk().copied().ok_or(StoreError::CatalogDamaged)?;
            Ok((id, u64::from_be_bytes(len)))
        });
        known.collect()
    }

    fn verify_pack(&self, pack: &PackFile, found: &mut Verified) -> StoreResult<()> {
        let scan = self.packs.scan(pack, true)?;
        for (at, error) in &scan.damage {
            found.problem("pack-damaged", place(&pack.path, *at), error);
        }
        if let Some(at) = scan.torn {
            found.notes.push(format!("{}: torn end of a write", place(&pack.path, at)));
        }
        for entry in &scan.entries {
            if self.clear_value(Space::Chunks, &[&entry.id])?.is_none() {
                let detail = "the catalog does not know this chunk; run `store rebuild-catalog`";
                found.problem("catalog-incomplete", place(&pack.path, entry.offset), detail);
            }
        }
        Ok(())
    }

    fn verify_report(&self, report: &ReportRecord, found: &mut Verified) -> StoreResult<()> {
        for message in &report.messages {
            found.messages += 1;
            self.verify_message(message, found)?;
        }
        found.reports += 1;
        let mut digest = Receipted::new(report);
        let (recipe, sha256, size) = (&report.raw.recipe, report.raw.sha256, report.raw.size);
        let name = format!("{} {}", report.source, report.uidl);
        match self.rebuild_checked(recipe, sha256, size, &report.uidl, &mut digest, 0) {
            Ok(()) if !digest.fits() => found.notes.push(format!("{name}: not what the gateway's receipt says")),
            Ok(()) => {}
            Err(error) => damage("report-damaged", name, error, found)?,
        }
        Ok(())
    }

    fn verify_filing(&self, filing: &FilingRecord, found: &mut Verified) -> StoreResult<()> {
        for message in &filing.messages {
            found.messages += 1;
            self.verify_message(message, found)?;
        }
        if self.collected_entry(&filing.source, filing.mailbox.as_deref(), &filing.uidl)?.is_none() {
            let name = format!("{} {}", filing.source, filing.uidl);
            found.problem("record-missing", name, "it was filed again later, but its own record is not there");
        }
        Ok(())
    }

    fn verify_message(&self, message: &MessageRecord, found: &mut Verified) -> StoreResult<()> {
        let name = HEXLOWER.encode(&message.summary.id.0);
        let (sha256, size) = (message.summary.sha256, message.summary.size);
        match self.rebuild_checked(&message.recipe, sha256, size, &name, &mut io::sink(), 0) {
            Ok(()) => {}
            Err(error) => damage("message-damaged", name.clone(), error, found)?,
        }
        if self.clear_value(Space::Messages, &[&message.summary.id.0])?.is_none() {
            let detail = "the catalog does not know this message; run `store rebuild-catalog`";
            found.problem("catalog-incomplete", name, detail);
        }
        Ok(())
    }

    fn verify_log(&self, end: LogEnd, found: &mut Verified) {
        for (path, at, detail) in &end.damage {
            found.problem("record-damaged", place(path, *at), detail);
        }
        found.notes.extend(end.notes);
        if let Some((path, at, error)) = end.torn {
            // What a crash cuts off is short or never came; octets that are all there were changed.
            if matches!(error, RecordError::Short | RecordError::Zeros) {
                found.notes.push(format!("{}: torn end of a write", place(&path, at)));
            } else {
                found.problem("record-damaged", place(&path, at), error);
            }
        }
        if end.head.number < self.head.number {
            let detail = format!("the catalog knows record {}; it cannot be read here", self.head.number);
            found.problem("record-missing", format!("record {}", end.head.number + 1), detail);
        }
    }
}

fn place(path: &Path, at: u64) -> String {
    format!("{} octet {at}", path.display())
}

/// Every error of reading one message is damage of that message: the others are still looked at.
fn damage(kind: &'static str, name: String, error: StoreError, found: &mut Verified) -> StoreResult<()> {
    found.problem(kind, name, error);
    Ok(())
}

/// Recomputes the salted digest of the gateway's receipt.
struct Receipted {
    hasher: Hasher,
    expected: Option<postkeep_shared::mail::Digest>,
}

impl Receipted {
    fn new(report: &ReportRecord) -> Self {
        let mut hasher = Hasher::default();
        let salt = report.evidence.as_ref().and_then(|evidence| HEXLOWER.decode(evidence.salt.as_bytes()).ok());
        let receipt = report.receipt.as_deref().and_then(decode_entry);
        let measured = receipt.filter(postkeep_shared::receipt::Entry::is_measured);
        let expected = salt.as_ref().and(measured).map(|receipt| receipt.body.digest);
        hasher.update(&salt.unwrap_or_default());
        Self { hasher, expected }
    }

    fn fits(self) -> bool {
        let Self { hasher, expected } = self;
        expected.is_none_or(|expected| hasher.finish() == expected)
    }
}

impl Write for Receipted {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.hasher.update(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
