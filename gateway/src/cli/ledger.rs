//! `ledger show`: the record of what came and what left, also while the server runs.

use super::{
    Context,
    mailbox::{find, time_text},
};
use crate::{
    ledger::{LedgerError, Origins, Scan, offset_of},
    mailbox::Mailboxes,
    spool::Layout,
};
use data_encoding::HEXLOWER;
use postkeep_shared::{
    disk::LocalDisk,
    receipt::{Entry, Event},
    run::{Exit, Failure},
};
use serde_json::{Value, json};
use std::{
    io::{self, Write as _},
    sync::Arc,
};

/// Subcommands of `ledger`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Show the entries of one mailbox
    Show {
        /// Mailbox
        id: String,
        /// First sequence number
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// One JSON document per line
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// [`Failure`]; [`Exit::Attention`] when a place holds no entry.
pub fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    let Command::Show { id, from, json } = command;
    let config = context.config()?;
    let mailbox = find(&Mailboxes::existing(&config.data_dir, Arc::new(LocalDisk))?, &id)?;
    let path = Layout::new(&config.data_dir).ledger(mailbox.id);
    let scan = match Scan::open(&LocalDisk, &path, mailbox.id) {
        Ok(scan) => scan.from(offset_of(from)),
        // Nothing was accepted yet.
        Err(LedgerError::Disk(e)) if e.is_missing() => return Ok(Exit::Done),
        Err(e) => return Err(Failure::cannot(e)),
    };
    let origins = Origins::open(&LocalDisk, &Layout::new(&config.data_dir).ledgers(), mailbox.id)?;
    let mut exit = Exit::Done;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for slot in scan {
        let slot = slot.map_err(Failure::cannot)?;
        let written = match &slot.entry {
            Ok(entry) if json => {
                let origin = if entry.body.event == Event::MovedIn { origins.resolve(entry)? } else { None };
                writeln!(out, "{}", document(entry, origin.as_ref()))
            }
            Ok(entry) => writeln!(out, "{}", line(entry)),
            Err(e) => {
                eprintln!(
                    "{}: entry {} at octet {}: {e}; see `postkeep-gateway verify`",
                    mailbox.id,
                    slot.seq(),
                    slot.offset
                );
                exit = Exit::Attention;
                Ok(())
            }
        };
        if let Err(e) = written {
            return super::open::stdout_ended(e);
        }
    }
    out.flush().map_or_else(super::open::stdout_ended, |()| Ok(exit))
}

/// The event as printed.
fn event(entry: &Entry) -> &'static str {
    match entry.body.event {
        Event::Accepted => "accepted",
        Event::Removed => "removed",
        Event::MovedIn => "moved-in",
        Event::MovedOut => "moved-out",
    }
}

/// `origin`: for a message that was moved here, the entry it was accepted with.
fn document(entry: &Entry, origin: Option<&Entry>) -> Value {
    let body = &entry.body;
    let moved = body.event == Event::MovedIn;
    let origin = moved.then(|| {
        let node = origin.map(|origin| origin.node.id());
        json!({ "node": node, "seq": body.refers_to, "hash": body.digest.to_string() })
    });
    json!({
        "seq": body.seq,
        "time": time_text(body.time_ms),
        "event": event(entry),
        "uidl": body.uidl.to_string(),
        "size": body.size,
        "sealed_sha256": body.sealed_sha256.to_string(),
        "prev": body.prev.to_string(),
        "hash": entry.hash().to_string(),
        "node": entry.node.id(),
        "node_key": HEXLOWER.encode(&entry.node.0),
        "flags": body.flags.0,
        "digest": body.digest.to_string(),
        "refers_to": body.refers_to,
        "origin": origin,
        "signature_ok": entry.verify().is_ok(),
    })
}

fn line(entry: &Entry) -> String {
    let body = &entry.body;
    let refers = if body.refers_to > 0 { format!(" (entry {})", body.refers_to) } else { String::new() };
    format!(
        "{:>8}  {}  {:9}  {}  {:>11}  {}{refers}",
        body.seq,
        time_text(body.time_ms),
        event(entry),
        body.uidl,
        body.size,
        entry.hash().short(16)
    )
}
