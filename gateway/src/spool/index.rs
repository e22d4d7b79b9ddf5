//! The index: what is waiting, and how far of each ledger it reflects. A sled tree that may be deleted at any time.
//!
//! Keys: `w` + mailbox + number → the entry's 276 octets; `h` + mailbox → head (number, hash, offset: 48 octets). Every
//! batch holds both, so after a crash the index stands at some earlier commit and the ledger is replayed from there. It
//! is never asked whether a message is durable; the ledger is. So changes of many commits go into the tree as one
//! batch, which costs as much as one: when there are enough, and always before anything is read.

use super::SpoolError;
use crate::ledger::Head;
use postkeep_shared::{
    disk::Disk,
    mail::{Digest, MailboxId, Uidl},
    receipt::{Entry, Event},
    run::try_for_a_moment,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Pages kept in memory.
const CACHE: u64 = 16 * 1024 * 1024;
/// Changes that wait for company (an entry and a head are two); about 400 octets each.
const MAX_WAITING: usize = 512;
const VERSION_KEY: &[u8] = b"v";
const VERSION: &[u8] = b"1";

/// The index. Cheap to clone.
#[derive(Clone)]
pub(super) struct Index {
    db: sled::Db,
    path: PathBuf,
    /// Changes that are not in the tree yet, in order.
    waiting: Arc<Mutex<Vec<Change>>>,
    /// What waits, counted; `None` until somebody asks.
    tally: Arc<Mutex<Option<HashMap<MailboxId, Tally>>>>,
}

/// What waits in a mailbox, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages.
    pub messages: u64,
    /// Their octets, as received.
    pub bytes: u64,
    /// Their octets as sealed, without what sealing adds to each block.
    pub sealed: u64,
}

/// A key and its new value; `None` removes it.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// Changes that belong together.
#[derive(Default)]
pub(super) struct Changes {
    list: Vec<Change>,
    /// What begins to wait, and what of it ends (by number).
    comes: Vec<(MailboxId, u64, u64)>,
    goes: Vec<(MailboxId, u64)>,
}

