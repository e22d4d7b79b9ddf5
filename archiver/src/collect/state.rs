//! The small state per source: which node signs on a host, what was seen there last, which messages were left.
//!
//! A cache in sled: everything that matters for keeping and deleting is in the store's records. Deleted or damaged, it
//! is made again: pins from the receipts in the store, the rest by the next round.

use super::hosts::Remembered;
use crate::archive::Archive;
use postkeep_shared::{
    disk::{Disk, create_dirs, is_hindrance},
    mail::{Digest, Uidl},
    receipt::{Event, NodeKey},
    run::{Failure, try_for_a_moment},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

const CACHE: u64 = 4 * 1024 * 1024;

/// The database. On a disk that has failed it stays open until the process ends: when sled 0.34 closes a file that
/// cannot be synced any more, it panics.
struct Database {
    db: sled::Db,
    file: PathBuf,
}

/// Threads of sled 0.34 may hold the lock for a moment after the state was closed, here or in the process that lent it.
/// Its error has no kind of its own.
fn is_held(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

impl Database {
    fn open(dir: &Path) -> sled::Result<Self> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE);
        let db = try_for_a_moment(is_held, || config.open())?;
        Ok(Self { db, file: dir.join("db") })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sound =
            self.db.flush().is_ok() && std::fs::File::open(&self.file).is_ok_and(|file| file.sync_all().is_ok());
        if !sound {
            std::mem::forget(self.db.clone());
        }
    }
}

/// The state of every source.
pub struct State {
    database: Database,
    pins: sled::Tree,
    hosts: sled::Tree,
    left: sled::Tree,
    waiting: sled::Tree,
    sources: sled::Tree,
}

/// What was seen of a host last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When, milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// What went wrong.
    pub error: Option<String>,
    /// When it was last reached without an error.
    pub well_ms: Option<u64>,
    /// Messages that waited at the end.
    pub waiting: u64,
    /// Failures in a row, as `serve` counts them.
    #[serde(default)]
    pub failures: u32,
}

impl State {
    /// Opens the state, makes it again where it cannot be opened. The writer's lock is held by the caller.
    ///
    /// # Errors
    /// When not even a new one can be made.
    pub fn open(dir: &Path, disk: &dyn Disk) -> Result<Self, Failure> {
        create_dirs(disk, dir)?;
        let fails = |error: sled::Error| Failure::cannot(format!("cannot use the state in {}: {error}", dir.display()));
        Self::try_open(dir).or_else(|error| {
            // A full or read-only disk is no reason to forget.
            if matches!(&error, sled::Error::Io(error) if is_hindrance(error)) {
                return Err(fails(error));
            }
            tracing::warn!("{}: {error}; what was seen before is read from the store instead", dir.display());
            disk.remove_tree(dir)?;
            create_dirs(disk, dir)?;
            Self::try_open(dir).map_err(fails)
        })
    }

    fn try_open(dir: &Path) -> sled::Result<Self> {
        let database = Database::open(dir)?;
        let db = &database.db;
        Ok(Self {
            pins: db.open_tree("pins")?,
            hosts: db.open_tree("hosts")?,
            left: db.open_tree("left")?,
            waiting: db.open_tree("waiting")?,
            sources: db.open_tree("sources")?,
            database,
        })
    }

    /// The node that signs on a host: as remembered, else as the receipts in the store show.
    ///
    /// # Errors
    /// Reading the state or the store.
    pub fn node(&self, source: &str, host: &str, store: &Archive) -> Result<Option<NodeKey>, Failure> {
        if let Some(key) = self.pins.get(key(&[source, host])).map_err(failure)? {
            return Ok(key.as_ref().try_into().ok().map(NodeKey));
        }
        let moved = moved(source, store)?;
        for report in store.collected(source) {
            let report = report?;
            // A message that was moved there was signed by the node that accepted it.
            let own = report.receipt.as_ref().is_some_and(|r| moved.get(&r.body.uidl) != Some(&r.hash()));
            if let (Some(node), true) = (report.node, report.host == host && own) {
                self.pin(source, host, node)?;
                return Ok(Some(node));
            }
        }
        Ok(None)
    }

