//! Engine and outbox on disk: one file, `alarms/state.json` in the data folder, replaced atomically.
//!
//! One file, so that an alarm counts as told exactly when its notices are in the queue. It may be deleted while the
//! program stands: what is wrong is then told anew, and what waited is not told. One that cannot be read is put aside.

use super::{Engine, Outbox};
use crate::disk::{Disk, DiskError, create_dirs, replace_file};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;
/// A file larger than this is not one.
const MAX_FILE: u64 = 256 * 1024 * 1024;

/// What outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    version: u32,
    /// What is wrong.
    pub engine: Engine,
    /// What is to be delivered.
    pub outbox: Outbox,
    /// When the status mail was written last, milliseconds since 1970-01-01 UTC.
    #[serde(default)]
    pub status_ms: Option<u64>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// It cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It can be read and makes no sense.
    #[error("{}: {detail}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
}

impl Default for Kept {
    fn default() -> Self {
        Self { version: VERSION, engine: Engine::default(), outbox: Outbox::default(), status_ms: None }
    }
}

impl Kept {
    /// The file in a data folder.
    #[must_use]
    pub fn file(data_dir: &Path) -> PathBuf {
        data_dir.join("alarms/state.json")
    }

    /// Reads it; the empty state where there is none.
    ///
    /// # Errors
    /// [`KeptError`].
    pub fn read(disk: &dyn Disk, data_dir: &Path) -> Result<Self, KeptError> {
        let file = Self::file(data_dir);
        let octets = match disk.read(&file, MAX_FILE) {
            Ok(octets) => octets,
            Err(error) if error.is_missing() => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        let damaged = |detail: String| KeptError::Damaged { file: file.clone(), detail };
        let kept: Self = serde_json::from_slice(&octets).map_err(|e| damaged(e.to_string()))?;
        if kept.version != VERSION {
            return Err(damaged(format!("it has version {}, this program knows {VERSION}", kept.version)));
        }
        Ok(kept)
    }

    /// As [`Self::read`], for the program that writes it: one that cannot be read is put aside, so that alarms go on.
    #[must_use]
    pub fn open(disk: &dyn Disk, data_dir: &Path) -> Self {
        let error = match Self::read(disk, data_dir) {
            Ok(kept) => return kept,
            Err(error) => error,
        };
        let file = Self::file(data_dir);
        let aside = file.with_file_name(format!("state.damaged-{}.json", crate::run::now_ms()));
        let moved = matches!(error, KeptError::Damaged { .. }) && disk.rename_new(&file, &aside).is_ok();
        let place = if moved { format!("; it is now {}", aside.display()) } else { String::new() };
        tracing::error!("ALARM: what was told before is not known: {error}{place}");
        Self::default()
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn write(&self, disk: &dyn Disk, data_dir: &Path) -> Result<(), DiskError> {
        let file = Self::file(data_dir);
        create_dirs(disk, file.parent().unwrap_or(data_dir))?;
        let octets = serde_json::to_vec(self).unwrap_or_default();
        replace_file(disk, &file, &octets)
    }
}
