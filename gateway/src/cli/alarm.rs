//! `alarm list` and `alarm test`.

use super::Context;
use crate::alarms::GatewayAlarms;
use postkeep_shared::{
    alarm::{Kept, Listing, trial},
    disk::LocalDisk,
    run::{Exit, Failure, now_ms},
};

/// Subcommands of `alarm`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// What is wrong now, and which notices were not delivered yet
    List {
        /// One JSON document on standard output
        #[arg(long)]
        json: bool,
    },
    /// Send a test notice to every recipient, and say what came of it
    Test {
        /// One JSON document on standard output
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// [`Exit::Usage`] where nobody is configured to be told; [`Exit::Cannot`] where the state cannot be read.
pub fn run(context: &Context, command: &Command) -> Result<Exit, Failure> {
    let config = context.config()?;
    match command {
        Command::List { json } => {
            let kept = Kept::read(&LocalDisk, &config.data_dir).map_err(Failure::cannot)?;
            let listing = Listing::from(&kept);
            if *json {
                println!("{}", serde_json::to_string(&listing).map_err(Failure::cannot)?);
            } else {
                listing.lines(now_ms()).iter().for_each(|line| println!("{line}"));
            }
            Ok(listing.exit())
        }
        Command::Test { json } => {
            let settings = &config.alarms;
            if !settings.shared.tells_somebody() {
                return Err(Failure::usage("[alarms] names nobody; add mail = [\"admin@…\"] or command = [\"/…\"]"));
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|e| Failure::cannot(format!("cannot start: {e}")))?;
            let (mailer, who) = (settings.mailer(&config.dns.servers), GatewayAlarms::who(&config.hostname));
            let tried = runtime.block_on(trial(&settings.shared, mailer.as_ref(), &who));
            if *json {
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
