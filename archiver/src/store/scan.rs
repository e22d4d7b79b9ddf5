//! Reading a whole pack: by its table when it is sealed, else frame by frame; behind damage it goes on at the next
//! frame that can be recognised, so that one bad octet costs one chunk.

use super::{
    format::pack::{
        FRAME_HEADER, FrameHeader, FrameKind, PACK_FOOTER, PACK_HEADER, PackError, PackId, TableEntry, check_header,
        decode_footer, decode_table, open_frame,
    },
    keyring::Keyring,
};
use postkeep_shared::disk::{DiskFile, DiskResult};

/// What a pack holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Its chunks.
    pub(crate) entries: Vec<TableEntry>,
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
}

/// Reads the frames of a pack. `deep` opens every frame; without it a sealed pack's table is believed (it is
/// authenticated), and frames of an unsealed pack are opened all the same, since nothing else vouches for them.
pub(crate) fn scan_pack(keys: &Keyring, file: &dyn DiskFile, pack: &PackId, deep: bool) -> DiskResult<Scan> {
    let len = file.len()?;
    let mut scan = Scan::default();
    let mut head = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(PACK_HEADER)];
    file.read_at(&mut head, 0)?;
    if head.len() < PACK_HEADER || head.iter().all(|b| *b == 0) {
        // The first write of a pack that a crash cut off: nothing was ever in it.
        scan.torn = Some(0);
        return Ok(scan);
    }
    if let Err(error) = check_header(&head, &keys.id, pack) {
        scan.damage.push((0, error));
    }
    let table = read_table(keys, file, pack, len)?;
    if let (Some((entries, _)), false) = (&table, deep) {
        scan.entries.clone_from(entries);
        scan.sealed = true;
        return Ok(scan);
    }
    walk(keys, file, pack, len, &mut scan)?;
    scan.sealed = table.is_some();
    Ok(scan)
}

/// The table of a sealed pack and where it stands.
fn read_table(
    keys: &Keyring,
    file: &dyn DiskFile,
    pack: &PackId,
    len: u64,
) -> DiskResult<Option<(Vec<TableEntry>, u64)>> {
    let Some(at) = len.checked_sub(PACK_FOOTER as u64).filter(|at| *at >= PACK_HEADER as u64) else { return Ok(None) };
    let mut footer = [0; PACK_FOOTER];
    file.read_at(&mut footer, at)?;
    let Some(table) = decode_footer(&footer).filter(|table| *table < at) else { return Ok(None) };
    let Ok((header, sealed)) = read_frame(file, table, at)? else { return Ok(None) };
    if header.kind != FrameKind::Table || table + FRAME_HEADER as u64 + sealed.len() as u64 != at {
        return Ok(None);
    }
    let plain = open_frame(keys, pack, table, &header, &sealed).ok();
    Ok(plain.and_then(|plain| decode_table(&plain)).map(|entries| (entries, table)))
}

type Frame = (FrameHeader, Vec<u8>);

/// The frame at `at`, if it is whole before `end`.
fn read_frame(file: &dyn DiskFile, at: u64, end: u64) -> DiskResult<Result<Frame, PackError>> {
    let room = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
    let mut head = vec![0; room.min(FRAME_HEADER)];
    file.read_at(&mut head, at)?;
    let header = match FrameHeader::decode(&head) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    let sealed_len = header.sealed_len as usize;
    if sealed_len > room.saturating_sub(FRAME_HEADER) {
        return Ok(Err(PackError::Short));
    }
    let mut sealed = vec![0; sealed_len];
    file.read_at(&mut sealed, at + FRAME_HEADER as u64)?;
    Ok(Ok((header, sealed)))
}

fn walk(keys: &Keyring, file: &dyn DiskFile, pack: &PackId, len: u64, scan: &mut Scan) -> DiskResult<()> {
    let mut at = PACK_HEADER as u64;
    while at < len {
        let found = match read_frame(file, at, len)? {
            Ok((header, sealed)) => {
                let next = at + FRAME_HEADER as u64 + sealed.len() as u64;
                open_frame(keys, pack, at, &header, &sealed).map(|plain| (header, plain, next))
            }
            Err(error) => Err(error),
        };
        let error = match found {
            Ok((header, plain, next)) if header.kind == FrameKind::Table => {
                return end_of_sealed(file, at, next, len, &plain, scan);
            }
            Ok((header, _, next)) => {
                let FrameHeader { plain_len, sealed_len, id, .. } = header;
                scan.entries.push(TableEntry { offset: at, plain_len, sealed_len, id });
                at = next;
                continue;
            }
            Err(error) => error,
        };
        let next = resync(keys, file, pack, at + 1, len)?;
        match (next, error) {
            (None, PackError::Short | PackError::Zeros) => scan.torn = Some(at),
            (_, error) => scan.damage.push((at, error)),
        }
        at = next.unwrap_or(len);
    }
    Ok(())
}

fn end_of_sealed(file: &dyn DiskFile, table: u64, end: u64, len: u64, plain: &[u8], scan: &mut Scan) -> DiskResult<()> {
    let mut footer = vec![0; usize::try_from(len - end).unwrap_or(usize::MAX).min(PACK_FOOTER + 1)];
    file.read_at(&mut footer, end)?;
    if footer.len() < PACK_FOOTER {
        // Cut off while it was sealed: every chunk before is whole, and the table is only repeated knowledge.
        scan.torn = Some(end);
    } else if footer.len() > PACK_FOOTER || decode_footer(&footer) != Some(table) {
        scan.damage.push((end, PackError::Header("pack footer")));
    }
    let found = decode_table(plain).is_some_and(|entries| entries == scan.entries);
    if !found && scan.damage.is_empty() {
        scan.damage.push((table, PackError::Content));
    }
    Ok(())
}

/// The next place from `from` on at which a frame stands that opens.
fn resync(keys: &Keyring, file: &dyn DiskFile, pack: &PackId, from: u64, len: u64) -> DiskResult<Option<u64>> {
    let mut rest = vec![0; usize::try_from(len.saturating_sub(from)).unwrap_or(0).min(64 * 1024 * 1024)];
    file.read_at(&mut rest, from)?;
    for place in memchr::memmem::find_iter(&rest, b"PKFR") {
        let at = from + place as u64;
        if let Ok((header, sealed)) = read_frame(file, at, len)?
            && open_frame(keys, pack, at, &header, &sealed).is_ok()
        {
            return Ok(Some(at));
        }
    }
    Ok(None)
}
