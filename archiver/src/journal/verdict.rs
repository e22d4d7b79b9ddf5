//! What was made of one message: the words and fields of `postkeep-archiver inspect --json` (interfaces.md).

use super::Content;
use serde::{Deserialize, Serialize};

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A report of Exchange 2007 or later, Microsoft 365, or one with the same form.
    JournalReport,
    /// A report of Exchange 2003 or of a server that imitates it.
    #[serde(rename = "journal-report-ex2003")]
    JournalReportEx2003,
    /// A delivery failure notice that returns a report.
    NdrOfJournalReport,
    /// It says that it is a report, but envelope or original cannot be used.
    MalformedJournal,
    /// A copy made by Zimbra's legal intercept.
    ZimbraIntercept,
    /// Any other message.
    PlainMessage,
}

/// What is to be done with a message. Nothing is ever dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handling {
    /// Archive the content for the owners.
    Archive,
    /// Archive the whole message as it came, flagged: its envelope or its original cannot be used.
    ArchiveAsIs,
    /// Hold it and raise an alarm: source not authenticated, truncated or contradictory.
    Quarantine,
}

/// How a recipient was addressed, as far as the mail server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecipientKind {
    /// In To.
    To,
    /// In Cc.
    Cc,
    /// In Bcc.
    Bcc,
    /// Not said; may be a blind copy.
    Unspecified,
}

/// One address a message was delivered to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Recipient {
    /// The address as written, without angle brackets. May be an encapsulated X.500 name.
    pub address: String,
    /// How it was addressed.
    #[serde(rename = "type")]
    pub kind: RecipientKind,
    /// The distribution group this address is a member of: metadata, not an owner.
    pub expanded_from: Option<String>,
    /// The user whose mail was redirected here: metadata, not an owner.
    pub forwarded_from: Option<String>,
}

/// What else is in a report beside the content to archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The rights-protected message whose clear copy is archived.
    ProtectedOriginal,
}

/// What was made of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What it is.
    pub kind: Kind,
    /// What is to be done with it.
    pub handling: Handling,
    /// Why, for people.
    pub reason: String,
    /// Oddities that were tolerated, for people.
    pub warnings: Vec<String>,
    /// Envelope sender; empty for the null sender, `None` when unknown.
    pub sender: Option<String>,
    /// The user a delegate sent for.
    pub on_behalf_of: Option<String>,
    /// In the order of the envelope.
    pub recipients: Vec<Recipient>,
    /// From the envelope of a report, from the header of another message; decoded.
    pub subject: Option<String>,
    /// With its angle brackets.
    pub message_id: Option<String>,
    /// What is to be archived; the whole message for [`Handling::ArchiveAsIs`], `None` in quarantine.
    pub content: Option<Content>,
    /// What is kept beside it.
    pub alternates: Vec<(Role, Content)>,
    /// Octets of the embedded message, where the content is one.
    pub embedded_size: Option<u64>,
    /// The content's own date, seconds since 1970-01-01 UTC; `None` when it has none that can be read.
    pub date: Option<i64>,
}
