//! Whose archive a message belongs in: owners and their addresses, and the plan made from an envelope.
//!
//! Owners are the sender, the one sent for, and every address delivered to. A group that was expanded and a user whose
//! mail was redirected are metadata (journal-formats §1.7): they have a line of their own when they keep a copy.

mod address;
mod assign;
mod csv;
mod edit;
mod owners;
mod plan;
mod reason;
mod template;

pub use address::{domain, encapsulated, is_x500, normalise, without_detail};
pub use assign::{assign, assign_all};
pub use csv::read_csv;
pub use edit::edited;
pub use owners::{Found, Owner, Owners};
pub use plan::{
    CATCH_ALL, Envelope, FOLDER_INCOMING, FOLDER_OUTGOING, FOLDER_UNKNOWN, Instance, Plan, Rules, Unknown, plan,
};
pub use reason::{Part, Reason, Rule};
pub use template::{Direction, Template, Values};
