//! Certificate files that change: noticed by looking at size and time, once a second.
//!
//! A certificate and its key are two files, so a tool replaces one after the other: they are read when both have stayed
//! the same from one look to the next. A tool that is slower than that causes an alarm and is read again at its end.

use super::files::followed;
use postkeep_shared::disk::Disk;
use std::{path::Path, time::SystemTime};

/// Size and time of each file; `None` for one that is not there.
pub(super) type Stamp = [Option<(u64, Option<SystemTime>)>; 2];

/// Looks at both files.
pub(super) fn stamp(disk: &dyn Disk, certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|file| disk.entry(&followed(file)).ok().map(|entry| (entry.len, entry.modified)))
}

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pending: Option<Stamp>,
}

impl Watch {
    /// Whether the files differ from those that were `read`, and stand still.
    pub(super) fn settled(&mut self, read: Stamp, found: Stamp) -> bool {
        let still = found != read && self.pending == Some(found);
        self.pending = (found != read && !still).then_some(found);
        still
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_it_stands_still() {
        let at = |a: u64, b: u64| -> Stamp { [Some((a, None)), Some((b, None))] };
        let mut watch = Watch::default();
        assert!(!watch.settled(at(1, 1), at(1, 1)));
        assert!(!watch.settled(at(1, 1), at(2, 1)));
        assert!(!watch.settled(at(1, 1), at(2, 2)), "the second file changed in between");
        assert!(watch.settled(at(1, 1), at(2, 2)));
        assert!(!watch.settled(at(2, 2), at(2, 2)), "read by now");
        assert!(!watch.settled(at(2, 2), [None, None]));
        assert!(!watch.settled(at(2, 2), at(2, 2)), "back again");
    }
}
