//! What each record puts into the catalog. The same code runs when a report is added and when a catalog is rebuilt,
//! so both end with the same pairs.

use super::{
    Listed, StoreResult,
    catalog::{Space, View},
    entry::{
        AlternateRecord, FilingRecord, LedgerRecord, LossRecord, MessageRecord, MovedRecord, Record, ReportRecord,
        Summary, TakenOut, decode_entry, encode_entry,
    },
    keyring::Keyring,
    recipe::{Part, Recipe},
    report::Outcome,
};
use crate::filing::{CATCH_ALL, FOLDER_UNKNOWN};
use postkeep_shared::receipt::Entry;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Where a message's recipe is, and what a listing shows of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MessageEntry {
    pub(crate) summary: Summary,
    /// Number of the record that holds its recipe.
    pub(crate) record: u64,
    /// Place within that record.
    pub(crate) slot: usize,
}

/// One appearance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct InstanceEntry {
    pub(crate) date: Option<i64>,
    pub(crate) listed: Listed,
    /// Another store had it first, and counts it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) known: bool,
}

/// A collected report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CollectedEntry {
    pub(crate) record: u64,
    pub(crate) source: String,
    pub(crate) host: String,
    pub(crate) mailbox: Option<String>,
    pub(crate) uidl: String,
    pub(crate) receipt: Option<String>,
    pub(crate) raw_sha256: super::recipe::Hex<32>,
    pub(crate) size: u64,
    pub(crate) outcome: Outcome,
    pub(crate) collected_ms: u64,
    /// Appearances that are new with it.
    pub(crate) appearances: u64,
    /// Its octets are not here any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gone: Option<Gone>,
}

/// Why octets are not here any more, and since which record. What a later record holds of them counts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gone {
    pub(crate) record: u64,
    /// Damaged beyond repair; else a person decided so.
    pub(crate) lost: bool,
}

impl Gone {
    pub(crate) fn encode(self) -> Vec<u8> {
        [&[u8::from(self.lost)][..], &self.record.to_be_bytes()].concat()
    }

    pub(crate) fn decode(octets: &[u8]) -> Option<Self> {
        let (lost, record) = octets.split_first_chunk::<1>()?;
        Some(Self { record: u64::from_be_bytes(record.try_into().ok()?), lost: *lost == [1] })
    }
}

/// An address without an owner, for one message and report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct UnownedEntry {
    pub(crate) address: String,
    /// Message id.
    pub(crate) message: super::recipe::Hex<16>,
    /// Number of the report's record.
    pub(crate) record: u64,
}

/// Running numbers.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) reports: u64,
    pub(crate) bytes_in: u64,
    pub(crate) messages: u64,
    pub(crate) instances: u64,
    pub(crate) parts: u64,
    pub(crate) part_references: u64,
    /// Octets of all messages.
    pub(crate) message_bytes: u64,
}

/// The first 16 octets of a keyed name: enough that no two fields meet by chance.
pub(crate) fn short(keys: &Keyring, purpose: &str, fields: &[&[u8]]) -> [u8; 16] {
    let name = keys.name(purpose, fields);
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(name) {
        *to = from;
    }
    out
}

pub(crate) fn owner_key(keys: &Keyring, owner: &str) -> [u8; 16] {
    short(keys, "owner", &[owner.as_bytes()])
}

pub(crate) fn source_key(keys: &Keyring, source: &str) -> [u8; 16] {
    short(keys, "source", &[source.as_bytes()])
}

pub(crate) fn report_key(keys: &Keyring, mailbox: Option<&str>, uidl: &str) -> [u8; 16] {
    let (some, mailbox) = mailbox.map_or((&[0][..], ""), |mailbox| (&[1], mailbox));
    short(keys, "report", &[some, mailbox.as_bytes(), uidl.as_bytes()])
}

pub(crate) fn address_key(keys: &Keyring, address: &str) -> [u8; 16] {
    short(keys, "address", &[address.as_bytes()])
}

pub(crate) fn place_key(keys: &Keyring, owner: &str, folder: &str, identity: &[u8; 16]) -> [u8; 16] {
    short(keys, "instance", &[owner.as_bytes(), folder.as_bytes(), identity])
}

