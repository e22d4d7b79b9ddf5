//! What the archiver watches of itself and its sources (`docs/alarms.md`), and the status mail.
//!
//! The engine and the delivery are `postkeep_shared::alarm`. Here is what is looked at: the service's board, the last
//! reconcile, disk, certificates of hosts, files that must be fresh, probes; and what of it counts as wrong, which is
//! decided by pure functions.

mod activity;
mod busy;
mod judge;
mod senders;
mod settings;
pub mod status_mail;
mod watcher;

pub use activity::Activity;
pub use busy::{BusyHours, is_busy, silent_for};
pub use judge::{Found, judge};
pub use settings::{ArchiverAlarms, Fresh, StatusMail};
pub use watcher::{Watcher, status_page};
