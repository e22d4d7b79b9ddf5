//! Reading a whole pack: by its table when it is sealed, else frame by frame; behind damage it goes on at the next
//! frame that can be recognised, so that one bad octet costs one frame.

use super::{
    StoreResult,
    format::pack::{
        ChunkAt, ChunkId, FRAME_MAGIC, Form, FrameHeader, FrameKind, Opened, PACK_FOOTER, PackError, PackId,
        decode_footer,
    },
    keyring::Keyring,
};
use postkeep_shared::disk::{DiskFile, DiskResult};

/// Octets that are searched for the next frame at a time.
const SEARCH: usize = 64 * 1024 * 1024;

/// What a pack holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Its chunks.
    pub(crate) entries: Vec<ChunkAt>,
    /// How it is written; `None` when nothing in it can be read.
    pub(crate) form: Option<Form>,
    /// Whether it ends with a table.
    pub(crate) sealed: bool,
    /// Damage: place and reason.
    pub(crate) damage: Vec<(u64, PackError)>,
    /// Where the torn end of a write begins, if there is one.
    pub(crate) torn: Option<u64>,
}

impl Scan {
    /// Neither torn nor damaged.
    pub(crate) fn whole(&self) -> bool {
        self.torn.is_none() && self.damage.is_empty()
    }

    /// The version of a pack that a newer release wrote.
    pub(crate) fn newer(&self) -> Option<u16> {
        self.damage.iter().find_map(|(_, error)| match error {
            PackError::Version(version) if self.form.is_none() => Some(*version),
            _ => None,
        })
    }

    /// The epoch of a pack whose keys are not there: its header names it and nothing in it opens.
    pub(crate) fn keyless(&self) -> Option<u32> {
        self.damage.iter().find_map(|(_, error)| match error {
            PackError::Epoch(epoch) if self.form.is_none() && self.entries.is_empty() => Some(*epoch),
            _ => None,
        })
    }
}

/// Reads the frames of a pack. `deep` opens every frame; without it a sealed pack's table is believed (it is
/// authenticated), and frames of an unsealed pack are opened all the same, since nothing else vouches for them.
pub(crate) fn scan_pack(keys: &Keyring, file: &dyn DiskFile, pack: &PackId, deep: bool) -> DiskResult<Scan> {
    let len = file.len()?;
    let mut scan = Scan::default();
    let head = read_head(file)?;
    let (error, forms): (_, Vec<Form>) = match Form::of(&head, keys, pack) {
        // The first write of a pack that a crash cut off: nothing was ever in it.
        Err(PackError::Short) => {
            scan.torn = Some(0);
            return Ok(scan);
        }
        Ok(form) => {
            Reading { keys, file, pack, form, len }.scan(deep, &mut scan)?;
            if !scan.entries.is_empty() || scan.whole() {
                return Ok(scan);
            }
            // Nothing opens: it may be the header that is wrong.
            (PackError::Header("pack header"), Form::all(keys).into_iter().filter(|other| *other != form).collect())
        }
        Err(error) => (error, Form::all(keys)),
    };
    for form in forms {
        let reading = Reading { keys, file, pack, form, len };
        if reading.next_frame(0)?.is_some() {
            scan = Scan { damage: vec![(0, error)], ..Scan::default() };
            reading.scan(deep, &mut scan)?;
            return Ok(scan);
        }
    }
    if head.iter().all(|b| *b == 0) {
        scan.torn = Some(0);
    } else if scan.form.is_none() {
        scan.damage.push((0, error));
    }
    Ok(scan)
}

/// Every chunk that `scan` of this pack found and that is whole, in the order in which they stand.
pub(crate) fn each_chunk(
    keys: &Keyring,
    file: &dyn DiskFile,
    pack: &PackId,
    scan: &Scan,
    each: &mut dyn FnMut(ChunkId, &[u8]) -> StoreResult<()>,
) -> StoreResult<()> {
    let Some(form) = scan.form else { return Ok(()) };
    let reading = Reading { keys, file, pack, form, len: file.len()? };
    for of_one_frame in scan.entries.chunk_by(|a, b| a.offset == b.offset) {
        let Some(first) = of_one_frame.first() else { continue };
        let Ok((_, opened)) = reading.frame(first.offset, reading.len)? else { continue };
        for entry in of_one_frame {
            let chunk = usize::try_from(entry.index).ok().and_then(|index| opened.chunk(index));
            if let Some(chunk) = chunk.filter(|chunk| keys.is_named(&entry.id, chunk)) {
                each(entry.id, chunk)?;
            }
        }
    }
    Ok(())
}

/// The first octets of a pack, enough for any header.
pub(crate) fn read_head(file: &dyn DiskFile) -> DiskResult<Vec<u8>> {
    let mut head = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX).min(Form::LONGEST)];
    file.read_at(&mut head, 0)?;
    Ok(head)
}

/// A pack that is being read.
pub(crate) struct Reading<'a> {
    pub(crate) keys: &'a Keyring,
    pub(crate) file: &'a dyn DiskFile,
    pub(crate) pack: &'a PackId,
    pub(crate) form: Form,
    pub(crate) len: u64,
}

