//! One mailbox of one source while it is reconciled: its hosts, what they answer, what the store's records say of it, and
//! the sums of both.

use super::{
    ask::{Answer, Known, ask},
    memory::{HeadMemory, Memory, SourceMemory},
    row::Row,
    slots::Fact,
    tally::{Plain, Suspects, Tally},
};
use crate::{
    collect::{Prepared, hosts as hosts_of, turns::Turns},
    config::{self, Host, Source},
    store::{
        entry::{Record, ReportName, ReportRecord, decode_entry},
        rfc3339_ms,
    },
};
use postkeep_shared::{
    mail::Digest,
    receipt::{Entry, NodeKey},
    run::Failure,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Mailboxes of a source as the store knows them, each with its hosts.
pub(super) fn by_mailbox<'a>(source: &Source, hosts: &'a [Host]) -> BTreeMap<String, Vec<&'a Host>> {
    let mut mailboxes: BTreeMap<String, Vec<&Host>> = BTreeMap::new();
    for host in hosts {
        mailboxes.entry(source.mailbox_at(host)).or_default().push(host);
    }
    mailboxes
}

/// One mailbox of one source.
pub(super) struct Part<'a> {
    pub(super) source: &'a Source,
    pub(super) prepared: Option<&'a Prepared>,
    pub(super) mailbox: String,
    pub(super) hosts: Vec<Host>,
    /// Hosts that were behind the MX once: what they still hold must not be forgotten.
    pub(super) earlier: BTreeSet<String>,
    /// Sentences that concern all its rows.
    pub(super) problems: Vec<String>,
    /// Of the store's records: which node signs on a host.
    pub(super) nodes: BTreeMap<String, NodeKey>,
    /// Of the store's records: the last entry of each node.
    pub(super) kept: BTreeMap<NodeKey, Entry>,
    pub(super) answers: Vec<(String, Result<Answer, String>)>,
    /// Reports that the store was told to delete, or gave up, by uidl.
    pub(super) gone: HashMap<String, Fact>,
    /// The highest numbers of the first look.
    pub(super) until: BTreeMap<NodeKey, u64>,
    pub(super) tally: Tally,
    pub(super) plain: Plain,
    pub(super) rows: Vec<(NodeKey, Row, Suspects)>,
}

impl<'a> Part<'a> {
    pub(super) fn new(source: &'a Source, prepared: Option<&'a Prepared>, mailbox: String, hosts: Vec<Host>) -> Self {
        Self {
            tally: Tally::new(&source.name, &mailbox),
            plain: Plain::default(),
            source,
            prepared,
            mailbox,
            hosts,
            earlier: BTreeSet::new(),
            problems: Vec::new(),
            nodes: BTreeMap::new(),
            kept: BTreeMap::new(),
            answers: Vec::new(),
            gone: HashMap::new(),
            until: BTreeMap::new(),
            rows: Vec::new(),
        }
    }

    pub(super) fn is_gateway(&self) -> bool {
        self.source.gateway_mailbox().is_some()
    }

    pub(super) fn is_suspicious(&self) -> bool {
        self.rows.iter().any(|(_, row, _)| !row.ok)
    }

    pub(super) async fn ask(&mut self, memory: &Memory, turns: Option<&Turns>) {
        let Some(prepared) = self.prepared else { return };
        let _turn = match turns {
            Some(turns) => Some(turns.take(&self.source.name).await),
            None => None,
        };
        self.answers.clear();
        let remembered = memory.sources.get(&self.source.name);
        for host in &self.hosts {
            let at = host.to_string();
            let node = remembered.and_then(|source| source.node(&at)).or_else(|| self.nodes.get(&at).copied());
            let known = Known { mailbox: self.source.gateway_mailbox(), node, last: self.kept.clone() };
            let answer = ask(prepared, host, &known).await.map_err(|error| error.to_string());
            self.answers.push((at, answer));
        }
    }

    /// The second look: what came behind the first one is left out.
    pub(super) async fn ask_again(&mut self, memory: &Memory, turns: Option<&Turns>) {
        self.until = self.tally.highest();
        // Records of the store may be gone: the ledger is asked from where the store knows it without a gap.
        self.kept = self.tally.solid();
        self.ask(memory, turns).await;
    }

    /// A fresh tally with what the hosts said.
    pub(super) fn begin(&mut self) {
        self.tally = Tally::new(&self.source.name, &self.mailbox);
        self.plain = Plain::default();
        self.gone.clear();
        self.tally.until(self.until.clone());
        for (_, answer) in &self.answers {
            match answer {
                Ok(answer) => answer.waiting.iter().for_each(|name| {
                    self.tally.waits(name);
                    self.plain.waits(name);
                }),
                Err(_) => self.tally.not_asked(),
            }
        }
    }

