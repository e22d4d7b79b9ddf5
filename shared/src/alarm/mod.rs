//! Alarms: what is wrong now, told once, told again after a day, and told when it is over (`docs/alarms.md`).
//!
//! Whoever sees something says so to [`Alarms`], a handle that never blocks and never fails. Behind it one task holds the
//! [`Engine`], which decides what is news, and the [`Outbox`], which keeps what was not delivered yet. Both are in one
//! file that is replaced atomically ([`Kept`]), before anything is sent: a restart neither repeats nor forgets.
//!
//! Invariants: a notice of one alarm is told once to each recipient and in order, but for a crash or a lost connection
//! between a server's answer and our file; then it comes twice under one Message-ID. "Resolved" comes only after what it
//! resolves. Nothing here is waited for by the work that is watched.

mod certificate;
mod condition;
mod desk;
mod engine;
mod hook;
mod kept;
mod kind;
mod listing;
mod outbox;
mod settings;
mod text;
mod trial;

#[cfg(test)]
mod tests;

pub use certificate::certificate_stage;
pub use condition::{Condition, Event, Notice};
pub use desk::{Alarms, Who};
pub use engine::{Active, Engine, Rules};
pub use hook::Hook;
pub use kept::{Kept, KeptError};
pub use kind::Kind;
pub use listing::Listing;
pub use outbox::{Item, Outbox, Post, Queued};
pub use settings::{AlarmSettings, span_or_never};
pub use text::{letter, shortened, span_text};
pub use trial::{Tried, trial};
