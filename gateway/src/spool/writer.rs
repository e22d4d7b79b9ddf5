//! Seals one message into a temporary file while it arrives.
//!
//! Memory: one age chunk in clear and one sealed (64 KiB each) and an 8 KiB buffer, whatever the size. The octets go
//! through age and SHA-256 into the file; plaintext never reaches the disk. The file keeps its one descriptor from
//! creation to sync, so that no write error can be missed.

use super::{
    SpoolError,
    failstop::FailStop,
    format::{self, Origin},
    layout::{Folder, Layout},
};
use crate::mailbox::{Mailbox, MailboxError};
use age::stream::StreamWriter;
use postkeep_shared::{
    crypt::random,
    disk::{Disk, DiskError, DiskFile},
    mail::{Digest, Hasher, MailboxId, Uidl},
    receipt::{Entry, EntryBody, Event, Flags},
};
use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    sync::Arc,
};
use time::OffsetDateTime;

/// What a writer needs from its spool.
pub(super) struct Desk<'a> {
    pub(super) layout: &'a Layout,
    pub(super) disk: &'a Arc<dyn Disk>,
    pub(super) failstop: &'a FailStop,
    pub(super) hostname: &'a str,
}

/// A message being sealed. Dropped without [`commit`](super::Spool::commit), its temporary file is removed.
pub struct Incoming {
    stream: StreamWriter<BufWriter<HashingFile>>,
    facts: Facts,
    temporary: Temporary,
    content: Hasher,
    last: Last,
    failstop: FailStop,
}

/// Proof that a message is on stable storage, file and entry. Only [`commit`](super::Spool::commit) makes one.
#[derive(Debug, Clone)]
pub struct Receipt(Entry);

/// A message whose file is whole and synced, still under its temporary name.
pub(super) struct Sealed {
    pub(super) facts: Facts,
    pub(super) temporary: Temporary,
    pub(super) sealed_sha256: Digest,
    pub(super) digest: Digest,
    /// For a message that was moved here: number and hash of the entry it was accepted with.
    pub(super) origin: Option<(u64, Digest)>,
}

/// What is known of a message without its content.
pub(super) struct Facts {
    pub(super) mailbox: MailboxId,
    pub(super) uidl: Uidl,
    pub(super) flags: Flags,
    pub(super) size: u64,
    pub(super) sealed_content: u64,
}

/// A file below `tmp/` that is removed unless it was given its final name.
pub(super) struct Temporary {
    disk: Arc<dyn Disk>,
    path: Option<PathBuf>,
}

/// Hashes what goes into the file.
struct HashingFile {
    file: Box<dyn DiskFile>,
    hasher: Hasher,
}

/// The end of the content so far, and whether a line end was bare.
#[derive(Default)]
struct Last {
    cr: bool,
    crlf: bool,
    bare: bool,
}

impl Incoming {
    /// Makes the file and seals the trace header.
    pub(super) fn begin(desk: &Desk<'_>, mailbox: &Mailbox, origin: &Origin) -> Result<Self, SpoolError> {
        let (uidl, salt) = (Uidl::now(), random::<32>());
        let evidence = origin.evidence(mailbox.id, uidl, salt);
        let trace = format::sealed_trace(origin, &evidence, desk.hostname, OffsetDateTime::now_utc());
        let path = desk.layout.message(mailbox.id, Folder::Tmp, uidl);
        let file = create(desk, mailbox.id, &path)?;
        let temporary = Temporary { disk: Arc::clone(desk.disk), path: Some(path.clone()) };
        let write_error = |e| desk.failstop.writing(DiskError::new("write", &path, e));
        let target = BufWriter::new(HashingFile { file, hasher: Hasher::default() });
        let mut stream = encryptor(mailbox)?.wrap_output(target).map_err(write_error)?;
        stream.write_all(&trace).map_err(write_error)?;
        let mut content = Hasher::default();
        content.update(&salt);
        let flags = if origin.verified == Some(false) { Flags::UNVERIFIED } else { Flags::default() };
        let facts = Facts { mailbox: mailbox.id, uidl, flags, size: 0, sealed_content: trace.len() as u64 };
        let failstop = desk.failstop.clone();
        Ok(Self { stream, facts, temporary, content, last: Last::default(), failstop })
    }

    /// The message's name.
    #[must_use]
    pub fn uidl(&self) -> Uidl {
        self.facts.uidl
    }

    /// Octets of the message so far (without the trace header).
    #[must_use]
    pub fn size(&self) -> u64 {
        self.facts.size
    }

    /// Seals more octets of the message, exactly as they are to come out. Blocking; writes in pieces of 64 KiB.
    ///
    /// # Errors
    /// [`SpoolError::Full`] when space ran out: drop it and answer 452. Any other error stops storage.
    pub fn write(&mut self, content: &[u8]) -> Result<(), SpoolError> {
        let written = self.stream.write_all(content);
        written.map_err(|e| self.failstop.writing(self.temporary.error("write", e)))?;
        self.content.update(content);
        self.last.take(content);
        self.facts.size += content.len() as u64;
        self.facts.sealed_content += content.len() as u64;
        Ok(())
    }

