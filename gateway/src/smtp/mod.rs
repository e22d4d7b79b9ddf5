//! SMTP, receiving only: the way reports enter the gateway.
//!
//! RFC 5321 with PIPELINING (2920), SIZE (1870), 8BITMIME (6152), SMTPUTF8 (6531), CHUNKING (3030),
//! ENHANCEDSTATUSCODES (2034) and STARTTLS (3207). [`Smtp`] is the protocol without a socket, [`serve`] puts it on a
//! connection and streams what arrives into the spool.
//!
//! Invariants: `250` for a message is written from spool receipts and from nothing else; only CRLF.CRLF ends DATA; no
//! octet received in clear is read after STARTTLS; a whole message is never in memory. A `5xx` can lose a report for
//! ever, so only an unknown recipient, an oversized message, a mail loop and malformed input get one
//! (`docs/replies.md`). What it does not do: AUTH, relaying, bounces, VRFY, EXPN, ETRN, BINARYMIME, MIME parsing.

mod accepted;
mod command;
mod content;
mod machine;
mod policy;
mod replies;
mod session;
mod transaction;

pub use accepted::{Accepted, Trouble};
pub use machine::{Config, Event, Smtp};
pub use policy::Found;
pub use replies::{ALL as ALL_REPLIES, Reply, Then, busy, busy_address};
pub use session::{Context, Settings, serve};
pub use transaction::{Recipient, Transaction};
