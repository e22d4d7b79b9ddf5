//! What can go wrong in the spool.

use crate::{ledger::LedgerError, mailbox::MailboxError, node::NodeError};
use postkeep_shared::{
    disk::DiskError,
    mail::Uidl,
    run::{Exit, Failure},
};
use std::path::PathBuf;

/// A spool operation that did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// Space, quota or inodes ran out; waiting or collecting helps. SMTP: 452.
    #[error("no space: {0}")]
    Full(String),
    /// Another client has the mailbox open.
    #[error("the mailbox is open in another session")]
    InUse,
    /// Storage has failed: nothing is written any more until the program was restarted. SMTP: 451, POP3: SYS/PERM.
    #[error("storage has stopped: {0}; find the cause, then restart the gateway")]
    Failed(String),
    /// The disk failed the test of the start: what waits can be read, nothing is written. SMTP: 451, POP3: SYS/TEMP.
    #[error(
        "the disk is not fit to be written to: {0}; mail can be collected, but none is taken and none removed; mend it, then restart the gateway"
    )]
    ReadOnly(String),
    /// A sealed file is not what its entry says.
    #[error("message {uidl} is damaged: {detail}")]
    Damaged {
        /// The message.
        uidl: Uidl,
        /// What was found.
        detail: String,
    },
    /// The sealed file is gone.
    #[error("message {uidl} is in the ledger but its file is missing")]
    Missing {
        /// The message.
        uidl: Uidl,
    },
    /// The sealed file is for another key.
    #[error("message {uidl} is sealed for another key")]
    WrongKey {
        /// The message.
        uidl: Uidl,
    },
    /// The session has no message of this number.
    #[error("no such message")]
    NoSuchMessage,
    /// The mailbox was suspended or deleted while the message was about to arrive.
    #[error("the mailbox takes no mail now")]
    Suspended,
    /// Another number of messages waits than was named.
    #[error("{found} messages wait and not {asked}; nothing was removed")]
    Count {
        /// What was named.
        asked: u64,
        /// What waits.
        found: u64,
    },
    /// Nothing to move from.
    #[error("{} is not the data folder of another node", .0.display())]
    NotAnother(PathBuf),
    /// Another process serves this data directory.
    #[error("{} is in use by another postkeep-gateway; stop that one first", .0.display())]
    Locked(PathBuf),
    /// A file operation failed; nothing was lost.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A mailbox definition cannot be used.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    /// The node key cannot be used.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A ledger cannot be read or continued.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The index cannot be used; stop the gateway and delete the folder, it is rebuilt at start.
    #[error("index {}: {detail}; stop the gateway and delete that folder, it is rebuilt at start", path.display())]
    Index {
        /// The index folder.
        path: PathBuf,
        /// What sled said.
        detail: String,
    },
}

impl SpoolError {
    /// Whether space ran out (SMTP 452), as opposed to any other trouble (451).
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full(_) => true,
            Self::Disk(e) | Self::Ledger(LedgerError::Disk(e)) => e.is_full(),
            _ => false,
        }
    }
}

impl From<SpoolError> for Failure {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Damaged { .. } | SpoolError::Missing { .. } => Self::new(Exit::Attention, error.to_string()),
            SpoolError::WrongKey { .. } => Self::wrong_key(error),
            SpoolError::Count { .. } => Self::refused(error),
            SpoolError::NotAnother(_) => Self::usage(error),
            SpoolError::Mailbox(e) => e.into(),
            _ => Self::cannot(error),
        }
    }
}
