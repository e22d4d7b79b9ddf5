//! What the gateway watches of itself, so that it can call for help when nobody collects from it any more
//! (`docs/alarms.md`): mailboxes that are suspended or not collected, certificate, disk, storage.
//!
//! The engine and the delivery are `postkeep_shared::alarm`; here is what is looked at, and what counts as wrong.

mod settings;
mod watch;

pub use settings::GatewayAlarms;
pub(crate) use watch::stopped;
pub use watch::{Found, MailboxFound, judge, run};
