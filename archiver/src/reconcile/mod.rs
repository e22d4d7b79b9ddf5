//! Whether every number adds up: what gateways accepted against what the store holds, what waits and what others took.
//!
//! `accepted = collected + deleted + waiting + removed_by_others + missing + unknown`, per source, mailbox, node and day.
//! All numbers come from the signed ledgers, the store's records and the servers' listings; none is a counter kept on the
//! side. What is remembered between two runs ([`Memory`], the list of collected messages) adds suspicion, never trust.

mod ask;
mod memory;
mod numbers;
mod part;
mod row;
mod run;
mod slots;
mod tally;
#[cfg(test)]
mod tests;

pub(crate) use memory::memory_lock;
pub use memory::{HeadMemory, Memory, SourceMemory, StoreMemory};
pub use numbers::Numbers;
pub use row::{Counts, Day, Fate, MAX_NAMED, Named, Row};
pub use run::{Reconciled, reconcile, reconcile_offline, store_folders};