    /// Remembers the node that signs on a host: done once, at first sight.
    ///
    /// # Errors
    /// Writing the state.
    pub fn pin(&self, source: &str, host: &str, node: NodeKey) -> Result<(), Failure> {
        self.pins.insert(key(&[source, host]), node.0.as_slice()).map_err(failure)?;
        Ok(())
    }

    /// The hosts an MX name led to, as far as they are still asked.
    ///
    /// # Errors
    /// Reading the state.
    pub fn hosts(&self, source: &str) -> Result<Vec<Remembered>, Failure> {
        let value = self.sources.get(key(&[source, "hosts"])).map_err(failure)?;
        Ok(value.and_then(|value| serde_json::from_slice(&value).ok()).unwrap_or_default())
    }

    /// Remembers those.
    ///
    /// # Errors
    /// Writing the state.
    pub fn set_hosts(&self, source: &str, hosts: &[Remembered]) -> Result<(), Failure> {
        let value = serde_json::to_vec(hosts).map_err(Failure::cannot)?;
        self.sources.insert(key(&[source, "hosts"]), value).map_err(failure)?;
        Ok(())
    }

    /// Which line of the password file a host took last.
    ///
    /// # Errors
    /// Reading the state.
    pub fn password_line(&self, source: &str, host: &str) -> Result<usize, Failure> {
        let value = self.sources.get(key(&[source, "password", host])).map_err(failure)?;
        Ok(value.and_then(|value| serde_json::from_slice(&value).ok()).unwrap_or_default())
    }

    /// Remembers it.
    ///
    /// # Errors
    /// Writing the state.
    pub fn set_password_line(&self, source: &str, host: &str, line: usize) -> Result<(), Failure> {
        let value = serde_json::to_vec(&line).map_err(Failure::cannot)?;
        self.sources.insert(key(&[source, "password", host]), value).map_err(failure)?;
        Ok(())
    }

    /// Remembers what was seen of a host.
    ///
    /// # Errors
    /// Writing the state.
    pub fn see(&self, source: &str, host: &str, seen: &Seen) -> Result<(), Failure> {
        let value = serde_json::to_vec(seen).map_err(Failure::cannot)?;
        self.hosts.insert(key(&[source, host]), value).map_err(failure)?;
        Ok(())
    }

    /// What was seen of a host last.
    ///
    /// # Errors
    /// Reading the state.
    pub fn seen(&self, source: &str, host: &str) -> Result<Option<Seen>, Failure> {
        let value = self.hosts.get(key(&[source, host])).map_err(failure)?;
        Ok(value.and_then(|value| serde_json::from_slice(&value).ok()))
    }

    /// Remembers the names that wait on a host: what `reconcile --offline` goes by.
    ///
    /// # Errors
    /// Writing the state.
    pub fn set_waiting(&self, source: &str, host: &str, names: &[String]) -> Result<(), Failure> {
        self.waiting.insert(key(&[source, host]), names.join("\n").into_bytes()).map_err(failure)?;
        Ok(())
    }

    /// The names that waited on a host at the end of the last session there.
    ///
    /// # Errors
    /// Reading the state.
    pub fn waiting(&self, source: &str, host: &str) -> Result<Vec<String>, Failure> {
        let value = self.waiting.get(key(&[source, host])).map_err(failure)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&value);
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Remembers that a message was left in its source under these rules, and which addresses of it should have an
    /// owner.
    ///
    /// # Errors
    /// Writing the state.
    pub fn leave(&self, source: &str, uidl: &str, rules: Digest, unowned: &[String]) -> Result<(), Failure> {
        let value = [rules.0.as_slice(), unowned.join("\n").as_bytes()].concat();
        self.left.insert(key(&[source, uidl]), value).map_err(failure)?;
        Ok(())
    }

