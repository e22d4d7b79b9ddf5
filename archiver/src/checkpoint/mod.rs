//! Checkpoints: where every store's chain of records and every ledger stood, signed (`docs/formats/checkpoint.md`).
//!
//! A checkpoint holds numbers and hashes of the last links of all chains. Since each link names the one before, two
//! checkpoints and the records are enough to show that nothing between them was rewritten, taken out or slipped in. One
//! that lies in somebody else's hands binds the archive up to its time. No name of a message and no address of a mailbox
//! is in it, so it may be mailed anywhere.

mod create;
mod text;
mod verify;

pub use create::{Listed, Written, create, is_due, last, list};
pub use text::{Checkpoint, LedgerHead, StoreHead, TextError};
pub use verify::{Copy, Verdict, verify};
