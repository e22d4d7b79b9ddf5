//! What counts as wrong. Pure: what was found, and the time, are arguments.

use super::{Activity, ArchiverAlarms, silent_for};
use crate::{
    config::{DeleteRule, Source},
    probe::ProbeState,
    serve::{HostStanding, Snapshot, SourceStanding},
};
use postkeep_shared::{
    alarm::{Condition, Kind, certificate_stage, span_text},
    disk::Space,
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// What a look found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The service's board.
    pub board: Snapshot,
    /// What is left on the disk, and where.
    pub space: Option<(String, Space)>,
    /// `reconcile.json`.
    pub reconciled: Option<Value>,
    /// Certificates of hosts: begin and end, seconds since 1970-01-01 UTC.
    pub certificates: BTreeMap<String, (i64, i64)>,
    /// Files that must be fresh: when they were written, by name.
    pub fresh: BTreeMap<String, Option<u64>>,
    /// When the last checkpoint was made; `None`: there is none.
    pub checkpoint_ms: Option<u64>,
    /// How often one should be; `None`: not by the service.
    pub checkpoint_interval: Option<Duration>,
    /// Probes by name.
    pub probes: BTreeMap<String, ProbeState>,
    /// Activity by source.
    pub activity: BTreeMap<String, Activity>,
}

/// All of one kind: its conditions, and subjects of which nothing is known now.
pub(super) type OfKind = (Kind, Vec<Condition>, Vec<String>);

/// Every condition of every kind that is watched here, the kinds without one included.
#[must_use]
pub fn judge(found: &Found, sources: &[Source], settings: &ArchiverAlarms, now_ms: u64) -> Vec<OfKind> {
    let mut all = vec![
        (Kind::HostDown, hosts_down(found, settings), Vec::new()),
        (Kind::Waiting, waiting(found, sources, settings, now_ms), Vec::new()),
        silence(found, settings, now_ms),
        (Kind::Certificate, certificates(found, now_ms), Vec::new()),
        (Kind::Stale, stale(found, settings, now_ms), Vec::new()),
        (Kind::Reload, reload(found), Vec::new()),
        probes(found, now_ms),
    ];
    if let Some((place, space)) = &found.space {
        all.push((Kind::Disk, settings.shared.disk(place, space), Vec::new()));
    }
    if let Some(reconciled) = &found.reconciled {
        all.push((Kind::Gap, gaps(reconciled), Vec::new()));
    }
    if let Some(store) = &found.board.store {
        let count = |kind, count: u64, what: &str| {
            let detail = format!("{count} {what}.");
            (count > 0).then(|| Condition::new(kind, "archive", &detail).stage(count)).into_iter().collect()
        };
        let dead = count(Kind::DeadLetter, store.dead_letters, "reports were kept whole that nobody could file");
        let held = count(Kind::Quarantine, store.quarantined, "reports wait for somebody to release or reject them");
        all.push((Kind::DeadLetter, dead, Vec::new()));
        all.push((Kind::Quarantine, held, Vec::new()));
    }
    all
}

fn each_host(found: &Found) -> impl Iterator<Item = (String, &SourceStanding, &HostStanding)> {
    found.board.sources.iter().flat_map(|source| {
        source.hosts.iter().map(move |(host, standing)| (format!("{} at {host}", source.name), source, standing))
    })
}

fn hosts_down(found: &Found, settings: &ArchiverAlarms) -> Vec<Condition> {
    let down = each_host(found).filter_map(|(subject, _, host)| {
        let since = host.failing_since_ms.filter(|_| host.failures > 0)?;
        let why = host.error.as_deref().unwrap_or("it is not well");
        let what = if host.login_refused { "It refuses mailbox or password" } else { "It cannot be collected from" };
        let condition = Condition::new(Kind::HostDown, &subject, &format!("{what}: {why}."));
        Some(condition.since(since).hold(settings.host_down))
    });
    down.collect()
}

/// Only where everything is deleted at once: elsewhere messages wait that are in the archive already.
fn waiting(found: &Found, sources: &[Source], settings: &ArchiverAlarms, now_ms: u64) -> Vec<Condition> {
    let at_once = |name: &str| sources.iter().any(|s| s.name == name && s.delete == DeleteRule::AtOnce);
    let waits = each_host(found).filter_map(|(subject, source, host)| {
        let (limit, oldest) = (settings.waiting?, host.oldest_waiting_ms?);
        let age = Duration::from_millis(now_ms.saturating_sub(oldest));
        let late = age >= limit && host.waiting.is_some_and(|count| count > source.left) && at_once(&source.name);
        let detail = || format!("Its oldest message has waited for {} there.", span_text(age));
        late.then(|| Condition::new(Kind::Waiting, &subject, &detail()).since(oldest))
    });
    waits.collect()
}

