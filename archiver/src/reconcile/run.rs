//! One reconcile: every host is asked, the records of every store are read, the sums are made and remembered.
//!
//! Nothing is deleted and no lock is taken, so it runs beside `serve` and inside it. Order: hosts first, records
//! afterwards, since a message is stored before it is removed at its source. A message may come in between the answer about
//! what waits and the one about the ledger; so what looks wrong is looked at once more, up to the numbers of the first
//! look, and only what is still wrong then is told.

use super::{
    ask::Answer,
    memory::{Memory, SourceMemory, StoreMemory},
    part::{Part, by_mailbox, parts_of, take},
    row::{Fate, Named, Row},
};
use crate::{
    archive::Folder,
    collect::{Prepared, collected::CollectedList, state::State, turns::Turns},
    config::{ArchiverConfig, Host, Source},
    store::{
        Log, StoreError, Unlock, UnlockKey, Walked,
        entry::{Record, decode_entry},
        rfc3339_ms,
    },
};
use data_encoding::HEXLOWER;
use postkeep_shared::{
    disk::Disk,
    mail::Digest,
    receipt::{Event, NodeKey},
    run::{Failure, now_ms},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::task::block_in_place;

/// Before the second look.
const PAUSE: Duration = Duration::from_secs(1);

/// What a reconcile found.
#[derive(Debug, Default)]
pub struct Reconciled {
    /// One row per mailbox and node, and one for each store whose records are damaged.
    pub rows: Vec<Row>,
    /// Why it could not be remembered.
    pub forgotten: Option<Failure>,
    /// Where numbers do not add up: stores that were there before and are not read now.
    pub hints: Vec<String>,
}

impl Reconciled {
    /// Whether every number adds up.
    #[must_use]
    pub fn is_green(&self) -> bool {
        self.rows.iter().all(|row| row.ok)
    }
}

/// Compares what was accepted with what is kept. `all`: these are all sources of the configuration; `turns`: where rounds
/// of this process wait for their turn, too. Needs a runtime with more than one thread.
///
/// # Errors
/// The stores' and the disk's; a host that cannot be asked is in its rows.
pub async fn reconcile(
    config: &ArchiverConfig,
    sources: &[&Prepared],
    all: bool,
    disk: &Arc<dyn Disk>,
    turns: Option<&Turns>,
) -> Result<Reconciled, Failure> {
    let mut run = Run::open(config, disk)?;
    let mut parts = Vec::new();
    for prepared in sources {
        parts.extend(parts_of(&prepared.source, Some(prepared)).await?);
    }
    block_in_place(|| run.learn(&mut parts))?;
    for part in &mut parts {
        part.ask(&run.memory, turns).await;
    }
    block_in_place(|| run.look(&mut parts))?;
    if parts.iter().any(Part::is_suspicious) {
        tokio::time::sleep(PAUSE).await;
        for part in parts.iter_mut().filter(|part| part.is_suspicious()) {
            part.ask_again(&run.memory, turns).await;
        }
        block_in_place(|| run.look(&mut parts))?;
    }
    block_in_place(|| run.finish(parts, all))
}

/// As [`reconcile`], by what was last seen instead of asking; the caller holds the lock that `state` needs.
///
/// # Errors
/// As [`reconcile`].
pub fn reconcile_offline(
    config: &ArchiverConfig,
    sources: &[&Source],
    state: &State,
    disk: &Arc<dyn Disk>,
) -> Result<Reconciled, Failure> {
    let mut run = Run::open(config, disk)?;
    let mut parts = Vec::new();
    for source in sources {
        let remembered: Vec<Host> = state.hosts(&source.name)?.iter().map(Host::from).collect();
        let hosts = if source.mx.is_some() { remembered } else { source.hosts.clone() };
        for (mailbox, hosts) in by_mailbox(source, &hosts) {
            let mut part = Part::new(source, None, mailbox, hosts.iter().map(|host| (*host).clone()).collect());
            for host in &part.hosts {
                let waiting = state.waiting(&source.name, &host.to_string())?;
                part.answers.push((host.to_string(), Ok(Answer { waiting, ..Answer::default() })));
            }
            parts.push(part);
        }
    }
    run.learn(&mut parts)?;
    for part in &mut parts {
        for (host, answer) in &mut part.answers {
            let node = run.memory.sources.get(&part.source.name).and_then(|source| source.node(host));
            if let Ok(answer) = answer {
                answer.node = node.or_else(|| part.nodes.get(host).copied());
            }
        }
    }
    run.look(&mut parts)?;
    let rows = run.rows(parts)?;
    Ok(Reconciled { hints: run.hints(&rows), rows, forgotten: None })
}

/// Stores, memory and list.
struct Run<'a> {
    config: &'a ArchiverConfig,
    disk: &'a Arc<dyn Disk>,
    logs: Vec<(String, Log)>,
    memory: Memory,
    list: CollectedList,
    /// What the last walk found of each store.
    walked: Vec<Walked>,
    /// Records that other records said were there: by store, what is wrong.
    damage: Vec<Row>,
}

