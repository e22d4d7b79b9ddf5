//! The two names everything hangs on: a mailbox and a message in it.

use std::{fmt, str::FromStr};

/// A mailbox name: `mbx-` and 32 lower-case hex digits. 128 random bits, so the address is hard to guess.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxId(pub [u8; 16]);

/// A message name: UUIDv7, written with hyphens (36 characters). File name in the spool and POP3 unique-id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uidl(pub [u8; 16]);

/// The text is not a name of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid name")]
pub struct ParseIdError;

impl FromStr for MailboxId {
    type Err = ParseIdError;

    /// Accepts any case: addresses are compared without case here, since hex digits have no other meaning.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let lower = text.to_ascii_lowercase();
        let hex = lower.strip_prefix("mbx-").ok_or(ParseIdError)?;
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).map_err(|_| ParseIdError)?;
        bytes.try_into().map(Self).map_err(|_| ParseIdError)
    }
}

impl MailboxId {
    /// Eight hex digits that stand for the mailbox where its name, which is a secret, may not be shown: figures, alarms.
    /// They do not lead back to it: it has 128 random bits.
    #[must_use]
    pub fn label(&self) -> String {
        super::Digest::of(&[b"postkeep 2026 label of a mailbox".as_slice(), &self.0].concat()).short(8)
    }
}

impl fmt::Display for MailboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mbx-{}", data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl Uidl {
    /// A new name; names made later sort behind earlier ones to the millisecond.
    #[must_use]
    pub fn now() -> Self {
        Self(*uuid::Uuid::now_v7().as_bytes())
    }

    /// When it was made, milliseconds since 1970-01-01 UTC (RFC 9562 §5.7). A name given by somebody else may say
    /// anything: for people only.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.0.iter().take(6).fold(0, |time, octet| time << 8 | u64::from(*octet))
    }
}

impl FromStr for Uidl {
    type Err = ParseIdError;

    /// Only the hyphenated form, lower case: one name has one spelling.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let uuid = uuid::Uuid::try_parse(text).map_err(|_| ParseIdError)?;
        let id = Self(*uuid.as_bytes());
        if id.to_string() == text { Ok(id) } else { Err(ParseIdError) }
    }
}

impl fmt::Display for Uidl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", uuid::Uuid::from_bytes(self.0).hyphenated())
    }
}

macro_rules! debug_is_display {
    ($($name:ty),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
debug_is_display!(MailboxId, Uidl);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let id: MailboxId = "MBX-000102030405060708090a0b0c0d0e0f".parse().expect("valid");
        assert_eq!(id.to_string(), "mbx-000102030405060708090a0b0c0d0e0f");
        let uidl = Uidl::now();
        assert_eq!(uidl.to_string().parse(), Ok(uidl));
        assert!(crate::run::now_ms().abs_diff(uidl.time_ms()) < 60_000);
        for bad in ["", "mbx-", "mbx-00", "../../x", "mbx-000102030405060708090a0b0c0d0e0g"] {
            assert!(bad.parse::<MailboxId>().is_err(), "{bad}");
            assert!(bad.parse::<Uidl>().is_err(), "{bad}");
        }
    }
}
