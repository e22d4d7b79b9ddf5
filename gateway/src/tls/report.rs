//! What the running gateway knows of its certificate, kept as `tls/state.json` for `status` and for the next start.
//!
//! Written through [`Disk`] when it changes. It may be deleted at any time: the next start goes without it. A write that
//! fails is logged and changes nothing else.

use super::facts::Facts;
use postkeep_shared::disk::{Disk, create_dirs, replace_file};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A state file larger than this is not one.
const MAX: u64 = 64 * 1024;

/// The certificate in use and what is tried for the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `acme`, `files` or `self-signed`, as configured.
    pub mode: String,
    /// Where the certificate in use came from: the same, or `self-signed` while there is no other.
    pub source: String,
    /// The certificate in use.
    pub facts: Option<Facts>,
    /// What went wrong last; empty once it went well.
    pub last_error: Option<Trouble>,
    /// When the next certificate is asked for, seconds since 1970.
    pub next_try: Option<i64>,
    /// Failures in a row.
    pub failures: u32,
    /// What was asked for: directory and names. A new wish does not wait for the back-off of the old one.
    pub wish: String,
    /// URL of the account at the authority.
    pub account: Option<String>,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Seconds since 1970.
    pub time: i64,
    /// One sentence.
    pub text: String,
}

impl Report {
    /// The file in a data directory.
    #[must_use]
    pub fn file(data_dir: &Path) -> PathBuf {
        data_dir.join("tls/state.json")
    }

    /// Reads it; `None` where there is none or it is damaged.
    #[must_use]
    pub fn read(disk: &dyn Disk, data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&disk.read(&Self::file(data_dir), MAX).ok()?).ok()
    }

    /// Writes it.
    pub fn write(&self, disk: &dyn Disk, data_dir: &Path) {
        let file = Self::file(data_dir);
        let octets = serde_json::to_vec_pretty(self).unwrap_or_default();
        let folder = file.parent().unwrap_or(data_dir);
        let written = create_dirs(disk, folder).and_then(|()| replace_file(disk, &file, &octets));
        if let Err(error) = written {
            tracing::warn!(%error, "the state of the certificate is not kept for `status`");
        }
    }
}
