//! What `quarantine` and `dead-letter` share: finding, listing and showing reports that were kept whole, and deciding
//! about them.

use super::{
    load_and_lock,
    store::{ended, open_reader, printable, stdout_failed},
};
use crate::{
    archive::Archive,
    filing::Owners,
    octets::Staging,
    review::{Done, Review},
    store::{Held, Outcome, StoreError, entry::FiledBy},
};
use postkeep_shared::{
    disk::{Disk, LocalDisk},
    run::{Exit, Failure},
};
use serde_json::json;
use std::{
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

/// Decisions that become durable together.
const BATCH: usize = 64;

/// Lists those of the wanted outcomes.
pub(super) fn list(
    config: Option<&Path>,
    source: Option<&str>,
    json: bool,
    wanted: &dyn Fn(Outcome) -> bool,
) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    let store = open_reader(config)?;
    store.held(wanted, &mut |held| {
        if source.is_some_and(|source| source != held.source) {
            return Ok(());
        }
        let line = if json { json!(held).to_string() } else { line(&held) };
        writeln!(out, "{line}").map_err(StoreError::Output)
    })?;
    Ok(ended(&store))
}

/// Shows one, or writes its octets.
pub(super) fn show(
    config: Option<&Path>,
    id: &str,
    raw: bool,
    json: bool,
    wanted: &dyn Fn(&Held) -> bool,
) -> Result<Exit, Failure> {
    let store = open_reader(config)?;
    let held = find(&store, id, wanted)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if raw {
        store.read_held(&held, &mut out)?;
    } else if json {
        writeln!(out, "{}", json!(held)).map_err(stdout_failed)?;
    } else {
        out.write_all(details(&held).as_bytes()).map_err(stdout_failed)?;
    }
    out.flush().map_err(stdout_failed)?;
    Ok(Exit::Done)
}

/// Which reports to decide about.
pub(super) struct Chosen<'a> {
    pub(super) ids: &'a [String],
    pub(super) source: Option<&'a str>,
    /// Without ids: those of this outcome.
    pub(super) outcome: Outcome,
}

/// Decides about each of the chosen ones; `each` does it. Exit 1 when one stays where it was or cannot be read back.
pub(super) fn decide(
    config: Option<&Path>,
    chosen: &Chosen<'_>,
    json: bool,
    each: &mut dyn FnMut(&mut Review<'_>, &Held) -> Result<Done, Failure>,
) -> Result<Exit, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let (config, _lock) = load_and_lock(config, &*disk)?;
    config.log.start();
    let owners = Owners::load(&config.owners_file)?;
    let mut store = Archive::open(&config, &disk)?;
    let staging = Staging::open(&config.staging_dir(), Arc::clone(&disk))?;
    let ids = ids(&store, chosen)?;
    let mut well = true;
    for batch in ids.chunks(BATCH) {
        let mut lines = Vec::new();
        for id in batch {
            let held = find(&store, id, &|_| true)?;
            let (store, by) = (&mut store, who());
            let mut review = Review { store, staging: &staging, config: &config, owners: &owners, by };
            let done = each(&mut review, &held)?;
            well &= !matches!(done, Done::Stays(_));
            lines.push(result(&held, &done, json));
        }
        let commit = store.commit()?;
        for (uidl, error) in commit.failures {
            well = false;
            lines.push(format!("{} was decided, but cannot be read back: {error}", printable(&uidl)));
        }
        // Only what is durable is told.
        let mut out = io::stdout().lock();
        lines.iter().try_for_each(|line| writeln!(out, "{line}")).map_err(stdout_failed)?;
    }
    Ok(if well { Exit::Done } else { Exit::Attention })
}

fn ids(store: &Archive, chosen: &Chosen<'_>) -> Result<Vec<String>, Failure> {
    if !chosen.ids.is_empty() {
        // All of them first: a mistyped one must not leave half of the work done.
        let found: Result<Vec<String>, Failure> =
            chosen.ids.iter().map(|id| find(store, id, &|_| true).map(|held| held.id)).collect();
        let mut found = found?;
        found.sort();
        found.dedup();
        return Ok(found);
    }
    let mut ids = Vec::new();
    store.held(&|outcome| outcome == chosen.outcome, &mut |held| {
        if chosen.source.is_none_or(|source| source == held.source) {
            ids.push(held.id);
        }
        Ok(())
    })?;
    Ok(ids)
}

