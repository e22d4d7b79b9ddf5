//! `show`.

use super::{
    ShowArgs,
    store::{open_reader, stdout_failed},
};
use postkeep_shared::run::{Exit, Failure};
use std::{
    io::{self, BufWriter, Write as _},
    path::Path,
};

/// Writes the exact octets of a message to standard output. They count only when the exit code is 0.
///
/// # Errors
/// A sentence and an exit code.
pub fn run(config: Option<&Path>, args: &ShowArgs) -> Result<Exit, Failure> {
    let store = open_reader(config)?;
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    store.read_message(&args.id, &mut out)?;
    out.flush().map_err(stdout_failed)?;
    Ok(Exit::Done)
}
