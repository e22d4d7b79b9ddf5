//! Mailbox definitions kept equal between nodes (`docs/decisions/0008-sync.md`). Messages never travel this way.
//!
//! Two nodes that hold the same key file exchange bundles of all their definitions over TLS 1.3, each proving to the
//! other that it holds the key; then each takes in what is newer. Nothing is changed by what cannot be decided
//! ([`crate::mailbox::Conflict`]): it is shown. What it does not do: elect a master, delete a mailbox elsewhere.

mod exchange;
mod key;
mod service;

pub use exchange::{Exchanged, SyncError, exchange, exchange_noted};
pub use key::SyncKey;
pub use service::{follow, serve};

use postkeep_shared::{
    config::{Config, Section},
    disk::{self, Disk, DiskResult},
    mail::Digest,
};
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// `[sync]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncConfig {
    /// Addresses that peers connect to.
    pub listen: Vec<SocketAddr>,
    /// Peers, `name:port`.
    pub peers: Vec<String>,
    /// The shared key; `None` where nothing is synced.
    pub key_file: Option<PathBuf>,
    /// Time between two exchanges when nothing changes here.
    pub interval: Duration,
}

impl SyncConfig {
    /// Takes `[sync]`, reporting mistakes there. `listen` was read by the caller.
    pub fn take(section: &Section, config: &Config, listen: Vec<SocketAddr>) -> Self {
        let peers = section.list("peers").unwrap_or_default();
        for peer in peers.iter().filter(|peer| !is_peer(peer)) {
            let peer: String = peer.chars().take(60).collect();
            let text =
                format!("`{}` is not a peer; write name:port, for example msgw2.example:4465", peer.escape_debug());
            section.mistake("peers", text);
        }
        let key_file = section.text("key_file").map(|text| config.resolve(&text));
        if key_file.is_none() && !(listen.is_empty() && peers.is_empty()) {
            section.mistake("key_file", "missing; name the file with the key that all peers share");
        }
        let interval = section.duration("interval").unwrap_or(Duration::from_secs(60));
        if interval < Duration::from_secs(1) {
            section.mistake("interval", "is shorter than a second; write for example \"1m\"");
        }
        Self { listen, peers, key_file, interval }
    }
}

impl SyncConfig {
    /// Whether there is anything to do while the server runs.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !(self.listen.is_empty() && self.peers.is_empty())
    }
}

/// `name:port`.
#[must_use]
pub fn is_peer(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    text.rsplit_once(':').is_some_and(|(name, port)| {
        !name.is_empty() && name.chars().all(plain) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// What is known of a peer: kept in `sync/` of the data directory, so that every command can show it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerState {
    /// As configured.
    pub peer: String,
    /// Its node's short name, once it was reached.
    pub node: Option<String>,
    /// When it was tried last, milliseconds since 1970-01-01 UTC.
    pub tried_ms: Option<u64>,
    /// When definitions were exchanged last.
    pub exchanged_ms: Option<u64>,
    /// Why the last try failed.
    pub error: Option<String>,
    /// What a person has to decide.
    pub conflicts: Vec<String>,
}

impl PeerState {
    /// Reached at the last try, and nothing to decide.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.tried_ms.is_some() && self.error.is_none() && self.conflicts.is_empty()
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let node = self.node.as_ref().map(|node| format!(" (node {node})")).unwrap_or_default();
        let state = match (&self.error, self.tried_ms) {
            (Some(error), _) => format!("NOT REACHED: {error}"),
            (None, None) => "not tried yet".to_owned(),
            (None, Some(_)) if self.conflicts.is_empty() => "in step".to_owned(),
            (None, Some(_)) => format!("{} CONFLICTS: {}", self.conflicts.len(), self.conflicts.join("; ")),
        };
        format!("sync {}{node}: {state}", self.peer)
    }

    /// Remembers it.
    ///
    /// # Errors
    /// [`disk::DiskError`].
    pub fn keep(&self, disk: &dyn Disk, data_dir: &Path) -> DiskResult<()> {
        let file = file(data_dir, &self.peer);
        if let Some(folder) = file.parent() {
            disk::create_dirs(disk, folder)?;
        }
        let text = serde_json::to_string(self).unwrap_or_default();
        disk::replace_file(disk, &file, text.as_bytes())
    }

    /// What was remembered of a peer.
    #[must_use]
    pub fn of(disk: &dyn Disk, data_dir: &Path, peer: &str) -> Self {
        let octets = disk.read(&file(data_dir, peer), 4 * 1024 * 1024).ok();
        let known = octets.and_then(|octets| serde_json::from_slice(&octets).ok());
        known.unwrap_or_else(|| Self { peer: peer.to_owned(), ..Self::default() })
    }
}

/// What is known of every configured peer, for `status`.
#[must_use]
pub fn states(config: &SyncConfig, disk: &dyn Disk, data_dir: &Path) -> Vec<PeerState> {
    config.peers.iter().map(|peer| PeerState::of(disk, data_dir, peer)).collect()
}

fn file(data_dir: &Path, peer: &str) -> PathBuf {
    data_dir.join("sync").join(format!("{}.json", Digest::of(peer.as_bytes()).short(16)))
}
