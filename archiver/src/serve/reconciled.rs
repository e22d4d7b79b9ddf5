//! What the last `reconcile` of each source found, as far as monitoring wants to know: read from `data/reconcile.json`.

use postkeep_shared::disk::Disk;
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path};

const MAX_FILE: u64 = 64 * 1024 * 1024;

/// Every source that was ever reconciled, by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Reconciled {
    /// Sources.
    #[serde(default)]
    pub sources: BTreeMap<String, OfSource>,
}

/// One source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct OfSource {
    /// When, milliseconds since 1970-01-01 UTC; `None` where the source was never asked.
    #[serde(default)]
    pub last_run_ms: Option<u64>,
    /// When every number last added up.
    #[serde(default)]
    pub last_green_ms: Option<u64>,
    #[serde(default)]
    rows: Vec<OfRow>,
}

/// One mailbox on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct OfRow {
    #[serde(default)]
    missing: u64,
}

impl OfSource {
    /// Messages that were accepted and are nowhere.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.rows.iter().map(|row| row.missing).sum()
    }
}

impl Reconciled {
    /// What is known; nothing where nobody ever reconciled, or the file cannot be read.
    #[must_use]
    pub fn read(disk: &dyn Disk, data_dir: &Path) -> Self {
        let octets = disk.read(&data_dir.join("reconcile.json"), MAX_FILE).ok();
        octets.and_then(|octets| serde_json::from_slice(&octets).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;

    #[test]
    fn only_what_is_wanted_is_read() {
        let folder = tempfile::tempdir().expect("temporary folder");
        assert_eq!(Reconciled::read(&LocalDisk, folder.path()), Reconciled::default());
        let text = r#"{"version":1,"sources":{"m365":{"last_run_ms":5,"last_green_ms":4,
            "rows":[{"accepted":9,"missing":2},{"accepted":9,"missing":1}]},
            "never":{"last_run_ms":null,"last_green_ms":null,"rows":[]}},"stores":{}}"#;
        std::fs::write(folder.path().join("reconcile.json"), text).expect("writes");
        let read = Reconciled::read(&LocalDisk, folder.path());
        assert_eq!(read.sources["never"], OfSource::default());
        let of = read.sources["m365"].clone();
        assert_eq!((of.last_run_ms, of.last_green_ms, of.missing()), (Some(5), Some(4), 3));
        std::fs::write(folder.path().join("reconcile.json"), "{").expect("writes");
        assert_eq!(Reconciled::read(&LocalDisk, folder.path()), Reconciled::default());
    }
}