pub(crate) fn ledger_key(keys: &Keyring, mailbox: &str, node: &[u8; 32]) -> [u8; 16] {
    short(keys, "ledger", &[mailbox.as_bytes(), node])
}

/// Puts what record `number` says into the view. Returns how many appearances were new.
pub(crate) fn apply(view: &mut View<'_>, totals: &mut Totals, number: u64, record: &Record) -> StoreResult<u64> {
    match record {
        Record::Report(report) => apply_report(view, totals, number, report),
        Record::Ledger(ledger) => apply_ledger(view, ledger).map(|()| 0),
        Record::Filing(filing) => apply_filing(view, totals, number, filing),
        Record::Moved(moved) => apply_moved(view, totals, moved).map(|()| 0),
        Record::Deletion(deletion) => take_out(view, totals, number, &deletion.out).map(|()| 0),
        Record::Loss(loss) => apply_loss(view, number, loss).map(|()| 0),
        Record::Compaction(compaction) => {
            compaction.packs.iter().for_each(|pack| view.remove(Space::Packs, &[&pack.0]));
            Ok(0)
        }
        Record::Lost(_) => Ok(0),
    }
}

/// Takes appearances out, and the octets that nobody needs because of it.
pub(crate) fn take_out(view: &mut View<'_>, totals: &mut Totals, number: u64, out: &TakenOut) -> StoreResult<()> {
    let identity = &out.identity.0;
    for instance in &out.instances {
        let owner = owner_key(view.keys, &instance.owner);
        let place = place_key(view.keys, &instance.owner, &instance.folder, identity);
        if let Some(entry) = view.get::<InstanceEntry>(Space::Instances, &[&owner, &place])? {
            view.remove(Space::Instances, &[&owner, &place]);
            totals.instances = totals.instances.saturating_sub(u64::from(!entry.known));
        }
        if instance.owner == CATCH_ALL {
            view.keys(Space::CatchAll, &[identity])?.into_iter().for_each(|key| view.remove_key(key));
        }
        if !view.has_any(Space::Instances, &[&owner])? {
            view.remove(Space::Owners, &[&owner]);
        }
    }
    let gone = Gone { record: number, lost: false };
    for id in &out.messages {
        if let Some(entry) = view.get::<MessageEntry>(Space::Messages, &[&id.0])? {
            view.remove(Space::Messages, &[&id.0]);
            view.remove(Space::Variants, &[&entry.summary.identity.0, &id.0]);
            totals.messages = totals.messages.saturating_sub(1);
            totals.message_bytes = totals.message_bytes.saturating_sub(entry.summary.size);
        }
        view.put_clear(Space::Gone, &[&id.0], gone.encode());
    }
    out.parts.iter().try_for_each(|part| forget_part(view, totals, &part.0))?;
    for report in &out.reports {
        let name = Name::new(view.keys, &report.name.source, report.name.mailbox.as_deref(), &report.name.uidl);
        for address in &report.unowned {
            let address = address_key(view.keys, address);
            view.remove(Space::Unowned, &[&address, identity, &name.source, &name.report]);
        }
        view.remove(Space::CatchAll, &[identity, &name.source, &name.report]);
        give_up_report(view, &name, gone)?;
    }
    Ok(())
}

fn give_up_report(view: &mut View<'_>, name: &Name, gone: Gone) -> StoreResult<()> {
    if let Some(mut collected) = view.get::<CollectedEntry>(Space::Collected, &[&name.source, &name.report])? {
        collected.gone = Some(gone);
        view.put(Space::Collected, &[&name.source, &name.report], &collected);
    }
    Ok(())
}

/// What is damaged beyond repair stays in the listings: that it was there is still true.
fn apply_loss(view: &mut View<'_>, number: u64, loss: &LossRecord) -> StoreResult<()> {
    let gone = Gone { record: number, lost: true };
    for id in &loss.messages {
        view.put_clear(Space::Gone, &[&id.0], gone.encode());
    }
    for report in &loss.reports {
        let name = Name::new(view.keys, &report.source, report.mailbox.as_deref(), &report.uidl);
        give_up_report(view, &name, gone)?;
    }
    Ok(())
}