/// A source whose hosts are not all well, that is paused, or whose store is lent says nothing about silence.
fn silence(found: &Found, settings: &ArchiverAlarms, now_ms: u64) -> OfKind {
    let (mut silent, mut unknown) = (Vec::new(), Vec::new());
    for source in &found.board.sources {
        let Some(span) = settings.silence else { continue };
        let asked = source.ended_ms.is_some() && source.error.is_none() && found.board.lent_to.is_none();
        let well = source.hosts.values().all(|host| host.failures == 0) && !source.hosts.is_empty();
        if !(asked && well) || source.paused || source.resting {
            unknown.push(source.name.clone());
            continue;
        }
        let none = Activity::default();
        let activity = found.activity.get(&source.name).unwrap_or(&none);
        let last = activity.last_ms().max(source.last_report_ms).unwrap_or(found.board.started_ms);
        let hours = settings.busy_hours.get(&source.name);
        if silent_for(last, hours, activity, span, now_ms) >= span {
            let detail = format!(
                "No report has come for {} of the hours in which this source is usually busy.",
                span_text(span)
            );
            silent.push(Condition::new(Kind::Silence, &source.name, &detail).since(last));
        }
    }
    (Kind::Silence, silent, unknown)
}

fn certificates(found: &Found, now_ms: u64) -> Vec<Condition> {
    let now = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    let ending = found.certificates.iter().filter_map(|(host, (begin, end))| {
        let stage = certificate_stage(*begin, *end, now)?;
        let days = (end - now).div_euclid(86_400);
        let detail =
            if days < 0 { "It has ended.".to_owned() } else { format!("It ends in {days} days and was not renewed.") };
        Some(Condition::new(Kind::Certificate, host, &detail).stage(stage))
    });
    ending.collect()
}

fn stale(found: &Found, settings: &ArchiverAlarms, now_ms: u64) -> Vec<Condition> {
    let mut stale: Vec<Condition> = checkpoint(found, now_ms).into_iter().collect();
    let old = settings.fresh.iter().filter_map(|fresh| {
        let written = found.fresh.get(&fresh.name).copied().flatten();
        let age = written.map(|at| Duration::from_millis(now_ms.saturating_sub(at)));
        let detail = match age {
            Some(age) if age < fresh.within => return None,
            Some(age) => format!("It is {} old, allowed are {}.", span_text(age), span_text(fresh.within)),
            None => format!("There is nothing at {}.", fresh.path.display()),
        };
        Some(Condition::new(Kind::Stale, &fresh.name, &detail))
    });
    stale.extend(old);
    stale
}

/// One may be late by as much as there is between two.
fn checkpoint(found: &Found, now_ms: u64) -> Option<Condition> {
    let limit = found.checkpoint_interval?.saturating_mul(2);
    // A service that has just started makes one first.
    let since = found.checkpoint_ms.unwrap_or_default().max(found.board.started_ms);
    let age = Duration::from_millis(now_ms.saturating_sub(since));
    let detail = match found.checkpoint_ms {
        _ if age < limit => return None,
        Some(at) => {
            let age = span_text(Duration::from_millis(now_ms.saturating_sub(at)));
            format!("The last one is {age} old, and one is due every {}.", span_text(limit / 2))
        }
        None => format!("None was ever made, and one is due every {}.", span_text(limit / 2)),
    };
    Some(Condition::new(Kind::Stale, "checkpoint", &detail))
}

fn reload(found: &Found) -> Vec<Condition> {
    let errors = [("configuration", &found.board.reload_error), ("owners", &found.board.owners_error)];
    let failed = errors.into_iter().filter_map(|(what, error)| Some((what, error.as_ref()?)));
    failed
        .map(|(what, error)| Condition::new(Kind::Reload, what, &format!("The old ones stay in use: {error}.")))
        .collect()
}

/// One per source, mailbox and node, with what `reconcile` says of it.
fn gaps(reconciled: &Value) -> Vec<Condition> {
    let mut found = Vec::new();
    let sources = reconciled.get("sources").and_then(Value::as_object);
    for (name, source) in sources.into_iter().flatten() {
        for row in source.get("rows").and_then(Value::as_array).into_iter().flatten() {
            if row.get("ok") == Some(&Value::Bool(true)) {
                continue;
            }
            // A host that could not be asked is another alarm; here only what is wrong with the numbers.
            let number = |key: &str| row.get(key).and_then(Value::as_u64).unwrap_or_default();
            let wrong = number("missing") + number("removed_by_others") + number("gaps") > 0;
            let problems = row.get("problems").and_then(Value::as_array).into_iter().flatten();
            let texts: Vec<&str> = problems.filter_map(Value::as_str).collect();
            let asked = |text: &&str| !text.contains("could not be asked") && !text.contains("whether they wait");
            let said: Vec<&str> = texts.into_iter().filter(asked).collect();
            if !wrong && said.is_empty() {
                continue;
            }
            let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or("none").to_owned();
            let subject = format!("{name} {} node {}", text("mailbox"), text("node"));
            let detail = if said.is_empty() {
                format!(
                    "{} messages are missing, {} were removed by others.",
                    number("missing"),
                    number("removed_by_others")
                )
            } else {
                format!("{}.", said.join("; "))
            };
            found.push(Condition::new(Kind::Gap, &subject, &detail).stage(number("missing")));
        }
    }
    found
}

fn probes(found: &Found, now_ms: u64) -> OfKind {
    let (mut missing, mut unknown) = (Vec::new(), Vec::new());
    for (name, state) in &found.probes {
        if found.board.lent_to.is_some() {
            unknown.push(name.clone());
        } else if let Some((since, detail)) = state.missing(found.board.started_ms, now_ms) {
            missing.push(Condition::new(Kind::Probe, name, &detail).since(since));
        }
    }
    (Kind::Probe, missing, unknown)
}

#[cfg(test)]
mod tests;
