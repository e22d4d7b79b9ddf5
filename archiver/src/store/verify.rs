//! Reading and recomputing everything a store holds.

use super::{
    Store, StoreError, StoreResult,
    catalog::{Space, key, sealed_pairs},
    entry::{FilingRecord, MessageRecord, Record, ReportRecord, decode_entry},
    format::record::RecordError,
    index::{CollectedEntry, Gone, MessageEntry, is_stored},
    packs::PackFile,
    recipe::Recipe,
    records::{Head, LogEnd, Read},
    store_file::StoreFile,
};
use data_encoding::HEXLOWER;
use postkeep_shared::{crypt::random, mail::Hasher};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
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

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Depth {
    /// Structure: headers, tables, footers, lengths, the chain of records, catalog against packs, and that every chunk
    /// that is needed is there. No content of packs is read but that of packs that are not sealed yet.
    Quick,
    /// As quick, and random messages are rebuilt and compared: so many per cent (at least one) …
    Percent(f64),
    /// … or this number.
    Count(u64),
    /// Everything is read and compared.
    Full,
}

/// What `store verify` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// No problem was found.
    pub ok: bool,
    /// `quick`, `sample` or `full`.
    pub mode: &'static str,
    /// Messages rebuilt and compared; with `quick` those whose chunks are all there.
    pub messages: u64,
    /// Reports rebuilt and compared; with `quick` and `sample` those whose chunks are all there.
    pub reports: u64,
    /// Messages that a person deleted: they are not looked for.
    pub deleted: u64,
    /// Messages, reports and records that were found damaged beyond repair before, and are recorded as that.
    pub lost: u64,
    /// With `sample`: random messages that were rebuilt and compared.
    pub sampled: u64,
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
        self.mode = other.mode;
        self.deleted += other.deleted;
        self.lost += other.lost;
        self.sampled += other.sampled;
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

/// Counts steps for a bar: a pack or a record each.
struct Steps<'a> {
    done: u64,
    total: u64,
    tell: &'a mut dyn FnMut(u64, u64),
}

impl Steps<'_> {
    fn step(&mut self) {
        self.done += 1;
        (self.tell)(self.done, self.total.max(self.done));
    }
}

impl Store {
    /// Reads and recomputes everything, past the page cache: every frame of every pack, every record and their chain,
    /// every message and report.
    ///
    /// # Errors
    /// Only when it cannot go on at all; damage is in [`Verified::problems`].
    pub fn verify(&self) -> StoreResult<Verified> {
        self.verify_with(Depth::Full, &mut |_, _| ())
    }