/// Why a message's octets are not here any more, where that was recorded.
pub(crate) fn gone(view: &View<'_>, id: &[u8; 16]) -> StoreResult<Option<Gone>> {
    Ok(view.get_clear(Space::Gone, &[id])?.and_then(|octets| Gone::decode(&octets)))
}

/// Whether a message is stored, and not damaged beyond repair since.
pub(crate) fn is_stored(view: &View<'_>, id: &[u8; 16]) -> StoreResult<bool> {
    let Some(entry) = view.get::<MessageEntry>(Space::Messages, &[id])? else { return Ok(false) };
    Ok(gone(view, id)?.is_none_or(|gone| gone.record < entry.record))
}

fn apply_report(view: &mut View<'_>, totals: &mut Totals, number: u64, report: &ReportRecord) -> StoreResult<u64> {
    for (slot, message) in report.messages.iter().enumerate() {
        apply_message(view, totals, number, slot, message)?;
    }
    let name = Name::new(view.keys, &report.source, report.mailbox.as_deref(), &report.uidl);
    let before: Option<CollectedEntry> = view.get(Space::Collected, &[&name.source, &name.report])?;
    if before.as_ref().is_none_or(|before| before.raw_sha256 != report.raw.sha256) {
        count_parts(view, totals, &report.raw.recipe)?;
    }
    let mut fresh = 0;
    if let Some(message) = &report.message {
        for instance in &report.instances {
            fresh += u64::from(apply_instance(view, message, instance, report.collected_ms)?);
        }
        view.put_clear(Space::Envelopes, &[&message.identity.0, &number.to_be_bytes()], Vec::new());
        apply_unowned(view, message, &report.unowned, &name, number);
        // A dead letter is shown there too, until somebody owns it.
        if report.instances.iter().any(|instance| instance.owner == CATCH_ALL) {
            let fields: [&[u8]; 3] = [&message.identity.0, &name.source, &name.report];
            view.put_clear(Space::CatchAll, &fields, number.to_be_bytes().to_vec());
        }
    }
    apply_alternates(view, &report.alternates, number)?;
    totals.instances += fresh;
    apply_collected(view, totals, number, report, before, fresh)?;
    Ok(fresh)
}

/// What names a report, as keys.
struct Name {
    source: [u8; 16],
    report: [u8; 16],
}

impl Name {
    fn new(keys: &Keyring, source: &str, mailbox: Option<&str>, uidl: &str) -> Self {
        Self { source: source_key(keys, source), report: report_key(keys, mailbox, uidl) }
    }
}

fn apply_alternates(view: &mut View<'_>, alternates: &[AlternateRecord], number: u64) -> StoreResult<()> {
    for alternate in alternates {
        if let Some(entry) = view.get::<MessageEntry>(Space::Messages, &[&alternate.message.0])? {
            view.put_clear(Space::Envelopes, &[&entry.summary.identity.0, &number.to_be_bytes()], Vec::new());
        }
    }
    Ok(())
}

fn apply_unowned(view: &mut View<'_>, message: &Summary, unowned: &[String], name: &Name, record: u64) {
    for address in unowned {
        let key = address_key(view.keys, address);
        let entry = UnownedEntry { address: address.clone(), message: message.id, record };
        view.put(Space::Unowned, &[&key, &message.identity.0, &name.source, &name.report], &entry);
    }
}

