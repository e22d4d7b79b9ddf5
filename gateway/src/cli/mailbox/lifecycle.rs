//! `mailbox rotate`, `reset-password`, `suspend`, `resume`, `delete`.

use super::{find, time_text, verifier};
use crate::{
    cli::password,
    config::GatewayConfig,
    control::{self, Order},
    mailbox::{EscrowIdentity, Mailbox, Mailboxes, State},
    spool::{Folder, Layout},
    verify::Summary,
};
use postkeep_shared::{
    crypt::Password,
    disk::{Disk as _, DiskError, LocalDisk},
    run::Failure,
};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

/// How long a message that is just arriving is waited for.
const ARRIVING: Duration = Duration::from_secs(10);
/// An identity file is a few lines.
const MAX_IDENTITY: u64 = 64 * 1024;

/// Arguments of `mailbox rotate`.
#[derive(clap::Args)]
pub struct RotateArgs {
    /// Mailbox
    id: String,
    /// Old password, then new, two lines on standard input
    #[arg(long)]
    stdin: bool,
    /// Give up the keys before the present one; only while nothing waits
    #[arg(long)]
    forget_earlier: bool,
}

/// Arguments of `mailbox reset-password`.
#[derive(clap::Args)]
pub struct ResetArgs {
    /// Mailbox
    id: String,
    /// The identity file of the escrow that the mailbox was made with
    #[arg(long, value_name = "FILE")]
    escrow_identity: Option<PathBuf>,
    /// Without the escrow: give up exactly so many waiting messages, which nobody can open any more
    #[arg(long, value_name = "N", conflicts_with = "escrow_identity")]
    lose: Option<u64>,
    /// Read the new password from standard input instead of making one
    #[arg(long)]
    password_stdin: bool,
    /// One JSON document on standard output
    #[arg(long)]
    json: bool,
}

/// Arguments of `mailbox delete`.
#[derive(clap::Args)]
pub struct DeleteArgs {
    /// Mailbox; it must be suspended
    id: String,
    /// Give up exactly so many waiting messages
    #[arg(long, value_name = "N")]
    discard: Option<u64>,
}

/// A new key pair.
pub(super) fn rotate(config: &GatewayConfig, all: &Mailboxes, args: &RotateArgs) -> Result<(), Failure> {
    let mailbox = find(all, &args.id)?;
    if args.forget_earlier {
        let waiting = verifier(config, all).summary(mailbox.id)?.messages;
        if waiting > 0 {
            let text = format!(
                "mailbox {} has {waiting} waiting messages, which may need the earlier keys; collect them first, nothing \
                 was changed",
                mailbox.id
            );
            return Err(Failure::refused(text));
        }
    }
    let (old, new) = password::old_and_new(args.stdin)?;
    let made = all.rotate(&mailbox.id, &old, &new, args.forget_earlier)?;
    eprintln!(
        "{}: new mail is sealed to key {}; what waits opens with the new password too. Copies of the old definition (backups, \
         other nodes) still open old mail with the old password.",
        made.id, made.key_id
    );
    Ok(())
}

/// A new password in place of a lost one.
pub(super) fn reset(config: &GatewayConfig, all: &Mailboxes, args: &ResetArgs) -> Result<(), Failure> {
    let mailbox = find(all, &args.id)?;
    let (changed, made) = match (&args.escrow_identity, args.lose) {
        (Some(file), _) => {
            let secret = identity_file(file)?;
            let chosen = chosen(args)?;
            all.reset_by_escrow(&mailbox.id, &secret, chosen.as_ref())?
        }
        (None, lose) => {
            let summary = verifier(config, all).summary(mailbox.id)?;
            let loss = loss(&mailbox, &summary);
            if lose != Some(summary.messages) {
                return Err(Failure::refused(loss));
            }
            eprintln!("{loss}");
            let chosen = chosen(args)?;
            all.set_state(&mailbox.id, State::Suspended)?;
            give_up(config, all, &mailbox, summary.messages)?;
            all.begin_anew(&mailbox.id, chosen.as_ref())?
        }
    };
    let password = made.map(|p| Zeroizing::new(String::from_utf8_lossy(p.expose()).into_owned()));
    if args.json {
        let text = password.as_ref().map(|p| p.as_str());
        println!("{}", json!({ "id": changed.id.to_string(), "password": text, "recipient": changed.recipient }));
        return Ok(());
    }
    if let Some(password) = password {
        println!("password  {}", password.as_str());
        println!("The password is shown this once and stored nowhere. Keep it where the archiver reads it.");
    }
    eprintln!("{}: the password was reset", changed.id);
    Ok(())
}

fn chosen(args: &ResetArgs) -> Result<Option<Password>, Failure> {
    args.password_stdin.then(password::chosen).transpose()
}

