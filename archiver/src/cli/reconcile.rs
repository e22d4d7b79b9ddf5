//! `reconcile`: accepted, collected, filed, waiting, missing.
//!
//! Asks every host and reads the store; changes neither, so it may run beside `serve`. With `--offline` it goes by what
//! was last seen, which only the holder of the data folder knows.

use super::{
    ReconcileArgs, load_and_lock,
    run::{runtime, select},
};
use crate::{
    archive::Archive,
    collect::{
        Prepared, hosts as hosts_of,
        ledger::Before,
        session::SessionError,
        state::{State, moved},
    },
    config::{self, ArchiverConfig, Host, Source},
    reconcile::{Answer, Row, Tally, ask},
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    receipt::{Entry, NodeKey},
    run::{Exit, Failure},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

/// A running archiver may hold the mailbox for a moment.
const TRIES: u32 = 5;

/// Compares what was accepted with what is kept.
///
/// # Errors
/// A sentence and an exit code; numbers that do not add up are exit 1.
pub fn run(config: Option<&Path>, args: &ReconcileArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let (config, _lock) = if args.offline {
        let (config, lock) = load_and_lock(config, &*disk)?;
        (config, Some(lock))
    } else {
        (ArchiverConfig::find(config)?, None)
    };
    config.log.start();
    let sources = select(&config, args.source.as_deref())?;
    let store = Archive::open_read(&config, &disk)?;
    let mut all_well = true;
    for source in sources {
        let rows = if args.offline {
            let state = State::open(&config.state_dir(), &*disk)?;
            offline(source, &store, &state)?
        } else {
            online(source, &store, &*disk)?
        };
        for row in rows {
            all_well &= row.ok;
            let line = if args.json { serde_json::to_string(&row).map_err(Failure::cannot)? } else { row.line() };
            writeln!(std::io::stdout(), "{line}").map_err(Failure::cannot)?;
        }
    }
    Ok(if all_well { Exit::Done } else { Exit::Attention })
}

/// What the store knows: nodes by host, and a tally per mailbox.
struct Known {
    tally: Tally,
    nodes: BTreeMap<String, NodeKey>,
    /// Where reports came from, by name and port.
    hosts: BTreeSet<String>,
}

fn known(source: &Source, mailbox: &str, store: &Archive) -> Result<Known, Failure> {
    let mut known = Known { tally: Tally::new(&source.name, mailbox), nodes: BTreeMap::new(), hosts: BTreeSet::new() };
    let moved = moved(&source.name, store)?;
    for report in store.collected(&source.name) {
        let report = report?;
        if report.mailbox.as_deref() == Some(mailbox) {
            known.tally.collected(&report);
            known.hosts.insert(report.host.clone());
            let own = report.receipt.as_ref().is_some_and(|r| moved.get(&r.body.uidl) != Some(&r.hash()));
            if let (Some(node), true) = (report.node, own) {
                known.nodes.entry(report.host).or_insert(node);
            }
        }
    }
    for entry in store.ledger_entries(&source.name) {
        let entry = entry?;
        if entry.body.mailbox.to_string() == mailbox {
            known.tally.entry(&entry);
        }
    }
    Ok(known)
}

/// Mailboxes of a source as the store knows them, each with its hosts.
fn mailboxes<'a>(source: &Source, hosts: &'a [Host]) -> BTreeMap<String, Vec<&'a Host>> {
    let mut mailboxes: BTreeMap<String, Vec<&Host>> = BTreeMap::new();
    for host in hosts {
        mailboxes.entry(source.mailbox_at(host)).or_default().push(host);
    }
    mailboxes
}

