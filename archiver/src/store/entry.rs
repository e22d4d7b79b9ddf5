//! What a record says, as JSON (`docs/formats/record.md`). Field names are part of the format.

use super::{
    Outcome,
    recipe::{Hex, Recipe},
};
use crate::{
    filing::{Envelope, Instance, Reason},
    journal::{Handling, Kind, Recipient, Role, Verdict},
};
use data_encoding::{BASE64, HEXLOWER};
use postkeep_shared::receipt::{Entry, Evidence};
use serde::{Deserialize, Serialize};

/// How a report begins.
const REPORT: &[u8] = br#"{"record":"report","#;

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// A report with everything that is known of it.
    Report(Box<ReportRecord>),
    /// Ledger entries of a gateway.
    Ledger(LedgerRecord),
    /// What became of a report later (files of version 2).
    Filing(Box<FilingRecord>),
    /// A person took a message out of an archive (version 3).
    Deletion(Box<DeletionRecord>),
    /// Octets that are damaged beyond repair (version 3).
    Loss(Box<LossRecord>),
    /// Stands where a record was that is damaged beyond repair (version 3).
    Lost(LostRecord),
    /// Packs that were given up because others hold what is needed of them (version 3).
    Compaction(CompactionRecord),
    /// A report lies in another store now.
    Moved(Box<MovedRecord>),
}

impl Record {
    /// Reads the JSON of a record.
    ///
    /// # Errors
    /// What it is not.
    pub(crate) fn of(json: &[u8]) -> serde_json::Result<Self> {
        // Nearly all are reports. As a form of the enum one would be copied whole before the first field is looked at.
        if json.starts_with(REPORT) {
            return serde_json::from_slice(json).map(Self::Report);
        }
        serde_json::from_slice(json)
    }

    /// The messages that this record holds.
    #[must_use]
    pub fn messages(&self) -> &[MessageRecord] {
        match self {
            Self::Report(report) => &report.messages,
            Self::Filing(filing) => &filing.messages,
            Self::Ledger(_)
            | Self::Moved(_)
            | Self::Deletion(_)
            | Self::Loss(_)
            | Self::Lost(_)
            | Self::Compaction(_) => &[],
        }
    }
}

/// What names a report for ever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReportName {
    /// Source it was collected from.
    pub source: String,
    /// Mailbox it was collected from.
    pub mailbox: Option<String>,
    /// The name the host gave it.
    pub uidl: String,
}

/// What is no longer in the store from a record on. Worked out before, so that the catalog needs nothing else to follow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenOut {
    /// What all of it is about.
    pub identity: Hex<16>,
    /// Appearances.
    pub instances: Vec<Appearance>,
    /// Messages whose octets nobody needs any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Hex<16>>,
    /// Reports whose octets nobody needs any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reports: Vec<TakenReport>,
    /// Keyed names of the parts of both, one for each reference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Hex<16>>,
}

/// Owner and folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Appearance {
    /// Owner.
    pub owner: String,
    /// Folder.
    pub folder: String,
}

/// A report that is no longer needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenReport {
    /// Which.
    #[serde(flatten)]
    pub name: ReportName,
    /// Its addresses without an owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unowned: Vec<String>,
}

/// A message that a person took out of an owner's archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletionRecord {
    /// When, milliseconds since 1970-01-01 UTC.
    pub deleted_ms: u64,
    /// Who: the name of the user who ran the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Why.
    pub reason: String,
    /// The message.
    pub message: Hex<16>,
    /// SHA-256 of its octets.
    pub sha256: Hex<32>,
    /// What goes.
    pub out: TakenOut,
}

/// What could not be given back when a store was mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossRecord {
    /// When it was found, milliseconds since 1970-01-01 UTC.
    pub found_ms: u64,
    /// Messages that cannot be put together any more.
    pub messages: Vec<Hex<16>>,
    /// Reports that cannot be put together any more.
    pub reports: Vec<ReportName>,
}

/// Keeps the number of a record that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostRecord {
    /// When it was found, milliseconds since 1970-01-01 UTC.
    pub found_ms: u64,
}

/// What giving space back did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionRecord {
    /// When, milliseconds since 1970-01-01 UTC.
    pub done_ms: u64,
    /// Who ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Packs that were given up.
    pub packs: Vec<Hex<16>>,
    /// Chunks in them that nobody needed.
    pub chunks: u64,
}

