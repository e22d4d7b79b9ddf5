//! Putting messages together again.

use super::{
    Store, StoreError, StoreResult,
    base64::LineEncoder,
    catalog::{Batch, Space, View},
    entry::{Record, ReportRecord},
    index::{CollectedEntry, MessageEntry, report_key, source_key},
    packs::{Chunk, Place},
    recipe::{ChunkRef, Hex, Part, Piece, Recipe},
    records::RecordPlace,
};
use data_encoding::HEXLOWER;
use postkeep_shared::mail::{Digest, Hasher};
use serde::de::DeserializeOwned;
use std::{
    io::{self, Write},
    sync::Arc,
};

/// Messages within messages that recipes may name: a report, its message, nothing else.
const MAX_DEPTH: usize = 4;

impl Store {
    /// Writes the exact octets of a message to `out`, chunk by chunk; a damaged chunk is never written. What is
    /// written counts only when this succeeds: the SHA-256 is compared at the end.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMessage`] and the others.
    pub fn read_message(&self, id: &str, out: &mut dyn Write) -> StoreResult<()> {
        let entry = match self.message_entry(id) {
            Err(StoreError::NoSuchMessage(_)) => return Err(self.absence(id)?),
            other => other?,
        };
        self.write_message(&entry, out, 0)
    }

    /// Writes the exact octets of a report, as it was sent to the gateway.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMessage`] (naming the uidl) and the others.
    pub fn read_report(&self, source: &str, mailbox: Option<&str>, uidl: &str, out: &mut dyn Write) -> StoreResult<()> {
        let entry = self.collected_entry(source, mailbox, uidl)?;
        let entry = entry.filter(|entry| entry.gone.is_none_or(|gone| gone.lost));
        let entry = entry.ok_or_else(|| StoreError::NoSuchMessage(uidl.to_owned()))?;
        let report = self.report(entry.record)?;
        if report.uidl != entry.uidl || report.source != entry.source || report.raw.sha256 != entry.raw_sha256 {
            return Err(StoreError::CatalogDamaged);
        }
        self.rebuild_checked(&report.raw.recipe, report.raw.sha256, report.raw.size, uidl, out)
    }

    pub(super) fn message_entry(&self, id: &str) -> StoreResult<MessageEntry> {
        let none = || StoreError::NoSuchMessage(id.chars().take(64).collect());
        let octets = HEXLOWER.decode(id.as_bytes()).ok().filter(|octets| octets.len() == 16).ok_or_else(none)?;
        self.value(Space::Messages, &[&octets])?.ok_or_else(none)
    }

    pub(super) fn collected_entry(
        &self,
        source: &str,
        mailbox: Option<&str>,
        uidl: &str,
    ) -> StoreResult<Option<CollectedEntry>> {
        let (source, name) = (source_key(&self.keys, source), report_key(&self.keys, mailbox, uidl));
        self.value(Space::Collected, &[&source, &name])
    }

    /// A sealed value of the catalog.
    pub(super) fn value<T: DeserializeOwned>(&self, space: Space, fields: &[&[u8]]) -> StoreResult<Option<T>> {
        self.with_view(|view| view.get(space, fields))
    }

    pub(super) fn clear_value(&self, space: Space, fields: &[&[u8]]) -> StoreResult<Option<Vec<u8>>> {
        self.with_view(|view| view.get_clear(space, fields))
    }