fn find(store: &Archive, id: &str, wanted: &dyn Fn(&Held) -> bool) -> Result<Held, Failure> {
    let id = id.to_ascii_lowercase();
    let mut found = if id.len() < 4 { Vec::new() } else { store.find_held(&id)? };
    found.retain(|held| wanted(held));
    let shown = printable(&id);
    match (found.pop(), found.is_empty()) {
        (Some(held), true) => Ok(held),
        (Some(_), false) => Err(Failure::usage(format!("more than one id begins with `{shown}`; write more of it"))),
        (None, _) => Err(Failure::usage(format!(
            "nothing here has the id `{shown}`; `list` shows the ids, four digits are enough"
        ))),
    }
}

/// Who runs the program, as far as the system knows.
pub(super) fn who() -> Option<String> {
    let uid = rustix::process::getuid().as_raw();
    let name = ["SUDO_USER", "LOGNAME", "USER"].into_iter().find_map(|key| std::env::var(key).ok());
    Some(name.map_or_else(|| format!("uid {uid}"), |name| format!("{} (uid {uid})", printable(&name))))
}

fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn line(held: &Held) -> String {
    let or_none = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
    format!(
        "{} {} {} {} {} octets, from {}, \"{}\": {}",
        held.id,
        word(&held.outcome),
        held.collected_at,
        held.source,
        held.size,
        or_none(&held.verdict.sender),
        or_none(&held.verdict.subject),
        printable(&held.reason)
    )
}

fn details(held: &Held) -> String {
    let verdict = &held.verdict;
    let mut lines = vec![
        ("id", held.id.clone()),
        ("now", word(&held.outcome)),
        ("why", held.reason.clone()),
        ("source", held.source.clone()),
        ("host", held.host.clone()),
        ("collected", held.collected_at.clone()),
        ("size", format!("{} octets", held.size)),
        ("sha256", held.sha256.clone()),
        ("kind", word(&verdict.kind)),
    ];
    lines.extend(verdict.sender.iter().map(|sender| ("sender", sender.clone())));
    lines.extend(verdict.recipients.iter().map(|recipient| ("recipient", recipient.clone())));
    lines.extend(verdict.subject.iter().map(|subject| ("subject", subject.clone())));
    lines.extend(verdict.message_id.iter().map(|id| ("message id", id.clone())));
    if let Some(seen) = &held.evidence {
        let verified = seen.verified.map_or("no rules at the gateway", |v| if v { "verified" } else { "unverified" });
        let (tls, certificate) = (seen.tls.as_deref().unwrap_or("none"), seen.certificate.as_deref().unwrap_or("none"));
        lines.push((
            "seen",
            format!(
                "{} ({}), MAIL FROM <{}>, RCPT TO <{}>, TLS {tls}, certificate {certificate}, {verified}",
                seen.ip, seen.helo, seen.mail_from, seen.rcpt_to
            ),
        ));
    }
    for decided in &held.decisions {
        let reason = decided.reason.as_deref().unwrap_or("tried again");
        let by = decided.by.as_deref().unwrap_or("somebody");
        lines.push(("decided", format!("{} by {by} at {}: {reason}", past(decided.decision), decided.decided_at)));
    }
    lines.iter().map(|(name, value)| format!("{name:<12} {}\n", printable(value))).collect()
}

fn result(held: &Held, done: &Done, json: bool) -> String {
    let (word_done, outcome, instances, why) = match done {
        Done::Decided(by, outcome, instances) => (past(*by), *outcome, *instances, None),
        Done::Before(outcome) => ("unchanged", *outcome, 0, None),
        Done::Stays(reason) => ("stays", held.outcome, 0, Some(reason.as_str())),
    };
    if json {
        return json!({
            "id": held.id, "result": word_done, "outcome": outcome, "instances": instances, "reason": why,
        })
        .to_string();
    }
    let mut text = format!("{} {word_done}: {}", held.id, word(&outcome));
    if instances > 0 {
        text += &format!(", {instances} new appearances");
    }
    if let Some(why) = why {
        text += &format!(" ({})", printable(why));
    }
    text
}

fn past(by: FiledBy) -> &'static str {
    match by {
        FiledBy::Release => "released",
        FiledBy::Reject => "rejected",
        FiledBy::Retry => "retried",
        FiledBy::Refile => "refiled",
    }
}
