//! What is left of the log: every frame that opens, in the record files and in the copies that packs hold, and the order
//! they belong in. Nothing that stands in a file is believed unless it opens.

use super::{
    Store, StoreError, StoreResult,
    format::{
        copy::{is_copy, piece},
        pack::PackId,
        record::{Form, FrameHeader, RecordFileHeader, RecordHash, record_hash},
    },
    keyring::Keyring,
    packs::{PackFile, Packs, Place},
};
use postkeep_shared::disk::DiskFile;
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

/// How many packs, the newest first, are looked through for the copy of the last record.
const NEWEST: usize = 16;

/// Where the octets of a frame are.
#[derive(Clone)]
pub(super) enum Source {
    File(PathBuf, u64),
    Chunks(Vec<([u8; 32], Place)>),
}

/// A frame that opened.
#[derive(Clone)]
pub(super) struct Frame {
    pub(super) form: Form,
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) len: usize,
    pub(super) sources: Vec<Source>,
    pub(super) copied: bool,
    rank: Rank,
}

/// Which of two frames with one number and predecessor was committed: what stands in a file was; of copies the later one
/// was, since it was written when the one before had failed. The same counts for all that follows them.
pub(super) type Rank = (bool, Option<(PackId, u64, u32)>);

/// Everything that is left of the log.
#[derive(Default)]
pub(super) struct Left {
    pub(super) frames: HashMap<RecordHash, Frame>,
    /// Hashes by first number and predecessor.
    follow: BTreeMap<(u64, RecordHash), Vec<RecordHash>>,
    /// The highest rank of each frame and all that follow it.
    ranks: HashMap<RecordHash, Rank>,
}

/// What becomes of the log.
pub(super) enum Step {
    /// The frame as it is.
    Keep(RecordHash),
    /// The records of the frame, sealed anew behind those that were lost.
    Again(RecordHash),
    /// These numbers are lost.
    Lost(u64, u64),
}

impl Left {
    /// Takes a frame, if it opens.
    fn take(&mut self, keys: &Keyring, form: Form, octets: &[u8], source: Source, copied: bool) -> Option<FrameHeader> {
        let header = form.frame(octets).ok()?;
        let whole = octets.get(..form.frame_len() + header.sealed_len as usize)?;
        form.open(keys, &header, whole.get(form.frame_len()..)?).ok()?;
        let hash = record_hash(whole);
        let frame = Frame {
            form,
            first: header.first,
            count: header.count,
            len: whole.len(),
            sources: Vec::new(),
            copied: false,
            rank: (false, None),
        };
        let rank = match &source {
            Source::File(..) => (true, None),
            Source::Chunks(places) => (false, places.iter().map(|(_, at)| (at.pack, at.offset, at.index)).max()),
        };
        let frame = self.frames.entry(hash).or_insert_with(|| {
            self.follow.entry((header.first, header.prev)).or_default().push(hash);
            frame
        });
        frame.sources.push(source);
        frame.copied |= copied;
        frame.rank = frame.rank.max(rank);
        Some(header)
    }

    /// Every frame of a record file, also behind damage.
    pub(super) fn read_file(&mut self, keys: &Keyring, file: &dyn DiskFile) -> StoreResult<()> {
        file.drop_cache()?;
        let len = file.len()?;
        let mut octets = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_at(&mut octets, 0)?;
        let header = RecordFileHeader::decode(&octets, keys);
        let forms = header.map_or_else(|_| Form::all(keys), |header| vec![header.form]);
        let mut at = 0;
        while let Some(found) = memchr::memmem::find(octets.get(at..).unwrap_or_default(), b"PKR") {
            at += found;
            let rest = octets.get(at..).unwrap_or_default();
            let source = Source::File(file.path().to_owned(), at as u64);
            let taken = forms.iter().find_map(|form| {
                self.take(keys, *form, rest, source.clone(), false)
                    .map(|header| form.frame_len() + header.sealed_len as usize)
            });
            at += taken.unwrap_or(1);
        }
        Ok(())
    }

    /// Every copy in a pack.
    pub(super) fn read_pack(
        &mut self,
        keys: &Keyring,
        packs: &Packs,
        pieces: &mut Pieces,
        pack: &PackFile,
    ) -> StoreResult<()> {
        let scan = packs.scan(pack, true)?;
        for entry in scan.entries {
            let place = Place { pack: pack.id, offset: entry.offset, index: entry.index };
            // A chunk that does not open is told by whoever checks the packs.
            let Ok(chunk) = packs.read(&entry.id, &place) else { continue };
            let Some((form, hash, number, count, octets)) = piece(&chunk).filter(|_| is_copy(&chunk)) else { continue };
            let at = (entry.id, place);
            if count == 1 {
                self.take(keys, form, octets, Source::Chunks(vec![at]), true);
                continue;
            }
            let all = pieces.entry(hash).or_default();
            all.insert(number, (at, octets.to_vec()));
            if all.len() == count as usize {
                let all = pieces.remove(&hash).unwrap_or_default();
                let whole: Vec<u8> = all.values().flat_map(|(_, octets)| octets.iter().copied()).collect();
                let places = all.into_values().map(|(at, _)| at).collect();
                self.take(keys, form, &whole, Source::Chunks(places), true);
            }
        }
        Ok(())
    }

