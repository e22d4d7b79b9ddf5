//! `dead-letter`: reports that nobody could file.
//!
//! They are kept whole and encrypted. `retry` files those that a newer release understands, or that have an owner now;
//! exit 1 while some stay.

use super::{
    DeadLetterCommand,
    held::{self, Chosen},
};
use crate::store::{Held, Outcome, entry::FiledBy};
use postkeep_shared::run::{Exit, Failure};
use std::path::Path;

/// Lists, shows and tries again.
///
/// # Errors
/// A sentence and an exit code.
pub fn run(config: Option<&Path>, command: &DeadLetterCommand) -> Result<Exit, Failure> {
    match command {
        DeadLetterCommand::List { source, json } => {
            held::list(config, source.as_deref(), *json, &|outcome| outcome == Outcome::DeadLetter)
        }
        DeadLetterCommand::Show { id, raw, json } => held::show(config, id, *raw, *json, &was_dead),
        DeadLetterCommand::Retry { ids, source, json } => {
            let chosen = Chosen { ids, source: source.as_deref(), outcome: Outcome::DeadLetter };
            held::decide(config, &chosen, *json, &mut |review, held| review.retry(held))
        }
    }
}

fn was_dead(held: &Held) -> bool {
    held.outcome == Outcome::DeadLetter || held.decisions.iter().any(|d| d.decision == FiledBy::Retry)
}
