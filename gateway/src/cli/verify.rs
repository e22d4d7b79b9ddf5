//! `verify`: recomputes spool and ledger, also while the server runs.

use super::{Context, mailbox::find};
use crate::{mailbox::Mailboxes, verify::Verifier};
use postkeep_shared::{
    disk::LocalDisk,
    run::{Exit, Failure},
};
use serde_json::json;
use std::sync::Arc;

/// Arguments of `verify`.
#[derive(clap::Args)]
pub struct Args {
    /// Mailbox; all of them when left out
    pub id: Option<String>,
    /// One JSON document on standard output
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`]; [`Exit::Attention`] when there are problems.
pub fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    let config = context.config()?;
    let all = Mailboxes::existing(&config.data_dir, Arc::new(LocalDisk))?;
    // A damaged definition is one of the problems, so the name alone must do.
    let only = match args.id.as_deref() {
        Some(id) => Some(id.parse().map_or_else(|_| find(&all, id).map(|m| m.id), Ok)?),
        None => None,
    };
    if let Some(id) = only
        && !all.ids()?.contains(&id)
    {
        find(&all, &id.to_string())?;
    }
    let outcome = Verifier::new(&config.data_dir, Arc::new(LocalDisk), all).run(only)?;
    let ok = outcome.problems.is_empty();
    if args.json {
        let problems: Vec<_> = outcome
            .problems
            .iter()
            .map(|p| {
                json!({
                    "kind": p.kind.name(),
                    "uidl": p.uidl.map(|u| u.to_string()),
                    "detail": p.detail,
                    "mailbox": p.mailbox.to_string(),
                    "seq": p.seq,
                })
            })
            .collect();
        let notes: Vec<_> = outcome
            .notes
            .iter()
            .map(|n| {
                json!({
                    "kind": n.kind.name(),
                    "uidl": n.uidl.map(|u| u.to_string()),
                    "detail": n.detail,
                    "mailbox": n.mailbox.to_string(),
                })
            })
            .collect();
        println!("{}", json!({"ok": ok, "messages": outcome.messages, "problems": problems, "notes": notes}));
    } else {
        for p in &outcome.problems {
            println!("{}  {}  {}", p.mailbox, p.kind.name(), p.detail);
        }
        for n in &outcome.notes {
            println!("{}  {}  {}", n.mailbox, n.kind.name(), n.detail);
        }
        let (problems, notes) = (outcome.problems.len(), outcome.notes.len());
        println!(
            "{} messages checked, {problems} problems, {notes} things put right at earlier starts",
            outcome.messages
        );
    }
    Ok(if ok { Exit::Done } else { Exit::Attention })
}
