//! Postkeep gateway: accepts journal reports over SMTP, seals each one so that only the mailbox password opens it, and
//! hands them out over POP3.
//!
//! The way goes down only: `cli → server → session → machine / format`. Machines never see a socket, a clock or a
//! file; sessions know no protocol rules.

pub mod alarms;
pub mod bundle;
pub mod cli;
pub mod config;
pub mod control;
pub mod doctor;
pub mod ledger;
pub mod mailbox;
pub mod metrics;
pub mod node;
pub mod pop3;
pub mod server;
pub mod smtp;
pub mod sources;
pub mod spool;
pub mod sync;
pub mod tls;
pub mod verify;
