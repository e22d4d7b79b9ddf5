//! Why a message is where it is, in plain sentences: from the records of every report that brought it, and from who owns
//! what today.
//!
//! Only envelopes count for filing; where somebody asks for an address that stands in a header alone, that is said.

use crate::{
    archive::Archive,
    config::ArchiverConfig,
    filing::{CATCH_ALL, Owners, Part, Reason, Rule, Rules, normalise},
    store::{
        Filed, Outcome, StoreResult,
        entry::{FiledBy, InstanceRecord, Summary},
        rfc3339, rfc3339_ms,
    },
};
use serde::Serialize;
use std::collections::BTreeSet;

/// Sentences about addresses of one kind at most; the rest is counted.
const MAX_LISTED: usize = 20;

/// The answer. Field names are those of `why --json`.
#[derive(Debug, Clone, Serialize)]
pub struct Why {
    /// The message.
    pub id: String,
    /// Its decoded subject.
    pub subject: Option<String>,
    /// Its own date, RFC 3339 in UTC.
    pub date: Option<String>,
    /// Where it is and why.
    pub archives: Vec<Place>,
    /// Addresses of its envelopes that should have an owner and have none.
    pub unowned: Vec<String>,
    /// The owner or address that was asked for.
    pub asked: Option<String>,
    /// Whether the message is there; `None` when nobody was asked for.
    pub r#in: Option<bool>,
    /// For people.
    pub sentences: Vec<String>,
}

/// One appearance, by one report.
#[derive(Debug, Clone, Serialize)]
pub struct Place {
    /// Whose archive.
    pub owner: String,
    /// Folder.
    pub folder: String,
    /// Source of the report.
    pub source: String,
    /// Name of the report.
    pub uidl: String,
    /// When the report was collected.
    pub collected_at: String,
    /// When this was filed.
    pub filed_at: String,
    /// `collection`, or what filed it later.
    pub filed_by: String,
    /// Which addresses led there, by which rule.
    pub because: Vec<Reason>,
}

/// Explains a message: where it is, or why it is with `whom` (an owner or an address) or is not.
///
/// # Errors
/// [`crate::store::StoreError::NoSuchMessage`] and the others.
pub fn explain(
    store: &Archive,
    owners: &Owners,
    config: &ArchiverConfig,
    id: &str,
    whom: Option<&str>,
) -> StoreResult<Why> {
    let summary = store.summary(id)?;
    let reports = store.reports_of(id)?;
    let unowned: BTreeSet<&String> = reports.iter().flat_map(|report| &report.unowned).collect();
    let mut why = Why {
        id: id.to_owned(),
        subject: summary.subject.clone(),
        date: summary.date.and_then(rfc3339),
        archives: reports.iter().flat_map(places).collect(),
        unowned: unowned.into_iter().cloned().collect(),
        asked: whom.map(str::to_owned),
        r#in: None,
        sentences: Vec::new(),
    };
    let asking = Asking { reports: &reports, owners, rules: config.rules(""), summary: &summary };
    why.sentences = match whom {
        None => asking.everything(&why),
        Some(whom) => {
            let is_owner = owners.named(whom).is_some() || store.owners()?.iter().any(|owner| owner == whom);
            let (inside, sentences) = if is_owner { asking.owner(&why, whom) } else { asking.address(whom) };
            why.r#in = Some(inside);
            sentences
        }
    };
    Ok(why)
}

/// Where a report's message is because of it. What somebody owns by now has left the catch-all archive.
fn places(report: &Filed) -> Vec<Place> {
    let here = |(instance, _, _): &&(InstanceRecord, u64, Option<FiledBy>)| {
        instance.owner != CATCH_ALL || report.outcome == Outcome::CatchAll
    };
    let place = |(instance, filed_ms, by): &(InstanceRecord, u64, Option<FiledBy>)| Place {
        owner: instance.owner.clone(),
        folder: instance.folder.clone(),
        source: report.source.clone(),
        uidl: report.uidl.clone(),
        collected_at: rfc3339_ms(report.collected_ms),
        filed_at: rfc3339_ms(*filed_ms),
        filed_by: match by {
            None => "collection",
            Some(FiledBy::Refile) => "refile",
            Some(FiledBy::Retry) => "retry",
            Some(FiledBy::Release) => "release",
            Some(FiledBy::Reject) => "reject",
        }
        .to_owned(),
        because: instance.because.clone(),
    };
    report.instances.iter().filter(here).map(place).collect()
}

struct Asking<'a> {
    reports: &'a [Filed],
    owners: &'a Owners,
    rules: Rules,
    summary: &'a Summary,
}

