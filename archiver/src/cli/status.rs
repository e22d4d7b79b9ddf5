//! `status`: what was last seen of each source, and what the store holds.

use super::{StatusArgs, proof::Proof};
use crate::{
    archive::Archive,
    collect::state::{Seen, State},
    config::{ArchiverConfig, Host, Source, SourceKind},
    serve::{
        HostStanding, Snapshot, control,
        pause::{self, Paused},
    },
    store::Stats,
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    run::{Exit, Failure, now_ms},
};
use serde::Serialize;
use std::{io::Write as _, path::Path, sync::Arc};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

#[derive(Serialize)]
struct Status {
    running: bool,
    /// The service, where it runs.
    service: Option<ServiceStatus>,
    sources: Vec<SourceStatus>,
    store: Stats,
    /// Reports that nobody could file.
    dead_letters: u64,
    /// Reports that wait for a decision.
    quarantined: u64,
    /// Addresses that should have an owner and have none.
    unowned: u64,
    /// Reconciles and checkpoints.
    proof: Proof,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct ServiceStatus {
    pid: u32,
    started: Option<String>,
    configured: Option<String>,
    reload_error: Option<String>,
    owners_error: Option<String>,
    lent_to: Option<String>,
}

#[derive(Serialize)]
struct SourceStatus {
    source: String,
    mailbox: String,
    paused: bool,
    /// As it is now, or by whom and since when.
    paused_by: Option<String>,
    /// In maintenance hours.
    resting: bool,
    /// A round is under way.
    collecting: bool,
    last_round: Option<String>,
    last_report: Option<String>,
    /// Why the last round could not begin.
    error: Option<String>,
    /// What `max_per_round` left in the last round.
    postponed: u64,
    hosts: Vec<HostStatus>,
}

#[derive(Serialize)]
struct HostStatus {
    host: String,
    last_asked: Option<String>,
    last_well: Option<String>,
    waiting: Option<u64>,
    error: Option<String>,
    /// Failures in a row.
    failures: u32,
    /// When it is asked again at the earliest, where it is spared.
    next_try: Option<String>,
}

/// Shows the state.
///
/// # Errors
/// A sentence and an exit code; exit 1 when a host was not well the last time, or the service needs somebody.
pub fn run(config: Option<&Path>, args: &StatusArgs) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let config = ArchiverConfig::find(config)?;
    let service = control::status(&config.control_socket())?;
    // The state has one reader: the holder of the lock. A service tells what it knows itself.
    let lock = disk.lock(&config.lock_file()).ok();
    let state = if lock.is_some() { Some(State::open(&config.state_dir(), &*disk)?) } else { None };
    let sources: Vec<SourceStatus> = config
        .sources
        .iter()
        .map(|s| source_status(s, state.as_ref(), service.as_ref(), &config.paused_dir()))
        .collect::<Result<_, _>>()?;
    let store = Archive::open_read(&config, &disk)?;
    let (dead_letters, quarantined) = store.count_held()?;
    let status = Status {
        dead_letters,
        quarantined,
        unowned: store.unowned_count()?,
        running: lock.is_none(),
        store: store.stats()?,
        notes: notes(&config, &store, lock.is_none() && service.is_none()),
        service: service.map(|service| ServiceStatus {
            pid: service.pid,
            started: moment(service.started_ms),
            configured: moment(service.configured_ms),
            reload_error: service.reload_error,
            owners_error: service.owners_error,
            lent_to: service.lent_to,
        }),
        proof: Proof::load(&config, &*disk)?,
        sources,
    };
    print(&status, args.json)?;
    let hosts = status.sources.iter().flat_map(|s| &s.hosts).all(|h| h.error.is_none());
    let sources = status.sources.iter().all(|s| s.error.is_none());
    let service = status.service.as_ref().is_none_or(|s| s.reload_error.is_none() && s.owners_error.is_none());
    Ok(if hosts && sources && service && store.unseen().next().is_none() { Exit::Done } else { Exit::Attention })
}

