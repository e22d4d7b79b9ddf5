//! Opens a sealed file and gives what a client gets: trace header, receipt field, exact message.
//!
//! Every octet is authenticated by age before it is given. Beyond that the file must be the one its entry names:
//! mailbox and uidl in the sealed evidence (a file moved or renamed), the SHA-256 of the sealed file and the salted
//! digest of the message (a file sealed by somebody else). One block is held back until all of that was checked, so
//! that a client which counts octets never gets a damaged message whole. Memory: four blocks of 64 KiB.

use super::SpoolError;
use crate::mailbox::Identity;
use age::{DecryptError, Decryptor, stream::StreamReader};
use postkeep_shared::{
    disk::{Disk, DiskError, DiskFile},
    mail::{Hasher, Uidl},
    receipt::{Entry, Flags, TraceError, parse_sealed_trace, write_receipt_field},
};
use std::{
    io::{self, BufReader, Read},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

const BLOCK: usize = 64 * 1024;

/// The octets XRETR sends for one message: trace header, receipt field, message. An error means that the message must
/// not look complete to the client; every later read fails as well.
pub struct MessageReader {
    plain: StreamReader<BufReader<HashingSource>>,
    file_len: u64,
    sealed: Arc<Mutex<Sum>>,
    content: Sum,
    trace_len: u64,
    entry: Entry,
    /// Given next, from `at` on.
    ready: Vec<u8>,
    at: usize,
    /// Held back until more was read or everything was checked.
    held: Vec<u8>,
    state: State,
    line_end: bool,
}

#[derive(PartialEq)]
enum State {
    Reading,
    Checked,
    Failed,
}

/// A running SHA-256 and how many octets went into it.
#[derive(Default, Clone)]
struct Sum {
    hasher: Hasher,
    len: u64,
}

impl Sum {
    fn take(&mut self, octets: &[u8]) {
        self.hasher.update(octets);
        self.len += octets.len() as u64;
    }
}

/// Hashes the sealed file as it is read.
struct HashingSource {
    file: Box<dyn DiskFile>,
    sum: Arc<Mutex<Sum>>,
}

impl Read for HashingSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(buffer)?;
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.take(buffer.get(..len).unwrap_or_default());
        Ok(len)
    }
}

/// Opens the sealed file at `path`, which `entry` describes.
///
/// # Errors
/// [`SpoolError::Missing`], [`SpoolError::WrongKey`], [`SpoolError::Damaged`], disk errors.
pub fn open_message(
    disk: &dyn Disk,
    path: &Path,
    entry: &Entry,
    identity: &Identity,
) -> Result<MessageReader, SpoolError> {
    let uidl = entry.body.uidl;
    let file = disk.open(path).map_err(|e| if e.is_missing() { SpoolError::Missing { uidl } } else { e.into() })?;
    let file_len = file.len()?;
    let sealed = Arc::new(Mutex::new(Sum::default()));
    let source = BufReader::with_capacity(BLOCK, HashingSource { file, sum: Arc::clone(&sealed) });
    let decryptor = Decryptor::new_buffered(source).map_err(|e| opening(e, uidl, path))?;
    let mut plain = decryptor.decrypt(identity.age()).map_err(|e| opening(e, uidl, path))?;

    let start = fill(&mut plain).map_err(|e| reading(e, uidl, path))?;
    let (trace_len, evidence) = parse_sealed_trace(&start).map_err(|e| match e {
        TraceError::Missing | TraceError::Incomplete => damaged(uidl, "it does not begin with our trace header"),
        _ => damaged(uidl, "its trace header cannot be read"),
    })?;
    if evidence.mailbox != entry.body.mailbox || evidence.uidl != uidl {
        let detail = format!("the file holds message {} of {}", evidence.uidl, evidence.mailbox);
        return Err(damaged(uidl, &detail));
    }
    let (trace, message) = start.split_at_checked(trace_len).unwrap_or_default();
    let mut content = Sum::default();
    content.hasher.update(&evidence.salt);
    content.take(message);
    Ok(MessageReader {
        plain,
        file_len,
        sealed,
        content,
        trace_len: trace_len as u64,
        ready: [trace, write_receipt_field(entry).as_bytes()].concat(),
        at: 0,
        held: message.to_vec(),
        entry: entry.clone(),
        state: State::Reading,
        line_end: false,
    })
}

