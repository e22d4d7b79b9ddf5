//! `inspect`: what the archiver would make of one message. Needs no configuration and stores nothing.

use super::{InspectArgs, ProfileArg};
use crate::{
    journal::{self, Context, Profile, Verdict},
    octets::{FileOctets, Octets},
};
use postkeep_shared::{
    mail::{Digest, Hasher},
    run::{Exit, Failure},
};
use serde::Serialize;
use std::{
    io::{self, Write as _},
    path::Path,
};

/// The document of `--json` (interfaces.md): these keys and no others.
#[derive(Serialize)]
struct Document<'a> {
    kind: journal::Kind,
    handling: journal::Handling,
    reason: &'a str,
    sender: Option<&'a str>,
    on_behalf_of: Option<&'a str>,
    recipients: &'a [journal::Recipient],
    subject: Option<&'a str>,
    message_id: Option<&'a str>,
    archive_sha256: Option<String>,
    embedded_size: Option<u64>,
}

/// Shows what would be made of a message.
///
/// # Errors
/// Exit 3 where the file cannot be read.
pub fn run(_config: Option<&Path>, args: &InspectArgs) -> Result<Exit, Failure> {
    let message = open(&args.file)?;
    let unreadable = |error: io::Error| {
        Failure::cannot(format!("cannot read {}: {error}; was it changed meanwhile?", args.file.display()))
    };
    let verdict = journal::examine(&message, &context(args)).map_err(unreadable)?;
    let digest = digest(&verdict, &message).map_err(unreadable)?;
    let text = if args.json { json(&verdict, digest)? } else { plain(&verdict, digest) };
    let written = io::stdout().write_all(text.as_bytes());
    written.map_err(|e| Failure::cannot(format!("cannot write to standard output: {e}")))?;
    Ok(Exit::Done)
}

fn open(path: &Path) -> Result<FileOctets, Failure> {
    FileOctets::open(path).map_err(|error| {
        Failure::cannot(format!("cannot read {}: {error}; name a file with one message", path.display()))
    })
}

fn context(args: &InspectArgs) -> Context {
    let profile = match args.profile {
        ProfileArg::Journal => Profile::Journal,
        ProfileArg::Multidrop => Profile::Multidrop,
        ProfileArg::Single => Profile::Single,
    };
    Context {
        profile,
        trusted: !args.untrusted,
        rcpt: args.rcpt.clone(),
        ignore: args.ignore_address.clone(),
        trusted_host: args.trusted_host.clone(),
        envelope_headers: Vec::new(),
    }
}

fn digest(verdict: &Verdict, message: &dyn Octets) -> io::Result<Option<Digest>> {
    let Some(content) = &verdict.content else { return Ok(None) };
    let octets = content.octets(message)?;
    let mut hasher = Hasher::default();
    octets.for_each_block(0..octets.len(), &mut |block| {
        hasher.update(block);
        Ok(())
    })?;
    Ok(Some(hasher.finish()))
}

fn json(verdict: &Verdict, digest: Option<Digest>) -> Result<String, Failure> {
    let document = Document {
        kind: verdict.kind,
        handling: verdict.handling,
        reason: &verdict.reason,
        sender: verdict.sender.as_deref(),
        on_behalf_of: verdict.on_behalf_of.as_deref(),
        recipients: &verdict.recipients,
        subject: verdict.subject.as_deref(),
        message_id: verdict.message_id.as_deref(),
        archive_sha256: digest.map(|d| d.to_string()),
        embedded_size: verdict.embedded_size,
    };
    let text = serde_json::to_string_pretty(&document);
    text.map(|t| t + "\n").map_err(|e| Failure::cannot(format!("cannot write JSON: {e}")))
}

/// For people. What comes from the message must not steer their terminal.
fn plain(verdict: &Verdict, digest: Option<Digest>) -> String {
    let mut lines =
        vec![("kind", word(&verdict.kind)), ("handling", word(&verdict.handling)), ("reason", verdict.reason.clone())];
    lines.extend(verdict.warnings.iter().map(|w| ("warning", w.clone())));
    let null = |address: &String| if address.is_empty() { "<>".to_owned() } else { address.clone() };
    lines.extend(verdict.sender.iter().map(|a| ("sender", null(a))));
    lines.extend(verdict.on_behalf_of.iter().map(|a| ("on behalf of", a.clone())));
    for recipient in &verdict.recipients {
        let mut text = format!("{} ({}", recipient.address, word(&recipient.kind));
        let redirections = [("expanded from", &recipient.expanded_from), ("forwarded from", &recipient.forwarded_from)];
        for (how, from) in redirections {
            text.extend(from.iter().map(|from| format!(", {how} {from}")));
        }
        lines.push(("recipient", text + ")"));
    }
    lines.extend(verdict.subject.iter().map(|s| ("subject", s.clone())));
    lines.extend(verdict.message_id.iter().map(|id| ("Message-ID", id.clone())));
    lines.extend(digest.map(|d| ("archived SHA-256", d.to_string())));
    lines.extend(verdict.embedded_size.map(|size| ("embedded size", format!("{size} octets"))));
    let shown = |text: &str| text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>();
    lines.iter().map(|(name, value)| format!("{name:<17} {}\n", shown(value))).collect()
}

/// The word that JSON has for a value.
fn word(value: &impl Serialize) -> String {
    let json = serde_json::to_value(value).ok();
    json.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}