/// A report: all that was known when it was stored, and how it is put together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportRecord {
    /// Source it was collected from.
    pub source: String,
    /// Host it was collected from.
    pub host: String,
    /// Mailbox it was collected from.
    pub mailbox: Option<String>,
    /// The name the host gave it.
    pub uidl: String,
    /// The gateway's receipt: 276 octets, base64 (`docs/formats/ledger.md`).
    pub receipt: Option<String>,
    /// What the gateway saw of the sender.
    pub evidence: Option<EvidenceRecord>,
    /// Milliseconds since 1970-01-01 UTC.
    pub collected_ms: u64,
    /// Where it went.
    pub outcome: Outcome,
    /// What was made of it.
    pub verdict: VerdictRecord,
    /// Own-domain addresses without an owner.
    pub unowned: Vec<String>,
    /// Where the message appears.
    pub instances: Vec<InstanceRecord>,
    /// The archived message.
    pub message: Option<Summary>,
    /// What else is in the report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternates: Vec<AlternateRecord>,
    /// Messages that no record before holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<MessageRecord>,
    /// The report itself.
    pub raw: RawRecord,
}

/// A verdict without places in the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// What it is.
    pub kind: Kind,
    /// What was done with it.
    pub handling: Handling,
    /// Why.
    pub reason: String,
    /// Oddities that were tolerated.
    pub warnings: Vec<String>,
    /// Envelope sender.
    pub sender: Option<String>,
    /// The user a delegate sent for.
    pub on_behalf_of: Option<String>,
    /// Envelope recipients.
    pub recipients: Vec<Recipient>,
    /// Subject.
    pub subject: Option<String>,
    /// Message-ID.
    pub message_id: Option<String>,
}

/// One appearance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// Owner.
    pub owner: String,
    /// Folder.
    pub folder: String,
    /// Why; empty where a person decided, in the catch-all archive, and in records of earlier builds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<Reason>,
    /// Another store of the archive had this appearance already when this was recorded: it is counted there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
}

impl From<&Instance> for InstanceRecord {
    fn from(instance: &Instance) -> Self {
        let Instance { owner, folder, because } = instance.clone();
        Self { owner, folder, because, known: false }
    }
}

/// What a listing shows of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Its id.
    pub id: Hex<16>,
    /// SHA-256 of its exact octets.
    pub sha256: Hex<32>,
    /// Octets.
    pub size: u64,
    /// The same for messages that differ only in how they travelled.
    pub identity: Hex<16>,
    /// Its own date, seconds since 1970-01-01 UTC.
    pub date: Option<i64>,
    /// Author's address.
    pub from: Option<String>,
    /// Addresses in To.
    pub to: Vec<String>,
    /// Decoded subject.
    pub subject: Option<String>,
}

/// Something else in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlternateRecord {
    /// What it is.
    pub role: Role,
    /// Its id.
    pub message: Hex<16>,
}

/// A message stored by this record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRecord {
    /// What it is.
    #[serde(flatten)]
    pub summary: Summary,
    /// How it is put together.
    pub recipe: Recipe,
    /// Its id in the store that it came from, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Hex<16>>,
}

/// The report as it was sent to the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawRecord {
    /// SHA-256 of its octets.
    pub sha256: Hex<32>,
    /// Octets.
    pub size: u64,
    /// How it is put together.
    pub recipe: Recipe,
}

/// Why a report was filed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FiledBy {
    /// Somebody owns an address now that nobody owned before.
    Refile,
    /// A dead letter that can be understood now.
    Retry,
    /// A person released it from quarantine.
    Release,
    /// A person rejected it; it stays kept whole and filed nowhere.
    Reject,
}

/// What became of a report after it was stored: by reference, without a second copy of anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilingRecord {
    /// Source, mailbox and uidl name the report.
    pub source: String,
    /// Mailbox of the report.
    pub mailbox: Option<String>,
    /// The report's name there.
    pub uidl: String,
    /// When the report was collected, milliseconds since 1970-01-01 UTC.
    pub collected_ms: u64,
    /// When this was decided, milliseconds since 1970-01-01 UTC.
    pub filed_ms: u64,
    /// Why it was filed again.
    pub by: FiledBy,
    /// Who decided, where a person did: the name of the user who ran the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// What the person said, where one decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where the report went with this.
    pub outcome: Outcome,
    /// What was made of the report, where it was looked at anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictRecord>,
    /// Addresses that are without an owner from now on: all of the report.
    pub unowned: Vec<String>,
    /// Addresses that were without an owner and are no longer.
    pub settled: Vec<String>,
    /// Where the message appears with this.
    pub instances: Vec<InstanceRecord>,
    /// The archived message.
    pub message: Option<Summary>,
    /// What else is in the report, where it was looked at anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternates: Vec<AlternateRecord>,
    /// Messages that no record before holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<MessageRecord>,
}

