//! Files of an export: a name that leads nowhere else, and a file that is whole when it has its name.

use crate::store::{StoreError, StoreResult};
use postkeep_shared::{
    disk::{Disk, DiskError, create_dirs},
    mail::{Digest, Hasher},
};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{self, BufWriter, Read as _, Write},
    path::{Path, PathBuf},
};

/// What a file has at the end of its name while it is written.
const PART: &str = ".part";

/// Where an export goes.
pub(super) struct Output<'a> {
    pub(super) root: &'a Path,
    disk: &'a dyn Disk,
    folders: RefCell<BTreeSet<PathBuf>>,
}

/// A file that is there.
pub(super) struct Written {
    pub(super) sha256: Digest,
    /// It was there before.
    pub(super) before: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(root: &'a Path, disk: &'a dyn Disk) -> Self {
        Self { root, disk, folders: RefCell::default() }
    }

    /// Makes the folder of a file.
    fn folder(&self, path: &Path) -> StoreResult<()> {
        if let Some(folder) = path.parent()
            && self.folders.borrow_mut().insert(folder.to_owned())
        {
            create_dirs(self.disk, folder)?;
        }
        Ok(())
    }

    /// Brings every name to stable storage.
    pub(super) fn sync(&self) -> StoreResult<()> {
        self.folders.borrow().iter().try_for_each(|folder| Ok(self.disk.open_dir(folder)?.sync()?))
    }
}

/// Writes a file unless it is there. It gets its name when it is whole and synced; what an interrupted run left under the
/// name of a part is written anew.
pub(super) fn write_whole(
    output: &Output<'_>,
    relative: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> StoreResult<()>,
) -> StoreResult<Written> {
    let (disk, path) = (output.disk, output.root.join(relative));
    output.folder(&path)?;
    match disk.entry(&path) {
        Ok(_) => return again(disk, &path, write),
        Err(error) if error.is_missing() => {}
        Err(error) => return Err(error.into()),
    }
    let mut name = path.clone().into_os_string();
    name.push(PART);
    let part = PathBuf::from(name);
    if disk.entry(&part).is_ok() {
        disk.remove_file(&part)?;
    }
    let mut file = Hashing { out: BufWriter::with_capacity(64 * 1024, disk.create(&part)?), hasher: Hasher::default() };
    let result = write(&mut file).and_then(|()| {
        file.out.flush().map_err(|e| DiskError::new("write", &part, e))?;
        file.out.get_mut().sync()?;
        Ok(disk.rename_new(&part, &path)?)
    });
    if result.is_err() {
        // Half a message must not look like a whole one; the first error is told.
        let _ = disk.remove_file(&part);
    }
    result?;
    Ok(Written { sha256: file.hasher.finish(), before: false })
}

/// What has its name was written whole; that it is what would be written now is compared.
fn again(
    disk: &dyn Disk,
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> StoreResult<()>,
) -> StoreResult<Written> {
    let mut file = disk.open(path)?;
    let (mut hasher, mut block) = (Hasher::default(), vec![0; 64 * 1024]);
    loop {
        let count = file.read(&mut block).map_err(|e| DiskError::new("read", path, e))?;
        if count == 0 {
            break;
        }
        hasher.update(block.get(..count).unwrap_or_default());
    }
    let mut wanted = Hashing { out: BufWriter::new(io::sink()), hasher: Hasher::default() };
    write(&mut wanted)?;
    let sha256 = hasher.finish();
    if sha256 == wanted.hasher.finish() {
        return Ok(Written { sha256, before: true });
    }
    let text = format!("{} is there and is not what this export would write; name a new folder", path.display());
    Err(StoreError::Input(io::Error::other(text)))
}

struct Hashing<W: Write> {
    out: BufWriter<W>,
    hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.out.write_all(octets)?;
        self.hasher.update(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A file name for any text: what could lead elsewhere or not be shown becomes `%XX` per octet.
#[must_use]
pub fn safe(text: &str) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        let dot = c == '.' && at > 0;
        if c.is_alphanumeric() || dot || "-_@+=, ".contains(c) {
            out.push(c);
        } else {
            let mut octets = [0; 4];
            for octet in c.encode_utf8(&mut octets).bytes() {
                out.push_str(&format!("%{octet:02X}"));
            }
        }
    }
    if out.is_empty() { "%".to_owned() } else { out }
}

/// Undoes [`safe`].
#[must_use]
pub fn unsafe_name(name: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), name.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let coded = after.get(..2).and_then(|hex| data_encoding::HEXUPPER.decode(hex).ok());
        match (first, coded) {
            (b'%', Some(octet)) => {
                out.extend(octet);
                rest = after.get(2..).unwrap_or_default();
            }
            // An empty name is written as a lone `%`.
            (b'%', None) if name == "%" => rest = after,
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{safe, unsafe_name};

    #[test]
    fn names_lead_nowhere_else_and_back_again() {
        assert_eq!(safe(".."), "%2E.");
        assert_eq!(safe("a/../b\0"), "a%2F..%2Fb%00");
        assert_eq!(safe("Journal Incoming"), "Journal Incoming");
        assert_eq!(safe(""), "%");
        for name in ["", "..", "a/b\\c", "Entwürfe", "50%", "%41", "x.0001", "@catchall", "\u{0}\n"] {
            assert_eq!(unsafe_name(&safe(name)), name);
        }
    }
}
