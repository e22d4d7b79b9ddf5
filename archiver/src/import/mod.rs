//! Messages from files: EML files and folders of them, mbox files, Maildirs, exports of MailStore and our own.
//!
//! Every message is kept under the digest of its octets and the place it is meant for, so an import that was killed
//! anywhere is simply started again: what is in the store already is read, recognised and not stored twice, and the
//! final count is the same as if nothing had happened. Nothing is removed or changed where it is read from.
//! Readers of formats are pure, one file each; `walk` finds the files, `run` stores and counts.

pub mod maildir;
pub mod mailstore;
pub mod mbox;
mod run;
mod walk;

pub use run::{Counts, Import, Target};
pub use walk::{File, Form, Tree};
