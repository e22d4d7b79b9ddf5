//! `mailbox export` and `mailbox import`.

use super::{find, lifecycle::identity_file};
use crate::{
    bundle::{self, Bundle, BundleError, Item, MAX_BUNDLE, Purpose},
    mailbox::{Mailbox, Mailboxes, OnConflict, TakenIn},
};
use postkeep_shared::{
    disk::{self, Disk as _, LocalDisk},
    run::{Exit, Failure},
};
use serde_json::json;
use std::path::{Path, PathBuf};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Arguments of `mailbox export`.
#[derive(clap::Args)]
pub struct ExportArgs {
    /// Mailboxes [default: all]
    ids: Vec<String>,
    /// The file to make
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Seal it to this age recipient
    #[arg(long, value_name = "age1…")]
    seal_to: Option<String>,
}

/// Arguments of `mailbox import`.
#[derive(clap::Args)]
pub struct ImportArgs {
    /// The bundle
    file: PathBuf,
    /// The age identity file that opens a sealed bundle
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Take it only if this node made it (its short name, as `export` printed it)
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
}

/// Writes a bundle.
pub(super) fn export(all: &Mailboxes, args: &ExportArgs) -> Result<(), Failure> {
    let mailboxes = match args.ids.as_slice() {
        [] => all.list()?,
        ids => ids.iter().map(|id| find(all, id)).collect::<Result<_, _>>()?,
    };
    let items = items(&mailboxes)?;
    let text = bundle::write(Purpose::Mailboxes, now(), &items, all.node()).map_err(Failure::cannot)?;
    write_out(&args.out, &text, args.seal_to.as_deref())?;
    eprintln!("{}: {} mailboxes, made by node {}", args.out.display(), items.len(), all.node().public().id());
    Ok(())
}

/// The items of mailboxes.
pub(crate) fn items(mailboxes: &[Mailbox]) -> Result<Vec<Item>, Failure> {
    mailboxes.iter().map(|mailbox| mailbox.to_portable().map(Item::Mailbox).map_err(Failure::cannot)).collect()
}

/// The present time as a bundle tells it.
pub(crate) fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

/// Writes a bundle to a file that must not be there.
pub(crate) fn write_out(out: &Path, text: &[u8], seal_to: Option<&str>) -> Result<(), Failure> {
    let written = match seal_to {
        Some(recipient) => {
            let sealed = bundle::seal(text, recipient).map_err(Failure::usage)?;
            disk::write_new_file(&LocalDisk, out, &sealed)
        }
        None => disk::write_new_file(&LocalDisk, out, text),
    };
    written.map_err(|e| match e.is_present() {
        true => {
            Failure::refused(format!("{} is there already and is not overwritten; name another file", out.display()))
        }
        false => e.into(),
    })
}

/// Reads and checks a bundle.
pub(crate) fn read_in(file: &Path, identity: Option<&Path>) -> Result<Bundle, Failure> {
    let identity = identity.map(identity_file).transpose()?;
    let octets = zeroize::Zeroizing::new(LocalDisk.read(file, MAX_BUNDLE)?);
    bundle::read(&octets, identity.as_ref()).map_err(|error| {
        let text = format!("{} {error}", file.display());
        match error {
            BundleError::Sealed | BundleError::WrongIdentity => Failure::wrong_key(text),
            BundleError::Other | BundleError::Version => Failure::usage(text),
            _ => Failure::cannot(text),
        }
    })
}

/// The mailboxes in a bundle.
pub(crate) fn mailboxes_of(bundle: &Bundle) -> Result<Vec<Mailbox>, Failure> {
    let portable = bundle.items.iter().filter_map(|item| match item {
        Item::Mailbox(portable) => Some(portable.clone()),
        _ => None,
    });
    let mailboxes =
        portable.map(|p| Mailbox::from_portable(p).map_err(|e| Failure::cannot(format!("the bundle: {e}"))));
    mailboxes.collect()
}

/// Takes a bundle in.
pub(super) fn import(all: &Mailboxes, args: &ImportArgs) -> Result<Exit, Failure> {
    let bundle = read_in(&args.file, args.identity.as_deref())?;
    let node = bundle.node.id();
    if let Some(wanted) = args.node.as_ref().filter(|wanted| **wanted != node) {
        let text = format!("{} was made by node {node} and not by {wanted}; nothing was changed", args.file.display());
        return Err(Failure::refused(text));
    }
    let peer = format!("in the bundle of node {node}");
    let taken = all.take_in(&mailboxes_of(&bundle)?, &peer, OnConflict::ChangeNothing)?;
    if !taken.conflicts.is_empty() {
        return Err(Failure::refused(format!("nothing was changed: {}", taken.conflicts.join("; "))));
    }
    print(&taken, &node, args.json);
    Ok(if taken.deleted.is_empty() { Exit::Done } else { Exit::Attention })
}

/// Tells what was taken in.
pub(super) fn print(taken: &TakenIn, node: &str, json: bool) {
    let TakenIn { new, changed, unchanged, deleted, conflicts } = taken;
    if json {
        let names = |ids: &[postkeep_shared::mail::MailboxId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        let document = json!({
            "node": node,
            "new": names(new),
            "changed": names(changed),
            "unchanged": unchanged,
            "deleted_here": names(deleted),
            "conflicts": conflicts,
        });
        println!("{document}");
        return;
    }
    let (new, changed) = (new.len(), changed.len());
    println!("from node {node}: {new} new, {changed} changed, {unchanged} as they were");
    for id in deleted {
        println!("{id} was deleted here and is not made again; to have it back remove mailboxes/{id}.deleted first");
    }
    conflicts.iter().for_each(|conflict| println!("CONFLICT: {conflict}"));
}