    /// What the hosts say of their ledgers, behind what the store knows of them.
    pub(super) fn end(&mut self, memory: Option<&SourceMemory>) {
        let mut odd = Vec::new();
        for (host, answer) in &self.answers {
            let Ok(answer) = answer else { continue };
            for (node, entries) in &answer.entries {
                entries.iter().for_each(|entry| self.tally.entry(*node, entry));
            }
            let Some(node) = answer.node else { continue };
            self.tally.host(node, host);
            odd.extend(answer.problems.iter().map(|text| (node, format!("{host}: {text}"))));
            if let Some(shown) = &answer.whole {
                odd.extend(self.diverged(host, node, shown));
            }
        }
        odd.extend(self.set_back(memory));
        odd.into_iter().for_each(|(node, text)| self.tally.say(node, text));
    }

    pub(super) fn diverged(&self, host: &str, node: NodeKey, shown: &BTreeMap<u64, Digest>) -> Vec<(NodeKey, String)> {
        let (gone, changed) = self.tally.diverged(node, shown);
        let mut said = Vec::new();
        if !gone.is_empty() {
            let end = shown.last_key_value().map_or(0, |(seq, _)| *seq);
            let text =
                format!("{host}: ledger entries {gone} were seen there before and are gone; it ends with {end} now");
            said.push((node, text));
        }
        if !changed.is_empty() {
            let text = format!("{host}: ledger entries {changed} are others than those seen there before");
            said.push((node, text));
        }
        said
    }

    /// Entries that were seen by an earlier reconcile and never came into the store.
    pub(super) fn set_back(&self, memory: Option<&SourceMemory>) -> Vec<(NodeKey, String)> {
        let heads = memory.into_iter().flat_map(|source| &source.heads).filter(|head| head.mailbox == self.mailbox);
        let mut said = Vec::new();
        for head in heads {
            let (Some(node), Some(hash)) = (head.node(), head.hash()) else { continue };
            let mut asked = self.answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
            let asked = asked.find(|answer| answer.node == Some(node));
            let (seq, seen) = (head.seq, rfc3339_ms(head.seen_ms));
            match (self.tally.has(node, seq, &hash), asked) {
                (Some(false), _) => {
                    let text =
                        format!("ledger entry {seq} is another than the one seen {seen}: the ledger was set back");
                    said.push((node, text));
                }
                (None, Some(answer)) => {
                    let shown = answer.whole.as_ref().map(|whole| whole.last_key_value().map_or(0, |(seq, _)| *seq));
                    let end = shown.unwrap_or_else(|| self.tally.highest().get(&node).copied().unwrap_or_default());
                    let first = if end < seq { end + 1 } else { seq };
                    let text = format!(
                        "ledger entries {first} to {seq}, the last one seen {seen}, are not there any more: the ledger was \
                         set back and ends with {end}"
                    );
                    said.push((node, text));
                }
                (Some(true), _) | (None, None) => {}
            }
        }
        said
    }
}

/// The mailboxes of a source, with their hosts as of now.
pub(super) async fn parts_of<'p>(source: &'p Source, prepared: Option<&'p Prepared>) -> Result<Vec<Part<'p>>, Failure> {
    let round = hosts_of::find(source, &[]).await;
    let of_mailboxes = match (round.hosts.is_empty(), source.gateway_mailbox()) {
        // The DNS tells nothing: what the store knows is still worth a line.
        (true, Some(mailbox)) => BTreeMap::from([(mailbox.to_string(), Vec::new())]),
        _ => by_mailbox(source, &round.hosts),
    };
    let mut parts = Vec::new();
    for (mailbox, hosts) in of_mailboxes {
        let mut part = Part::new(source, prepared, mailbox, hosts.into_iter().cloned().collect());
        part.problems.extend(round.problem.clone());
        parts.push(part);
    }
    Ok(parts)
}

