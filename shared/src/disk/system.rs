//! What kind of file system a data directory is on, and whether a sync means anything there (`docs/durability.md`).
//!
//! Judged by the magic number of statfs(2). Unknown kinds are doubtful, not unfit: there are more good file systems
//! than this list names.

use super::{DiskError, DiskResult};
use crate::run::Failure;
use rustix::fs;
use std::path::Path;

/// How far a file system keeps what it said it synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Known to keep it: ext4, XFS, Btrfs, F2FS, ZFS, bcachefs.
    Fit,
    /// Works, but a crash can take what was acknowledged (memory, overlays), or nothing is known of it.
    Doubtful(&'static str),
    /// A network file system: locks and syncs are those of another machine.
    Unfit(&'static str),
}

/// The kind of the file system that holds `path`, or the nearest folder above it that exists.
///
/// # Errors
/// [`DiskError`].
pub fn standing(path: &Path) -> DiskResult<Standing> {
    let mut at = path;
    loop {
        match fs::statfs(at) {
            Ok(stat) => return Ok(judge(u32::try_from(stat.f_type & 0xFFFF_FFFF).unwrap_or_default())),
            Err(rustix::io::Errno::NOENT) => match at.parent() {
                Some(parent) if parent.as_os_str().is_empty() => at = Path::new("."),
                Some(parent) => at = parent,
                None => return Ok(Standing::Doubtful("unknown")),
            },
            Err(e) => return Err(DiskError::new("inspect the file system of", at, e.into())),
        }
    }
}

/// Refuses a data directory on a network file system unless `accept` (`--i-accept-data-loss`); gives the sentence to
/// be logged where the file system is doubtful or the loss was accepted.
///
/// # Errors
/// [`Failure`], exit 5.
pub fn require_standing(path: &Path, accept: bool) -> Result<Option<String>, Failure> {
    let name = path.display();
    match standing(path)? {
        Standing::Fit => Ok(None),
        Standing::Doubtful(kind) => Ok(Some(format!(
            "{name} is on a file system of kind {kind}: a crash of this machine may take mail that was acknowledged; \
             move it to ext4, XFS or Btrfs"
        ))),
        Standing::Unfit(kind) if accept => {
            Ok(Some(format!("{name} is on {kind}: mail may be lost or taken twice, which was accepted at start")))
        }
        Standing::Unfit(kind) => Err(Failure::refused(format!(
            "{name} is on {kind}, where neither locks nor syncs can be relied on; move it to a local ext4, XFS or Btrfs, \
             or start with --i-accept-data-loss"
        ))),
    }
}

fn judge(magic: u32) -> Standing {
    match magic {
        // ext2/3/4, XFS, Btrfs, F2FS, ZFS, bcachefs
        0xEF53 | 0x5846_5342 | 0x9123_683E | 0xF2F5_2010 | 0x2FC1_2FC1 | 0xCA45_1A4E => Standing::Fit,
        0x6969 => Standing::Unfit("NFS"),
        0xFF53_4D42 | 0xFE53_4D42 | 0x517B => Standing::Unfit("SMB"),
        0x00C3_6400 => Standing::Unfit("CephFS"),
        0x0102_1997 => Standing::Doubtful("9p"),
        0x794C_7630 => Standing::Doubtful("overlay"),
        0x0102_1994 | 0x8584_58F6 => Standing::Doubtful("tmpfs (memory)"),
        0x6573_5546 => Standing::Doubtful("FUSE"),
        _ => Standing::Doubtful("unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_unfit_and_local_ones_fit() {
        assert_eq!(judge(0xEF53), Standing::Fit);
        assert_eq!(judge(0x6969), Standing::Unfit("NFS"));
        assert_eq!(judge(0xFF53_4D42), Standing::Unfit("SMB"));
        assert!(matches!(judge(0x794C_7630), Standing::Doubtful(_)));
        assert!(matches!(judge(1), Standing::Doubtful(_)));
    }

    #[test]
    fn memory_is_doubtful_and_a_missing_folder_is_judged_by_its_parent() {
        if let Ok(kind) = standing(Path::new("/dev/shm")) {
            assert!(matches!(kind, Standing::Doubtful(_)), "{kind:?}");
            assert_eq!(standing(Path::new("/dev/shm/not/there")).expect("judged"), kind);
            assert!(require_standing(Path::new("/dev/shm"), false).expect("goes on").is_some());
        }
    }
}
