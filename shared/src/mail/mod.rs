//! Names and digests of messages, as both programs write them.

mod digest;
mod id;

pub use digest::{Digest, Hasher};
pub use id::{MailboxId, ParseIdError, Uidl};
