//! The first thing done to a disk: write, sync, read back past the page cache. A disk that failed before the last stop
//! and still does must not be trusted with mail.

use postkeep_shared::{
    crypt::random,
    disk::{Disk, DiskError, DiskResult},
};
use std::{
    io::{self, Write as _},
    path::Path,
};

/// Fails when what was written does not come back. A full disk passes: it can be emptied.
pub(super) fn run(disk: &dyn Disk, folder: &Path) -> DiskResult<()> {
    let path = folder.join(".probe");
    // Left behind by a start that was cut short.
    match disk.remove_file(&path) {
        Err(e) if !e.is_missing() => return Err(e),
        _ => {}
    }
    let tried = probe(disk, &path);
    match (tried, disk.remove_file(&path)) {
        (Err(e), _) if e.is_full() => {
            tracing::error!("ALARM: {e}; no mail is taken until there is room");
            Ok(())
        }
        (Err(e), _) => Err(e),
        (Ok(()), removed) => removed,
    }
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