fn online(source: &Source, store: &Archive, disk: &dyn Disk) -> Result<Vec<Row>, Failure> {
    let prepared = Prepared::new(source, disk)?;
    let runtime = runtime()?;
    let mut rows = Vec::new();
    let round = runtime.block_on(hosts_of::find(source, &[]));
    let of_mailboxes = match (round.hosts.is_empty(), source.gateway_mailbox()) {
        // The DNS tells nothing: what the store knows is still worth a line.
        (true, Some(mailbox)) => BTreeMap::from([(mailbox.to_string(), Vec::new())]),
        _ => mailboxes(source, &round.hosts),
    };
    for (mailbox, hosts) in of_mailboxes {
        let Known { mut tally, nodes, hosts: seen } = known(source, &mailbox, store)?;
        let mut problems: Vec<String> = round.problem.iter().cloned().collect();
        let mut newest: BTreeMap<NodeKey, u64> = BTreeMap::new();
        let last_of = |node| store.last_ledger_entry(&source.name, &mailbox, &node).ok().flatten();
        // Hosts that were behind the MX once: what they still hold must not be forgotten.
        let earlier: Vec<Host> = seen
            .iter()
            .filter(|at| source.mx.is_some() && !hosts.iter().any(|host| host.to_string() == **at))
            .filter_map(|at| config::host(at))
            .map(|host| runtime.block_on(hosts_of::resolved(source, host)))
            .collect();
        for (host, is_earlier) in hosts.into_iter().map(|h| (h, false)).chain(earlier.iter().map(|h| (h, true))) {
            let node = nodes.get(&host.to_string()).copied();
            let before = before(source, &mailbox, node, store)?;
            match runtime.block_on(patient(&prepared, host, before, &last_of)) {
                Ok(answer) => add(&mut tally, host, answer, &mut newest, &mut problems),
                Err(error) => {
                    tally.unasked();
                    // One that left the MX may be gone for good; whether it holds anything the numbers tell.
                    if !is_earlier {
                        problems.push(format!("{host} could not be asked: {error}"));
                    }
                }
            }
        }
        rows.extend(finish(source, tally, problems));
    }
    Ok(rows)
}

fn before(source: &Source, mailbox: &str, node: Option<NodeKey>, store: &Archive) -> Result<Option<Before>, Failure> {
    let Some(id) = source.gateway_mailbox() else { return Ok(None) };
    let last = match &node {
        Some(node) => store.last_ledger_entry(&source.name, mailbox, node)?,
        None => None,
    };
    Ok(Some(Before { mailbox: id, node, last }))
}

async fn patient(
    prepared: &Prepared,
    host: &Host,
    before: Option<Before>,
    last_of: &impl Fn(NodeKey) -> Option<Entry>,
) -> Result<Answer, SessionError> {
    let mut tries = 1;
    loop {
        match ask(prepared, host, before.clone(), last_of).await {
            Err(SessionError::Later(_)) if tries < TRIES => {
                tokio::time::sleep(Duration::from_secs(u64::from(tries))).await;
                tries += 1;
            }
            other => return other,
        }
    }
}

fn add(
    tally: &mut Tally,
    host: &Host,
    answer: Answer,
    newest: &mut BTreeMap<NodeKey, u64>,
    problems: &mut Vec<String>,
) {
    if let Some(shown) = &answer.ledger {
        tally.host(shown.node, &host.to_string());
    }
    for entry in &answer.entries {
        // Two names of one node show the same entries twice.
        let seen = newest.entry(entry.node).or_default();
        if entry.body.seq > *seen {
            *seen = entry.body.seq;
            tally.entry(entry);
        }
    }
    answer.waiting.into_iter().for_each(|name| tally.waits(name));
    let odd = answer.ledger.map(|shown| shown.problems).unwrap_or_default();
    problems.extend(odd.into_iter().chain(answer.problems).map(|text| format!("{host}: {text}")));
}

fn offline(source: &Source, store: &Archive, state: &State) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    let remembered: Vec<Host> = state.hosts(&source.name)?.iter().map(Host::from).collect();
    let hosts = if source.mx.is_some() { &remembered } else { &source.hosts };
    for (mailbox, hosts) in mailboxes(source, hosts) {
        let mut tally = known(source, &mailbox, store)?.tally;
        for host in hosts {
            let at = host.to_string();
            if let Some(node) = state.node(&source.name, &at, store)? {
                tally.host(node, &at);
            }
            state.waiting(&source.name, &at)?.into_iter().for_each(|name| tally.waits(name));
        }
        rows.extend(finish(source, tally, Vec::new()));
    }
    Ok(rows)
}

fn finish(source: &Source, tally: Tally, problems: Vec<String>) -> Vec<Row> {
    let mut rows = if source.gateway_mailbox().is_some() { tally.rows() } else { vec![tally.without_ledger()] };
    if rows.is_empty() {
        let mailbox = source.mailbox.clone();
        rows.push(Row { source: source.name.clone(), mailbox, ok: true, ..Row::default() });
    }
    for row in &mut rows {
        problems.iter().for_each(|problem| row.fail(problem.clone()));
    }
    rows
}
