//! The list of collected messages: one bit for each number of a gateway's ledger whose message was once stored and read
//! back here (`docs/formats/collected.md`).
//!
//! It proves nothing and decides nothing about deletions; the store's records do. It tells apart two losses that look the
//! same from the ledger: a message that somebody else removed from the gateway, and one whose record the store has lost.
//! 128 KiB per million messages. A list that is gone or cannot be read is begun anew from what the store holds.

use postkeep_shared::{
    disk::{Disk, DiskResult, create_dirs, replace_file},
    mail::Digest,
    receipt::NodeKey,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

const FOLDER: &str = "collected";
const MAGIC: &[u8; 8] = b"PKCOLL01";
/// Octets of a digest over the bits.
const SUM: usize = 8;
/// No list is larger: 8 thousand million numbers.
const LIMIT: u64 = 1 << 30;
/// Numbers from here on are not listed: no ledger is so long, and the list would be larger than [`LIMIT`].
const MAX_NUMBER: u64 = (LIMIT - 64) * 8;

/// The lists of a data folder. Changed lists are written by [`Self::save`].
#[derive(Debug, Default)]
pub struct CollectedList {
    dir: PathBuf,
    lists: BTreeMap<String, Vec<u8>>,
    changed: BTreeSet<String>,
}

impl CollectedList {
    /// The lists of the data folder `data`; each is read when it is first asked for.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self { dir: data.join(FOLDER), ..Self::default() }
    }

    /// Notes that the messages with these numbers were stored and read back.
    pub fn add(
        &mut self,
        disk: &dyn Disk,
        source: &str,
        mailbox: &str,
        node: NodeKey,
        numbers: impl Iterator<Item = u64>,
    ) {
        let name = name(source, mailbox, node);
        let bits = Self::list(&self.dir, &mut self.lists, disk, &name);
        let mut changed = false;
        for number in numbers.filter(|number| *number < MAX_NUMBER) {
            let (at, bit) = place(number);
            if bits.len() <= at {
                bits.resize(at + 1, 0);
            }
            if let Some(octet) = bits.get_mut(at).filter(|octet| **octet & bit == 0) {
                *octet |= bit;
                changed = true;
            }
        }
        if changed {
            self.changed.insert(name);
        }
    }

    /// Whether the message with this number was ever stored.
    pub fn has(&mut self, disk: &dyn Disk, source: &str, mailbox: &str, node: NodeKey, number: u64) -> bool {
        let bits = Self::list(&self.dir, &mut self.lists, disk, &name(source, mailbox, node));
        let (at, bit) = place(number);
        bits.get(at).is_some_and(|octet| octet & bit != 0)
    }

    fn list<'a>(dir: &Path, lists: &'a mut BTreeMap<String, Vec<u8>>, disk: &dyn Disk, name: &str) -> &'a mut Vec<u8> {
        lists.entry(name.to_owned()).or_insert_with(|| read(dir, disk, name))
    }

    /// Writes every list that has changed, together with what others have added to its file since it was read.
    ///
    /// # Errors
    /// The disk's; what was written stays written.
    pub fn save(&mut self, disk: &dyn Disk) -> DiskResult<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        create_dirs(disk, &self.dir)?;
        let lock = crate::reconcile::memory_lock(self.dir.parent().unwrap_or(Path::new(".")), disk)?;
        while let Some(name) = self.changed.first().cloned() {
            let mut bits = self.lists.get(&name).cloned().unwrap_or_default();
            for (at, octet) in read(&self.dir, disk, &name).into_iter().enumerate() {
                match bits.get_mut(at) {
                    Some(bit) => *bit |= octet,
                    None => bits.push(octet),
                }
            }
            let sum = Digest::of(&bits).0;
            let octets = [MAGIC.as_slice(), sum.get(..SUM).unwrap_or_default(), &bits].concat();
            replace_file(disk, &self.dir.join(&name), &octets)?;
            self.changed.remove(&name);
        }
        drop(lock);
        Ok(())
    }
}

fn place(number: u64) -> (usize, u8) {
    (usize::try_from(number / 8).unwrap_or(usize::MAX), 1 << (number % 8))
}

/// One file per source, mailbox and node. Names of sources and mailboxes are made of harmless characters.
fn name(source: &str, mailbox: &str, node: NodeKey) -> String {
    format!("{source}.{mailbox}.{}.bits", node.id())
}

fn read(dir: &Path, disk: &dyn Disk, name: &str) -> Vec<u8> {
    let path = dir.join(name);
    let octets = match disk.read(&path, LIMIT) {
        Err(error) if error.is_missing() => return Vec::new(),
        Err(error) => {
            tracing::warn!("{error}; the list of collected messages is begun anew");
            return Vec::new();
        }
        Ok(octets) => octets,
    };
    let rest = octets.strip_prefix(MAGIC).and_then(|rest| rest.split_at_checked(SUM));
    match rest {
        Some((sum, bits)) if Digest::of(bits).0.starts_with(sum) => bits.to_vec(),
        _ => {
            tracing::warn!("{} is damaged; the list of collected messages is begun anew", path.display());
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postkeep_shared::disk::LocalDisk;

    #[test]
    fn kept_over_restarts_and_merged_with_what_others_wrote() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (data, node) = (folder.path(), NodeKey([1; 32]));
        let (mut one, mut two) = (CollectedList::new(data), CollectedList::new(data));
        one.add(&LocalDisk, "s", "mbx", node, std::iter::once(1));
        two.add(&LocalDisk, "s", "mbx", node, std::iter::once(70));
        one.save(&LocalDisk).expect("writes");
        two.save(&LocalDisk).expect("writes");
        let mut read = CollectedList::new(data);
        let known = |list: &mut CollectedList, n| list.has(&LocalDisk, "s", "mbx", node, n);
        assert_eq!(
            [0, 1, 2, 69, 70, 71, 1_000_000].map(|n| known(&mut read, n)),
            [false, true, false, false, true, false, false]
        );
        assert!(!read.has(&LocalDisk, "s", "mbx", NodeKey([2; 32]), 1));
        // Damaged: begun anew.
        let file = data.join(FOLDER).join(name("s", "mbx", node));
        let mut octets = std::fs::read(&file).expect("reads");
        *octets.last_mut().expect("is long") ^= 1;
        std::fs::write(&file, octets).expect("writes");
        let mut damaged = CollectedList::new(data);
        assert!(!known(&mut damaged, 1));
        damaged.add(&LocalDisk, "s", "mbx", node, std::iter::once(2));
        damaged.save(&LocalDisk).expect("writes");
        assert!(known(&mut CollectedList::new(data), 2));
    }

    #[test]
    fn the_example_of_the_page() {
        let page = include_str!("../../../docs/formats/collected.md");
        let (_, rest) = page.split_once("```text example\n").expect("the page has it");
        let octets = data_encoding::HEXLOWER.decode(rest.split_once('\n').expect("a line").0.as_bytes()).expect("hex");
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut list = CollectedList::new(folder.path());
        list.add(&LocalDisk, "s", "mbx", NodeKey([1; 32]), 1..=3);
        list.save(&LocalDisk).expect("writes");
        let file = folder.path().join(FOLDER).join(name("s", "mbx", NodeKey([1; 32])));
        assert_eq!(std::fs::read(file).expect("reads"), octets);
    }

    #[test]
    fn nothing_is_written_when_nothing_is_new() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut list = CollectedList::new(folder.path());
        list.save(&LocalDisk).expect("nothing to do");
        assert!(!folder.path().join(FOLDER).exists());
    }
}
