//! `quarantine`: reports held until a person decides.
//!
//! Release files a report like a fresh one, reject marks it; both keep it, and both keep the reason. Exit 2 for an id
//! that is not there, 5 where something filed would have to be rejected.

use super::{
    QuarantineCommand,
    held::{self, Chosen},
};
use crate::store::Outcome;
use postkeep_shared::run::{Exit, Failure};
use std::path::Path;

/// Lists, shows, releases and rejects.
///
/// # Errors
/// A sentence and an exit code.
pub fn run(config: Option<&Path>, command: &QuarantineCommand) -> Result<Exit, Failure> {
    match command {
        QuarantineCommand::List { all, source, json } => {
            let wanted = |outcome| outcome == Outcome::Quarantine || (*all && outcome != Outcome::DeadLetter);
            held::list(config, source.as_deref(), *json, &wanted)
        }
        QuarantineCommand::Show { id, raw, json } => {
            held::show(config, id, *raw, *json, &|held| held.outcome != Outcome::DeadLetter)
        }
        QuarantineCommand::Release { ids, all, source, reason, json } => {
            let chosen = chosen(ids, *all, source.as_deref())?;
            let reason = checked(reason)?;
            held::decide(config, &chosen, *json, &mut |review, held| review.release(held, reason))
        }
        QuarantineCommand::Reject { ids, all, source, reason, json } => {
            let chosen = chosen(ids, *all, source.as_deref())?;
            let reason = checked(reason)?;
            held::decide(config, &chosen, *json, &mut |review, held| review.reject(held, reason))
        }
    }
}

fn chosen<'a>(ids: &'a [String], all: bool, source: Option<&'a str>) -> Result<Chosen<'a>, Failure> {
    if ids.is_empty() && !all {
        return Err(Failure::usage("name the ids that `quarantine list` shows, or --all"));
    }
    Ok(Chosen { ids, source, outcome: Outcome::Quarantine })
}

/// An auditor reads it years later.
fn checked(reason: &str) -> Result<&str, Failure> {
    let reason = reason.trim();
    match reason {
        "" => Err(Failure::usage("--reason is empty; say why, it is kept with the report")),
        _ if reason.len() > 4096 => Err(Failure::usage("--reason is longer than 4,096 octets; shorten it")),
        _ => Ok(reason),
    }
}
