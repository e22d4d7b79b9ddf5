//! Making checkpoints and finding the ones that were made.

use super::text::{Checkpoint, LedgerHead, StoreHead};
use crate::{
    config::ArchiverConfig,
    reconcile::store_folders,
    signing::ArchiverKey,
    store::{
        Log, Unlock, UnlockKey,
        entry::{Record, decode_entry},
    },
};
use postkeep_shared::{
    disk::{Disk, create_dirs, write_new_file},
    mail::Digest,
    receipt::{Entry, NodeKey},
    run::Failure,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use time::{OffsetDateTime, PrimitiveDateTime, macros::format_description};

const ENDING: &str = ".checkpoint";
/// No checkpoint is larger.
pub(super) const LIMIT: u64 = 16 * 1024 * 1024;

/// A checkpoint that was made.
#[derive(Debug, Clone)]
pub struct Written {
    /// Where it is.
    pub path: PathBuf,
    /// Text and signature: the file, and the mail to an auditor.
    pub note: String,
    /// What is wrong with the records it stands on.
    pub damage: Vec<String>,
}

/// A checkpoint in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Name of the file without its ending.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// When it was made, seconds since 1970-01-01 UTC.
    pub time: i64,
}

/// Makes a checkpoint of all stores and writes it into the folder of the configuration. Takes no lock: beside a writer it
/// says where the chains stood when they were read.
///
/// # Errors
/// The stores', the key's and the disk's.
pub fn create(config: &ArchiverConfig, disk: &Arc<dyn Disk>, now_ms: u64) -> Result<Written, Failure> {
    let unlock = UnlockKey::load(&config.unlock_key_file(), &**disk)?;
    let key = ArchiverKey::load_or_create(&config.signing_key_file(), &**disk)?;
    let mut heads: BTreeMap<(String, String, NodeKey), Entry> = BTreeMap::new();
    let (mut stores, mut damage) = (Vec::new(), Vec::new());
    for (name, dir) in store_folders(config, disk)? {
        let log = Log::open(&dir, &Unlock::Key(&unlock), Arc::clone(disk))?;
        let walked = log.walk(&mut |record, _| {
            let Record::Ledger(ledger) = record else { return Ok(()) };
            for entry in ledger.entries.iter().filter_map(|text| decode_entry(text)) {
                let ledger = (ledger.source.clone(), entry.body.mailbox.to_string(), entry.node);
                let last = heads.entry(ledger).or_insert_with(|| entry.clone());
                if last.body.seq < entry.body.seq {
                    *last = entry;
                }
            }
            Ok(())
        })?;
        damage.extend(walked.damage);
        stores.push(StoreHead { name, id: log.id(), number: walked.head.number, hash: Digest(walked.head.hash) });
    }
    let ledgers = heads.into_iter().map(|((source, mailbox, node), last)| LedgerHead {
        source,
        mailbox: Digest::of(mailbox.as_bytes()),
        node,
        seq: last.body.seq,
        hash: last.hash(),
    });
    let folder = &config.checkpoint.dir;
    create_dirs(&**disk, folder)?;
    let previous = match last(folder, &**disk)? {
        Some(before) => Some(Digest::of(&disk.read(&before.path, LIMIT)?)),
        None => None,
    };
    let time = i64::try_from(now_ms / 1000).unwrap_or_default();
    let checkpoint = Checkpoint { time, key: key.public(), previous, stores, ledgers: ledgers.collect() };
    let note = key.sign_note(&checkpoint.to_text()).map_err(Failure::cannot)?;
    let path = folder.join(format!("{}{ENDING}", name_of(time)));
    write_new_file(&**disk, &path, note.as_bytes())?;
    Ok(Written { path, note, damage })
}

/// `20261128T150000Z`.
fn name_of(time: i64) -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let time = OffsetDateTime::from_unix_timestamp(time).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(format).unwrap_or_default()
}

fn time_of(name: &str) -> Option<i64> {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    PrimitiveDateTime::parse(name, format).ok().map(|time| time.assume_utc().unix_timestamp())
}

/// Every checkpoint in a folder, the oldest first.
///
/// # Errors
/// The disk's.
pub fn list(folder: &Path, disk: &dyn Disk) -> Result<Vec<Listed>, Failure> {
    let entries = match disk.list(folder) {
        Err(error) if error.is_missing() => Vec::new(),
        other => other?,
    };
    let mut all: Vec<Listed> = entries
        .into_iter()
        .filter(|entry| entry.is_file)
        .filter_map(|entry| {
            let name = entry.name.strip_suffix(ENDING)?.to_owned();
            Some(Listed { time: time_of(&name)?, path: folder.join(&entry.name), name })
        })
        .collect();
    all.sort_by_key(|listed| listed.time);
    Ok(all)
}

/// The newest checkpoint in a folder.
///
/// # Errors
/// The disk's.
pub fn last(folder: &Path, disk: &dyn Disk) -> Result<Option<Listed>, Failure> {
    Ok(list(folder, disk)?.pop())
}

/// Whether it is time for another one.
///
/// # Errors
/// The disk's.
pub fn is_due(folder: &Path, interval: Duration, disk: &dyn Disk, now_ms: u64) -> Result<bool, Failure> {
    let now = i64::try_from(now_ms / 1000).unwrap_or_default();
    let interval = i64::try_from(interval.as_secs()).unwrap_or(i64::MAX);
    // One that lies in the future, by a clock that was wrong, holds up nothing.
    Ok(last(folder, disk)?.is_none_or(|last| last.time > now || now - last.time >= interval))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;

    #[test]
    fn names_are_times() {
        assert_eq!(name_of(1_795_878_000), "20261128T150000Z");
        assert_eq!(time_of("20261128T150000Z"), Some(1_795_878_000));
        assert_eq!(time_of("notes"), None);
    }

    #[test]
    fn due_once_per_interval() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (day, now) = (Duration::from_secs(86_400), 1_795_878_000_000);
        let due = |now| is_due(folder.path(), day, &LocalDisk, now).expect("lists");
        assert!(is_due(&folder.path().join("none"), day, &LocalDisk, now).expect("lists"));
        assert!(due(now));
        std::fs::write(folder.path().join("20261128T150000Z.checkpoint"), "x").expect("writes");
        std::fs::write(folder.path().join("readme"), "x").expect("writes");
        assert_eq!([now, now + 86_399_000, now + 86_400_000, now - 1000].map(due), [false, false, true, true]);
        assert_eq!(list(folder.path(), &LocalDisk).expect("lists").len(), 1);
    }
}
