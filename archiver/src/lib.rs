//! Postkeep archiver: collects reports, files them to their owners, keeps them and proves it.
//!
//! Directions: `cli` uses everything; `collect` and `reconcile` use `journal`, `filing` and `archive` (all stores as
//! one), which is made of `store`s; none of these knows sockets or the other's insides; `octets` is below them all.

pub mod archive;
pub mod backup;
pub mod checkpoint;
pub mod cli;
pub mod collect;
pub mod config;
pub mod evidence;
pub mod export;
pub mod filing;
pub mod import;
pub mod journal;
pub mod octets;
pub mod probe;
pub mod reconcile;
pub mod refile;
pub mod review;
pub mod serve;
pub mod signing;
pub mod store;
pub mod watch;
pub mod why;