    pub(super) fn with_view<T>(&self, read: impl FnOnce(&View<'_>) -> StoreResult<T>) -> StoreResult<T> {
        let mut nothing = Batch::default();
        read(&View { catalog: &*self.catalog, batch: &mut nothing, keys: &self.keys })
    }

    pub(super) fn record(&self, number: u64) -> StoreResult<Record> {
        let place = self.clear_value(Space::Records, &[&number.to_be_bytes()])?;
        let place = place.and_then(|octets| RecordPlace::decode(&octets)).ok_or(StoreError::CatalogDamaged)?;
        self.records.read(place, number)
    }

    pub(super) fn shared_record(&self, number: u64) -> StoreResult<Arc<Record>> {
        let place = self.clear_value(Space::Records, &[&number.to_be_bytes()])?;
        let place = place.and_then(|octets| RecordPlace::decode(&octets)).ok_or(StoreError::CatalogDamaged)?;
        self.records.read_shared(place, number)
    }

    pub(super) fn report(&self, number: u64) -> StoreResult<ReportRecord> {
        match self.record(number)? {
            Record::Report(report) => Ok(*report),
            _ => Err(StoreError::CatalogDamaged),
        }
    }

    pub(super) fn write_message(&self, entry: &MessageEntry, out: &mut dyn Write, depth: usize) -> StoreResult<()> {
        let record = self.shared_record(entry.record)?;
        let message = record.messages().get(entry.slot).filter(|message| message.summary.id == entry.summary.id);
        let message = message.ok_or(StoreError::CatalogDamaged)?;
        let (summary, recipe) = (&message.summary, &message.recipe);
        if depth > 0 {
            // What it is part of is compared as a whole.
            return self.rebuild(recipe, out, depth);
        }
        self.rebuild_checked(recipe, summary.sha256, summary.size, &HEXLOWER.encode(&summary.id.0), out)
    }

    /// Puts a message together and compares it with what it must be.
    pub(super) fn rebuild_checked(
        &self,
        recipe: &Recipe,
        sha256: Hex<32>,
        size: u64,
        name: &str,
        out: &mut dyn Write,
    ) -> StoreResult<()> {
        let mut hashing = Hashing { out, hasher: Hasher::default(), size: 0 };
        self.rebuild(recipe, &mut hashing, 0)?;
        let detail = if hashing.size != size {
            format!("{} octets instead of {size}", hashing.size)
        } else if hashing.hasher.finish() != Digest(sha256.0) {
            "its SHA-256 is another one".to_owned()
        } else {
            return Ok(());
        };
        Err(StoreError::ReadBack { uidl: name.to_owned(), detail })
    }

    fn rebuild(&self, recipe: &Recipe, out: &mut dyn Write, depth: usize) -> StoreResult<()> {
        let bad = || StoreError::ReadBack { uidl: String::new(), detail: "its recipe cannot be followed".to_owned() };
        let mut glue = Glue { store: self, chunks: recipe.glue.iter(), plain: None, at: 0 };
        for piece in &recipe.pieces {
            match piece {
                Piece::Glue(octets) => glue.copy(*octets, out)?.then_some(()).ok_or_else(bad)?,
                Piece::Part(place) => {
                    let part = usize::try_from(*place).ok().and_then(|place| recipe.parts.get(place));
                    self.write_part(part.ok_or_else(bad)?, out)?;
                }
                Piece::Message(id) if depth < MAX_DEPTH => {
                    let entry: Option<MessageEntry> = self.value(Space::Messages, &[&id.0])?;
                    let entry = entry.ok_or_else(|| StoreError::NoSuchMessage(HEXLOWER.encode(&id.0)))?;
                    self.write_message(&entry, out, depth + 1)?;
                }
                Piece::Message(_) => return Err(bad()),
            }
        }
        Ok(())
    }

    fn write_part(&self, part: &Part, out: &mut dyn Write) -> StoreResult<()> {
        let Some(lines) = part.b64 else {
            return part.chunks.iter().try_for_each(|chunk| {
                let plain = self.chunk(chunk)?;
                out.write_all(&plain).map_err(StoreError::Output)
            });
        };
        let mut encoder = LineEncoder::new(out, lines).map_err(StoreError::Output)?;
        for chunk in &part.chunks {
            let plain = self.chunk(chunk)?;
            // In small steps, so that a chunk is not in memory a second time, encoded.
            plain.chunks(64 * 1024).try_for_each(|step| encoder.push(step)).map_err(StoreError::Output)?;
        }
        encoder.finish().map_err(StoreError::Output)
    }

    /// Whether a chunk has a place in a pack that is there and long enough; nothing of it is read.
    pub(super) fn chunk_is_there(&self, chunk: &ChunkRef) -> StoreResult<()> {
        let place = self.clear_value(Space::Chunks, &[chunk.id()])?;
        let place = place.and_then(|octets| Place::decode(&octets));
        let place = place.ok_or_else(|| StoreError::ChunkMissing(HEXLOWER.encode(chunk.id())))?;
        self.packs.check_place(chunk.id(), &place)
    }

    pub(super) fn chunk(&self, chunk: &ChunkRef) -> StoreResult<Chunk> {
        let place = self.clear_value(Space::Chunks, &[chunk.id()])?;
        let place = place.and_then(|octets| Place::decode(&octets));
        let place = place.ok_or_else(|| StoreError::ChunkMissing(HEXLOWER.encode(chunk.id())))?;
        self.packs.read(chunk.id(), &place)
    }
}

/// The glue of a recipe, read on from where the last piece ended.
struct Glue<'a> {
    store: &'a Store,
    chunks: std::slice::Iter<'a, ChunkRef>,
    plain: Option<Chunk>,
    at: usize,
}

impl Glue<'_> {
    /// `false` when there is less than asked for.
    fn copy(&mut self, mut octets: u64, out: &mut dyn Write) -> StoreResult<bool> {
        while octets > 0 {
            let plain = self.plain.as_deref().unwrap_or_default();
            if self.at == plain.len() {
                let Some(chunk) = self.chunks.next() else { return Ok(false) };
                self.plain = Some(self.store.chunk(chunk)?);
                self.at = 0;
                continue;
            }
            let rest = plain.get(self.at..).unwrap_or_default();
            let count = usize::try_from(octets).unwrap_or(usize::MAX).min(rest.len());
            out.write_all(rest.get(..count).unwrap_or_default()).map_err(StoreError::Output)?;
            self.at += count;
            octets -= count as u64;
        }
        Ok(true)
    }
}

struct Hashing<'a> {
    out: &'a mut dyn Write,
    hasher: Hasher,
    size: u64,
}

impl Write for Hashing<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.out.write_all(octets)?;
        self.hasher.update(octets);
        self.size += octets.len() as u64;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
