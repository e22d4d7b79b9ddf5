//! What is remembered from one reconcile to the next: `data/reconcile.json`, readable without any key.
//!
//! The highest ledger entries ever seen (a gateway that was set back is noticed, even if the entries never came into the
//! store), the end of each store's records, and when everything was green last. A file of its own, replaced whole, since
//! a command may reconcile beside a running service. Deleted, it costs one longer reconcile and these comparisons.

use super::row::Row;
use crate::store::entry::{decode_entry, encode_entry};
use postkeep_shared::{
    disk::{Disk, DiskError, DiskLock, replace_file},
    mail::Digest,
    receipt::{Entry, NodeKey},
    run::Failure,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

const FILE: &str = "reconcile.json";
const LOCK: &str = "reconcile.lock";
const LIMIT: u64 = 64 * 1024 * 1024;
/// How long another process may take to write.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// When anything was reconciled last, milliseconds since 1970-01-01 UTC.
    pub last_run_ms: Option<u64>,
    /// When every source was green last, in one run.
    pub last_green_ms: Option<u64>,
    /// By name.
    pub sources: BTreeMap<String, SourceMemory>,
    /// The end of each store's records, by store id.
    pub stores: BTreeMap<String, StoreMemory>,
}

/// One source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceMemory {
    /// When it was reconciled last.
    pub last_run_ms: Option<u64>,
    /// When it was green last.
    pub last_green_ms: Option<u64>,
    /// What was said last, without days and names.
    pub rows: Vec<Row>,
    /// Which node signs on a host: its public key, hex.
    pub nodes: BTreeMap<String, String>,
    /// Ledgers, the highest entry seen of each.
    pub heads: Vec<HeadMemory>,
}

/// The highest entry seen of one ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadMemory {
    /// The mailbox.
    pub mailbox: String,
    /// The node's public key, hex.
    pub node: String,
    /// The entry's number.
    pub seq: u64,
    /// Its hash, hex.
    pub hash: String,
    /// When it was seen, milliseconds since 1970-01-01 UTC.
    pub seen_ms: u64,
    /// The last entry that the store kept then, base64: from there on the ledger is asked for.
    pub kept: Option<String>,
}

/// The end of a store's records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreMemory {
    /// Its name.
    pub name: String,
    /// Number of the last record.
    pub number: u64,
    /// Its hash, hex.
    pub hash: String,
}

impl HeadMemory {
    /// The node.
    #[must_use]
    pub fn node(&self) -> Option<NodeKey> {
        Digest::from_hex(&self.node).map(|key| NodeKey(key.0))
    }

    /// The entry's hash.
    #[must_use]
    pub fn hash(&self) -> Option<Digest> {
        Digest::from_hex(&self.hash)
    }

    /// The last entry that the store kept.
    #[must_use]
    pub fn kept(&self) -> Option<Entry> {
        self.kept.as_deref().and_then(decode_entry)
    }

    /// Notes the last entry that the store keeps.
    pub fn set_kept(&mut self, entry: &Entry) {
        self.kept = Some(encode_entry(entry));
    }
}

impl SourceMemory {
    /// The node that signs on a host.
    #[must_use]
    pub fn node(&self, host: &str) -> Option<NodeKey> {
        self.nodes.get(host).and_then(|key| Digest::from_hex(key)).map(|key| NodeKey(key.0))
    }

    /// What is remembered of a ledger.
    #[must_use]
    pub fn head(&self, mailbox: &str, node: NodeKey) -> Option<&HeadMemory> {
        let key = Digest(node.0).to_string();
        self.heads.iter().find(|head| head.mailbox == mailbox && head.node == key)
    }

    /// Remembers a ledger's highest entry; a lower one than before changes nothing but `kept`.
    pub fn see(&mut self, now: HeadMemory) {
        match self.heads.iter_mut().find(|head| head.mailbox == now.mailbox && head.node == now.node) {
            Some(head) if head.seq >= now.seq => head.kept = now.kept.or_else(|| head.kept.take()),
            Some(head) => *head = now,
            None => self.heads.push(now),
        }
    }
}

fn path(data: &Path) -> PathBuf {
    data.join(FILE)
}

/// Held while the file is read, changed and written.
pub(crate) fn memory_lock(data: &Path, disk: &dyn Disk) -> Result<Box<dyn DiskLock>, DiskError> {
    let mut waited = Duration::ZERO;
    loop {
        match disk.lock(&data.join(LOCK)) {
            Err(error) if error.source.kind() == io::ErrorKind::WouldBlock && waited < PATIENCE => {
                let pause = Duration::from_millis(50);
                std::thread::sleep(pause);
                waited += pause;
            }
            other => return other,
        }
    }
}

impl Memory {
    /// What is remembered in a data folder; nothing where there is no file, or none that can be read.
    ///
    /// # Errors
    /// The disk's.
    pub fn load(data: &Path, disk: &dyn Disk) -> Result<Self, Failure> {
        match disk.read(&path(data), LIMIT) {
            Err(error) if error.is_missing() => Ok(Self::default()),
            Err(error) => Err(error.into()),
            Ok(octets) => Ok(serde_json::from_slice(&octets).unwrap_or_else(|error| {
                tracing::warn!("{}: {error}; what was seen before is looked up in the store", path(data).display());
                Self::default()
            })),
        }
    }

    /// Changes what is remembered; whatever another process remembered meanwhile stays.
    ///
    /// # Errors
    /// The disk's.
    pub fn change(data: &Path, disk: &dyn Disk, change: impl FnOnce(&mut Self)) -> Result<(), Failure> {
        let _lock = memory_lock(data, disk)?;
        let mut memory = Self::load(data, disk)?;
        change(&mut memory);
        let text = serde_json::to_vec_pretty(&memory).map_err(Failure::cannot)?;
        Ok(replace_file(disk, &path(data), &text)?)
    }
}