impl Asking<'_> {
    fn everything(&self, why: &Why) -> Vec<String> {
        let archives: BTreeSet<&str> = why.archives.iter().map(|place| place.owner.as_str()).collect();
        let of = why.date.as_deref().unwrap_or("no date");
        let mut out = vec![format!(
            "Message {} (\"{}\", {of}) came with {} and is in {}.",
            why.id,
            why.subject.as_deref().unwrap_or_default(),
            count(self.reports.len(), "report"),
            count(archives.len(), "archive")
        )];
        out.extend(limited(why.archives.iter().map(sentence).collect()));
        for report in self.reports {
            if let (Some((_, until, _)), true) = (moved(report), report.outcome == Outcome::Filed) {
                out.push(format!(
                    "Until {} nobody owned what report {} brought, and it was in {CATCH_ALL}.",
                    rfc3339_ms(*until),
                    report.uidl
                ));
            }
        }
        let unowned = why.unowned.iter();
        out.extend(limited(unowned.map(|address| nobody(address)).collect()));
        out
    }

    /// Whether the message is in the owner's archive.
    fn owner(&self, why: &Why, name: &str) -> (bool, Vec<String>) {
        let here: Vec<&Place> = why.archives.iter().filter(|place| place.owner.eq_ignore_ascii_case(name)).collect();
        if !here.is_empty() {
            let mut out = vec![format!("Message {} is in the archive of {name}.", why.id)];
            out.extend(limited(here.into_iter().map(sentence).collect()));
            return (true, out);
        }
        let mut out = vec![format!("Message {} is not in the archive of {name}.", why.id)];
        if name == CATCH_ALL {
            out.push("Somebody owns at least one address of every report that brought it.".to_owned());
            return (false, out);
        }
        let Some(owner) = self.owners.named(name) else {
            out.push(format!("{name} is no owner now, so nothing new is filed there; what was filed before stays."));
            return (false, out);
        };
        let mut any = false;
        for (report, part, address) in self.addresses() {
            if self.owners.find(address, self.rules.sub_addressing).iter().any(|found| found.owner.name == owner.name) {
                any = true;
                out.push(self.owned_now(report, part, address, name));
            }
        }
        if !any {
            let addresses: Vec<&str> = owner.all_addresses().collect();
            let asked: BTreeSet<String> = self.addresses().map(|(_, _, address)| normalise(address)).collect();
            out.push(format!(
                "None of the {} in its envelopes belongs to {name}, whose addresses are {}.",
                count(asked.len(), "address"),
                if addresses.is_empty() { "none".to_owned() } else { addresses.join(", ") }
            ));
            for address in owner.all_addresses() {
                out.extend(self.elsewhere(address));
            }
        }
        (false, out)
    }

    /// An address that belongs to the owner now, and did not lead there.
    fn owned_now(&self, report: &Filed, part: Part, address: &str, name: &str) -> String {
        let spelling = normalise(address);
        let served = |reason: &Reason| normalise(&reason.address) == spelling;
        let before = report.instances.iter().find(|(instance, _, _)| instance.because.iter().any(served));
        let names = format!("Report {} names {address} as {}", report.uidl, word(part));
        match before {
            Some((instance, at, _)) => format!(
                "{names}; it was filed to {} on {}, who had that address then. {name} has it now and gets what comes from \
                 now on.",
                instance.owner,
                rfc3339_ms(*at)
            ),
            None if matches!(report.outcome, Outcome::Quarantine | Outcome::DeadLetter) => {
                format!("{names}, an address of {name}, but the report is held: it is filed nowhere.")
            }
            None => format!(
                "{names}, an address of {name} now; nobody had it when the report came. The next round files it, or \
                 `owner refile` at once."
            ),
        }
    }

    /// Whether an address led the message to somebody.
    fn address(&self, asked: &str) -> (bool, Vec<String>) {
        let spelling = normalise(asked);
        let mut out = Vec::new();
        let mut inside = false;
        for (report, part, address) in self.addresses().filter(|(_, _, address)| normalise(address) == spelling) {
            let names = format!("Report {} names {address} as {}", report.uidl, word(part));
            let served = |reason: &Reason| normalise(&reason.address) == spelling && reason.part == part;
            let to = report.instances.iter().filter(|(instance, _, _)| instance.because.iter().any(served));
            let to: Vec<String> =
                to.map(|(instance, _, _)| format!("{} / {}", instance.owner, instance.folder)).collect();
            inside |= !to.is_empty();
            out.push(if !to.is_empty() {
                format!("{names}, so the message is in {}.", to.join(", "))
            } else if report.unowned.contains(&spelling) {
                format!("{names}. {}", nobody(&spelling))
            } else if let Some(name) = self.owner_of(address) {
                self.owned_now(report, part, address, &name)
            } else {
                format!("{names}; it is nobody's address and in none of the own domains, so it leads to no archive.")
            });
        }
        if out.is_empty() {
            out.push(format!("No report of this message names {asked} in its envelope, so it leads to no archive."));
            out.extend(self.elsewhere(asked));
        }
        (inside, limited(out))
    }

    fn owner_of(&self, address: &str) -> Option<String> {
        let found = self.owners.find(address, self.rules.sub_addressing);
        found.first().map(|found| found.owner.name.clone())
    }

    /// Where an address stands that does not count: as a group, as somebody whose mail was redirected, in the header.
    fn elsewhere(&self, address: &str) -> Vec<String> {
        let spelling = normalise(address);
        let same = |other: &Option<String>| other.as_deref().is_some_and(|other| normalise(other) == spelling);
        let mut out = Vec::new();
        for report in self.reports {
            let recipients = &report.verdict.recipients;
            if recipients.iter().any(|recipient| same(&recipient.expanded_from)) {
                out.push(format!(
                    "Report {} names {address} as a group: its members are recipients, the group is not.",
                    report.uidl
                ));
            }
            if let Some(other) = recipients.iter().find(|recipient| same(&recipient.forwarded_from)) {
                out.push(format!(
                    "Report {} says that mail for {address} was redirected to {}: a copy for {address} would have a line of \
                     its own.",
                    report.uidl, other.address
                ));
            }
        }
        let header = self.summary.to.iter().chain(&self.summary.from).any(|other| normalise(other) == spelling);
        if header {
            out.push(format!(
                "The message's own header names {address}; only the envelope says who sent it and to whom it was delivered."
            ));
        }
        out
    }

    fn addresses(&self) -> impl Iterator<Item = (&Filed, Part, &str)> {
        self.reports.iter().flat_map(|report| {
            report.verdict.envelope(None).addresses().map(move |(part, address)| (report, part, address))
        })
    }
}

