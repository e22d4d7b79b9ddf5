//! What is wrong now, and what is told about it.

use super::{Kind, shortened};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Something that is wrong now. Kind and subject make one alarm; everything else may change while it lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What.
    pub kind: Kind,
    /// Where: a source, a host, a mailbox, a path.
    pub subject: String,
    /// One sentence.
    pub detail: String,
    /// When it began, milliseconds since 1970-01-01 UTC; `None`: when it was first seen.
    pub since_ms: Option<u64>,
    /// How long it must last before it is told.
    pub hold_ms: u64,
    /// How bad it is; a higher stage is told, too.
    pub stage: u64,
}

/// What has happened to an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// It is new.
    Raised,
    /// It has become worse.
    Worse,
    /// It is still there.
    Reminder,
    /// It is over.
    Resolved,
    /// Nothing is wrong: `alarm test`.
    Test,
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What has happened.
    pub event: Event,
    /// To what.
    pub kind: Kind,
    /// Where.
    pub subject: String,
    /// One sentence.
    pub detail: String,
    /// When it began, milliseconds since 1970-01-01 UTC.
    pub since_ms: u64,
    /// When this was noticed.
    pub at_ms: u64,
}

impl Condition {
    /// A condition. Names of mailboxes are shortened: whoever reads mail on its way must not learn where to send forged
    /// reports to.
    #[must_use]
    pub fn new(kind: Kind, subject: &str, detail: &str) -> Self {
        let (subject, detail) = (shortened(subject), shortened(detail));
        Self { kind, subject, detail, since_ms: None, hold_ms: 0, stage: 0 }
    }

    /// It began then.
    #[must_use]
    pub fn since(mut self, ms: u64) -> Self {
        self.since_ms = Some(ms);
        self
    }

    /// It is told only once it has lasted this long.
    #[must_use]
    pub fn hold(mut self, span: Duration) -> Self {
        self.hold_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// How bad it is.
    #[must_use]
    pub fn stage(mut self, stage: u64) -> Self {
        self.stage = stage;
        self
    }
}

impl Event {
    /// As it stands in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Worse => "worse",
            Self::Reminder => "reminder",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }
}
