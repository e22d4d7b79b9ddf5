//! Where things are in the data directory (`docs/formats/spool.md`).

use postkeep_shared::{
    disk::{self, Disk, DiskResult},
    mail::{MailboxId, Uidl},
};
use std::path::{Path, PathBuf};

/// The paths of one data directory.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

/// The folders of one mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// Messages being written.
    Tmp,
    /// Messages waiting.
    New,
    /// Messages removed by a client, for some days.
    Trash,
    /// Files that do not belong where they were found.
    Quarantine,
}

impl Folder {
    const ALL: [Self; 4] = [Self::Tmp, Self::New, Self::Trash, Self::Quarantine];

    fn name(self) -> &'static str {
        match self {
            Self::Tmp => "tmp",
            Self::New => "new",
            Self::Trash => "trash",
            Self::Quarantine => "quarantine",
        }
    }
}

impl Layout {
    /// The layout below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The data directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Held by the one process that serves.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Space kept for the moment when the disk is full.
    #[must_use]
    pub fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    /// The index folder.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// All ledgers.
    #[must_use]
    pub fn ledgers(&self) -> PathBuf {
        self.root.join("ledger")
    }

    /// One mailbox's ledger.
    #[must_use]
    pub fn ledger(&self, mailbox: MailboxId) -> PathBuf {
        self.ledgers().join(format!("{mailbox}.ledger"))
    }

    /// All mailboxes' folders.
    #[must_use]
    pub fn spools(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// One folder of one mailbox.
    #[must_use]
    pub fn folder(&self, mailbox: MailboxId, folder: Folder) -> PathBuf {
        self.spools().join(mailbox.to_string()).join(folder.name())
    }

    /// One message in a folder.
    #[must_use]
    pub fn message(&self, mailbox: MailboxId, folder: Folder, uidl: Uidl) -> PathBuf {
        self.folder(mailbox, folder).join(uidl.to_string())
    }

    /// Makes a mailbox's folders where they are missing, each synced into its parent.
    ///
    /// # Errors
    /// [`disk::DiskError`].
    pub fn make_folders(&self, disk: &dyn Disk, mailbox: MailboxId) -> DiskResult<()> {
        Folder::ALL.into_iter().try_for_each(|folder| disk::create_dirs(disk, &self.folder(mailbox, folder)))
    }

    /// Mailboxes that have folders or a ledger here, sorted.
    ///
    /// # Errors
    /// [`disk::DiskError`].
    pub fn mailboxes(&self, disk: &dyn Disk) -> DiskResult<Vec<MailboxId>> {
        let mut ids: Vec<MailboxId> =
            names(disk, &self.ledgers())?.iter().filter_map(|n| n.strip_suffix(".ledger")?.parse().ok()).collect();
        ids.extend(names(disk, &self.spools())?.iter().filter_map(|n| n.parse::<MailboxId>().ok()));
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

fn names(disk: &dyn Disk, folder: &Path) -> DiskResult<Vec<String>> {
    match disk.list(folder) {
        Ok(entries) => Ok(entries.into_iter().map(|e| e.name).collect()),
        Err(e) if e.is_missing() => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}
