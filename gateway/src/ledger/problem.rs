//! What a person should look at.

use postkeep_shared::mail::{MailboxId, Uidl};

/// Something that is not as it should be; the service goes on all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: ProblemKind,
    /// The mailbox concerned.
    pub mailbox: MailboxId,
    /// The message concerned, where one is.
    pub uidl: Option<Uidl>,
    /// The entry's number, where one is.
    pub seq: Option<u64>,
    /// One sentence: what is wrong and where.
    pub detail: String,
}

/// Kinds of [`Problem`]; written in JSON as [`ProblemKind::name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProblemKind {
    /// An entry without file.
    MissingFile,
    /// A file without entry.
    UnrecordedFile,
    /// A file that is not what its entry says.
    DamagedFile,
    /// Octets in a ledger that are no entry.
    DamagedEntry,
    /// An entry whose number or previous hash does not continue the chain.
    BrokenChain,
    /// An entry whose signature is wrong or by another node.
    WrongSignature,
    /// An entry that makes no sense: a removal of something that is not there.
    Contradiction,
    /// A ledger file whose header is wrong.
    DamagedLedger,
    /// Octets behind the last whole entry, left by a crash.
    TornTail,
    /// A mailbox definition that cannot be used, or a spool without definition.
    MailboxDefinition,
}

impl ProblemKind {
    /// The kind as printed: `missing-file` …
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingFile => "missing-file",
            Self::UnrecordedFile => "unrecorded-file",
            Self::DamagedFile => "damaged-file",
            Self::DamagedEntry => "damaged-entry",
            Self::BrokenChain => "broken-chain",
            Self::WrongSignature => "wrong-signature",
            Self::Contradiction => "contradiction",
            Self::DamagedLedger => "damaged-ledger",
            Self::TornTail => "torn-tail",
            Self::MailboxDefinition => "mailbox-definition",
        }
    }
}
