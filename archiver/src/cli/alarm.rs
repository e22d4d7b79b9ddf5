//! `alarm list`, `alarm test`, `status-mail` and `probe`: arguments and printing.

use super::run::runtime;
use crate::{
    archive::Archive,
    config::ArchiverConfig,
    probe::{self, Key, ProbeState},
    serve::{Snapshot, board::StoreStanding, control},
    watch::{self, ArchiverAlarms},
};
use postkeep_shared::{
    alarm::{Kept, Listing, trial},
    disk::{Disk, LocalDisk},
    run::{Exit, Failure, now_ms},
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Subcommands of `alarm`.
#[derive(Debug, clap::Subcommand)]
pub enum AlarmCommand {
    /// What is wrong now, and which notices were not delivered yet.
    List(JsonArgs),
    /// Send a test notice to every recipient, and say what came of it.
    Test(JsonArgs),
}

/// Subcommands of `probe`.
#[derive(Debug, clap::Subcommand)]
pub enum ProbeCommand {
    /// Every probe, when it last came back, and how long it took.
    List(JsonArgs),
    /// Send one now and wait until its report is in the archive; exit 1 when it does not come.
    Run {
        /// Name of the probe
        name: String,
        /// How long to wait
        #[arg(long, default_value = "5m", value_parser = postkeep_shared::config::parse_duration)]
        wait: Duration,
    },
}

/// How to print.
#[derive(Debug, clap::Args)]
pub struct JsonArgs {
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `status-mail`.
#[derive(Debug, clap::Args)]
pub struct StatusMailArgs {
    /// Show it instead of sending it
    #[arg(long)]
    pub print: bool,
    /// With --print: the page for a browser
    #[arg(long, requires = "print")]
    pub html: bool,
}

/// `alarm`.
///
/// # Errors
/// A sentence and an exit code.
pub fn alarm(config: Option<&Path>, command: &AlarmCommand) -> Result<Exit, Failure> {
    let config = ArchiverConfig::find(config)?;
    match command {
        AlarmCommand::List(args) => {
            let kept = Kept::read(&LocalDisk, &config.data_dir).map_err(Failure::cannot)?;
            let listing = Listing::from(&kept);
            if args.json {
                println!("{}", serde_json::to_string(&listing).map_err(Failure::cannot)?);
            } else {
                listing.lines(now_ms()).iter().for_each(|line| println!("{line}"));
            }
            Ok(listing.exit())
        }
        AlarmCommand::Test(args) => {
            let settings = &config.alarms;
            if !settings.shared.tells_somebody() {
                return Err(Failure::usage("[alarms] names nobody; add mail = [\"admin@…\"] or command = [\"/…\"]"));
            }
            let mailer = settings.mailer(&config.dns);
            let tried = runtime()?.block_on(trial(&settings.shared, mailer.as_ref(), &ArchiverAlarms::who()));
            if args.json {
                println!("{}", serde_json::to_string(&tried).map_err(Failure::cannot)?);
            } else {
                for one in &tried {
                    println!("{} {}: {}", if one.ok { "ok    " } else { "FAILED" }, one.recipient, one.detail);
                }
            }
            Ok(if tried.iter().all(|one| one.ok) { Exit::Done } else { Exit::Attention })
        }
    }
}

/// `status-mail`.
///
/// # Errors
/// A sentence and an exit code.
pub fn status_mail(config: Option<&Path>, args: &StatusMailArgs) -> Result<Exit, Failure> {
    let config = ArchiverConfig::find(config)?;
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let mut board = control::status(&config.control_socket())?.unwrap_or_else(Snapshot::default);
    if board.store.is_none() {
        let archive = Archive::open_read(&config, &disk)?;
        board.store = Some(StoreStanding::new(&archive.figures()?, archive.count_held()?, archive.unowned_count()?));
    }
    let kept = Kept::read(&*disk, &config.data_dir).map_err(Failure::cannot)?;
    let page = watch::status_page(&config, &*disk, board, kept.engine.active());
    if args.print {
        print!("{}", if args.html { page.html() } else { page.text() });
        return Ok(Exit::Done);
    }
    let (Some(status), Some(mailer)) = (&config.alarms.status, config.alarms.mailer(&config.dns)) else {
        return Err(Failure::usage("[status_mail] names no time; add every = \"daily\", or use --print"));
    };
    let mut exit = Exit::Done;
    let runtime = runtime()?;
    for to in &status.to {
        let id = data_encoding::HEXLOWER.encode(&postkeep_shared::crypt::random::<12>());
        match runtime.block_on(mailer.send(to, &id, &page.letter())) {
            Ok(server) => println!("ok     {to}: taken by {server}"),
            Err(error) => {
                println!("FAILED {to}: {error}");
                exit = Exit::Attention;
            }
        }
    }
    Ok(exit)
}

/// `probe`.
///
/// # Errors
/// A sentence and an exit code.
pub fn probe(config: Option<&Path>, command: &ProbeCommand) -> Result<Exit, Failure> {
    let config = ArchiverConfig::find(config)?;
    match command {
        ProbeCommand::List(args) => list(&config, args),
        ProbeCommand::Run { name, wait } => run_probe(&config, name, *wait),
    }
}

fn list(config: &ArchiverConfig, args: &JsonArgs) -> Result<Exit, Failure> {
    let (mut exit, mut all) = (Exit::Done, Vec::new());
    for one in &config.probes {
        let state = ProbeState::read(&LocalDisk, &config.data_dir, one);
        let missing = state.missing(0, now_ms());
        if missing.is_some() {
            exit = Exit::Attention;
        }
        let (arrived, latency) = (state.last_arrival().map(|arrival| arrival.arrived_ms), state.latency_ms());
        if args.json {
            all.push(serde_json::json!({
                "name": one.name,
                "sent_ms": state.sent.last().map(|sent| sent.sent_ms),
                "arrived_ms": arrived,
                "latency_ms": latency,
                "missing": missing.map(|(_, text)| text),
            }));
            continue;
        }
        let back = arrived.map_or("never came back".to_owned(), |at| {
            format!(
                "came back {} in {} ms",
                postkeep_shared::run::LocalTime::of(at).text(),
                latency.unwrap_or_default()
            )
        });
        let missing = missing.map(|(_, text)| format!("; MISSING: {text}")).unwrap_or_default();
        println!("{} to {} by {}: {back}{missing}", one.name, one.to, one.server.host);
    }
    if args.json {
        println!("{}", serde_json::to_string(&all).map_err(Failure::cannot)?);
    }
    Ok(exit)
}

fn run_probe(config: &ArchiverConfig, name: &str, wait: Duration) -> Result<Exit, Failure> {
    let found = config.probes.iter().find(|one| one.name == name);
    let one = found.ok_or_else(|| Failure::usage(format!("there is no [[probe]] named `{name}`")))?;
    let key = Key::load_or_create(&config.data_dir, &LocalDisk)?;
    let (marker, result) = runtime()?.block_on(probe::send(one, &key));
    let server = result.map_err(|error| Failure::cannot(format!("probe {name} could not be sent: {error}")))?;
    println!("sent: {server} took {}", marker.chance);
    if control::status(&config.control_socket())?.is_none() {
        println!("no service runs here: `run --once` collects it");
    }
    let end = Instant::now() + wait;
    loop {
        let state = ProbeState::read(&LocalDisk, &config.data_dir, one);
        if let Some(arrival) = state.has(&marker.chance) {
            let latency = arrival.arrived_ms.saturating_sub(arrival.sent_ms);
            println!("came back: its report was taken into the archive after {latency} ms");
            return Ok(Exit::Done);
        }
        if Instant::now() >= end {
            println!("MISSING: no report of it came within {} s", wait.as_secs());
            return Ok(Exit::Attention);
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}
