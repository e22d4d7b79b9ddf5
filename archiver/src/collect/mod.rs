//! Rounds: taking reports from a source, keeping them, and only then deleting them there.
//!
//! The server is not trusted: limits hold for all it sends, receipts and ledger are checked, and anything odd leads to
//! "fetch, keep, do not delete, alarm". A message is deleted only with a [`crate::store::StoreReceipt`], in the session
//! that showed it, by the name it had there.

mod ahead;
pub mod backoff;
mod budget;
pub mod chain;
pub mod collected;
#[cfg(test)]
mod dialogues;
pub mod examine;
#[cfg(test)]
mod hostile;
pub mod hosts;
pub mod judge;
pub mod ledger;
pub mod listing;
pub mod look;
pub mod machine;
#[cfg(test)]
mod order;
pub mod password;
pub mod pin;
pub mod report;
mod round;
#[cfg(test)]
pub(crate) mod samples;
pub mod session;
pub mod shared;
pub mod slots;
pub mod state;
pub mod tls;
pub mod turns;
mod visit;

pub use round::{Pace, Prepared, Rounds, check_owner};

use crate::{config::ArchiverConfig, octets::Staging};
use postkeep_shared::{disk::Disk, run::Failure};
use state::State;
use std::sync::Arc;

fn staging_and_state(config: &ArchiverConfig, disk: &Arc<dyn Disk>) -> Result<(Staging, State), Failure> {
    let staging = Staging::open(&config.staging_dir(), Arc::clone(disk))?;
    let state = State::open(&config.state_dir(), &**disk)?;
    Ok((staging, state))
}
