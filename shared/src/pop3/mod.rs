//! POP3 as both ends write it: commands and replies (RFC 1939, 2449, 2595, 5034, 6856), and our two extensions.
//!
//! `XLEDGER [from]` lists ledger entries, one line each: the entry's octets in base64. `XORIGIN` lists the nodes whose ledgers
//! are kept here since their messages were moved here (64 hex digits of the key, a blank, the number of entries), and
//! `XORIGIN node from` shows such a ledger as `XLEDGER` shows the server's own. `XRETR n` answers
//! `+OK <octets> <salted digest>` and then exactly that many octets, without dot-stuffing and without a final dot.

mod command;
mod reply;

pub use command::{Command, CommandError, MAX_LINE};
pub use reply::{Code, Reply, ReplyError};