impl Reading<'_> {
    fn scan(&self, deep: bool, scan: &mut Scan) -> DiskResult<()> {
        scan.form = Some(self.form);
        let table = self.table()?;
        scan.sealed = table.is_some();
        match table {
            Some(entries) if !deep => scan.entries = entries,
            _ => self.walk(scan)?,
        }
        Ok(())
    }

    /// The table of a sealed pack.
    fn table(&self) -> DiskResult<Option<Vec<ChunkAt>>> {
        let least = self.form.header_len() as u64;
        let Some(at) = self.len.checked_sub(PACK_FOOTER as u64).filter(|at| *at >= least) else { return Ok(None) };
        let mut footer = [0; PACK_FOOTER];
        self.file.read_at(&mut footer, at)?;
        let Some(table) = decode_footer(&footer).filter(|table| *table < at) else { return Ok(None) };
        let Ok((header, opened)) = self.frame(table, at)? else { return Ok(None) };
        let ends = table + self.frame_octets(&header) == at;
        Ok(if ends && header.kind == FrameKind::Table { self.form.table(&opened.plain) } else { None })
    }

    fn frame_octets(&self, header: &FrameHeader) -> u64 {
        self.form.frame_len() as u64 + u64::from(header.sealed_len)
    }

    /// The frame at `at`, opened, if it is whole before `end`.
    pub(crate) fn frame(&self, at: u64, end: u64) -> DiskResult<Result<(FrameHeader, Opened), PackError>> {
        let room = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
        let head_len = self.form.frame_len();
        let mut head = vec![0; room.min(head_len)];
        self.file.read_at(&mut head, at)?;
        let header = match self.form.frame(&head) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        let sealed_len = header.sealed_len as usize;
        if sealed_len > room.saturating_sub(head_len) {
            return Ok(Err(PackError::Short));
        }
        let mut sealed = vec![0; sealed_len];
        self.file.read_at(&mut sealed, at + head_len as u64)?;
        let opened = self.form.open_within(self.keys, self.pack, at, &header, sealed);
        Ok(opened.map(|opened| (header, opened)))
    }

    fn walk(&self, scan: &mut Scan) -> DiskResult<()> {
        let mut at = self.form.header_len() as u64;
        while at < self.len {
            let error = match self.frame(at, self.len)? {
                Ok((header, opened)) if header.kind == FrameKind::Table => {
                    return self.end(at, at + self.frame_octets(&header), &opened.plain, scan);
                }
                Ok((header, opened)) => {
                    self.list(at, &header, &opened, scan);
                    at += self.frame_octets(&header);
                    continue;
                }
                Err(error) => error,
            };
            let next = self.next_frame(at + 1)?;
            match (next, error) {
                (None, PackError::Short | PackError::Zeros) => scan.torn = Some(at),
                (_, error) => scan.damage.push((at, error)),
            }
            at = next.unwrap_or(self.len);
        }
        Ok(())
    }

    fn list(&self, offset: u64, header: &FrameHeader, opened: &Opened, scan: &mut Scan) {
        for (index, range) in (0..).zip(&opened.chunks) {
            let chunk = opened.plain.get(range.clone()).unwrap_or_default();
            let id = header.id.unwrap_or_else(|| self.keys.chunk_id(chunk));
            let len = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            scan.entries.push(ChunkAt { id, offset, index, len });
        }
    }

    /// The end of a sealed pack, from its table on.
    fn end(&self, table: u64, end: u64, plain: &[u8], scan: &mut Scan) -> DiskResult<()> {
        let mut footer = vec![0; usize::try_from(self.len - end).unwrap_or(usize::MAX).min(PACK_FOOTER + 1)];
        self.file.read_at(&mut footer, end)?;
        if footer.len() < PACK_FOOTER {
            // Cut off while it was sealed: every chunk before is whole, and the table is only repeated knowledge.
            scan.torn = Some(end);
        } else if footer.len() > PACK_FOOTER || decode_footer(&footer) != Some(table) {
            scan.damage.push((end, PackError::Header("pack footer")));
        }
        let found = self.form.table(plain).is_some_and(|entries| entries == scan.entries);
        if !found && scan.damage.is_empty() {
            scan.damage.push((table, PackError::Content));
        }
        Ok(())
    }

    /// The next place from `from` on at which a frame stands that opens.
    fn next_frame(&self, from: u64) -> DiskResult<Option<u64>> {
        let mut start = from;
        while start < self.len {
            let mut part = vec![0; usize::try_from(self.len - start).unwrap_or(usize::MAX).min(SEARCH)];
            self.file.read_at(&mut part, start)?;
            for place in memchr::memmem::find_iter(&part, FRAME_MAGIC) {
                let at = start + place as u64;
                if self.frame(at, self.len)?.is_ok() {
                    return Ok(Some(at));
                }
            }
            if part.len() < SEARCH {
                break;
            }
            // A name that the end of this part cuts is found by the next.
            start += (SEARCH - FRAME_MAGIC.len()) as u64;
        }
        Ok(None)
    }
}
