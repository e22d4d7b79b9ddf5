//! `status`: mailboxes, certificate, disk and uptime, of the running server or of the data directory.
//!
//! Exit 1 when something needs attention: what it is stands in `attention`.

use super::{Context, mailbox::time_text};
use crate::{
    config::{CertificateSource, GatewayConfig},
    mailbox::Mailboxes,
    server::Presence,
    sync::{self, PeerState},
    tls::{self, Alarms, Facts, Report, TlsError, clock::moment},
    verify::{Summary, Verifier},
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    run::{Exit, Failure, now_ms},
};
use serde::Serialize;
use std::sync::Arc;

/// Arguments of `status`.
#[derive(clap::Args)]
pub struct Args {
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Status {
    running: bool,
    pid: Option<u32>,
    version: Option<String>,
    started: Option<String>,
    uptime_seconds: Option<u64>,
    addresses: Vec<Address>,
    mailboxes: Vec<Mailbox>,
    certificate: Option<Certificate>,
    disk: DiskStatus,
    /// Other nodes that the definitions are kept equal with.
    sync: Vec<PeerState>,
    notes: Vec<String>,
    attention: Vec<String>,
}

#[derive(Serialize)]
struct Address {
    kind: String,
    address: String,
}

#[derive(Serialize)]
struct Mailbox {
    id: String,
    description: String,
    state: &'static str,
    messages: u64,
    bytes: u64,
    oldest: Option<String>,
    accepted_total: u64,
    removed_total: u64,
}

/// The certificate that is served, or would be.
#[derive(Serialize)]
struct Certificate {
    mode: String,
    source: String,
    names: Vec<String>,
    issuer: String,
    not_before: String,
    expires: String,
    days_left: i64,
    public_key_sha256: String,
    last_error: Option<String>,
    last_error_at: Option<String>,
    next_try: Option<String>,
    failures: u32,
    account: Option<String>,
}

#[derive(Serialize)]
struct DiskStatus {
    path: String,
    free: u64,
    total: u64,
    free_inodes: Option<u64>,
    read_only: bool,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`].
pub fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    let config = context.config()?;
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let mut attention = Vec::new();
    let presence = Presence::running(disk.as_ref(), &config.data_dir);
    let (certificate, mut notes) = (certificate(&config, &disk, &mut attention), Vec::new());
    notes.extend(config.sources.warnings.iter().cloned());
    if config.sources.all().all(|rules| rules.is_empty()) {
        notes.push(
            "no source rules: the secret mailbox address is the only evidence, every report counts as trusted".into(),
        );
    }
    let sync = sync::states(&config.sync, disk.as_ref(), &config.data_dir);
    attention.extend(sync.iter().filter(|peer| !peer.is_well()).map(PeerState::line));
    let status = Status {
        running: presence.is_some(),
        pid: presence.as_ref().map(|p| p.pid),
        version: presence.as_ref().map(|p| p.version.clone()),
        started: presence.as_ref().map(|p| time_text(p.started_ms)),
        uptime_seconds: presence.as_ref().map(|p| now_ms().saturating_sub(p.started_ms) / 1000),
        addresses: presence.map(|p| p.addresses).unwrap_or_default().into_iter().map(address).collect(),
        mailboxes: mailboxes(&config, &disk)?,
        certificate,
        disk: disk_status(&config, disk.as_ref(), &mut attention)?,
        sync,
        notes,
        attention,
    };
    if args.json {
        println!("{}", serde_json::to_string(&status).map_err(Failure::cannot)?);
    } else {
        print(&status);
    }
    Ok(if status.attention.is_empty() { Exit::Done } else { Exit::Attention })
}

fn address((kind, address): (String, std::net::SocketAddr)) -> Address {
    Address { kind, address: address.to_string() }
}

fn mailboxes(config: &GatewayConfig, disk: &Arc<dyn Disk>) -> Result<Vec<Mailbox>, Failure> {
    let all = Mailboxes::existing(&config.data_dir, Arc::clone(disk))?;
    let verifier = Verifier::new(&config.data_dir, Arc::clone(disk), all.clone());
    let mut mailboxes = Vec::new();
    for mailbox in all.list()? {
        let Summary { messages, bytes, oldest_ms, accepted, removed, .. } = verifier.summary(mailbox.id)?;
        mailboxes.push(Mailbox {
            id: mailbox.id.to_string(),
            state: mailbox.state.name(),
            description: mailbox.description,
            messages,
            bytes,
            oldest: oldest_ms.map(time_text),
            accepted_total: accepted,
            removed_total: removed,
        });
    }
    Ok(mailboxes)
}

/// The certificate that the running server told of last; the one on disk where none runs. With its origin.
pub(super) fn served(config: &GatewayConfig, disk: &Arc<dyn Disk>) -> Result<Option<(Facts, String)>, TlsError> {
    let running = Presence::running(disk.as_ref(), &config.data_dir).is_some();
    match Report::read(disk.as_ref(), &config.data_dir) {
        Some(Report { facts: Some(facts), source, mode, .. }) if running && mode == config.tls.source.name() => {
            Ok(Some((facts, source)))
        }
        _ => Ok(tls::stored(&config.tls, &config.data_dir, disk)?.map(|s| (s.facts, s.source.to_owned()))),
    }
}

fn certificate(config: &GatewayConfig, disk: &Arc<dyn Disk>, attention: &mut Vec<String>) -> Option<Certificate> {
    let kept = Report::read(disk.as_ref(), &config.data_dir).filter(|kept| kept.mode == config.tls.source.name());
    let (facts, source) = match served(config, disk) {
        Ok(served) => served?,
        Err(error) => {
            attention.push(format!("certificate: {error}"));
            return None;
        }
    };
    let now = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
    let kept = kept.unwrap_or_default();
    if facts.is_expired(now) {
        attention.push(format!("certificate: expired on {}; it is served all the same", moment(facts.not_after)));
    } else if Alarms::default().due(&facts, now).is_some() {
        attention.push(format!("certificate: {} days left", facts.days_left(now)));
    }
    if let Some(trouble) = &kept.last_error {
        attention.push(format!("certificate: {}", trouble.text));
    }
    if matches!(config.tls.source, CertificateSource::Acme(_)) && source != "acme" {
        attention.push("certificate: none of the authority yet; the self-signed one is served".into());
    }
    Some(Certificate {
        mode: config.tls.source.name().to_owned(),
        source,
        issuer: facts.issuer.clone(),
        not_before: moment(facts.not_before),
        expires: moment(facts.not_after),
        days_left: facts.days_left(now),
        public_key_sha256: facts.public_key_sha256.clone(),
        names: facts.names,
        last_error: kept.last_error.as_ref().map(|t| t.text.clone()),
        last_error_at: kept.last_error.map(|t| moment(t.time)),
        next_try: kept.next_try.map(moment),
        failures: kept.failures,
        account: kept.account,
    })
}

fn disk_status(config: &GatewayConfig, disk: &dyn Disk, attention: &mut Vec<String>) -> Result<DiskStatus, Failure> {
    let space = disk.space(&config.data_dir)?;
    let path = config.data_dir.display().to_string();
    // The same line below which the trash is given up (docs/durability.md).
    if space.total > 0 && space.free < space.total / 10 {
        attention.push(format!("disk: less than a tenth of {path} is free"));
    }
    if space.read_only {
        attention.push(format!("disk: {path} is mounted read-only"));
    }
    let free_inodes = (space.free_inodes != u64::MAX).then_some(space.free_inodes);
    Ok(DiskStatus { path, free: space.free, total: space.total, free_inodes, read_only: space.read_only })
}

fn print(status: &Status) {
    match (&status.started, status.pid) {
        (Some(started), Some(pid)) => {
            println!("server      running as process {pid} since {started}, {} s", status.uptime_seconds.unwrap_or(0));
        }
        _ => println!("server      not running"),
    }
    for Address { kind, address } in &status.addresses {
        println!("listening   {kind} {address}");
    }
    for m in &status.mailboxes {
        let oldest = m.oldest.as_deref().unwrap_or("none");
        println!(
            "mailbox     {}  {}  {} waiting, {} octets, oldest {oldest}, {} accepted, {} removed  {}",
            m.id, m.state, m.messages, m.bytes, m.accepted_total, m.removed_total, m.description
        );
    }
    match &status.certificate {
        Some(c) => {
            println!("certificate {} ({}, configured {})", c.names.join(" "), c.source, c.mode);
            println!("            by {}, until {}, {} days left", c.issuer, c.expires, c.days_left);
            println!("            public key SHA-256 {}", c.public_key_sha256);
            if let Some(next) = &c.next_try {
                println!("            next try {next}, {} failures in a row", c.failures);
            }
            if let (Some(error), Some(at)) = (&c.last_error, &c.last_error_at) {
                println!("            last error {at}: {error}");
            }
        }
        None => println!("certificate none yet; the first start makes one"),
    }
    println!("disk        {} of {} octets free at {}", status.disk.free, status.disk.total, status.disk.path);
    status.notes.iter().for_each(|note| println!("note        {note}"));
    status.sync.iter().filter(|peer| peer.is_well()).for_each(|peer| println!("{}", peer.line()));
    status.attention.iter().for_each(|what| println!("ATTENTION   {what}"));
}
