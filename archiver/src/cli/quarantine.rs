//! `quarantine`: reports held until a person decides.
//!
//! Release files a report like a fresh one, reject marks it; both keep it, and both keep the reason. Exit 2 for an id
//! that is not there, 5 where something filed would have to be rejected.

use super::{
    Decision, QuarantineCommand,
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
        QuarantineCommand::Release(decision) => {
            let (chosen, reason) = checked(decision)?;
            held::decide(config, &chosen, decision.json, &mut |review, held| review.release(held, reason))
        }
        QuarantineCommand::Reject(decision) => {
            let (chosen, reason) = checked(decision)?;
            held::decide(config, &chosen, decision.json, &mut |review, held| review.reject(held, reason))
        }
    }
}

/// Which reports, and why: an auditor reads it years later.
fn checked(decision: &Decision) -> Result<(Chosen<'_>, &str), Failure> {
    let Decision { ids, all, source, reason, .. } = decision;
    if ids.is_empty() && !all {
        return Err(Failure::usage("name the ids that `quarantine list` shows, or --all"));
    }
    let chosen = Chosen { ids, source: source.as_deref(), outcome: Outcome::Quarantine };
    let reason = reason.trim();
    match reason {
        "" => Err(Failure::usage("--reason is empty; say why, it is kept with the report")),
        _ if reason.len() > 4096 => Err(Failure::usage("--reason is longer than 4,096 octets; shorten it")),
        _ => Ok((chosen, reason)),
    }
}
