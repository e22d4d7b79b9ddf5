//! Figures and health of the gateway (`docs/metrics.md`): what was counted since the start, and what stands now.
//!
//! Labels are few and never a secret: mailboxes stand as their [`label`](postkeep_shared::mail::MailboxId::label), replies
//! as their codes. Nothing here knows a client, an address or a message.

mod counters;
mod teller;

pub use counters::Counters;
pub use teller::Teller;

/// What every name begins with.
pub const PREFIX: &str = "postkeep_gateway_";