/// What became of a report later. The report's own record is never changed.
fn apply_filing(view: &mut View<'_>, totals: &mut Totals, number: u64, filing: &FilingRecord) -> StoreResult<u64> {
    for (slot, message) in filing.messages.iter().enumerate() {
        apply_message(view, totals, number, slot, message)?;
    }
    let name = Name::new(view.keys, &filing.source, filing.mailbox.as_deref(), &filing.uidl);
    view.put_clear(Space::Filings, &[&name.source, &name.report, &number.to_be_bytes()], Vec::new());
    // A report that is not there was lost with a damaged record: nothing can be said of it.
    let collected: Option<CollectedEntry> = view.get(Space::Collected, &[&name.source, &name.report])?;
    let Some(mut collected) = collected else { return Ok(0) };
    let record = collected.record;
    let mut fresh = 0;
    if let Some(message) = &filing.message {
        for instance in &filing.instances {
            fresh += u64::from(apply_instance(view, message, instance, filing.collected_ms)?);
        }
        totals.instances += fresh;
        view.put_clear(Space::Envelopes, &[&message.identity.0, &record.to_be_bytes()], Vec::new());
        apply_unowned(view, message, &filing.unowned, &name, record);
        for address in &filing.settled {
            let key = address_key(view.keys, address);
            view.remove(Space::Unowned, &[&key, &message.identity.0, &name.source, &name.report]);
        }
        let fields: [&[u8]; 3] = [&message.identity.0, &name.source, &name.report];
        if filing.outcome == Outcome::CatchAll {
            view.put_clear(Space::CatchAll, &fields, record.to_be_bytes().to_vec());
        } else if view.has(Space::CatchAll, &fields)? {
            view.remove(Space::CatchAll, &fields);
            leave_catch_all(view, totals, &message.identity.0)?;
        }
    }
    apply_alternates(view, &filing.alternates, record)?;
    collected.outcome = filing.outcome;
    collected.appearances += fresh;
    view.put(Space::Collected, &[&name.source, &name.report], &collected);
    Ok(fresh)
}

/// A report that lies in another store now is here no more.
fn apply_moved(view: &mut View<'_>, totals: &mut Totals, moved: &MovedRecord) -> StoreResult<()> {
    let name = Name::new(view.keys, &moved.source, moved.mailbox.as_deref(), &moved.uidl);
    let fields: [&[u8]; 2] = [&name.source, &name.report];
    let Some(collected) = view.get::<CollectedEntry>(Space::Collected, &fields)? else { return Ok(()) };
    view.remove(Space::Collected, &fields);
    view.remove(Space::Held, &fields);
    view.put_clear(Space::Moved, &fields, Vec::new());
    totals.reports = totals.reports.saturating_sub(1);
    totals.bytes_in = totals.bytes_in.saturating_sub(moved.size);
    view.keys(Space::Filings, &fields)?.into_iter().for_each(|key| view.remove_key(key));
    for identity in &moved.identities {
        view.remove(Space::Envelopes, &[&identity.0, &collected.record.to_be_bytes()]);
        view.remove(Space::CatchAll, &[&identity.0, &name.source, &name.report]);
        for address in &moved.unowned {
            let address = address_key(view.keys, address);
            view.remove(Space::Unowned, &[&address, &identity.0, &name.source, &name.report]);
        }
    }
    for place in moved.places.iter().filter(|_| moved.appearance_of.is_some()) {
        let identity = moved.appearance_of.unwrap_or(super::recipe::Hex([0; 16]));
        let (owner, key) =
            (owner_key(view.keys, &place.owner), place_key(view.keys, &place.owner, &place.folder, &identity.0));
        if let Some(entry) = view.get::<InstanceEntry>(Space::Instances, &[&owner, &key])? {
            view.remove(Space::Instances, &[&owner, &key]);
            totals.instances = totals.instances.saturating_sub(u64::from(!entry.known));
        }
        if !view.has_any(Space::Instances, &[&owner])? {
            view.remove(Space::Owners, &[&owner]);
        }
    }
    for place in moved.kept.iter().filter(|_| moved.appearance_of.is_some()) {
        let identity = moved.appearance_of.unwrap_or(super::recipe::Hex([0; 16]));
        let (owner, key) =
            (owner_key(view.keys, &place.owner), place_key(view.keys, &place.owner, &place.folder, &identity.0));
        if let Some(entry) = view.get::<InstanceEntry>(Space::Instances, &[&owner, &key])?.filter(|one| !one.known) {
            view.put(Space::Instances, &[&owner, &key], &InstanceEntry { known: true, ..entry });
            totals.instances = totals.instances.saturating_sub(1);
        }
    }
    for id in &moved.messages {
        if let Some(entry) = view.get::<MessageEntry>(Space::Messages, &[&id.0])? {
            view.remove(Space::Messages, &[&id.0]);
            view.remove(Space::Variants, &[&entry.summary.identity.0, &id.0]);
            totals.messages = totals.messages.saturating_sub(1);
            totals.message_bytes = totals.message_bytes.saturating_sub(entry.summary.size);
        }
        view.put_clear(Space::Moved, &[&id.0], Vec::new());
    }
    moved.parts.iter().try_for_each(|part| forget_part(view, totals, &part.0))
}

