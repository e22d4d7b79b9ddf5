//! Whether every number adds up: what gateways accepted against what the store holds, what waits and what others took.
//!
//! `accepted = collected + waiting + removed_by_others + missing + unknown`, per source, mailbox and node. All numbers come from
//! the signed ledger, the store's records and the server's listing; none is a counter kept on the side.

mod ask;
mod tally;

pub use ask::{Answer, ask};
pub use tally::{Row, Tally};