impl Part<'_> {
    pub(super) fn is_of(&self, source: &str, entry: &Entry) -> bool {
        self.source.name == source && self.is_gateway() && self.mailbox == entry.body.mailbox.to_string()
    }

    /// Hosts that were behind the MX once.
    pub(super) fn add_earlier(&mut self, memory: Option<&SourceMemory>) {
        let known = self.nodes.keys().chain(memory.into_iter().flat_map(|memory| memory.nodes.keys()));
        let known: BTreeSet<String> = known.cloned().collect();
        for at in known {
            if !self.hosts.iter().any(|host| host.to_string() == at)
                && let Some(host) = config::host(&at)
            {
                self.hosts.push(host);
                self.earlier.insert(at);
            }
        }
    }

    /// The highest entries, for the memory.
    pub(super) fn heads(&self, memory: &mut SourceMemory, now: u64) {
        let kept = self.tally.last_kept();
        let mut heads: BTreeMap<NodeKey, (u64, Digest)> =
            kept.iter().map(|(node, entry)| (*node, (entry.body.seq, entry.hash()))).collect();
        for answer in self.answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()) {
            for (node, entries) in &answer.entries {
                if let Some(last) = entries.iter().max_by_key(|entry| entry.seq) {
                    let head = heads.entry(*node).or_insert((last.seq, last.hash));
                    *head = (*head).max((last.seq, last.hash));
                }
            }
        }
        for (node, (seq, hash)) in heads {
            let key = Digest(node.0).to_string();
            let mut head = HeadMemory {
                mailbox: self.mailbox.clone(),
                node: key,
                seq,
                hash: hash.to_string(),
                seen_ms: now,
                kept: None,
            };
            if let Some(entry) = kept.get(&node) {
                head.set_kept(entry);
            }
            memory.see(head);
        }
    }

    pub(super) fn into_rows(self) -> Vec<Row> {
        let errors = self.answers.iter().filter_map(|(host, answer)| Some((host, answer.as_ref().err()?)));
        // One that left the MX may be gone for good; whether it holds anything the numbers tell.
        let errors: Vec<(&String, &String)> = errors.filter(|(host, _)| !self.earlier.contains(*host)).collect();
        let not_asked: Vec<String> = errors.iter().map(|(host, _)| (*host).clone()).collect();
        let mut problems: Vec<String> =
            errors.iter().map(|(host, error)| format!("{host} could not be asked: {error}")).collect();
        problems.extend(self.problems);
        let mut rows: Vec<Row> = if self.source.gateway_mailbox().is_some() {
            self.rows.into_iter().map(|(_, row, _)| row).collect()
        } else {
            vec![self.plain.row(&self.source.name, &self.mailbox)]
        };
        if rows.is_empty() {
            let (source, mailbox) = (self.source.name.clone(), self.mailbox.clone());
            rows.push(Row { source, mailbox, ok: true, ..Row::default() });
        }
        // Servers without ledger: what is odd about their lists belongs to no node.
        let lists =
            self.answers.iter().filter_map(|(host, a)| Some((host, a.as_ref().ok().filter(|a| a.node.is_none())?)));
        problems.extend(lists.flat_map(|(host, a)| a.problems.iter().map(move |text| format!("{host}: {text}"))));
        for row in &mut rows {
            row.not_asked.clone_from(&not_asked);
            problems.iter().for_each(|problem| row.fail(problem.clone()));
        }
        rows
    }
}

/// One record to all parts.
pub(super) fn take(parts: &mut [Part<'_>], record: Record) {
    match record {
        Record::Report(report) => report_to(parts, &report),
        Record::Ledger(ledger) => {
            for entry in ledger.entries.iter().filter_map(|text| decode_entry(text)) {
                for part in parts.iter_mut().filter(|part| part.is_of(&ledger.source, &entry)) {
                    part.tally.kept(entry.clone());
                }
            }
        }
        Record::Filing(filing) => {
            for part in parts.iter_mut().filter(|part| part.source.name == filing.source) {
                if filing.mailbox.as_deref() == Some(&part.mailbox) {
                    part.tally.decided(&filing.uidl, filing.outcome);
                    part.plain.report(&filing.uidl, filing.outcome);
                }
            }
        }
        Record::Deletion(deletion) => {
            for report in &deletion.out.reports {
                gone(parts, &report.name, Fact::Deleted);
            }
        }
        Record::Loss(loss) => loss.reports.iter().for_each(|report| gone(parts, report, Fact::Lost)),
        // What stood there is not known; the numbers tell what is missing because of it.
        // What was moved to another store stands there too, and is one by its number.
        Record::Lost(_) | Record::Compaction(_) | Record::Moved(_) => {}
    }
}

/// A report that the store holds no more.
fn gone(parts: &mut [Part<'_>], name: &ReportName, why: Fact) {
    for part in parts.iter_mut().filter(|part| part.source.name == name.source) {
        if name.mailbox.as_deref() == Some(&part.mailbox) {
            part.gone.insert(name.uidl.clone(), why);
        }
    }
}

fn report_to(parts: &mut [Part<'_>], report: &ReportRecord) {
    for part in parts.iter_mut() {
        if part.source.name != report.source || report.mailbox.as_deref() != Some(&part.mailbox) {
            continue;
        }
        if part.is_gateway() {
            match report.receipt.as_deref().and_then(decode_entry) {
                Some(receipt) => part.tally.collected(&receipt, report.outcome),
                None => part.tally.collected_bare(&report.uidl, report.outcome),
            }
        } else {
            part.plain.report(&report.uidl, report.outcome);
        }
    }
}