/// A message that somebody owns is nobody's no more, unless another report of it still is.
fn leave_catch_all(view: &mut View<'_>, totals: &mut Totals, identity: &[u8; 16]) -> StoreResult<()> {
    let owner = owner_key(view.keys, CATCH_ALL);
    let place = place_key(view.keys, CATCH_ALL, FOLDER_UNKNOWN, identity);
    if view.has_any(Space::CatchAll, &[identity])? {
        return Ok(());
    }
    if let Some(entry) = view.get::<InstanceEntry>(Space::Instances, &[&owner, &place])? {
        view.remove(Space::Instances, &[&owner, &place]);
        totals.instances = totals.instances.saturating_sub(u64::from(!entry.known));
    }
    Ok(())
}

fn apply_message(
    view: &mut View<'_>,
    totals: &mut Totals,
    number: u64,
    slot: usize,
    message: &MessageRecord,
) -> StoreResult<()> {
    let summary = &message.summary;
    if !view.has(Space::Messages, &[&summary.id.0])? {
        totals.messages += 1;
        totals.message_bytes += summary.size;
        view.put_clear(Space::Variants, &[&summary.identity.0, &summary.id.0], Vec::new());
        count_parts(view, totals, &message.recipe)?;
    }
    let entry = MessageEntry { summary: summary.clone(), record: number, slot };
    view.put(Space::Messages, &[&summary.id.0], &entry);
    if let Some(was) = &message.was {
        view.put_clear(Space::Alias, &[&was.0], summary.id.0.to_vec());
    }
    Ok(())
}

fn count_parts(view: &mut View<'_>, totals: &mut Totals, recipe: &Recipe) -> StoreResult<()> {
    for part in &recipe.parts {
        let name = part_name(view.keys, part);
        let count = part_count(view, &name)?;
        totals.part_references += 1;
        totals.parts += u64::from(count == 0);
        view.put_clear(Space::Parts, &[&name], (count + 1).to_be_bytes().to_vec());
    }
    Ok(())
}

/// How often recipes name a part.
fn part_count(view: &View<'_>, name: &[u8; 16]) -> StoreResult<u64> {
    let count = view.get_clear(Space::Parts, &[name])?;
    Ok(count.and_then(|octets| octets.try_into().ok()).map_or(0, u64::from_be_bytes))
}

fn forget_part(view: &mut View<'_>, totals: &mut Totals, name: &[u8; 16]) -> StoreResult<()> {
    match part_count(view, name)? {
        0 => return Ok(()),
        1 => {
            view.remove(Space::Parts, &[name]);
            totals.parts = totals.parts.saturating_sub(1);
        }
        count => view.put_clear(Space::Parts, &[name], (count - 1).to_be_bytes().to_vec()),
    }
    totals.part_references = totals.part_references.saturating_sub(1);
    Ok(())
}

/// The same for parts with the same content.
pub(crate) fn part_name(keys: &Keyring, part: &Part) -> [u8; 16] {
    let chunks: Vec<&[u8]> = part.chunks.iter().map(|chunk| &chunk.id()[..]).collect();
    short(keys, "part", &chunks)
}

