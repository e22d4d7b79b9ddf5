//! The service: every source in its rhythm, side by side, for ever.
//!
//! [`schedule`] says when which source is asked and knows nothing of hosts or stores; [`keeper`] holds configuration, store
//! and lock, and does the rounds; [`board`] is what is known now, for `status`, metrics and alarms; [`control`] is how
//! commands speak to it; [`pause`] are the sources that a command paused; [`teller`] answers monitoring.
//!
//! Invariants: a source has at most one round at a time; whatever stops the service, a reload or a loan of the store,
//! lets batches in work end, so what the store took is deleted at its source in the same session. A configuration with
//! a mistake never replaces one that works.

pub mod board;
pub mod control;
pub mod keeper;
pub mod pause;
mod probes;
pub mod proof;
mod reconciled;
pub mod schedule;
pub mod teller;

pub use board::{Board, HostStanding, Snapshot, SourceStanding, Totals};
pub use keeper::Keeper;
pub use schedule::{Order, Service, Work};
