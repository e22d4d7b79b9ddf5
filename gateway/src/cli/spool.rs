//! `spool move-in`: takes over what waits in the data folder of a node that is gone.

use super::Context;
use crate::{
    control::{self, Order},
    spool::MovedIn,
};
use postkeep_shared::run::{Exit, Failure};
use std::path::PathBuf;

/// Subcommands of `spool`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Take over what waits in another node's data folder; that node must not run
    MoveIn {
        /// The data folder, as it was or a copy of it
        folder: PathBuf,
        /// One JSON document on standard output
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// [`Failure`].
pub fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    let Command::MoveIn { folder, json } = command;
    let config = context.config()?;
    let folder = std::path::absolute(&folder).map_err(Failure::usage)?;
    let order = Order::MoveIn { folder: folder.clone() };
    let answer = control::perform(&config.data_dir, &config.hostname, &order)?;
    let moved: MovedIn = serde_json::from_value(answer.clone()).map_err(Failure::cannot)?;
    if json {
        println!("{answer}");
    } else {
        let MovedIn { moved, known, unrecorded, .. } = &moved;
        println!(
            "{}: {moved} moved here, {known} were here already, {unrecorded} without entry there",
            folder.display()
        );
    }
    moved.problems.iter().for_each(|problem| eprintln!("{problem}"));
    Ok(if moved.problems.is_empty() { Exit::Done } else { Exit::Attention })
}
