//! The time that decisions about certificates go by: injected, so that forty days pass in a test in a moment.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Seconds since 1970-01-01 UTC.
    fn now(&self) -> i64;
}

/// The clock of this machine.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> i64 {
        i64::try_from(postkeep_shared::run::now_ms() / 1000).unwrap_or(i64::MAX)
    }
}

/// A moment as people and JSON read it (RFC 3339, UTC).
#[must_use]
pub fn moment(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| seconds.to_string())
}