    /// As [`Self::verify`], as deep as told; `progress` hears of steps done and of how many there are.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_with(&self, depth: Depth, progress: &mut dyn FnMut(u64, u64)) -> StoreResult<Verified> {
        let mode = match depth {
            Depth::Quick => "quick",
            Depth::Percent(_) | Depth::Count(_) => "sample",
            Depth::Full => "full",
        };
        let full = depth == Depth::Full;
        let mut found = Verified { mode, parts: self.totals.parts, ..Verified::default() };
        let total = self.packs.list()?.0.len() as u64 + self.head.number;
        let mut steps = Steps { done: 0, total, tell: progress };
        self.verify_store_file(&mut found)?;
        self.verify_packs(full, &mut found, &mut steps)?;
        self.packs.fresh();
        let end = self.records.read_on(Head::default(), &mut |Read { record, number, .. }| {
            found.records += 1;
            steps.step();
            self.verify_record(number, &record, full, &mut found)
        });
        let sampled = if full { Ok(()) } else { self.verify_sample(depth, &mut found) };
        self.packs.cached();
        let end = end?;
        if !end.damage.is_empty() || end.torn.is_some() || end.head.number < self.head.number {
            self.verify_unread(&mut found)?;
        }
        self.verify_log(end, &mut found);
        if full && self.anew {
            self.verify_end(&mut found)?;
        }
        sampled?;
        found.ok = found.problems.is_empty();
        Ok(found)
    }

    fn verify_record(&self, number: u64, record: &Record, full: bool, found: &mut Verified) -> StoreResult<()> {
        for message in record.messages() {
            self.verify_message(number, message, full, found)?;
        }
        match record {
            Record::Report(report) => self.verify_report(number, report, full, found),
            Record::Filing(filing) => self.verify_filing(filing, found),
            Record::Lost(_) => {
                found.lost += 1;
                found.notes.push(format!("record {number} was found damaged beyond repair before"));
                Ok(())
            }
            Record::Ledger(_) | Record::Moved(_) | Record::Deletion(_) | Record::Loss(_) | Record::Compaction(_) => {
                Ok(())
            }
        }
    }

    /// All wraps of the store key: most of them are needed only on a bad day.
    fn verify_store_file(&self, found: &mut Verified) -> StoreResult<()> {
        let file = StoreFile::read(&self.dir, &*self.disk)?;
        match &file.check {
            Some(check) if *check == file.checked_by(&self.keys) => {}
            Some(_) => found.problem(
                "store-file-damaged",
                self.dir.join("store.toml").display().to_string(),
                "it was changed or has decayed; restore it from a backup",
            ),
            None if file.version > 1 => {
                let file = self.dir.join("store.toml").display().to_string();
                found.problem("store-file-damaged", file, "it has no check; restore it from a backup");
            }
            None => found.notes.push("store.toml is of an earlier build and has no check".to_owned()),
        }
        if file.key_by_unlock_next.is_some() {
            found.notes.push("store.toml holds two unlock wraps: a `store rekey` was cut off; say it again".to_owned());
        }
        Ok(())
    }

    fn verify_packs(&self, full: bool, found: &mut Verified, steps: &mut Steps<'_>) -> StoreResult<()> {
        let (packs, others) = self.packs.list()?;
        found.notes.extend(others.iter().map(|path| format!("{} is no pack and was left alone", path.display())));
        let mut known = self.known_packs()?;
        for pack in packs {
            let len = known.remove(&pack.id).unwrap_or_default();
            if pack.len < len {
                let detail = format!("{} octets, {len} were there before", pack.len);
                found.problem("pack-truncated", pack.path.display().to_string(), detail);
            }
            match self.verify_pack(&pack, full, found) {
                Err(StoreError::Disk(error)) => {
                    found.problem("pack-damaged", pack.path.display().to_string(), error);
                }
                other => other?,
            }
            found.packs += 1;
            steps.step();
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

    fn verify_pack(&self, pack: &PackFile, full: bool, found: &mut Verified) -> StoreResult<()> {
        let scan = self.packs.scan(pack, full)?;
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

    fn verify_report(&self, number: u64, report: &ReportRecord, full: bool, found: &mut Verified) -> StoreResult<()> {
        if self.is_moved_report(&report.source, report.mailbox.as_deref(), &report.uidl)? {
            return Ok(());
        }
        let name = format!("{} {}", report.source, report.uidl);
        let collected = self.collected_entry(&report.source, report.mailbox.as_deref(), &report.uidl)?;
        let gone = collected.and_then(|entry| entry.gone).filter(|gone| number < gone.record);
        if gone.is_some_and(|gone| !gone.lost) {
            return Ok(());
        }
        let (recipe, sha256, size) = (&report.raw.recipe, report.raw.sha256, report.raw.size);
        let mut digest = Receipted::new(report);
        let result = match full {
            true => self.rebuild_checked(recipe, sha256, size, &report.uidl, &mut digest),
            false => self.check_chunks(recipe),
        };
        found.reports += u64::from(result.is_ok());
        match (result, gone) {
            (Ok(()), _) if full && !digest.fits() => {
                found.notes.push(format!("{name}: not what the gateway's receipt says"));
            }
            (Ok(()), _) => {}
            (Err(_), Some(_)) => {
                found.lost += 1;
                found.notes.push(format!("report {name} was found damaged beyond repair before"));
            }
            (Err(error), None) => found.problem("report-damaged", name, error),
        }
        Ok(())
    }

    fn verify_filing(&self, filing: &FilingRecord, found: &mut Verified) -> StoreResult<()> {
        if self.is_moved_report(&filing.source, filing.mailbox.as_deref(), &filing.uidl)? {
            return Ok(());
        }
        if self.collected_entry(&filing.source, filing.mailbox.as_deref(), &filing.uidl)?.is_none() {
            let name = format!("{} {}", filing.source, filing.uidl);
            found.problem("record-missing", name, "it was filed again later, but its own record is not there");
        }
        Ok(())
    }

    fn verify_message(
        &self,
        number: u64,
        message: &MessageRecord,
        full: bool,
        found: &mut Verified,
    ) -> StoreResult<()> {
        let id = &message.summary.id.0;
        if self.is_moved_message(id)? {
            return Ok(());
        }
        let name = HEXLOWER.encode(id);
        let gone = self.clear_value(Space::Gone, &[&message.summary.id.0])?.and_then(|octets| Gone::decode(&octets));
        let gone = gone.filter(|gone| number < gone.record);
        if gone.is_some_and(|gone| !gone.lost) {
            found.deleted += 1;
            return Ok(());
        }
        let (sha256, size) = (message.summary.sha256, message.summary.size);
        let result = match full {
            true => self.rebuild_checked(&message.recipe, sha256, size, &name, &mut io::sink()),
            false => self.check_chunks(&message.recipe),
        };
        found.messages += u64::from(result.is_ok());
        match (result, gone) {
            (Ok(()), _) => {}
            (Err(_), Some(_)) => {
                found.lost += 1;
                found.notes.push(format!("message {name} was found damaged beyond repair before"));
            }
            // The others are still looked at.
            (Err(error), None) => found.problem("message-damaged", name.clone(), error),
        }
        if self.clear_value(Space::Messages, &[&message.summary.id.0])?.is_none() {
            let detail = "the catalog does not know this message; run `store rebuild-catalog`";
            found.problem("catalog-incomplete", name, detail);
        }
        Ok(())
    }

    /// Whether every chunk of a recipe has a place in a pack that is there and long enough.
    fn check_chunks(&self, recipe: &Recipe) -> StoreResult<()> {
        recipe.chunks().try_for_each(|chunk| self.chunk_is_there(chunk))
    }

    /// Random messages, rebuilt and compared.
    fn verify_sample(&self, depth: Depth, found: &mut Verified) -> StoreResult<()> {
        for id in self.sample(depth)? {
            found.sampled += 1;
            let name = HEXLOWER.encode(&id);
            let Some(entry) = self.value::<MessageEntry>(Space::Messages, &[&id])? else { continue };
            if self.with_view(|view| is_stored(view, &id))?
                && let Err(error) = self.write_message(&entry, &mut io::sink(), 0)
            {
                found.problem("message-damaged", name, error);
            }
        }
        Ok(())
    }

    /// Ids of random messages.
    fn sample(&self, depth: Depth) -> StoreResult<Vec<[u8; 16]>> {
        let wanted = match depth {
            Depth::Quick | Depth::Full => return Ok(Vec::new()),
            Depth::Count(count) => count,
            Depth::Percent(percent) => ((percent / 100.0 * self.totals.messages as f64).ceil() as u64).max(1),
        };
        let (mut taken, mut seen) = (Vec::new(), 0);
        // One pass, every message with the same chance, and never more in memory than are wanted (reservoir sampling).
        for pair in self.catalog.prefix(&key(Space::Messages, &[])) {
            let Some(id) = pair?.0.last_chunk::<16>().copied() else { continue };
            seen += 1;
            if (taken.len() as u64) < wanted {
                taken.push(id);
                continue;
            }
            let place = u64::from_be_bytes(random()) % seen;
            if let Some(slot) = usize::try_from(place).ok().and_then(|place| taken.get_mut(place)) {
                *slot = id;
            }
        }
        Ok(taken)
    }

    /// Reports and messages that the catalog knows and whose record cannot be read.
    fn verify_unread(&self, found: &mut Verified) -> StoreResult<()> {
        let mut unread: BTreeMap<u64, Option<String>> = BTreeMap::new();
        let mut why = |number: u64| {
            let why = || self.record(number).err().map(|error| error.to_string());
            unread.entry(number).or_insert_with(why).clone()
        };
        for pair in sealed_pairs::<CollectedEntry>(&*self.catalog, &self.keys, Space::Collected, &[]) {
            let entry = pair?.1;
            if entry.gone.is_none()
                && let Some(why) = why(entry.record)
            {
                found.problem("report-damaged", format!("{} {}", entry.source, entry.uidl), why);
            }
        }
        for pair in sealed_pairs::<MessageEntry>(&*self.catalog, &self.keys, Space::Messages, &[]) {
            let MessageEntry { summary, record, .. } = pair?.1;
            if self.with_view(|view| is_stored(view, &summary.id.0))?
                && let Some(why) = why(record)
            {
                found.problem("message-damaged", HEXLOWER.encode(&summary.id.0), why);
            }
        }
        Ok(())
    }

    /// Copies that tell of more records than the log holds, where no catalog does.
    fn verify_end(&self, found: &mut Verified) -> StoreResult<()> {
        let copies = self.copies_behind()?;
        if copies.is_none_or(|copies| !copies.is_empty()) {
            let detail = "the packs hold copies of records behind the last one; run `store rebuild-records`";
            found.problem("record-missing", format!("record {}", self.head.number + 1), detail);
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
