//! What can go wrong with a store, and how a command ends because of it.

use postkeep_shared::{
    disk::DiskError,
    run::{Exit, Failure},
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why an operation on a store did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The unlock key or the recovery passphrase is another one than the store was made with.
    #[error("the {with} does not open the store in {}; use the one it was made with", store.display())]
    WrongKey {
        /// `unlock key` or `recovery passphrase`.
        with: &'static str,
        /// The store's folder.
        store: PathBuf,
    },
    /// `store.toml` is older than what was written with it.
    #[error(
        "{} is sealed with the keys of epoch {epoch}, which the store.toml of its store does not hold; bring back the \
         store.toml that `store rotate` wrote, from a backup made after it. Nothing was changed",
        path.display()
    )]
    KeysMissing {
        /// A file that does not open.
        path: PathBuf,
        /// The key epoch that its header names.
        epoch: u32,
    },
    /// Reading or writing failed; [`DiskError::is_full`] tells whether space ran out.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file of the store does not hold what it must.
    #[error("{} is damaged at octet {offset}: {detail}; `store verify` lists everything concerned", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was expected.
        detail: String,
    },
    /// A chunk that messages need is in no pack.
    #[error("chunk {0} is in no pack; restore the missing pack file, then run `store rebuild-catalog`")]
    ChunkMissing(String),
    /// Written by a newer release.
    #[error("{} has version {version}, this program reads versions up to {newest}; use a newer release", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: u32,
        /// The newest version that this program reads.
        newest: u32,
    },
    /// No message has this id.
    #[error("no message has the id {0}; `list` shows the ids")]
    NoSuchMessage(String),
    /// A person took the message out of the archive.
    #[error("message {id} was deleted on {when} by {who}: {reason}")]
    Deleted {
        /// The message.
        id: String,
        /// RFC 3339 in UTC.
        when: String,
        /// The user who ran the program.
        who: String,
        /// What was said.
        reason: String,
    },
    /// The message is not in this archive.
    #[error("message {id} is not in the archive of {owner}; `list --owner {owner}` shows what is")]
    NotThere {
        /// The message.
        id: String,
        /// The owner.
        owner: String,
    },
    /// There is a store already.
    #[error("there is a store in {} already; nothing was changed", .0.display())]
    Present(PathBuf),
    /// There is no store.
    #[error("there is no store in {}; `init` makes one", .0.display())]
    Absent(PathBuf),
    /// A key file that cannot be used.
    #[error("{}: {detail}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        detail: String,
    },
    /// Packs that tell of more records than there are.
    #[error("records of the store in {} are gone, their copies in its packs are not; `store rebuild-records` makes them again", .0.display())]
    RecordsMissing(PathBuf),
    /// There is no escrow.
    #[error("the store in {} has no escrow; `store rekey --escrow` sets one", .0.display())]
    NoEscrow(PathBuf),
    /// Not an age recipient.
    #[error("not an age recipient; it begins with age1 and comes from `age-keygen`")]
    Recipient,
    /// The store may not be changed.
    #[error("the store in {} is {state}; `store set-state` changes that", dir.display())]
    Protected {
        /// The store's folder.
        dir: PathBuf,
        /// Its state.
        state: String,
    },
    /// The catalog cannot be used; it can always be rebuilt.
    #[error("the catalog in {}: {detail}; if it stays, run `store rebuild-catalog`", path.display())]
    Catalog {
        /// The catalog's folder.
        path: PathBuf,
        /// What happened.
        detail: String,
    },
    /// An entry of the catalog does not open.
    #[error("an entry of the catalog is damaged or of another store; run `store rebuild-catalog`")]
    CatalogDamaged,
    /// Another process has the catalog open.
    #[error("another process has the catalog in {} open; wait until it is done and try again", .0.display())]
    CatalogInUse(PathBuf),
    /// One of several stores cannot be used.
    #[error("store {name}: {error}; `store set-state {name} disabled` goes on without it")]
    Member {
        /// Its name.
        name: String,
        /// Why.
        error: Box<StoreError>,
    },
    /// A store of a copy cannot be used.
    #[error("the copy of store {name}: {error}")]
    Copy {
        /// Its name.
        name: String,
        /// Why.
        error: Box<StoreError>,
    },
    /// No store takes new mail.
    #[error("no store takes new mail; choose one with `store set-state NAME current`")]
    NoCurrent,
    /// Nothing may be changed in this store.
    #[error("store {0} is write-protected; run `store set-state {0} normal` first")]
    WriteProtected(String),
    /// No store has this name.
    #[error("there is no store `{0}`; `store list` shows them")]
    NoSuchStore(String),
    /// What was asked for cannot be done with this store; nothing was changed.
    #[error("store {name}: {detail}; nothing was changed")]
    Refused {
        /// Its name.
        name: String,
        /// Why, and what to do.
        detail: String,
    },
    /// A message could not be written to where it was asked for.
    #[error("cannot write the message out: {0}")]
    Output(io::Error),
    /// Opened for reading only.
    #[error("the store was opened for reading; stop the running archiver first and try again")]
    ReadOnly,
    /// The message to be stored could not be read.
    #[error("cannot read the message to be stored: {0}")]
    Input(#[from] io::Error),
    /// What was read back is not what was stored.
    #[error("report {uidl} read back from the disk differs from what was stored: {detail}")]
    ReadBack {
        /// The report.
        uidl: String,
        /// What differs.
        detail: String,
    },
    /// An earlier write or sync failed: what the files hold is not known until the program starts again.
    #[error("the store takes nothing more since this failed: {0}; mend the cause and start again")]
    Failed(String),
}

/// Result of a store operation.
pub type StoreResult<T> = Result<T, StoreError>;

impl StoreError {
    /// Damage at a place of a file.
    pub(crate) fn damaged(path: &Path, offset: u64, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), offset, detail: detail.into() }
    }

    /// Whether space ran out: making room helps, nothing is damaged.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Disk(error) if error.is_full())
    }

    /// Whether stored octets are damaged or missing.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::ChunkMissing(_) | Self::ReadBack { .. })
    }

    /// Whether the reader's message, not the store, was at fault.
    #[must_use]
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Input(_))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(exit(&error), error.to_string())
    }
}

/// How a command ends because of it.
fn exit(error: &StoreError) -> Exit {
    match error {
        StoreError::WrongKey { .. } | StoreError::KeysMissing { .. } => Exit::WrongKey,
        StoreError::NoSuchMessage(_) | StoreError::NoSuchStore(_) => Exit::Usage,
        StoreError::Deleted { .. } | StoreError::NotThere { .. } => Exit::Usage,
        StoreError::Recipient | StoreError::NoEscrow(_) => Exit::Usage,
        StoreError::Member { error, .. } | StoreError::Copy { error, .. } => exit(error),
        StoreError::Present(_) | StoreError::Refused { .. } => Exit::Refused,
        StoreError::Protected { .. } | StoreError::WriteProtected(_) => Exit::Refused,
        StoreError::Damaged { .. }
        | StoreError::ChunkMissing(_)
        | StoreError::ReadBack { .. }
        | StoreError::RecordsMissing(_) => Exit::Attention,
        _ => Exit::Cannot,
    }
}
