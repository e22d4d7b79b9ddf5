//! What an alarm can be about.

use serde::{Deserialize, Serialize};

/// The kinds of alarms; their order is that of their weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// A disk has failed: nothing is taken any more.
    Storage,
    /// Messages are missing, or a ledger went back.
    Gap,
    /// Something has waited for hours; senders give up after 12 to 24.
    Waiting,
    /// A mailbox refuses mail.
    Suspended,
    /// A marked message did not come back.
    Probe,
    /// No report of a source for too long.
    Silence,
    /// A host cannot be reached.
    HostDown,
    /// A certificate ends soon, or has ended.
    Certificate,
    /// Space or inodes run out.
    Disk,
    /// A checkpoint or a backup is too old.
    Stale,
    /// Reports that nobody could file.
    DeadLetter,
    /// Reports that wait for a decision.
    Quarantine,
    /// The configuration could not be read again.
    Reload,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Storage,
        Self::Gap,
        Self::Waiting,
        Self::Suspended,
        Self::Probe,
        Self::Silence,
        Self::HostDown,
        Self::Certificate,
        Self::Disk,
        Self::Stale,
        Self::DeadLetter,
        Self::Quarantine,
        Self::Reload,
    ];

    /// As it stands in JSON, in `alarm list` and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Gap => "gap",
            Self::Waiting => "waiting",
            Self::Suspended => "suspended",
            Self::Probe => "probe",
            Self::Silence => "silence",
            Self::HostDown => "host-down",
            Self::Certificate => "certificate",
            Self::Disk => "disk",
            Self::Stale => "stale",
            Self::DeadLetter => "dead-letter",
            Self::Quarantine => "quarantine",
            Self::Reload => "reload",
        }
    }

    /// What is wrong, in a few words; the subject of the mail goes on with where.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Storage => "storage has stopped",
            Self::Gap => "numbers do not add up",
            Self::Waiting => "mail waits too long",
            Self::Suspended => "mailbox suspended",
            Self::Probe => "probe did not arrive",
            Self::Silence => "no reports",
            Self::HostDown => "host down",
            Self::Certificate => "certificate ends",
            Self::Disk => "disk nearly full",
            Self::Stale => "too old",
            Self::DeadLetter => "dead letters",
            Self::Quarantine => "reports in quarantine",
            Self::Reload => "configuration not reloaded",
        }
    }

    /// What to do, one sentence; `docs/alarms.md` says more.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Storage => {
                "Senders keep their mail for 12 to 24 hours: look at the disk and the kernel's log, then start the \
                 program again."
            }
            Self::Gap => "Run `postkeep-archiver reconcile`: it names what is missing and where.",
            Self::Waiting => "See whether the archiver runs and reaches this gateway, and what its log says.",
            Self::Suspended => {
                "`postkeep-gateway mailbox resume ID` takes mail again; senders give up after 12 to 24 hours."
            }
            Self::Probe => "Follow the message: journal rule, connector, MX, gateway, archiver; then `probe run NAME`.",
            Self::Silence => "See whether the journal rule and the connector are still there, and send a test message.",
            Self::HostDown => "See whether the gateway runs and whether its POP3 port can be reached from here.",
            Self::Certificate => "See why it was not renewed; with files, put the new certificate in place.",
            Self::Disk => "Make room, or make the file system larger, before mail has to wait at the senders.",
            Self::Stale => "See why it is not made any more.",
            Self::DeadLetter => "`postkeep-archiver dead-letter list` shows them with their reasons.",
            Self::Quarantine => "`postkeep-archiver quarantine list` shows them; release or reject each.",
            Self::Reload => {
                "Run `check-config`, mend what it names, and send SIGHUP again. The old configuration stays in use."
            }
        }
    }

    /// Whether it is told again after a day. A certificate's stages are its reminders.
    #[must_use]
    pub fn reminds(self) -> bool {
        self != Self::Certificate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_json_and_all_are_listed() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_string(&kind).expect("JSON"), format!("\"{}\"", kind.name()));
            assert!(kind.title().len() < 40 && kind.remedy().ends_with('.'));
        }
        assert!(Kind::ALL.is_sorted());
    }
}