/// A report that was written to another store, whole and read back there: it counts there from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedRecord {
    /// Source, mailbox and uidl name the report.
    pub source: String,
    /// Mailbox of the report.
    pub mailbox: Option<String>,
    /// The report's name there.
    pub uidl: String,
    /// When, milliseconds since 1970-01-01 UTC.
    pub moved_ms: u64,
    /// The store that holds it now.
    pub to: Hex<16>,
    /// Octets of the report.
    pub size: u64,
    /// Identities of the messages that it brought.
    pub identities: Vec<Hex<16>>,
    /// Identity of the message that appears.
    pub appearance_of: Option<Hex<16>>,
    /// Appearances of it that no other report in this store brings.
    pub places: Vec<Appearance>,
    /// Appearances that it brought first and others bring too: they stay, and are counted where it went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Appearance>,
    /// Messages that no other report in this store needs.
    pub messages: Vec<Hex<16>>,
    /// Keyed names of the parts of both, one for each reference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Hex<16>>,
    /// Addresses of it that were without an owner at any time.
    pub unowned: Vec<String>,
}

impl From<&InstanceRecord> for Appearance {
    fn from(instance: &InstanceRecord) -> Self {
        Self { owner: instance.owner.clone(), folder: instance.folder.clone() }
    }
}

/// Ledger entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRecord {
    /// Source they were collected from.
    pub source: String,
    /// Host they were collected from.
    pub host: String,
    /// 276 octets each, base64.
    pub entries: Vec<String>,
}

/// What the gateway saw of the sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceRecord {
    /// Mailbox the message was accepted for.
    pub mailbox: String,
    /// Name of the message.
    pub uidl: String,
    /// 32 octets, hex: with the report they give the receipt's digest.
    pub salt: String,
    /// Client address.
    pub ip: String,
    /// Reverse name of the client.
    pub reverse_name: Option<String>,
    /// HELO or EHLO argument.
    pub helo: String,
    /// Reverse-path.
    pub mail_from: String,
    /// Forward-path.
    pub rcpt_to: String,
    /// TLS version and cipher suite.
    pub tls: Option<String>,
    /// Name in a verified client certificate.
    pub certificate: Option<String>,
    /// Whether the source rules fitted.
    pub verified: Option<bool>,
}

impl From<&Evidence> for EvidenceRecord {
    fn from(evidence: &Evidence) -> Self {
        Self {
            mailbox: evidence.mailbox.to_string(),
            uidl: evidence.uidl.to_string(),
            salt: HEXLOWER.encode(&evidence.salt),
            ip: evidence.ip.clone(),
            reverse_name: evidence.reverse_name.clone(),
            helo: evidence.helo.clone(),
            mail_from: evidence.mail_from.clone(),
            rcpt_to: evidence.rcpt_to.clone(),
            tls: evidence.tls.clone(),
            certificate: evidence.certificate.clone(),
            verified: evidence.verified,
        }
    }
}

impl VerdictRecord {
    /// What filing asks of it; the date is the message's.
    #[must_use]
    pub fn envelope(&self, date: Option<i64>) -> Envelope<'_> {
        Envelope {
            handling: self.handling,
            sender: self.sender.as_deref(),
            on_behalf_of: self.on_behalf_of.as_deref(),
            recipients: &self.recipients,
            date,
        }
    }
}

impl From<&Verdict> for VerdictRecord {
    fn from(verdict: &Verdict) -> Self {
        Self {
            kind: verdict.kind,
            handling: verdict.handling,
            reason: verdict.reason.clone(),
            warnings: verdict.warnings.clone(),
            sender: verdict.sender.clone(),
            on_behalf_of: verdict.on_behalf_of.clone(),
            recipients: verdict.recipients.clone(),
            subject: verdict.subject.clone(),
            message_id: verdict.message_id.clone(),
        }
    }
}

/// A ledger entry as records hold it.
#[must_use]
pub fn encode_entry(entry: &Entry) -> String {
    BASE64.encode(&entry.encode())
}

/// Undoes [`encode_entry`].
#[must_use]
pub fn decode_entry(text: &str) -> Option<Entry> {
    BASE64.decode(text.as_bytes()).ok().and_then(|octets| Entry::decode(&octets).ok())
}