    /// The chain from the beginning, and what of the rest goes behind it.
    pub(super) fn plan(&mut self) -> Vec<Step> {
        self.rank();
        let (mut steps, mut number, mut hash) = (Vec::new(), 0_u64, [0; 32]);
        let mut whole = true;
        loop {
            let next = match whole {
                true => self.best((number + 1, hash)),
                false => None,
            };
            if let Some(found) = next {
                let Some(frame) = self.frames.get(&found) else { break };
                steps.push(Step::Keep(found));
                number = frame.first + u64::from(frame.count) - 1;
                hash = found;
                continue;
            }
            // What does not follow goes behind a gap.
            let Some((first, found)) = self.beyond(number) else { break };
            if first > number + 1 {
                steps.push(Step::Lost(number + 1, first - 1));
            }
            let Some(frame) = self.frames.get(&found) else { break };
            whole = false;
            steps.push(Step::Again(found));
            number = frame.first + u64::from(frame.count) - 1;
        }
        steps
    }

    /// The rank of every frame, from the last to the first: each hands its own on to the one before it.
    pub(super) fn rank(&mut self) {
        self.ranks.clear();
        for ((_, prev), found) in self.follow.iter().rev() {
            for hash in found {
                let own = self.frames.get(hash).map(|frame| frame.rank).unwrap_or_default();
                let rank = *self.ranks.entry(*hash).and_modify(|rank| *rank = own.max(*rank)).or_insert(own);
                self.ranks.entry(*prev).and_modify(|before| *before = rank.max(*before)).or_insert(rank);
            }
        }
    }

    pub(super) fn best(&self, key: (u64, RecordHash)) -> Option<RecordHash> {
        self.follow.get(&key)?.iter().copied().max_by_key(|hash| self.ranks.get(hash).copied())
    }

    /// The next frame with a higher number.
    pub(super) fn beyond(&self, number: u64) -> Option<(u64, RecordHash)> {
        let (key, _) = self.follow.range((number + 1, [0; 32])..).next()?;
        let same = self.follow.range((key.0, [0; 32])..=(key.0, [255; 32]));
        let hash = same.flat_map(|(_, found)| found).copied().max_by_key(|hash| self.ranks.get(hash).copied())?;
        Some((key.0, hash))
    }
}

/// A frame from its copy: form, number of its records, octets.
pub(super) type Copied = (Form, u64, Vec<u8>);

/// The octets of a frame from its copy.
pub(super) fn read_chunks(packs: &Packs, source: &Source, len: usize) -> StoreResult<Vec<u8>> {
    let Source::Chunks(places) = source else { return Err(StoreError::CatalogDamaged) };
    let mut octets = Vec::with_capacity(len);
    for (id, place) in places {
        let chunk = packs.read(id, place)?;
        octets.extend(piece(&chunk).map(|(.., octets)| octets).unwrap_or_default());
    }
    Ok(octets)
}

pub(super) type Pieces = HashMap<RecordHash, BTreeMap<u32, (([u8; 32], Place), Vec<u8>)>>;

impl Store {
    /// Copies of what comes behind the end of the log: cut off with the end of a file, lost with a file, or written before
    /// a commit that never was. In order, each with its form and number of records; `None` when they do not follow.
    pub(super) fn copies_behind(&self) -> StoreResult<Option<Vec<Copied>>> {
        let (mut left, mut pieces) = (Left::default(), Pieces::new());
        for pack in self.packs.list()?.0.iter().rev().take(NEWEST) {
            left.read_pack(&self.keys, &self.packs, &mut pieces, pack)?;
            // Copies are written in the order of the log: what comes behind the last record lies behind its copy.
            if left.frames.contains_key(&self.head.hash) {
                break;
            }
        }
        left.rank();
        let (mut found, mut number, mut hash) = (Vec::new(), self.head.number, self.head.hash);
        while let Some(next) = left.best((number + 1, hash))
            && let Some(frame) = left.frames.get(&next)
        {
            let octets = frame.sources.iter().find_map(|source| read_chunks(&self.packs, source, frame.len).ok());
            found.push((frame.form, frame.count.into(), octets.ok_or(StoreError::CatalogDamaged)?));
            (number, hash) = (number + u64::from(frame.count), next);
        }
        Ok(left.beyond(number).is_none().then_some(found))
    }
}