impl MessageReader {
    /// Also gives the CRLF that RETR needs behind a message without
    /// [`ENDS_WITH_CRLF`](postkeep_shared::receipt::Flags::ENDS_WITH_CRLF): then the reader gives exactly
    /// `entry.retr_size()` octets, also for a recovered message whose end nobody knows. Use it for RETR and TOP; for
    /// XRETR leave it out (`entry.xretr_size()` octets).
    #[must_use]
    pub fn with_line_end(mut self) -> Self {
        self.line_end = true;
        self
    }

    /// The entry this message belongs to.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    fn advance(&mut self) -> io::Result<()> {
        let block = fill(&mut self.plain).map_err(|e| self.broken(&e.to_string()))?;
        self.at = 0;
        self.content.take(&block);
        if block.is_empty() {
            self.check()?;
            self.ready = std::mem::take(&mut self.held);
            if self.line_end && !self.entry.body.flags.has(Flags::ENDS_WITH_CRLF) {
                self.ready.extend_from_slice(b"\r\n");
            }
            self.state = State::Checked;
        } else {
            self.ready = std::mem::replace(&mut self.held, block);
        }
        Ok(())
    }

    /// Everything age does not know: that this is the file and the message of the entry.
    fn check(&self) -> io::Result<()> {
        let body = &self.entry.body;
        let sealed = self.sealed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if sealed.len != self.file_len {
            return Err(self.broken("octets follow the sealed message"));
        }
        if sealed.hasher.finish() != body.sealed_sha256 {
            return Err(self.broken("the file is not the one its entry names"));
        }
        let content = self.content.clone();
        let fits = self.entry.fits(content.len, content.hasher.finish());
        if fits == Some(false) || self.trace_len + content.len != body.sealed_content {
            return Err(self.broken("the message is not the one its entry names"));
        }
        Ok(())
    }

    fn broken(&self, detail: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, damaged(self.entry.body.uidl, detail))
    }
}

impl Read for MessageReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let rest = self.ready.get(self.at..).unwrap_or_default();
            if !rest.is_empty() || buffer.is_empty() {
                let len = rest.len().min(buffer.len());
                let (from, to) = (rest.get(..len).unwrap_or_default(), buffer.get_mut(..len).unwrap_or_default());
                to.copy_from_slice(from);
                self.at += len;
                return Ok(len);
            }
            match self.state {
                State::Checked => return Ok(0),
                State::Failed => return Err(self.broken("reading it failed before")),
                State::Reading => {
                    if let Err(e) = self.advance() {
                        self.state = State::Failed;
                        self.ready.clear();
                        return Err(e);
                    }
                }
            }
        }
    }
}

/// One whole block, shorter only at the end.
fn fill(plain: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(BLOCK);
    plain.take(BLOCK as u64).read_to_end(&mut block)?;
    Ok(block)
}

fn damaged(uidl: Uidl, detail: &str) -> SpoolError {
    SpoolError::Damaged { uidl, detail: detail.to_owned() }
}

fn opening(error: DecryptError, uidl: Uidl, path: &Path) -> SpoolError {
    match error {
        DecryptError::NoMatchingKeys => SpoolError::WrongKey { uidl },
        DecryptError::Io(e) => reading(e, uidl, path),
        other => damaged(uidl, &format!("its age header is wrong ({other})")),
    }
}

/// An error of the disk is one; what age says about the octets is damage.
fn reading(error: io::Error, uidl: Uidl, path: &Path) -> SpoolError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
            damaged(uidl, &format!("its sealed content is wrong ({error})"))
        }
        _ => DiskError::new("read", path, error).into(),
    }
}