/// The catch-all appearance that a later filing ended, and when.
fn moved(report: &Filed) -> Option<&(InstanceRecord, u64, Option<FiledBy>)> {
    let first = report.instances.first()?;
    let later = || report.instances.iter().find(|(_, _, by)| by.is_some());
    if first.0.owner == CATCH_ALL { later() } else { None }
}

fn sentence(place: &Place) -> String {
    let Place { owner, folder, source, uidl, collected_at, filed_at, filed_by, because } = place;
    let report = format!("report {uidl} of source {source}, collected {collected_at},");
    if owner == CATCH_ALL {
        return format!("It is in {CATCH_ALL} / {folder}, because {report} names nobody who is an owner.");
    }
    let later = match filed_by.as_str() {
        "collection" => String::new(),
        "refile" => format!(" It was filed there on {filed_at}, when the address had got an owner."),
        other => format!(" It was filed there on {filed_at} ({other})."),
    };
    let reasons: Vec<String> = because.iter().map(|reason| format!("names {}", reason_text(reason, owner))).collect();
    let why = if reasons.is_empty() {
        "was filed there without an address as its reason".to_owned()
    } else {
        reasons.join(" and ")
    };
    format!("It is in {owner} / {folder}, because {report} {why}.{later}")
}

fn reason_text(reason: &Reason, owner: &str) -> String {
    let Reason { part, address, rule, via } = reason;
    let via = via.as_deref().unwrap_or(address);
    let rule = match rule {
        Rule::Address => format!("an address of {owner}"),
        Rule::Alias => format!("an alias of {owner}"),
        Rule::X500 => format!("an X.500 name of {owner} ({via})"),
        Rule::SubAddress => format!("a detail of {via}, an address of {owner}"),
    };
    format!("{address} as {}, {rule}", word(*part))
}

fn word(part: Part) -> &'static str {
    match part {
        Part::Sender => "its sender",
        Part::OnBehalfOf => "the one it was sent for",
        Part::Recipient => "a recipient",
    }
}

fn nobody(address: &str) -> String {
    format!(
        "{address} should have an owner and has none: `owner add NAME {address}` gives it one, and the message follows."
    )
}

fn count(number: usize, noun: &str) -> String {
    match (number, noun) {
        (1, noun) => format!("1 {noun}"),
        (number, "address") => format!("{number} addresses"),
        (number, noun) => format!("{number} {noun}s"),
    }
}

fn limited(mut sentences: Vec<String>) -> Vec<String> {
    let more = sentences.len().saturating_sub(MAX_LISTED);
    if more > 0 {
        sentences.truncate(MAX_LISTED);
        sentences.push(format!("And {more} more; `--json` and `envelope` give all of them."));
    }
    sentences
}
