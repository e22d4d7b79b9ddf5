//! `[alarms]`: who is told, and how patient we are. What only one of the programs watches stands in its own settings.

use super::{Condition, Hook, Kind, Rules};
use crate::{
    config::{Section, parse_duration},
    disk::Space,
    mailer::{MailSettings, address},
};
use std::time::Duration;

/// What both programs have in `[alarms]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmSettings {
    /// Addresses that get every notice.
    pub mail: Vec<String>,
    /// A command that gets every notice.
    pub command: Option<Hook>,
    /// When something is told again, and when it is over.
    pub rules: Rules,
    /// Wait after the first delivery that failed.
    pub retry: Duration,
    /// Part of the file system that must be free, percent.
    pub disk_free: u8,
    /// Files that must still be possible.
    pub inodes_free: u64,
}

impl Default for AlarmSettings {
    fn default() -> Self {
        Self {
            mail: Vec::new(),
            command: None,
            rules: Rules::default(),
            retry: Duration::from_secs(30),
            disk_free: 10,
            inodes_free: 10_000,
        }
    }
}

impl AlarmSettings {
    /// Takes them from `[alarms]`; `mail`: the `[mail]` that `mail` needs.
    #[must_use]
    pub fn take(section: &Section, mail: Option<&MailSettings>) -> Self {
        let default = Self::default();
        let listed = section.list("mail").unwrap_or_default();
        let to: Vec<String> = listed.iter().filter_map(|text| address(section, "mail", text)).collect();
        if !listed.is_empty() && mail.is_none() {
            section.mistake("mail", "needs to know how to send; add [mail] with from, and a relay where there is one");
        }
        let span = |key: &str, default: Duration| section.duration(key).unwrap_or(default);
        Self {
            mail: to,
            command: hook(section),
            rules: Rules { remind: span("remind", default.rules.remind), settle: span("settle", default.rules.settle) },
            retry: span("retry", default.retry).max(Duration::from_millis(100)),
            disk_free: section
                .integer("disk_free", 0..=99)
                .and_then(|n| u8::try_from(n).ok())
                .unwrap_or(default.disk_free),
            inodes_free: section
                .integer("inodes_free", 0..=1_000_000_000)
                .map_or(default.inodes_free, i64::unsigned_abs),
        }
    }

    /// Whether anybody is told.
    #[must_use]
    pub fn tells_somebody(&self) -> bool {
        !self.mail.is_empty() || self.command.is_some()
    }

    /// Every recipient, as the outbox names them.
    pub fn recipients(&self) -> impl Iterator<Item = String> + use<'_> {
        let mails = self.mail.iter().map(|to| format!("mail:{to}"));
        mails.chain(self.command.as_ref().map(|_| "command".to_owned()))
    }
}

fn hook(section: &Section) -> Option<Hook> {
    let limit = section.duration("command_timeout").unwrap_or(Duration::from_secs(30));
    let command = section.list("command")?;
    let Some((program, arguments)) = command.split_first() else {
        section.mistake("command", "is empty; name a program, or remove it");
        return None;
    };
    if !program.starts_with('/') {
        section.mistake(
            "command",
            format!("`{program}` must be the whole path of a program, such as /usr/local/bin/page"),
        );
    }
    Some(Hook { program: program.clone(), arguments: arguments.to_vec(), limit })
}

/// A span, or `never`; `default` where the key is not there.
#[must_use]
pub fn span_or_never(section: &Section, key: &str, default: Option<Duration>) -> Option<Duration> {
    let Some(text) = section.text(key) else { return default };
    if text == "never" {
        return None;
    }
    match parse_duration(&text) {
        Ok(span) => Some(span),
        Err(remedy) => {
            section.mistake(key, format!("{remedy}, or `never`"));
            default
        }
    }
}

impl AlarmSettings {
    /// What is wrong with a file system: too little room, or too few files that can still be made.
    #[must_use]
    pub fn disk(&self, place: &str, space: &Space) -> Vec<Condition> {
        let mut found = Vec::new();
        let (mib, wanted) = (1024 * 1024, space.total / 100 * u64::from(self.disk_free));
        if space.total > 0 && space.free < wanted {
            let (free, total) = (space.free / mib, space.total / mib);
            let detail = format!("{free} of {total} MiB are free, less than {} percent.", self.disk_free);
            found.push(Condition::new(Kind::Disk, &format!("{place} (space)"), &detail));
        }
        if space.free_inodes < self.inodes_free {
            let detail = format!("{} more files can be made, fewer than {}.", space.free_inodes, self.inodes_free);
            found.push(Condition::new(Kind::Disk, &format!("{place} (inodes)"), &detail));
        }
        if space.read_only {
            let detail = "It is mounted read-only: nothing can be kept.";
            found.push(Condition::new(Kind::Disk, &format!("{place} (read-only)"), detail));
        }
        found
    }
}