    /// Seals the end and syncs the file. Blocking.
    pub(super) fn seal(self) -> Result<Sealed, SpoolError> {
        let Self { stream, mut facts, temporary, content, last, failstop } = self;
        let write_error = |e| failstop.writing(temporary.error("write", e));
        let buffered = stream.finish().map_err(write_error)?;
        let mut target = buffered.into_inner().map_err(|e| write_error(e.into_error()))?;
        target.file.sync().map_err(|e| failstop.syncing(e))?;
        facts.flags = last.flags(facts.flags);
        Ok(Sealed { facts, temporary, sealed_sha256: target.hasher.finish(), digest: content.finish(), origin: None })
    }
}

impl Sealed {
    /// What its entry says; number and chain are the ledger's.
    pub(super) fn body(&self, time_ms: u64) -> EntryBody {
        let (event, refers_to, digest) = match self.origin {
            Some((seq, hash)) => (Event::MovedIn, seq, hash),
            None => (Event::Accepted, 0, self.digest),
        };
        EntryBody {
            event,
            flags: self.facts.flags,
            seq: 0,
            time_ms,
            mailbox: self.facts.mailbox,
            uidl: self.facts.uidl,
            size: self.facts.size,
            sealed_content: self.facts.sealed_content,
            refers_to,
            sealed_sha256: self.sealed_sha256,
            digest,
            prev: Digest::default(),
        }
    }
}

impl Receipt {
    pub(super) fn new(entry: Entry) -> Self {
        Self(entry)
    }

    /// The ledger entry.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.0
    }
}

impl Temporary {
    pub(super) fn new(disk: &Arc<dyn Disk>, path: &std::path::Path) -> Self {
        Self { disk: Arc::clone(disk), path: Some(path.to_owned()) }
    }

    pub(super) fn path(&self) -> &std::path::Path {
        self.path.as_deref().unwrap_or(std::path::Path::new(""))
    }

    /// The file has its final name now.
    pub(super) fn keep(&mut self) {
        self.path = None;
    }

    fn error(&self, operation: &'static str, error: io::Error) -> DiskError {
        DiskError::new(operation, self.path(), error)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(e) = self.disk.remove_file(path)
        {
            tracing::warn!("an unfinished message stays until the next start: {e}");
        }
    }
}

impl Last {
    fn take(&mut self, content: &[u8]) {
        let mut rest = content;
        while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
            let lf = rest.get(at) == Some(&b'\n');
            let after_cr = self.cr && at == 0;
            // A CR with anything but LF behind it, or an LF with anything but CR before it.
            self.bare |= if lf { !after_cr } else { self.cr };
            self.bare |= self.cr && !after_cr;
            self.crlf = lf && after_cr;
            self.cr = !lf;
            rest = rest.get(at + 1..).unwrap_or_default();
        }
        if !rest.is_empty() {
            self.bare |= self.cr;
            self.cr = false;
            self.crlf = false;
        }
    }

    fn flags(&self, flags: Flags) -> Flags {
        let flags = if self.crlf { flags.with(Flags::ENDS_WITH_CRLF) } else { flags };
        if self.bare || self.cr { flags.with(Flags::BARE_LINE_END) } else { flags }
    }
}

impl Write for HashingFile {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let written = self.file.write(octets)?;
        self.hasher.update(octets.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The first message of a mailbox finds no folders yet.
fn create(desk: &Desk<'_>, mailbox: MailboxId, path: &std::path::Path) -> Result<Box<dyn DiskFile>, SpoolError> {
    match desk.disk.create(path) {
        Err(e) if e.is_missing() => {
            let made = desk.layout.make_folders(desk.disk.as_ref(), mailbox);
            made.and_then(|()| desk.disk.create(path)).map_err(|e| desk.failstop.preparing(e))
        }
        other => other.map_err(|e| desk.failstop.preparing(e)),
    }
}

fn encryptor(mailbox: &Mailbox) -> Result<age::Encryptor, SpoolError> {
    let unusable = |detail: &str| MailboxError::Key(format!("mailbox {}: {detail}", mailbox.id));
    let recipient: age::x25519::Recipient =
        mailbox.recipient.parse().map_err(|_| unusable("its recipient is not an age X25519 recipient"))?;
    let sealed = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient));
    Ok(sealed.map_err(|_| unusable("nothing can be sealed to its recipient"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_seen_across_pieces() {
        let cases: [(&[u8], bool, bool); 12] = [
            (b"", false, false),
            (b"\r\n", true, false),
            (b"a\r\nb\r\n", true, false),
            (b"a", false, false),
            (b"a\n", false, true),
            (b"a\r", false, true),
            (b"a\rb\r\n", true, true),
            (b"\n\r\n", true, true),
            (b"\r\r\n", true, true),
            (b"\r\n\n", false, true),
            (b"\r\n\r", false, true),
            (b"a\r\nb", false, false),
        ];
        for (content, crlf, bare) in cases {
            for cut in 0..=content.len() {
                let mut last = Last::default();
                last.take(&content[..cut]);
                last.take(&content[cut..]);
                let flags = last.flags(Flags::default());
                let seen = (flags.has(Flags::ENDS_WITH_CRLF), flags.has(Flags::BARE_LINE_END));
                assert_eq!(seen, (crlf, bare), "{content:?} cut at {cut}");
            }
            let mut last = Last::default();
            content.chunks(1).for_each(|octet| last.take(octet));
            let flags = last.flags(Flags::default());
            assert_eq!((flags.has(Flags::ENDS_WITH_CRLF), flags.has(Flags::BARE_LINE_END)), (crlf, bare));
        }
    }
}
