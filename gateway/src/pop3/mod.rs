//! POP3: the way messages leave the gateway (RFC 1939, 2449, 2595, 3206, 5034, 6856).
//!
//! [`Pop3`] is the protocol and touches nothing; [`session`] gives it messages; [`login`] is the only place where a
//! password meets a key. Invariants: no credential is used without TLS; nothing is removed but by QUIT after a login,
//! and that only when the ledger has it on stable storage; a message that cannot be read to its end is never ended
//! with a dot. What it does not do: APOP, message downgrade for clients without UTF8 (octets are never changed).

mod content;
mod listing;
pub mod login;
mod machine;
mod sasl;
pub mod session;
mod turns;

pub use content::Fetch;
pub use listing::{Item, Listing};
pub use machine::{Credentials, Event, LoginFailure, Pop3, Pop3Error};
