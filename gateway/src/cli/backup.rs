//! `backup` and `restore`: a node's settings in one file.
//!
//! A backup holds configuration, mailboxes and how far each ledger went; no message. Sealed to an age recipient it
//! also holds the node's key and its self-made certificate's. A restored node is a new one that signs with a new key: the old
//! ledger ended with the old node, and two nodes that sign the same numbers could not be told apart. Only where the old
//! data folder is at hand with its ledgers, and an operator says that the original is dead, the same node goes on.

use super::{
    Context,
    mailbox::bundle::{items, mailboxes_of, now, read_in, write_out},
};
use crate::{
    bundle::{self, Bundle, Item, Purpose, SecretFile},
    config::{FILE_NAME, GatewayConfig},
    ledger::{Head, Ledger, LedgerError},
    mailbox::{Mailboxes, OnConflict},
    node::Node,
    spool::Layout,
};
use data_encoding::BASE64;
use postkeep_shared::{
    disk::{self, Disk, LocalDisk},
    mail::MailboxId,
    run::{Exit, Failure},
};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

const NODE_KEY: &str = "node.key";
/// Secrets of a node, relative to its data directory. Nothing else is ever put there by a restore.
const SECRETS: [&str; 4] = [NODE_KEY, "tls/self-signed.key", "tls/self-signed.pem", "sync.key"];
/// None of them is larger.
const MAX_SECRET: u64 = 64 * 1024;
/// Where a restored node tells what it was made from.
const ORIGIN: &str = "restored.json";

/// Arguments of `backup`.
#[derive(clap::Args)]
pub struct BackupArgs {
    /// The file to make
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Seal it to this age recipient; only then the node's own keys go with it
    #[arg(long, value_name = "age1…")]
    seal_to: Option<String>,
}

/// Arguments of `restore`.
#[derive(clap::Args)]
pub struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// The age identity file that opens a sealed backup
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Go on as the same node; its data directory must be there with all of its ledgers
    #[arg(long, requires = "original_is_dead")]
    same_node: bool,
    /// The node that made the backup will never run again
    #[arg(long)]
    original_is_dead: bool,
}