impl<'a> Run<'a> {
    fn open(config: &'a ArchiverConfig, disk: &'a Arc<dyn Disk>) -> Result<Self, Failure> {
        let key = UnlockKey::load(&config.unlock_key_file(), &**disk)?;
        let mut logs = Vec::new();
        for (name, dir) in store_folders(config, disk)? {
            logs.push((name, Log::open(&dir, &Unlock::Key(&key), Arc::clone(disk))?));
        }
        let memory = Memory::load(&config.data_dir, &**disk)?;
        let list = CollectedList::new(&config.data_dir);
        Ok(Self { config, disk, logs, memory, list, walked: Vec::new(), damage: Vec::new() })
    }

    /// Where the memory does not tell: which node signs on a host, and up to where the store knows each ledger.
    fn learn(&mut self, parts: &mut [Part<'_>]) -> Result<(), Failure> {
        let mut unknown = false;
        for part in parts.iter_mut() {
            let memory = self.memory.sources.get(&part.source.name);
            for head in memory.into_iter().flat_map(|source| &source.heads).filter(|h| h.mailbox == part.mailbox) {
                if let (Some(node), Some(kept)) = (head.node(), head.kept()) {
                    part.kept.insert(node, kept);
                }
            }
            let known = |host: &Host| {
                let node = memory.and_then(|source| source.node(&host.to_string()));
                node.is_some_and(|node| part.kept.contains_key(&node))
            };
            unknown |= part.is_gateway() && (part.source.mx.is_some() || !part.hosts.iter().all(known));
        }
        if unknown {
            let mut moved: BTreeSet<Digest> = BTreeSet::new();
            let mut seen: BTreeMap<(usize, String), (NodeKey, Digest)> = BTreeMap::new();
            self.walk(|record| match record {
                Record::Ledger(ledger) => {
                    for entry in ledger.entries.iter().filter_map(|text| decode_entry(text)) {
                        for part in parts.iter_mut().filter(|part| part.is_of(&ledger.source, &entry)) {
                            if entry.body.event == Event::MovedIn {
                                moved.insert(entry.body.digest);
                            }
                            let last = part.kept.entry(entry.node).or_insert_with(|| entry.clone());
                            if last.body.seq < entry.body.seq {
                                *last = entry.clone();
                            }
                        }
                    }
                }
                Record::Report(report) => {
                    let Some(receipt) = report.receipt.as_deref().and_then(decode_entry) else { return };
                    let concerned = parts.iter().enumerate().filter(|(_, part)| part.is_of(&report.source, &receipt));
                    for at in concerned.map(|(at, _)| at) {
                        // A message that was moved there was signed by the node that accepted it.
                        if !moved.contains(&receipt.hash()) {
                            seen.entry((at, report.host.clone())).or_insert((receipt.node, receipt.hash()));
                        }
                    }
                }
                _ => {}
            })?;
            for ((at, host), (node, _)) in seen {
                if let Some(part) = parts.get_mut(at) {
                    part.nodes.insert(host, node);
                }
            }
        }
        for part in parts.iter_mut().filter(|part| part.source.mx.is_some()) {
            part.add_earlier(self.memory.sources.get(&part.source.name));
        }
        Ok(())
    }

    fn walk(&self, mut each: impl FnMut(Record)) -> Result<Vec<Walked>, Failure> {
        let mut walked = Vec::new();
        for (_, log) in &self.logs {
            walked.push(log.walk(&mut |record, _| {
                each(record);
                Ok(())
            })?);
        }
        Ok(walked)
    }

    /// Reads every record, and makes the sums of all parts.
    fn look(&mut self, parts: &mut [Part<'_>]) -> Result<(), Failure> {
        parts.iter_mut().for_each(Part::begin);
        let mut odd: HashMap<usize, Vec<String>> = HashMap::new();
        let mut walked = Vec::new();
        for (at, (name, log)) in self.logs.iter().enumerate() {
            let before = self.memory.stores.get(&log.id());
            let done = log.walk(&mut |record, head| {
                if let Some(before) =
                    before.filter(|b| b.number == head.number && b.hash != HEXLOWER.encode(&head.hash))
                {
                    let text = format!("record {} is another than the one that was there before", before.number);
                    odd.entry(at).or_default().push(text);
                }
                take(parts, record);
                Ok::<(), StoreError>(())
            })?;
            let said = odd.entry(at).or_default();
            if let Some(before) = before.filter(|before| before.number > done.head.number) {
                let (first, last) = (done.head.number + 1, before.number);
                said.push(format!("records {first} to {last} of store {name} were there before and are gone"));
            }
            said.extend(done.damage.iter().cloned());
            walked.push(done);
        }
        self.damage = self
            .logs
            .iter()
            .enumerate()
            .filter_map(|(at, (name, _))| {
                let problems = odd.remove(&at).filter(|said| !said.is_empty())?;
                Some(Row { source: format!("store {name}"), problems, ..Row::default() })
            })
            .collect();
        self.walked = walked;
        self.tell_gone(parts)?;
        for part in parts.iter_mut() {
            part.end(self.memory.sources.get(&part.source.name));
            let (list, disk) = (&mut self.list, &**self.disk);
            for (node, numbers) in part.tally.collected_numbers() {
                list.add(disk, &part.source.name, &part.mailbox, node, numbers);
            }
            let list = std::cell::RefCell::new(list);
            let was = |node, number| list.borrow_mut().has(disk, &part.source.name, &part.mailbox, node, number);
            part.rows = part.tally.rows(&was);
        }
        Ok(())
    }

    /// Deletions name their reports by uidl; the records are read once more for the numbers of those.
    fn tell_gone(&self, parts: &mut [Part<'_>]) -> Result<(), Failure> {
        if parts.iter().all(|part| part.gone.is_empty() && !part.tally.has_bare()) {
            return Ok(());
        }
        self.walk(|record| {
            let report = match record {
                Record::Report(report) => report,
                // Once more, for the reports that count by their names.
                record @ Record::Ledger(_) => return take(parts, record),
                _ => return,
            };
            for part in parts.iter_mut() {
                let is_it = part.source.name == report.source && report.mailbox.as_deref() == Some(&part.mailbox);
                if let (true, Some(why)) = (is_it, part.gone.get(&report.uidl)) {
                    match report.receipt.as_deref().and_then(decode_entry) {
                        Some(receipt) => part.tally.gone(&receipt, *why),
                        None => part.plain.gone(&report.uidl),
                    }
                }
            }
        })?;
        Ok(())
    }

    /// Names the messages that do not add up.
    fn rows(&self, parts: Vec<Part<'_>>) -> Result<Vec<Row>, Failure> {
        let mut parts = parts;
        let wanted = parts.iter().any(|part| part.rows.iter().any(|(_, _, suspects)| !suspects.is_empty()));
        if wanted {
            let mut names: HashMap<(usize, NodeKey, u64), (String, u64)> = HashMap::new();
            let fates: HashMap<(usize, NodeKey), BTreeMap<u64, Fate>> = parts
                .iter()
                .enumerate()
                .flat_map(|(at, part)| {
                    part.rows.iter().map(move |(node, _, suspects)| ((at, *node), suspects.iter().copied().collect()))
                })
                .collect();
            let wants =
                |at: usize, node: NodeKey, seq: u64| fates.get(&(at, node)).is_some_and(|f| f.contains_key(&seq));
            for (at, part) in parts.iter().enumerate() {
                let answers = part.answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
                for (node, entry) in
                    answers.flat_map(|a| a.entries.iter().flat_map(|(n, e)| e.iter().map(move |e| (*n, e))))
                {
                    if wants(at, node, entry.seq) {
                        names.insert((at, node, entry.seq), (entry.uidl.to_string(), entry.time_ms));
                    }
                }
            }
            self.walk(|record| {
                let Record::Ledger(ledger) = record else { return };
                for entry in ledger.entries.iter().filter_map(|text| decode_entry(text)) {
                    for (at, _) in parts.iter().enumerate().filter(|(_, part)| part.is_of(&ledger.source, &entry)) {
                        if wants(at, entry.node, entry.body.seq) {
                            names.insert(
                                (at, entry.node, entry.body.seq),
                                (entry.body.uidl.to_string(), entry.body.time_ms),
                            );
                        }
                    }
                }
            })?;
            for (at, part) in parts.iter_mut().enumerate() {
                for (node, row, suspects) in &mut part.rows {
                    let named = suspects.iter().map(|(seq, fate)| {
                        let (uidl, time_ms) = names.remove(&(at, *node, *seq)).unwrap_or_default();
                        Named { seq: *seq, uidl, time: rfc3339_ms(time_ms), fate: *fate }
                    });
                    row.messages = named.collect();
                }
            }
        }
        let mut rows: Vec<Row> = parts.into_iter().flat_map(Part::into_rows).collect();
        rows.extend(self.damage.iter().cloned());
        Ok(rows)
    }

    /// Remembers, and gives the rows.
    fn finish(mut self, parts: Vec<Part<'_>>, all: bool) -> Result<Reconciled, Failure> {
        let now = now_ms();
        let mut sources: BTreeMap<String, SourceMemory> = BTreeMap::new();
        for part in &parts {
            let memory = sources.entry(part.source.name.clone()).or_default();
            for (host, answer) in &part.answers {
                // A node that does not fit is no node to remember.
                if let Ok(Answer { node: Some(node), fits: true, .. }) = answer {
                    memory.nodes.insert(host.clone(), Digest(node.0).to_string());
                }
            }
            part.heads(memory, now);
        }
        let stores: Vec<(String, StoreMemory)> = self
            .logs
            .iter()
            .zip(&self.walked)
            .map(|((name, log), walked)| {
                let (number, hash) = (walked.head.number, HEXLOWER.encode(&walked.head.hash));
                (log.id(), StoreMemory { name: name.clone(), number, hash })
            })
            .collect();
        let rows = self.rows(parts)?;
        let hints = self.hints(&rows);
        let store_well = self.damage.is_empty();
        let green = rows.iter().all(|row| row.ok);
        let saved = self.list.save(&**self.disk).map_err(Failure::from);
        let saved = saved.and_then(|()| {
            Memory::change(&self.config.data_dir, &**self.disk, |memory| {
                memory.last_run_ms = Some(now);
                if green && all {
                    memory.last_green_ms = Some(now);
                }
                for (name, new) in sources {
                    let old = memory.sources.entry(name.clone()).or_default();
                    old.rows = rows.iter().filter(|row| row.source == name).map(Row::short).collect();
                    old.last_run_ms = Some(now);
                    if store_well && old.rows.iter().all(|row| row.ok) {
                        old.last_green_ms = Some(now);
                    }
                    old.nodes.extend(new.nodes);
                    new.heads.into_iter().for_each(|head| old.see(head));
                }
                for (id, new) in stores {
                    match memory.stores.get(&id) {
                        Some(old) if old.number > new.number => {}
                        _ => drop(memory.stores.insert(id, new)),
                    }
                }
            })
        });
        Ok(Reconciled { hints, rows, forgotten: saved.err() })
    }

    /// What only a store holds that is not read counts as missing: that is said before somebody looks for it elsewhere.
    fn hints(&self, rows: &[Row]) -> Vec<String> {
        if rows.iter().all(|row| row.ok) {
            return Vec::new();
        }
        let here: BTreeSet<String> = self.logs.iter().map(|(_, log)| log.id()).collect();
        let gone = self.memory.stores.iter().filter(|(id, _)| !here.contains(*id));
        let hint = |(_, store): (&String, &StoreMemory)| {
            format!(
                "store {} (records up to {}) is detached: what only it holds is counted as missing; attach it and say \
                 reconcile again",
                store.name, store.number
            )
        };
        gone.map(hint).collect()
    }
}

/// Names and folders of the archive's stores, those that are disabled too.
///
/// # Errors
/// The disk's; there is no store.
pub fn store_folders(config: &ArchiverConfig, disk: &Arc<dyn Disk>) -> Result<Vec<(String, PathBuf)>, Failure> {
    let found = Folder::of(config, Arc::clone(disk)).list()?;
    Ok(found.into_iter().map(|store| (store.name, store.dir)).collect())
}
