//! The ledger: one append-only file per mailbox with a signed, chained entry per message that came or left
//! (`docs/formats/ledger.md`).
//!
//! Entries are numbered from 1 without gaps and stand back to back, so an entry's number gives its place. Nothing
//! already written is ever changed. The entry itself is [`postkeep_shared::receipt::Entry`].

mod append;
mod check;
mod header;
mod origin;
mod problem;
mod scan;

pub use append::{Head, Ledger, RESERVE};
pub use check::{Check, Waiting};
pub use header::{HEADER_LEN, Header};
pub use origin::{Origins, keep as keep_origin};
pub use problem::{Problem, ProblemKind};
pub use scan::{Scan, Slot, offset_of};

use postkeep_shared::disk::DiskError;
use std::path::PathBuf;

/// Why a ledger cannot be read or continued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file is not this mailbox's ledger.
    #[error("ledger {} {detail}; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Written by a later release.
    #[error("ledger {} holds entries of version {version}, this program reads version 1; use a newer release", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The entry's version.
        version: u8,
    },
}
