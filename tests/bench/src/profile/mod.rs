//! What a program does with its processor time: sampled by perf while it works, told by category and by thread.

mod categories;
pub(crate) mod perf;
mod tally;

pub(crate) use tally::Tally;