/// Threads of sled 0.34 may hold the lock for a moment after an index was closed. Its error has no kind of its own.
fn is_held(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

impl Index {
    /// Opens the index; one that cannot be read is put aside for a new, empty one.
    pub(super) fn open(path: &Path, disk: &dyn Disk) -> Result<Self, SpoolError> {
        let config = sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(Some(1000));
        let open = || try_for_a_moment(is_held, || config.open());
        let error = |e: sled::Error| SpoolError::Index { path: path.to_owned(), detail: e.to_string() };
        let db = match open() {
            Ok(db) => db,
            Err(sled::Error::Io(e)) => return Err(error(sled::Error::Io(e))),
            Err(e) => {
                tracing::warn!("the index {} is rebuilt: {e}", path.display());
                disk.remove_tree(path)?;
                open().map_err(error)?
            }
        };
        let index = Self { db, path: path.to_owned(), waiting: Arc::default(), tally: Arc::default() };
        if index.get(VERSION_KEY)?.as_deref() != Some(VERSION) {
            index.db.clear().map_err(error)?;
            index.db.insert(VERSION_KEY, VERSION).map_err(error)?;
        }
        Ok(index)
    }

    /// How far of a mailbox's ledger is in the index.
    pub(super) fn head(&self, mailbox: MailboxId) -> Result<Option<Head>, SpoolError> {
        Ok(self.get(&head_key(mailbox))?.and_then(|octets| decode_head(&octets)))
    }

    /// The waiting entry with this number.
    pub(super) fn entry(&self, mailbox: MailboxId, seq: u64) -> Result<Option<Entry>, SpoolError> {
        let octets = self.get(&waiting_key(mailbox, seq))?;
        octets.map(|octets| self.decode(&octets)).transpose()
    }

    /// Everything that waits in a mailbox, by number.
    pub(super) fn waiting(&self, mailbox: MailboxId) -> Result<Vec<Entry>, SpoolError> {
        self.settle()?;
        let mut entries = Vec::new();
        for item in self.db.scan_prefix(prefix(b'w', mailbox)) {
            let (_, octets) = item.map_err(|e| self.error(e))?;
            entries.push(self.decode(&octets)?);
        }
        Ok(entries)
    }

    /// When the first of what waits in a mailbox was accepted.
    pub(super) fn oldest(&self, mailbox: MailboxId) -> Result<Option<u64>, SpoolError> {
        self.settle()?;
        let first = self.db.scan_prefix(prefix(b'w', mailbox)).values().next().transpose();
        let entry = first.map_err(|e| self.error(e))?.map(|octets| self.decode(&octets)).transpose()?;
        Ok(entry.map(|entry| entry.body.time_ms))
    }

    /// Names and numbers of what waits in a mailbox, sorted by name.
    pub(super) fn names(&self, mailbox: MailboxId) -> Result<Vec<(Uidl, u64)>, SpoolError> {
        self.settle()?;
        let mut names = Vec::new();
        for item in self.db.scan_prefix(prefix(b'w', mailbox)) {
            let (_, octets) = item.map_err(|e| self.error(e))?;
            let body = self.decode(&octets)?.body;
            names.push((body.uidl, body.seq));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Forgets a mailbox, to be filled anew.
    pub(super) fn forget(&self, mailbox: MailboxId) -> Result<(), SpoolError> {
        self.settle()?;
        let mut changes = vec![(head_key(mailbox), None)];
        for key in self.db.scan_prefix(prefix(b'w', mailbox)).keys() {
            changes.push((key.map_err(|e| self.error(e))?.to_vec(), None));
        }
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.apply(Changes { list: changes, ..Changes::default() })
    }

    /// What waits in a mailbox, and when the oldest of it came. Counted once, the first time, and kept up from then on.
    pub(super) fn tally(&self, mailbox: MailboxId) -> Result<(Tally, Option<u64>), SpoolError> {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if tally.is_none() {
            *tally = Some(self.count()?);
        }
        let found = tally.as_ref().and_then(|counted| counted.get(&mailbox)).copied().unwrap_or_default();
        Ok((found, self.oldest(mailbox)?))
    }

    fn count(&self) -> Result<HashMap<MailboxId, Tally>, SpoolError> {
        self.settle()?;
        let mut counted: HashMap<MailboxId, Tally> = HashMap::new();
        for octets in self.db.scan_prefix(b"w").values() {
            let body = self.decode(&octets.map_err(|e| self.error(e))?)?.body;
            counted.entry(body.mailbox).or_default().comes(body.size, body.sealed_content);
        }
        Ok(counted)
    }

    /// Mailboxes the index knows.
    pub(super) fn mailboxes(&self) -> Result<Vec<MailboxId>, SpoolError> {
        self.settle()?;
        let keys = self.db.scan_prefix(b"h").keys().map(|key| key.map_err(|e| self.error(e)));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        Ok(keys.iter().filter_map(|key| Some(MailboxId(key.get(1..)?.try_into().ok()?))).collect())
    }

    /// Takes changes in; every later read sees them.
    pub(super) fn apply(&self, changes: Changes) -> Result<(), SpoolError> {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counted) = tally.as_mut() {
            for (mailbox, seq) in changes.goes {
                if let Some(entry) = self.entry(mailbox, seq)? {
                    counted.entry(mailbox).or_default().goes(entry.body.size, entry.body.sealed_content);
                }
            }
            for (mailbox, size, sealed) in changes.comes {
                counted.entry(mailbox).or_default().comes(size, sealed);
            }
        }
        drop(tally);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(changes.list);
        if waiting.len() < MAX_WAITING { Ok(()) } else { self.put(&mut waiting) }
    }

    /// Puts what waits into the tree.
    fn settle(&self) -> Result<(), SpoolError> {
        self.put(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, waiting: &mut Vec<Change>) -> Result<(), SpoolError> {
        if waiting.is_empty() {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        // A later change of the same key takes the place of an earlier one.
        for (key, value) in waiting.drain(..) {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.db.apply_batch(batch).map_err(|e| self.error(e))
    }

    pub(super) fn flush(&self) -> Result<(), SpoolError> {
        self.settle()?;
        self.db.flush().map(|_| ()).map_err(|e| self.error(e))
    }

    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, SpoolError> {
        self.settle()?;
        self.db.get(key).map_err(|e| self.error(e))
    }

    fn decode(&self, octets: &[u8]) -> Result<Entry, SpoolError> {
        Entry::decode(octets).map_err(|e| SpoolError::Index { path: self.path.clone(), detail: e.to_string() })
    }

    fn error(&self, error: sled::Error) -> SpoolError {
        SpoolError::Index { path: self.path.clone(), detail: error.to_string() }
    }
}

impl Changes {
    /// What an entry changes in what waits.
    pub(super) fn entry(&mut self, entry: &Entry) {
        let body = &entry.body;
        match body.event {
            Event::Accepted | Event::MovedIn => {
                self.list.push((waiting_key(body.mailbox, body.seq), Some(entry.encode().to_vec())));
                self.comes.push((body.mailbox, body.size, body.sealed_content));
            }
            Event::Removed | Event::MovedOut => {
                self.list.push((waiting_key(body.mailbox, body.refers_to), None));
                self.goes.push((body.mailbox, body.refers_to));
            }
        }
    }

    /// The ledger is reflected up to here.
    pub(super) fn head(&mut self, mailbox: MailboxId, head: Head) {
        let octets = [head.seq.to_be_bytes().as_slice(), &head.hash.0, &head.end.to_be_bytes()].concat();
        self.list.push((head_key(mailbox), Some(octets)));
    }
}

impl Tally {
    fn comes(&mut self, size: u64, sealed: u64) {
        self.messages += 1;
        self.bytes += size;
        self.sealed += sealed;
    }

    fn goes(&mut self, size: u64, sealed: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size);
        self.sealed = self.sealed.saturating_sub(sealed);
    }
}

fn prefix(kind: u8, mailbox: MailboxId) -> Vec<u8> {
    [&[kind], mailbox.0.as_slice()].concat()
}

fn head_key(mailbox: MailboxId) -> Vec<u8> {
    prefix(b'h', mailbox)
}

fn waiting_key(mailbox: MailboxId, seq: u64) -> Vec<u8> {
    [prefix(b'w', mailbox).as_slice(), &seq.to_be_bytes()].concat()
}

fn decode_head(octets: &[u8]) -> Option<Head> {
    let (seq, rest) = octets.split_first_chunk::<8>()?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let end = u64::from_be_bytes(rest.try_into().ok()?);
    Some(Head { seq: u64::from_be_bytes(*seq), hash: Digest(*hash), end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;
    use std::time::Duration;

    #[test]
    fn an_index_that_is_being_closed_is_waited_for() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("index");
        let first = Index::open(&path, &LocalDisk).expect("opens");
        let closing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(first);
        });
        drop(Index::open(&path, &LocalDisk).expect("opens once the first is closed"));
        closing.join().expect("ends");
        let _held = Index::open(&path, &LocalDisk).expect("opens");
        let error = Index::open(&path, &LocalDisk).err().expect("one at a time").to_string();
        assert!(error.contains("could not acquire lock"), "{error}");
    }
}
