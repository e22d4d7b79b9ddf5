//! The first thing done to a disk: write, sync, read back past the page cache. A disk that failed before the last stop
//! and still does must not be trusted with mail; what it holds already can still be read.

use postkeep_shared::{
    crypt::random,
    disk::{Disk, DiskError, DiskResult},
};
use std::{
    io::{self, Write as _},
    path::Path,
};

/// What a disk may be used for.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Writing. Also a full disk: it can be emptied.
    Sound,
    /// Reading what is there, and nothing else.
    Failing(DiskError),
}

/// Tries the disk that holds `folder`.
///
/// # Errors
/// Where the disk is not to blame: a permission, a missing folder, no descriptor left.
pub(super) fn run(disk: &dyn Disk, folder: &Path) -> DiskResult<Verdict> {
    let path = folder.join(".probe");
    // Left behind by a start that was cut short.
    match disk.remove_file(&path) {
        Err(e) if !e.is_missing() => return verdict(e),
        _ => {}
    }
    let tried = probe(disk, &path);
    match (tried, disk.remove_file(&path)) {
        (Err(e), _) if e.is_full() => {
            tracing::error!("ALARM: {e}; no mail is taken until there is room");
            Ok(Verdict::Sound)
        }
        (Err(e), _) | (Ok(()), Err(e)) => verdict(e),
        (Ok(()), Ok(())) => Ok(Verdict::Sound),
    }
}

fn verdict(error: DiskError) -> DiskResult<Verdict> {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    let elsewhere = matches!(error.source.kind(), NotADirectory | NotFound | PermissionDenied);
    if elsewhere || error.is_out_of_descriptors() { Err(error) } else { Ok(Verdict::Failing(error)) }
}

fn probe(disk: &dyn Disk, path: &Path) -> DiskResult<()> {
    let written = random::<4096>();
    let mut file = disk.create(path)?;
    file.write_all(&written).map_err(|e| DiskError::new("write", path, e))?;
    file.sync()?;
    file.drop_cache()?;
    let mut back = [0; 4096];
    file.read_at(&mut back, 0)?;
    if back == written {
        return Ok(());
    }
    let error = io::Error::other("other octets came back than were written; replace the disk");
    Err(DiskError::new("trust", path, error))
}