/// What is lost without password and escrow identity, and what can be done.
fn loss(mailbox: &Mailbox, summary: &Summary) -> String {
    let id = mailbox.id;
    let Summary { messages, bytes, oldest_ms, .. } = summary;
    let oldest = oldest_ms.map(|ms| format!(", the oldest of {}", time_text(ms))).unwrap_or_default();
    let way_out = match &mailbox.escrow {
        Some(escrow) => {
            format!("It has an escrow: name the identity file of {} with --escrow-identity.", escrow.recipient)
        }
        None => "It has no escrow.".to_owned(),
    };
    format!(
        "mailbox {id}: without its password nobody can ever open what waits in it: {messages} messages, {bytes} octets{oldest}. \
         {way_out} To give up exactly those and begin with a new key and password: `mailbox reset-password {id} --lose \
         {messages}`"
    )
}

/// Reads an age identity file; it is a secret, so only its owner may read it.
pub(super) fn identity_file(file: &Path) -> Result<EscrowIdentity, Failure> {
    let fail = |text: String| Failure::usage(format!("{}: {text}", file.display()));
    let cannot = |e: DiskError| fail(format!("cannot be read: {}", e.source));
    let entry = LocalDisk.entry(file).map_err(cannot)?;
    if entry.is_file && entry.mode & 0o077 != 0 {
        return Err(fail("others than its owner may read it; run `chmod 600` on it".into()));
    }
    let octets = Zeroizing::new(LocalDisk.read(file, MAX_IDENTITY).map_err(cannot)?);
    let text = std::str::from_utf8(&octets).ok().and_then(EscrowIdentity::from_text);
    text.ok_or_else(|| fail("holds no age identity, lines that begin with AGE-SECRET-KEY-1".into()))
}

/// Suspends or resumes.
pub(super) fn set_state(all: &Mailboxes, id: &str, state: State) -> Result<(), Failure> {
    let mailbox = all.set_state(&find(all, id)?.id, state)?;
    let then = match state {
        State::Active => "takes mail",
        State::Suspended => "is suspended: new mail is answered 450 4.2.1 and tried again by its sender; POP3 goes on",
    };
    eprintln!("{}: {then}", mailbox.id);
    Ok(())
}

/// Ends a mailbox.
pub(super) fn delete(config: &GatewayConfig, all: &Mailboxes, args: &DeleteArgs) -> Result<(), Failure> {
    let mailbox = find(all, &args.id)?;
    let id = mailbox.id;
    if mailbox.state != State::Suspended {
        let text =
            format!("mailbox {id} takes mail; suspend it first with `mailbox suspend {id}`, nothing was deleted");
        return Err(Failure::refused(text));
    }
    quiet(config, &mailbox)?;
    let waiting = verifier(config, all).summary(id)?.messages;
    if args.discard.unwrap_or(0) != waiting {
        let text = format!(
            "mailbox {id} has {waiting} messages that nobody has collected; collect them, or give up exactly those with \
             --discard {waiting}; nothing was deleted"
        );
        return Err(Failure::refused(text));
    }
    give_up(config, all, &mailbox, waiting)?;
    all.delete(&id)?;
    eprintln!("{id}: deleted; its ledger stays, discarded messages stay in its trash for seven days");
    Ok(())
}

/// Removes what waits in a suspended mailbox, which must be exactly `messages`.
fn give_up(config: &GatewayConfig, all: &Mailboxes, mailbox: &Mailbox, messages: u64) -> Result<(), Failure> {
    quiet(config, mailbox)?;
    if messages > 0 {
        let order = Order::Discard { mailbox: mailbox.id.to_string(), messages };
        control::perform(&config.data_dir, &config.hostname, &order)?;
    }
    let left = verifier(config, all).summary(mailbox.id)?.messages;
    if left > 0 {
        let text = format!("mailbox {}: {left} messages have arrived meanwhile; nothing more was done", mailbox.id);
        return Err(Failure::refused(text));
    }
    Ok(())
}

/// Waits until nothing is arriving in a suspended mailbox: then nothing will. Its folder `new/` counts too: between the
/// name and the entry of a message there is a moment.
fn quiet(config: &GatewayConfig, mailbox: &Mailbox) -> Result<(), Failure> {
    let layout = Layout::new(&config.data_dir);
    let tmp = layout.folder(mailbox.id, Folder::Tmp);
    let started = Instant::now();
    loop {
        match LocalDisk.list(&tmp) {
            Err(e) if e.is_missing() => return Ok(()),
            Err(e) => return Err(e.into()),
            Ok(entries) if entries.is_empty() => break,
            Ok(_) if started.elapsed() < ARRIVING => std::thread::sleep(Duration::from_millis(50)),
            Ok(_) => {
                let text = format!(
                    "a message is just arriving in mailbox {}, or was left half by a crash, which the next start of the server \
                     puts aside; try again",
                    mailbox.id
                );
                return Err(Failure::cannot(text));
            }
        }
    }
    // The commit that a message was in when it left `tmp/` ends well within this.
    std::thread::sleep(Duration::from_millis(200));
    Ok(())
}
