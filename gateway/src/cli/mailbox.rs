//! `mailbox`: makes mailboxes, lists them, changes passwords and keys, ends them. Works while the server runs and while
//! it does not.

pub(super) mod bundle;
mod lifecycle;
mod sync;

use super::{Context, password};
use crate::{
    config::GatewayConfig,
    mailbox::{Mailbox, MailboxError, Mailboxes, State},
    verify::{Summary, Verifier},
};
use postkeep_shared::{
    crypt::Password,
    disk::LocalDisk,
    mail::MailboxId,
    run::{Exit, Failure},
};
use serde_json::{Value, json};
use std::sync::Arc;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Subcommands of `mailbox`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Make a mailbox; its password is shown once
    Create {
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// Read the password from standard input instead of making one
        #[arg(long)]
        password_stdin: bool,
        /// Also wrap the key to this recipient, so that a lost password can be mended
        #[arg(long, value_name = "age1…")]
        escrow: Option<String>,
        /// One JSON document on standard output
        #[arg(long)]
        json: bool,
    },
    /// All mailboxes
    List {
        /// One JSON document on standard output: a list
        #[arg(long)]
        json: bool,
    },
    /// One mailbox
    Show {
        /// Mailbox
        id: String,
        /// One JSON document on standard output
        #[arg(long)]
        json: bool,
    },
    /// Change the password
    Passwd {
        /// Mailbox
        id: String,
        /// Old password, then new, two lines on standard input
        #[arg(long)]
        stdin: bool,
    },
    /// Make a new key pair and password; what waits stays readable
    Rotate(lifecycle::RotateArgs),
    /// Set a new password in place of a lost one
    ResetPassword(lifecycle::ResetArgs),
    /// Write mailboxes into a bundle for another node: public parts, wrapped keys, settings
    Export(bundle::ExportArgs),
    /// Take in a bundle
    Import(bundle::ImportArgs),
    /// Exchange definitions with other nodes now
    Sync(sync::SyncArgs),
    /// Print the age identities that open the mailbox's spool files
    Identity {
        /// Mailbox
        id: String,
    },
    /// Take no new mail: senders are told to come again; POP3 goes on
    Suspend {
        /// Mailbox
        id: String,
    },
    /// Take mail again
    Resume {
        /// Mailbox
        id: String,
    },
    /// End a mailbox that is suspended and empty
    Delete(lifecycle::DeleteArgs),
}

/// Runs the command.
///
/// # Errors
/// [`Failure`].
pub fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    let config = context.config()?;
    let all = Mailboxes::existing(&config.data_dir, Arc::new(LocalDisk))?;
    match command {
        Command::Create { description, password_stdin, escrow, json } => {
            let chosen = if password_stdin { Some(password::chosen()?) } else { None };
            let (mailbox, made) = all.create_with_escrow(&description, chosen.as_ref(), escrow.as_deref())?;
            created(&config, &mailbox, made.as_ref(), json)?;
        }
        Command::List { json } => list(&config, &all, json)?,
        Command::Show { id, json } => show(&config, &all, &find(&all, &id)?, json)?,
        Command::Passwd { id, stdin } => {
            let mailbox = find(&all, &id)?;
            let (old, new) = password::old_and_new(stdin)?;
            all.passwd(&mailbox.id, &old, &new)?;
            eprintln!("{id}: the password was changed; waiting messages stay readable with the new one");
        }
        Command::Identity { id } => {
            let mailbox = find(&all, &id)?;
            let password = password::ask(&format!("Password of {}: ", mailbox.id))?;
            let identity = mailbox.unlock(&password).map_err(MailboxError::from)?;
            println!("{}", identity.to_text().as_str());
        }
        Command::Export(args) => bundle::export(&all, &args)?,
        Command::Import(args) => return bundle::import(&all, &args),
        Command::Sync(args) => return sync::sync(&config, &all, &args),
        Command::Rotate(args) => lifecycle::rotate(&config, &all, &args)?,
        Command::ResetPassword(args) => lifecycle::reset(&config, &all, &args)?,
        Command::Suspend { id } => lifecycle::set_state(&all, &id, State::Suspended)?,
        Command::Resume { id } => lifecycle::set_state(&all, &id, State::Active)?,
        Command::Delete(args) => lifecycle::delete(&config, &all, &args)?,
    }
    Ok(Exit::Done)
}

