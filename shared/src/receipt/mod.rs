//! Receipts: what the gateway signs when it accepts or gives up a message, and what it writes before a message.
//!
//! Formats: `docs/formats/ledger.md` (entry) and `docs/formats/spool.md` (trace header). Both programs use exactly
//! this code, so an entry means the same on either side.

mod entry;
mod trace;

pub use entry::{ENTRY_LEN, Entry, EntryBody, EntryError, Event, Flags, NodeKey, VERSION, Verifier};
pub use trace::{
    Evidence, RECEIPT_FIELD, SOURCE_FIELD, Trace, TraceError, parse_sealed_trace, parse_trace, write_receipt_field,
};
