//! Which process serves this data directory: `server.json`, written at its start for `status` and `doctor`.
//!
//! A file alone proves nothing after a crash, so a process counts as this one only while the kernel knows its number
//! with the same start time (proc(5), `stat`, field 22). What it does not do: lock. The spool's lock does.

use super::Kind;
use postkeep_shared::{
    disk::{Disk, replace_file},
    run::now_ms,
};
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

const MAX: u64 = 64 * 1024;

/// A server that was started here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Presence {
    /// Process number.
    pub pid: u32,
    /// Its start in clock ticks since the system started.
    pub start_ticks: u64,
    /// When it began to serve, milliseconds since 1970-01-01 UTC.
    pub started_ms: u64,
    /// Its version.
    pub version: String,
    /// What listens where.
    pub addresses: Vec<(String, SocketAddr)>,
}

impl Presence {
    fn file(data_dir: &Path) -> PathBuf {
        data_dir.join("server.json")
    }

    /// Leaves word that this process serves. A failure is logged: serving matters more.
    pub fn announce(disk: &dyn Disk, data_dir: &Path, addresses: &[(Kind, SocketAddr)]) {
        let pid = std::process::id();
        let presence = Self {
            pid,
            start_ticks: start_ticks(pid).unwrap_or(0),
            started_ms: now_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            addresses: addresses.iter().map(|(kind, address)| (kind.to_string(), *address)).collect(),
        };
        let octets = serde_json::to_vec_pretty(&presence).unwrap_or_default();
        if let Err(error) = replace_file(disk, &Self::file(data_dir), &octets) {
            tracing::warn!(%error, "`status` will not know that this server runs");
        }
    }

    /// The server that runs now, if one does.
    #[must_use]
    pub fn running(disk: &dyn Disk, data_dir: &Path) -> Option<Self> {
        let octets = disk.read(&Self::file(data_dir), MAX).ok()?;
        let presence: Self = serde_json::from_slice(&octets).ok()?;
        (start_ticks(presence.pid) == Some(presence.start_ticks)).then_some(presence)
    }
}

fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also parentheses; field 3 follows the last one.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;

    #[test]
    fn alive_only_while_the_process_is_the_same() {
        let folder = tempfile::tempdir().expect("temporary folder");
        assert!(Presence::running(&LocalDisk, folder.path()).is_none());
        let address = "127.0.0.1:25".parse().expect("address");
        Presence::announce(&LocalDisk, folder.path(), &[(Kind::Smtp, address)]);
        let found = Presence::running(&LocalDisk, folder.path()).expect("this process");
        assert_eq!((found.pid, found.addresses), (std::process::id(), vec![("smtp".to_owned(), address)]));
        let file = Presence::file(folder.path());
        let mut other: Presence = serde_json::from_slice(&std::fs::read(&file).expect("reads")).expect("parses");
        other.start_ticks += 1;
        std::fs::write(&file, serde_json::to_vec(&other).expect("writes")).expect("writes");
        assert!(Presence::running(&LocalDisk, folder.path()).is_none(), "the number was given to another process");
    }
}