fn source_status(
    source: &Source,
    state: Option<&State>,
    service: Option<&Snapshot>,
    paused_dir: &Path,
) -> Result<SourceStatus, Failure> {
    let by_command = pause::paused(&LocalDisk, paused_dir, &source.name)?;
    let known = service.and_then(|service| service.sources.iter().find(|s| s.name == source.name));
    let hosts = match known {
        Some(known) => known.hosts.iter().map(|(host, standing)| served(host, standing)).collect(),
        None => remembered(source, state)?,
    };
    Ok(SourceStatus {
        source: source.name.clone(),
        mailbox: source.mailbox.clone(),
        paused: source.rhythm.pause || by_command.is_some(),
        paused_by: match by_command {
            Some(Paused { since, by }) => Some(format!("{} since {since}", by.as_deref().unwrap_or("somebody"))),
            None => source.rhythm.pause.then(|| "the configuration".to_owned()),
        },
        resting: source.rhythm.rests_for(now_ms()).is_some(),
        collecting: known.is_some_and(|known| known.running_ms.is_some()),
        last_round: known.and_then(|known| known.ended_ms).and_then(moment),
        last_report: known.and_then(|known| known.last_report_ms).and_then(moment),
        error: known.and_then(|known| known.error.clone()),
        postponed: known.map_or(0, |known| known.postponed),
        hosts,
    })
}

fn served(host: &str, standing: &HostStanding) -> HostStatus {
    HostStatus {
        host: host.to_owned(),
        last_asked: standing.asked_ms.and_then(moment),
        last_well: standing.last_ok_ms.and_then(moment),
        waiting: standing.waiting,
        error: standing.error.clone(),
        failures: standing.failures,
        next_try: standing.next_ms.and_then(moment),
    }
}

/// As the last round left it.
fn remembered(source: &Source, state: Option<&State>) -> Result<Vec<HostStatus>, Failure> {
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
        let Seen { time_ms, error, well_ms, waiting, failures } = seen.unwrap_or_default();
        hosts.push(HostStatus {
            host,
            last_asked: asked.then(|| moment(time_ms)).flatten(),
            last_well: well_ms.and_then(moment),
            waiting: asked.then_some(waiting),
            error,
            failures,
            next_try: None,
        });
    }
    Ok(hosts)
}

fn notes(config: &ArchiverConfig, store: &Archive, running: bool) -> Vec<String> {
    let mut notes: Vec<String> =
        store.disabled().iter().map(|name| format!("store {name} is disabled and not counted here")).collect();
    if running {
        notes.push("an archiver is running: what it saw last is in its log".to_owned());
    }
    notes.extend(store.unseen().map(|place| format!("{place}; what stands there is not counted here")));
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
    if let Some(service) = &status.service {
        let started = service.started.as_deref().unwrap_or("unknown");
        line(format!("service: running as process {} since {started}", service.pid))?;
        for error in service.reload_error.iter().chain(&service.owners_error) {
            line(format!("ATTENTION: the old configuration is in use: {error}"))?;
        }
        if let Some(to) = &service.lent_to {
            line(format!("the store is lent to {to}; rounds go on when it is given back"))?;
        }
    }
    for source in &status.sources {
        if let Some(by) = &source.paused_by {
            line(format!("{}: paused by {by}", source.source))?;
        } else if source.resting {
            line(format!("{}: maintenance hours, nothing is asked", source.source))?;
        }
        if let Some(error) = &source.error {
            line(format!("{}: {error}", source.source))?;
        }
        if source.postponed > 0 {
            line(format!("{}: {} left for the next round by max_per_round", source.source, source.postponed))?;
        }
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
            if let Some(next) = &host.next_try {
                line(format!("  {} failures in a row, asked again at {next}", host.failures))?;
            }
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
    line(status.proof.line())?;
    status.notes.iter().try_for_each(|note| line(note.clone()))
}
