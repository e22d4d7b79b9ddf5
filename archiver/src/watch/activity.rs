//! How many reports of a source came in which hour, for the last nine weeks: what its busy hours are learnt from.
//!
//! Kept as `alarms/activity.json` in the data folder. It may be deleted at any time: it is counted anew from the archive.

use super::busy::WEEKS;
use postkeep_shared::disk::{Disk, DiskResult, create_dirs, replace_file};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

const HOUR_MS: u64 = 3_600_000;
/// Hours kept: one week more than is looked at.
const KEPT: u64 = (WEEKS + 1) * 168;
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// One source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// By hours since 1970-01-01 UTC.
    hours: BTreeMap<u64, u64>,
    /// The first hour on record: before it nothing is known.
    first: Option<u64>,
    /// When the last report came, milliseconds since 1970-01-01 UTC.
    last_ms: Option<u64>,
}

impl Activity {
    /// So many reports came then.
    pub fn add(&mut self, ms: u64, reports: u64) {
        let hour = ms / HOUR_MS;
        *self.hours.entry(hour).or_default() += reports;
        self.first = Some(self.first.map_or(hour, |first| first.min(hour)));
        self.last_ms = Some(self.last_ms.map_or(ms, |last| last.max(ms)));
    }

    /// Reports in an hour.
    #[must_use]
    pub fn count(&self, hour: u64) -> u64 {
        self.hours.get(&hour).copied().unwrap_or_default()
    }

    /// The first hour on record.
    #[must_use]
    pub fn first_hour(&self) -> Option<u64> {
        self.first
    }

    /// When the last report came.
    #[must_use]
    pub fn last_ms(&self) -> Option<u64> {
        self.last_ms
    }

    /// Forgets what is older than nine weeks.
    pub fn forget(&mut self, now_ms: u64) {
        let oldest = (now_ms / HOUR_MS).saturating_sub(KEPT);
        self.hours = self.hours.split_off(&oldest);
        self.first = self.first.map(|first| first.max(oldest));
    }

    /// The oldest moment that still counts.
    #[must_use]
    pub fn horizon(now_ms: u64) -> u64 {
        now_ms.saturating_sub(KEPT * HOUR_MS)
    }

    fn file(data_dir: &Path) -> PathBuf {
        data_dir.join("alarms/activity.json")
    }

    /// All sources as they were kept; nothing where the file is not there or damaged.
    #[must_use]
    pub fn read(disk: &dyn Disk, data_dir: &Path) -> BTreeMap<String, Self> {
        let octets = disk.read(&Self::file(data_dir), MAX_FILE).ok();
        octets.and_then(|octets| serde_json::from_slice(&octets).ok()).unwrap_or_default()
    }

    /// Keeps them.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(all: &BTreeMap<String, Self>, disk: &dyn Disk, data_dir: &Path) -> DiskResult<()> {
        let file = Self::file(data_dir);
        create_dirs(disk, file.parent().unwrap_or(data_dir))?;
        replace_file(disk, &file, &serde_json::to_vec(all).unwrap_or_default())
    }
}
