//! Where in a report the message to archive lies, and its octets.

use super::transfer::{Decoded, Encoding};
use crate::octets::{Octets, Slice};
use std::{io, ops::Range};

/// A part of a report, as a range of its octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The octets as they stand.
    Range(Range<u64>),
    /// Octets that have to be decoded. RFC 2046 §5.2.1 forbids an encoding on `message/rfc822`, some relays add one.
    Encoded {
        /// The encoded octets.
        range: Range<u64>,
        /// How they are encoded: base64 or quoted-printable.
        encoding: Encoding,
    },
}

impl Content {
    /// The octets of this part of `message`. Encoded content is decoded once to learn its length, then again where it
    /// is read; memory is bounded whatever the size (about 64 octets per 64 KiB).
    ///
    /// # Errors
    /// Whatever reading gives.
    pub fn octets<'a>(&self, message: &'a dyn Octets) -> io::Result<Box<dyn Octets + 'a>> {
        Ok(match self {
            Self::Range(range) => Box::new(Slice::new(message, range.clone())),
            Self::Encoded { range, encoding } => Box::new(Decoded::new(message, range.clone(), *encoding)?),
        })
    }
}