/// Writes a backup.
///
/// # Errors
/// [`Failure`].
pub fn backup(context: &Context, args: &BackupArgs) -> Result<Exit, Failure> {
    let config = context.config()?;
    let all = Mailboxes::existing(&config.data_dir, Arc::new(LocalDisk))?;
    let text = String::from_utf8(LocalDisk.read(&config.file, 1024 * 1024)?).map_err(Failure::cannot)?;
    let data_dir = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let mut lines = vec![Item::Config { text, data_dir: data_dir.display().to_string() }];
    let mailboxes = all.list()?;
    lines.extend(items(&mailboxes)?);
    lines.extend(all.deleted_ids()?.into_iter().map(|id| Item::Deleted(id.to_string())));
    let layout = Layout::new(&config.data_dir);
    for mailbox in layout.mailboxes(&LocalDisk)? {
        if let Some(Head { seq, hash, .. }) = head(&layout, mailbox)? {
            lines.push(Item::Ledger { mailbox: mailbox.to_string(), seq, hash: hash.to_string() });
        }
    }
    if args.seal_to.is_some() {
        for name in SECRETS {
            match LocalDisk.read(&config.data_dir.join(name), MAX_SECRET) {
                Ok(octets) => {
                    let octets = Zeroizing::new(octets);
                    lines.push(Item::Secret(SecretFile { name: name.into(), octets: BASE64.encode(&octets) }));
                }
                Err(e) if e.is_missing() => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    let text = bundle::write(Purpose::Backup, now(), &lines, all.node()).map_err(Failure::cannot)?;
    write_out(&args.out, &text, args.seal_to.as_deref())?;
    let with = if args.seal_to.is_some() { "with" } else { "without" };
    let (out, node) = (args.out.display(), all.node().public().id());
    eprintln!("{out}: node {node}, {} mailboxes, {with} the node's own keys; messages are not in it", mailboxes.len());
    Ok(Exit::Done)
}

/// How far a ledger goes; `None` where there is none.
fn head(layout: &Layout, mailbox: MailboxId) -> Result<Option<Head>, Failure> {
    match Ledger::read_head(&LocalDisk, &layout.ledger(mailbox), mailbox) {
        Ok(head) => Ok(Some(head)),
        Err(LedgerError::Disk(e)) if e.is_missing() => Ok(None),
        Err(e) => Err(Failure::cannot(e)),
    }
}

/// Makes a node from a backup.
///
/// # Errors
/// [`Failure`]; [`Exit::Refused`] where something is there already, or a node would be there twice.
pub fn restore(context: &Context, args: &RestoreArgs) -> Result<Exit, Failure> {
    let backup = read_in(&args.file, args.identity.as_deref())?;
    if backup.header.purpose != Purpose::Backup {
        let text = format!("{} holds mailboxes only; take it in with `mailbox import`", args.file.display());
        return Err(Failure::usage(text));
    }
    let mailboxes = mailboxes_of(&backup)?;
    let (text, original) = backup
        .items
        .iter()
        .find_map(|item| match item {
            Item::Config { text, data_dir } => Some((text, Path::new(data_dir))),
            _ => None,
        })
        .ok_or_else(|| Failure::cannot("the backup holds no configuration"))?;
    let file = context.named_file().unwrap_or(Path::new(FILE_NAME)).to_owned();
    if LocalDisk.entry(&file).is_ok() {
        let text = format!("{} is there already and is not overwritten; name another with --config", file.display());
        return Err(Failure::refused(text));
    }
    // Looked at before it gets its name: a refusal must leave nothing behind.
    let config = GatewayConfig::parse(&file, text)?;
    let data = config.data_dir.as_path();
    if args.same_node {
        may_go_on(&backup, data, original)?;
    } else if LocalDisk.list(data).is_ok_and(|entries| !entries.is_empty()) {
        let text = format!("{} is not empty; restore makes a new node in a directory of its own", data.display());
        return Err(Failure::refused(text));
    }
    disk::create_dirs(&LocalDisk, data)?;
    secrets(&backup, data, args.same_node)?;
    if !args.same_node {
        Node::create(data, &LocalDisk).map_err(Failure::cannot)?;
    }
    let all = Mailboxes::existing(data, Arc::new(LocalDisk))?;
    let taken = all.take_in(&mailboxes, "in the backup", OnConflict::ChangeNothing)?;
    if !taken.conflicts.is_empty() {
        return Err(Failure::refused(taken.conflicts.join("; ")));
    }
    tell_origin(&backup, data)?;
    // Last, so that what a crash leaves half cannot be started.
    if let Some(folder) = file.parent().filter(|p| !p.as_os_str().is_empty()) {
        disk::create_dirs(&LocalDisk, folder)?;
    }
    disk::write_new_file(&LocalDisk, &file, text.as_bytes())?;
    println!("configuration  {}", file.display());
    println!("data directory {}", data.display());
    println!("mailboxes      {}", mailboxes.len());
    println!("node           {} (the backup was made by {})", all.node().public().id(), backup.node.id());
    if !args.same_node {
        println!(
            "This is a new node: name it in the archiver's `nodes`, and take what the old one still holds with `spool move-in`."
        );
    }
    Ok(Exit::Done)
}

/// The same node may go on only with every ledger at hand, and not beside the original.
fn may_go_on(backup: &Bundle, data: &Path, original: &Path) -> Result<(), Failure> {
    let has_key = backup.items.iter().any(|item| matches!(item, Item::Secret(secret) if secret.name == NODE_KEY));
    if !has_key {
        return Err(Failure::refused(
            "the backup was not sealed, so the node's key is not in it; restore it as a new node",
        ));
    }
    let same = |path: &Path| path.canonicalize().ok();
    if same(original).is_some()
        && same(original) != same(data)
        && Node::load(original, &LocalDisk).is_ok_and(|node| node.public() == backup.node)
    {
        let text = format!(
            "the original is still there in {}: two nodes would sign with one key; restore it as a new node, or remove \
             {NODE_KEY} there",
            original.display()
        );
        return Err(Failure::refused(text));
    }
    if LocalDisk.entry(&data.join(NODE_KEY)).is_ok() {
        return Err(Failure::refused(format!("{} has a node key already; nothing was changed", data.display())));
    }
    let layout = Layout::new(data);
    for item in &backup.items {
        let Item::Ledger { mailbox, seq, .. } = item else { continue };
        let id: MailboxId = mailbox.parse().map_err(|_| Failure::cannot("the backup names no mailbox for a ledger"))?;
        let found = head(&layout, id)?.map_or(0, |head| head.seq);
        if found < *seq {
            let text = format!(
                "{} goes to entry {found}, and went to {seq} when the backup was made: the same node would give numbers \
                 twice; put the ledgers of the old node there, or restore it as a new node",
                layout.ledger(id).display()
            );
            return Err(Failure::refused(text));
        }
    }
    Ok(())
}

/// Puts the secret files in their places: the node's key only for the same node.
fn secrets(backup: &Bundle, data: &Path, same_node: bool) -> Result<(), Failure> {
    for item in &backup.items {
        let Item::Secret(secret) = item else { continue };
        let Some(name) = SECRETS.into_iter().find(|name| *name == secret.name) else {
            return Err(Failure::cannot("the backup holds a file that does not belong there"));
        };
        if name == NODE_KEY && !same_node {
            continue;
        }
        let octets = BASE64.decode(secret.octets.as_bytes());
        let octets = Zeroizing::new(octets.map_err(|_| Failure::cannot("the backup holds a file that is not base64"))?);
        let path = data.join(name);
        if let Some(folder) = path.parent() {
            disk::create_dirs(&LocalDisk, folder)?;
        }
        match disk::write_new_file(&LocalDisk, &path, &octets) {
            Err(e) if e.is_present() => {}
            other => other?,
        }
    }
    Ok(())
}

/// Writes down where this node comes from: what the old ledgers said can then be compared with the archive.
fn tell_origin(backup: &Bundle, data: &Path) -> Result<(), Failure> {
    let ledgers: Vec<_> = backup
        .items
        .iter()
        .filter_map(|item| match item {
            Item::Ledger { mailbox, seq, hash } => Some(json!({ "mailbox": mailbox, "seq": seq, "hash": hash })),
            _ => None,
        })
        .collect();
    let document = json!({ "node": backup.header.node, "backup": backup.header.created, "ledgers": ledgers });
    Ok(disk::replace_file(&LocalDisk, &data.join(ORIGIN), format!("{document}\n").as_bytes())?)
}
