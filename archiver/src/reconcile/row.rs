//! The lines of `reconcile`: numbers of one mailbox at one node, and sentences about what does not add up.

use super::numbers::Numbers;
use serde::{Deserialize, Serialize};

/// Messages that get a line of their own.
pub const MAX_NAMED: usize = 1000;

/// Messages by what became of them. `accepted = collected + deleted + waiting + removed_by_others + missing + unknown`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Messages the node accepted, by its ledger, and those moved to it whose acceptance elsewhere is not known here.
    pub accepted: u64,
    /// Of those, in the store.
    pub collected: u64,
    /// Of those collected, filed to an owner.
    pub filed: u64,
    /// Of those collected, in `@catchall`.
    pub catchall: u64,
    /// Of those collected, kept whole and filed nowhere, since nobody can say whose they are.
    pub dead_letters: u64,
    /// Of those collected, kept whole and filed nowhere: held until an administrator decides, or rejected by one.
    pub quarantined: u64,
    /// Of those quarantined, rejected.
    pub rejected: u64,
    /// Collected once, and deleted from the store by its own rules since.
    pub deleted: u64,
    /// Not collected, and waiting at the node.
    pub waiting: u64,
    /// Not collected, and removed from the node by somebody else.
    pub removed_by_others: u64,
    /// Lost: not in the store, not waiting, and not removed; or collected before and not in the store any more.
    pub missing: u64,
    /// Not collected and not removed, while a host could not be asked what waits there.
    pub unknown: u64,
}

/// One line of `reconcile --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// The source.
    pub source: String,
    /// The mailbox.
    pub mailbox: String,
    /// The node's short name; `None` for a server that is no gateway, or one that was never reached.
    pub node: Option<String>,
    /// Hosts that showed this node's ledger just now.
    pub hosts: Vec<String>,
    /// Messages.
    #[serde(flatten)]
    pub counts: Counts,
    /// Messages that were moved to the node from another one that had accepted them; each is counted there.
    pub moved_in: u64,
    /// Numbers that the ledger does not show.
    pub gaps: u64,
    /// The highest number of the ledger that was ever seen.
    pub highest: u64,
    /// Numbers of the messages that are missing.
    pub missing_numbers: Numbers,
    /// Numbers of the messages that others removed.
    pub removed_by_others_numbers: Numbers,
    /// Numbers of the messages of which it is not known whether they wait.
    pub unknown_numbers: Numbers,
    /// Numbers that the ledger does not show.
    pub gap_numbers: Numbers,
    /// The messages behind those numbers, as far as they can be named: the first thousand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Named>,
    /// Hosts that could not be asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_asked: Vec<String>,
    /// The same numbers for each day (UTC) on which messages were accepted; asked for with `--by-day`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Day>,
    /// Everything adds up, and nothing is missing or was taken by others.
    pub ok: bool,
    /// Sentences.
    pub problems: Vec<String>,
}

/// One day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// The day, `2026-08-18`.
    pub day: String,
    /// Its messages.
    #[serde(flatten)]
    pub counts: Counts,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Accepted; not removed by anybody, not waiting, not in the store.
    Missing,
    /// Accepted and collected before; not in the store any more.
    LostFromStore,
    /// Accepted, and handed to another node, where nobody has seen it.
    MovedAway,
    /// Accepted, and removed before it was collected.
    RemovedByOthers,
    /// Accepted; a host could not be asked whether it waits there.
    Unknown,
}

/// A message that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its number in the node's ledger.
    pub seq: u64,
    /// Its name.
    pub uidl: String,
    /// When it was accepted, RFC 3339.
    pub time: String,
    /// What is wrong.
    pub fate: Fate,
}

impl Fate {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Missing => "missing: accepted, not removed, and not waiting",
            Self::LostFromStore => "lost from the store: it was collected before",
            Self::MovedAway => "missing: handed to another node, where it was not seen",
            Self::RemovedByOthers => "removed by others before it was collected",
            Self::Unknown => "not known: a host could not be asked",
        }
    }
}

impl Row {
    /// Adds a problem that is not arithmetic.
    pub fn fail(&mut self, text: String) {
        self.problems.push(text);
        self.ok = false;
    }

    /// Says what does not add up; `unlisted`: numbers of collected messages that the ledger does not show.
    pub(super) fn judge(&mut self, unlisted: &Numbers, lost: &Numbers) {
        let mut said = Vec::new();
        let mut problem = |numbers: &Numbers, text: &str| {
            if !numbers.is_empty() {
                said.push(format!("{} {text}: {numbers}", numbers.count()));
            }
        };
        problem(&self.missing_numbers, "accepted, and neither in the store nor at the gateway");
        problem(lost, "of them in the store before: records of the store are gone");
        problem(&self.unknown_numbers, "accepted and not in the store; whether they wait is not known");
        problem(&self.removed_by_others_numbers, "removed from the gateway by others, and not collected");
        problem(&self.gap_numbers, "missing in the ledger");
        problem(unlisted, "collected with receipts that the ledger does not show");
        self.problems.extend(said);
        self.ok = self.problems.is_empty();
    }

    /// Without days and names, for the memory.
    #[must_use]
    pub fn short(&self) -> Self {
        Self { days: Vec::new(), messages: Vec::new(), ..self.clone() }
    }

    /// One line for people, and one for each problem, message and day.
    #[must_use]
    pub fn line(&self) -> String {
        let counts = self.counts.words();
        let mut line = format!(
            "{} {} node {}{}: {counts}: {}",
            self.source,
            self.mailbox,
            self.node.as_deref().unwrap_or("none"),
            if self.moved_in > 0 { format!(" ({} moved there)", self.moved_in) } else { String::new() },
            if self.ok { "ok" } else { "NOT OK" },
        );
        for problem in &self.problems {
            line += &format!("\n  {problem}");
        }
        for message in &self.messages {
            line +=
                &format!("\n  {} {} accepted {}: {}", message.seq, message.uidl, message.time, message.fate.words());
        }
        for day in &self.days {
            line += &format!("\n  {}: {}", day.day, day.counts.words());
        }
        line
    }
}

impl Counts {
    fn words(&self) -> String {
        let deleted = if self.deleted > 0 { format!("deleted {}, ", self.deleted) } else { String::new() };
        format!(
            "accepted {}, collected {} (filed {}, catch-all {}, dead letters {}, quarantined {}), {deleted}waiting {}, removed \
             by others {}, missing {}, unknown {}",
            self.accepted,
            self.collected,
            self.filed,
            self.catchall,
            self.dead_letters,
            self.quarantined,
            self.waiting,
            self.removed_by_others,
            self.missing,
            self.unknown,
        )
    }
}