/// The mailbox that a person named.
///
/// # Errors
/// [`Exit::Usage`] where there is none.
pub(super) fn find(all: &Mailboxes, id: &str) -> Result<Mailbox, Failure> {
    let parsed: MailboxId = id.parse().map_err(|_| {
        let shown: String = id.chars().take(60).collect();
        Failure::usage(format!("`{}` is not a mailbox; it is written mbx- and 32 hex digits", shown.escape_debug()))
    })?;
    let none = || Failure::usage(format!("there is no mailbox {parsed}; see `postkeep-gateway mailbox list`"));
    all.lookup(&parsed)?.ok_or_else(none)
}

/// A time as printed.
pub(super) fn time_text(ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| ms.to_string())
}

fn address(config: &GatewayConfig, mailbox: &Mailbox) -> String {
    let domain = config.domains.first().unwrap_or(&config.hostname);
    format!("{}@{domain}", mailbox.id)
}

fn created(config: &GatewayConfig, mailbox: &Mailbox, made: Option<&Password>, json: bool) -> Result<(), Failure> {
    let password = made.map(|p| String::from_utf8_lossy(p.expose()).into_owned());
    let (id, address) = (mailbox.id.to_string(), address(config, mailbox));
    if json {
        println!("{}", json!({"id": id, "address": address, "password": password, "recipient": mailbox.recipient}));
        return Ok(());
    }
    println!("mailbox   {id}");
    println!("address   {address}");
    if let Some(password) = password {
        println!("password  {password}");
        println!("The password is shown this once and stored nowhere. Keep it where the archiver reads it.");
    }
    println!("recipient {}", mailbox.recipient);
    if mailbox.escrow.is_none() {
        println!("There is no escrow: whoever loses the password loses the mail that is waiting.");
    } else {
        println!("The escrow's identity can set a new password: keep it offline, and apart from backups.");
    }
    Ok(())
}

fn verifier(config: &GatewayConfig, all: &Mailboxes) -> Verifier {
    Verifier::new(&config.data_dir, Arc::new(LocalDisk), all.clone())
}

fn document(mailbox: &Mailbox, summary: &Summary) -> Value {
    json!({
        "id": mailbox.id.to_string(),
        "description": mailbox.description,
        "state": mailbox.state.name(),
        "label": mailbox.id.label(),
        "messages": summary.messages,
        "bytes": summary.bytes,
        "oldest": summary.oldest_ms.map(time_text),
        "accepted_total": summary.accepted,
        "removed_total": summary.removed,
        "moved_in_total": summary.moved_in,
        "moved_out_total": summary.moved_out,
        "recipient": mailbox.recipient,
        "earlier_recipients": mailbox.earlier,
        "escrow": mailbox.escrow.as_ref().map(|e| &e.recipient),
        "created": mailbox.created.format(&Rfc3339).ok(),
    })
}

fn list(config: &GatewayConfig, all: &Mailboxes, json: bool) -> Result<(), Failure> {
    let verifier = verifier(config, all);
    let mut documents = Vec::new();
    for mailbox in all.list()? {
        let summary = verifier.summary(mailbox.id)?;
        if json {
            documents.push(document(&mailbox, &summary));
        } else {
            let Summary { messages, bytes, .. } = summary;
            println!(
                "{}  {:9}  {messages:>8} waiting  {bytes:>14} octets  {}",
                mailbox.id,
                mailbox.state.name(),
                mailbox.description
            );
        }
    }
    if json {
        println!("{}", Value::Array(documents));
    }
    Ok(())
}

fn show(config: &GatewayConfig, all: &Mailboxes, mailbox: &Mailbox, json: bool) -> Result<(), Failure> {
    let summary = verifier(config, all).summary(mailbox.id)?;
    if json {
        println!("{}", document(mailbox, &summary));
        return Ok(());
    }
    println!("mailbox     {}", mailbox.id);
    println!("address     {}", address(config, mailbox));
    println!("description {}", mailbox.description);
    println!("state       {}", mailbox.state.name());
    println!("waiting     {} messages, {} octets", summary.messages, summary.bytes);
    println!("oldest      {}", summary.oldest_ms.map_or_else(|| "none".into(), time_text));
    println!("accepted    {}", summary.accepted);
    println!("removed     {}", summary.removed);
    println!("moved       {} in, {} out", summary.moved_in, summary.moved_out);
    println!("recipient   {}", mailbox.recipient);
    mailbox.earlier.iter().for_each(|recipient| println!("earlier     {recipient}"));
    println!("escrow      {}", mailbox.escrow.as_ref().map_or("none", |e| &e.recipient));
    Ok(())
}
