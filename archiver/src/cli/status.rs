//! `status`: what was last seen of each source, and what the store holds.

use super::StatusArgs;
use crate::{
    archive::Archive,
    collect::state::{Seen, State},
    config::{ArchiverConfig, Host, Source, SourceKind},
    store::Stats,
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    run::{Exit, Failure},
};
use serde::Serialize;
use std::{io::Write as _, path::Path, sync::Arc};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

#[derive(Serialize)]
struct Status {
    running: bool,
    sources: Vec<SourceStatus>,
    store: Stats,
    /// Reports that nobody could file.
    dead_letters: u64,
    /// Reports that wait for a decision.
    quarantined: u64,
    /// Addresses that should have an owner and have none.
    unowned: u64,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct SourceStatus {
    source: String,
    mailbox: String,
    hosts: Vec<HostStatus>,
}

#[derive(Serialize)]
struct HostStatus {
    host: String,
    last_asked: Option<String>,
    last_well: Option<String>,
    waiting: Option<u64>,
    error: Option<String>,
}

/// Shows the state.
///
/// # Errors
/// A sentence and an exit code; exit 1 when a host was not well the last time.
pub fn run(config: Option<&Path>, args: &StatusArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let config = ArchiverConfig::find(config)?;
    let store = Archive::open_read(&config, &disk)?;
    // The state has one reader: the holder of the lock.
    let lock = disk.lock(&config.lock_file()).ok();
    let state = if lock.is_some() { Some(State::open(&config.state_dir(), &*disk)?) } else { None };
    let sources: Vec<SourceStatus> =
        config.sources.iter().map(|s| source_status(s, state.as_ref())).collect::<Result<_, _>>()?;
    let (dead_letters, quarantined) = store.count_held()?;
    let status = Status {
        dead_letters,
        quarantined,
        unowned: store.unowned_count()?,
        running: lock.is_none(),
        store: store.stats()?,
        notes: notes(&config, &store, lock.is_none()),
        sources,
    };
    print(&status, args.json)?;
    let well = status.sources.iter().flat_map(|s| &s.hosts).all(|h| h.error.is_none());
    Ok(if well { Exit::Done } else { Exit::Attention })
}

fn source_status(source: &Source, state: Option<&State>) -> Result<SourceStatus, Failure> {
    let mut hosts = Vec::new();
    // Those behind an MX name are the ones of the last round.
    let behind_mx = match (&source.mx, state) {
        (Some(_), Some(state)) => state.hosts(&source.name)?.iter().map(Host::from).collect(),
        _ => source.hosts.clone(),
    };
    for host in &behind_mx {
        let host = host.to_string();
        let seen = match state {
            Some(state) => state.seen(&source.name, &host)?,
            None => None,
        };
        let asked = seen.is_some();
        let Seen { time_ms, error, well_ms, waiting } = seen.unwrap_or_default();
        hosts.push(HostStatus {
            host,
            last_asked: asked.then(|| moment(time_ms)).flatten(),
            last_well: well_ms.and_then(moment),
            waiting: asked.then_some(waiting),
            error,
        });
    }
    Ok(SourceStatus { source: source.name.clone(), mailbox: source.mailbox.clone(), hosts })
}

fn notes(config: &ArchiverConfig, store: &Archive, running: bool) -> Vec<String> {
    let mut notes: Vec<String> =
        store.disabled().iter().map(|name| format!("store {name} is disabled and not counted here")).collect();
    if running {
        notes.push("an archiver is running: what it saw last is in its log".to_owned());
    }
    let bare = |s: &&Source| s.kind == SourceKind::Gateway && s.reading.evidence.is_empty();
    let gateways = config.sources.iter().filter(bare);
    notes.extend(gateways.map(|s| {
        format!(
            "source {}: it has no rules about its senders; where the gateway has none either, the secret mailbox \
             address is the only evidence, and reports count as trusted",
            s.name
        )
    }));
    notes
}

fn moment(ms: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()?;
    time.format(&Rfc3339).ok()
}

fn print(status: &Status, json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let mut line = |text: String| writeln!(out, "{text}").map_err(Failure::cannot);
    if json {
        return line(serde_json::to_string(status).map_err(Failure::cannot)?);
    }
    for source in &status.sources {
        for host in &source.hosts {
            let waiting = host.waiting.map_or("unknown".to_owned(), |n| n.to_string());
            line(format!(
                "{} {} at {}: last asked {}, waiting {waiting}, {}",
                source.source,
                source.mailbox,
                host.host,
                host.last_asked.as_deref().unwrap_or("never"),
                host.error.as_deref().unwrap_or("no error")
            ))?;
        }
    }
    let store = &status.store;
    line(format!(
        "store: {} reports, {} messages, {} appearances, {} octets in, {} stored",
        store.reports, store.messages, store.instances, store.bytes_in, store.bytes_stored
    ))?;
    if status.dead_letters + status.quarantined > 0 {
        line(format!(
            "held: {} dead letters (`dead-letter list`), {} in quarantine (`quarantine list`)",
            status.dead_letters, status.quarantined
        ))?;
    }
    if status.unowned > 0 {
        line(format!(
            "{} addresses are without owner: `owner unowned` lists them with their messages",
            status.unowned
        ))?;
    }
    status.notes.iter().try_for_each(|note| line(note.clone()))
}