fn apply_instance(
    view: &mut View<'_>,
    message: &Summary,
    instance: &super::entry::InstanceRecord,
    collected_ms: u64,
) -> StoreResult<bool> {
    let (owner, folder) = (instance.owner.as_str(), instance.folder.as_str());
    let owner_key = owner_key(view.keys, owner);
    let place = place_key(view.keys, owner, folder, &message.identity.0);
    if let Some(before) = view.get::<InstanceEntry>(Space::Instances, &[&owner_key, &place])?
        // What another store had first comes from there after all: that one is shown.
        && (instance.known || !before.known)
    {
        return Ok(false);
    }
    let listed = Listed {
        id: data_encoding::HEXLOWER.encode(&message.id.0),
        folder: folder.to_owned(),
        date: message.date.and_then(rfc3339),
        from: message.from.clone(),
        to: message.to.clone(),
        subject: message.subject.clone(),
        size: message.size,
        sha256: data_encoding::HEXLOWER.encode(&message.sha256.0),
        archived_at: rfc3339_ms(collected_ms),
    };
    view.put(
        Space::Instances,
        &[&owner_key, &place],
        &InstanceEntry { date: message.date, listed, known: instance.known },
    );
    if !view.has(Space::Owners, &[&owner_key])? {
        view.put(Space::Owners, &[&owner_key], &owner);
    }
    Ok(!instance.known)
}

fn apply_collected(
    view: &mut View<'_>,
    totals: &mut Totals,
    number: u64,
    report: &ReportRecord,
    before: Option<CollectedEntry>,
    fresh: u64,
) -> StoreResult<()> {
    let source = source_key(view.keys, &report.source);
    let name = report_key(view.keys, report.mailbox.as_deref(), &report.uidl);
    if before.is_none() {
        totals.reports += 1;
        totals.bytes_in += report.raw.size;
    }
    if report.outcome.is_held() {
        view.put_clear(Space::Held, &[&source, &name], Vec::new());
    }
    // The same report fetched once more, to mend what was damaged, undoes nothing that was decided since.
    let decided = match before.as_ref().filter(|before| before.raw_sha256 == report.raw.sha256) {
        Some(before) if view.has_any(Space::Filings, &[&source, &name])? => Some(before.outcome),
        _ => None,
    };
    let entry = CollectedEntry {
        record: number,
        source: report.source.clone(),
        host: report.host.clone(),
        mailbox: report.mailbox.clone(),
        uidl: report.uidl.clone(),
        receipt: report.receipt.clone(),
        raw_sha256: report.raw.sha256,
        size: report.raw.size,
        outcome: decided.unwrap_or(report.outcome),
        collected_ms: report.collected_ms,
        appearances: fresh + before.map_or(0, |before| before.appearances),
        gone: None,
    };
    view.put(Space::Collected, &[&source, &name], &entry);
    Ok(())
}

fn apply_ledger(view: &mut View<'_>, ledger: &LedgerRecord) -> StoreResult<()> {
    for entry in ledger.entries.iter().filter_map(|text| decode_entry(text)) {
        put_ledger(view, &ledger.source, &entry);
    }
    Ok(())
}

fn put_ledger(view: &mut View<'_>, source: &str, entry: &Entry) {
    let source = source_key(view.keys, source);
    let log = ledger_key(view.keys, &entry.body.mailbox.to_string(), &entry.node.0);
    view.put(Space::Ledger, &[&source, &log, &entry.body.seq.to_be_bytes()], &encode_entry(entry));
}

/// Whether this very entry is kept already. Another entry with the same number (a forked ledger) is not the same: it
/// is recorded too, for whoever looks into it.
pub(crate) fn has_ledger(view: &View<'_>, source: &str, entry: &Entry) -> StoreResult<bool> {
    let source = source_key(view.keys, source);
    let log = ledger_key(view.keys, &entry.body.mailbox.to_string(), &entry.node.0);
    let known: Option<String> = view.get(Space::Ledger, &[&source, &log, &entry.body.seq.to_be_bytes()])?;
    Ok(known.is_some_and(|known| known == encode_entry(entry)))
}

/// Seconds since 1970 as RFC 3339 in UTC.
pub(crate) fn rfc3339(seconds: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
}

/// Milliseconds since 1970 as RFC 3339 in UTC.
pub(crate) fn rfc3339_ms(milliseconds: u64) -> String {
    let nanoseconds = i128::from(milliseconds) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}
