//! Whose archive a message belongs in: owners and their addresses, and the plan made from an envelope.
//!
//! Owners are the sender, the one sent for, and every address delivered to. A group that was expanded and a user whose
//! mail was redirected are metadata (journal-formats §1.7): they have a line of their own when they keep a copy.

mod address;
mod owners;
mod plan;

pub use address::{domain, normalise};
pub use owners::{Owner, Owners};
pub use plan::{CATCH_ALL, FOLDER_INCOMING, FOLDER_OUTGOING, FOLDER_UNKNOWN, Instance, Plan, Rules, Unknown, plan};
