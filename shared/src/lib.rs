//! What both Postkeep programs speak, and nothing that only one of them needs.
//!
//! Directions: the gateway and the archiver use this crate and never each other. Machines and codecs here are
//! pure; [`disk`] is the one place that touches files, [`drive`] the one that moves bytes between a machine and
//! a socket.

pub mod alarm;
pub mod config;
pub mod crypt;
pub mod disk;
pub mod drive;
pub mod mail;
pub mod mailer;
pub mod metrics;
pub mod pop3;
pub mod receipt;
pub mod run;
pub mod tls;
pub mod wire;
