//! What every measurement here starts from: a corpus of journal reports that is the same on every machine, and the
//! size its parts have when each is compressed alone.
//!
//! The corpus is described in `docs/benchmarks.md`. Nothing here is random: a seed and a count name a corpus for ever,
//! and a test holds its digest.

pub mod corpus;
pub mod floor;
pub mod subject;
