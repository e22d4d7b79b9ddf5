//! `open`: writes one message as RETR would give it, without the server.

use super::{Context, mailbox::find, password};
use crate::{
    ledger::{LedgerError, Origins, Scan},
    mailbox::{Mailbox, MailboxError, Mailboxes},
    spool::{Folder, Layout, open_message},
};
use postkeep_shared::{
    disk::LocalDisk,
    mail::Uidl,
    receipt::{Entry, Event},
    run::{Exit, Failure},
};
use std::{
    io::{self, Read as _, Write as _},
    sync::Arc,
};

/// Arguments of `open`.
#[derive(clap::Args)]
pub struct Args {
    /// Mailbox
    pub id: String,
    /// Name of the message
    pub uidl: String,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`]: [`Exit::WrongKey`] for a wrong password, [`Exit::Attention`] for a damaged or missing file.
pub fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    let config = context.config()?;
    let mailbox = find(&Mailboxes::existing(&config.data_dir, Arc::new(LocalDisk))?, &args.id)?;
    let uidl: Uidl = args.uidl.parse().map_err(|_| {
        let shown: String = args.uidl.chars().take(60).collect();
        Failure::usage(format!("`{}` is not a message; see `postkeep-gateway ledger show`", shown.escape_debug()))
    })?;
    let layout = Layout::new(&config.data_dir);
    let entry = entry(&layout, &mailbox, uidl)?;
    let password = password::ask(&format!("Password of {}: ", mailbox.id))?;
    let identity = mailbox.unlock(&password).map_err(MailboxError::from)?;
    let path = layout.message(mailbox.id, Folder::New, uidl);
    let mut reader = open_message(&LocalDisk, &path, &entry, &identity)?.with_line_end();
    let mut out = io::stdout().lock();
    let mut block = vec![0; 64 * 1024];
    loop {
        // Its last octets come only when everything was checked.
        let read = reader.read(&mut block).map_err(|e| Failure::new(Exit::Attention, e.to_string()))?;
        if read == 0 {
            break;
        }
        if let Err(e) = out.write_all(block.get(..read).unwrap_or_default()) {
            return stdout_ended(e);
        }
    }
    out.flush().map_or_else(stdout_ended, |()| Ok(Exit::Done))
}

/// A reader that has seen enough is no failure.
pub(super) fn stdout_ended(error: io::Error) -> Result<Exit, Failure> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        _ => Err(Failure::cannot(format!("cannot write to standard output: {error}"))),
    }
}

/// The entry that brought the message in.
fn entry(layout: &Layout, mailbox: &Mailbox, uidl: Uidl) -> Result<Entry, Failure> {
    let none = || Failure::usage(format!("mailbox {} has no message {uidl}; see `ledger show`", mailbox.id));
    let scan = match Scan::open(&LocalDisk, &layout.ledger(mailbox.id), mailbox.id) {
        Ok(scan) => scan,
        Err(LedgerError::Disk(e)) if e.is_missing() => return Err(none()),
        Err(e) => return Err(Failure::cannot(e)),
    };
    let mut found = None;
    for slot in scan {
        let entry = slot.map_err(Failure::cannot)?.entry.ok().filter(|entry| entry.body.uidl == uidl);
        match entry {
            Some(entry) if matches!(entry.body.event, Event::Removed | Event::MovedOut) => {
                let text = format!("message {uidl} has left mailbox {} with entry {}", mailbox.id, entry.body.seq);
                return Err(Failure::usage(text));
            }
            Some(entry) => found = Some(entry),
            None => {}
        }
    }
    let found = found.ok_or_else(none)?;
    if found.body.event != Event::MovedIn {
        return Ok(found);
    }
    let receipt = Origins::open(&LocalDisk, &layout.ledgers(), mailbox.id)?.resolve(&found)?;
    receipt.ok_or_else(|| {
        Failure::cannot(format!(
            "message {uidl} was moved here, and the ledger it came with is missing in ledger/origin"
        ))
    })
}
