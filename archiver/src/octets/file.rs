//! The octets of a file, read where they are needed.

use super::Octets;
use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

/// A file that is there to be read, not held.
pub struct FileOctets {
    file: File,
    len: u64,
}

impl FileOctets {
    /// Opens a regular file; its length is the one it has now.
    ///
    /// # Errors
    /// What opening gives; [`io::ErrorKind::InvalidInput`] for anything but a regular file, which is not opened: a FIFO
    /// would wait for its writer.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }
}

impl Octets for FileOctets {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}