    /// The addresses without owner of a message that was left under the same rules: it need not be fetched again.
    ///
    /// # Errors
    /// Reading the state.
    pub fn left(&self, source: &str, uidl: &str, rules: Digest) -> Result<Option<Vec<String>>, Failure> {
        let value = self.left.get(key(&[source, uidl])).map_err(failure)?;
        let addresses = value.as_ref().and_then(|value| value.strip_prefix(rules.0.as_slice()));
        Ok(addresses.map(|text| String::from_utf8_lossy(text).lines().map(str::to_owned).collect()))
    }

    /// Remembers that old messages were filed anew under these owners and rules.
    ///
    /// # Errors
    /// Writing the state.
    pub fn set_refiled(&self, rules: Digest) -> Result<(), Failure> {
        self.database.db.insert(b"refiled", rules.0.as_slice()).map_err(failure)?;
        Ok(())
    }

    /// Whether old messages were filed anew under the same owners and rules.
    ///
    /// # Errors
    /// Reading the state.
    pub fn is_refiled(&self, rules: Digest) -> Result<bool, Failure> {
        Ok(self.database.db.get(b"refiled").map_err(failure)?.is_some_and(|known| known.as_ref() == rules.0))
    }

    /// Writes what is remembered out.
    ///
    /// # Errors
    /// Writing the state.
    pub fn flush(&self) -> Result<(), Failure> {
        self.database.db.flush().map(|_| ()).map_err(failure)
    }
}

/// Messages that a gateway took over from another one: for each the hash of the receipt it was accepted with, as the
/// ledgers kept for this source say.
///
/// # Errors
/// Reading the store.
pub fn moved(source: &str, store: &Archive) -> Result<HashMap<Uidl, Digest>, Failure> {
    let mut moved = HashMap::new();
    for entry in store.ledger_entries(source) {
        let body = entry?.body;
        if body.event == Event::MovedIn {
            moved.insert(body.uidl, body.digest);
        }
    }
    Ok(moved)
}

/// Names joined so that no two lists of names give the same key.
fn key(parts: &[&str]) -> Vec<u8> {
    let mut key = Vec::new();
    for part in parts {
        key.extend_from_slice(&(part.len() as u32).to_be_bytes());
        key.extend_from_slice(part.as_bytes());
    }
    key
}

#[expect(clippy::needless_pass_by_value, reason = "the form map_err wants")]
fn failure(error: sled::Error) -> Failure {
    Failure::cannot(format!("the state folder: {error}; it may be deleted, the next round makes it again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;

    #[test]
    fn what_was_remembered_is_there_again() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let dir = folder.path().join("state");
        let rules = Digest([1; 32]);
        {
            let state = State::open(&dir, &LocalDisk).expect("opens");
            state.leave("a", "b", rules, &["zoe@a.example".into()]).expect("writes");
            assert!(!state.is_refiled(rules).expect("reads"));
            state.set_refiled(rules).expect("writes");
            state.set_waiting("a", "h:995", &["x".into(), "y".into()]).expect("writes");
            state.see("a", "h:995", &Seen { time_ms: 5, ..Seen::default() }).expect("writes");
            state.flush().expect("writes");
        }
        let state = State::open(&dir, &LocalDisk).expect("opens");
        assert_eq!(state.left("a", "b", rules).expect("reads"), Some(vec!["zoe@a.example".into()]));
        assert_eq!(state.left("a", "b", Digest([2; 32])).expect("reads"), None);
        assert_eq!(state.left("ab", "", rules).expect("reads"), None);
        assert!(state.is_refiled(rules).expect("reads") && !state.is_refiled(Digest([2; 32])).expect("reads"));
        assert_eq!(state.waiting("a", "h:995").expect("reads"), ["x", "y"]);
        assert_eq!(state.seen("a", "h:995").expect("reads").map(|s| s.time_ms), Some(5));
    }

    #[test]
    fn a_damaged_state_is_made_again() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let dir = folder.path().join("state");
        drop(State::open(&dir, &LocalDisk).expect("opens"));
        std::fs::write(dir.join("conf"), b"garbage").expect("writes");
        State::open(&dir, &LocalDisk).expect("opens again");
    }
}
