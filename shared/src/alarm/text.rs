//! Notices in words: for mail, for the log, and as JSON for a command.

use super::{Event, Notice, Who};
use crate::{mailer::Letter, run::LocalTime};
use serde_json::{Value, json};
use std::time::Duration;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Hex digits of a mailbox's name that are shown: enough to find it in a list, not enough to write to it.
const SHOWN: usize = 8;

/// `text` with every mailbox name cut to its beginning, `mbx-01234567...`.
#[must_use]
pub fn shortened(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("mbx-") {
        let (before, name) = rest.split_at(at + 4);
        out.push_str(before);
        let digits = name.bytes().take_while(u8::is_ascii_hexdigit).count();
        let (digits, after) = name.split_at(digits);
        match digits.get(..SHOWN) {
            Some(short) if digits.len() >= 32 => {
                out.push_str(short);
                out.push_str("...");
            }
            _ => out.push_str(digits),
        }
        rest = after;
    }
    out + rest
}

/// `45 s`, `12 min`, `4 h 3 min`, `9 days 4 h`.
#[must_use]
pub fn span_text(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {} min", minutes % 60),
        (days, hours, _) => format!("{days} day{} {} h", if days == 1 { "" } else { "s" }, hours % 24),
    }
}

impl Notice {
    /// The subject of its mail: what and where.
    #[must_use]
    pub fn subject_line(&self, who: &Who) -> String {
        let (title, at) = (self.kind.title(), &self.subject);
        match self.event {
            Event::Raised => format!("[ALARM] {title}: {at} ({})", who.host),
            Event::Worse => format!("[ALARM, worse] {title}: {at} ({})", who.host),
            Event::Reminder => format!("[ALARM, still] {title}: {at} ({})", who.host),
            Event::Resolved => format!("[resolved] {title}: {at} ({})", who.host),
            Event::Test => format!("[test] {} on {}: this is not an alarm", who.program, who.host),
        }
    }

    /// One line for the log.
    #[must_use]
    pub fn line(&self) -> String {
        let lasted = span_text(Duration::from_millis(self.at_ms.saturating_sub(self.since_ms)));
        match self.event {
            Event::Resolved => format!("resolved after {lasted}: {}: {}", self.kind.title(), self.subject),
            _ => format!("ALARM: {}: {}: {}", self.kind.title(), self.subject, self.detail),
        }
    }

    fn body(&self, who: &Who) -> String {
        let (began, at) = (LocalTime::of(self.since_ms).text(), LocalTime::of(self.at_ms).text());
        let lasted = span_text(Duration::from_millis(self.at_ms.saturating_sub(self.since_ms)));
        let head = match self.event {
            Event::Resolved => format!("It is over. It lasted {lasted}.\n\nWhat was said last: {}", self.detail),
            Event::Test => format!("This is a test. {}", self.detail),
            _ => self.detail.clone(),
        };
        let mut lines = format!("{head}\n\n");
        if self.event != Event::Test {
            let times = match self.event {
                Event::Resolved => format!("Since:  {began}\nOver:   {at}"),
                _ => format!("Since:  {began} ({lasted})"),
            };
            lines += &format!("Alarm:  {}\nWhere:  {}\n{times}\n", self.kind.name(), self.subject);
        }
        lines += &format!("From:   {} on {}, {at}\n", who.program, who.host);
        if !matches!(self.event, Event::Resolved | Event::Test) {
            lines += &format!(
                "\nWhat to do: {}\nMore in docs/alarms.md. `{} alarm list` shows all alarms of now.\n",
                self.kind.remedy(),
                who.program
            );
        }
        lines
    }

    /// What a command gets on its standard input.
    #[must_use]
    pub fn json(&self, who: &Who, id: &str) -> Value {
        json!({
            "version": 1,
            "id": id,
            "program": who.program,
            "host": who.host,
            "event": self.event.name(),
            "kind": self.kind.name(),
            "title": self.kind.title(),
            "subject": self.subject,
            "detail": self.detail,
            "since": moment(self.since_ms),
            "time": moment(self.at_ms),
            "remedy": self.kind.remedy(),
        })
    }
}

/// The mail of a notice.
#[must_use]
pub fn letter(notice: &Notice, who: &Who) -> Letter {
    Letter {
        subject: notice.subject_line(who),
        text: notice.body(who),
        written: i64::try_from(notice.at_ms / 1000).unwrap_or_default(),
        ..Letter::default()
    }
}

fn moment(ms: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()?;
    time.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::Kind;

    #[test]
    fn mailboxes_are_shortened_and_nothing_else() {
        let whole = "mbx-000102030405060708090a0b0c0d0e0f";
        assert_eq!(
            shortened(&format!("{whole}@a.example and {whole}")),
            "mbx-00010203...@a.example and mbx-00010203..."
        );
        for same in ["", "mbx-", "mbx-00", "mbx-0001020304050607", "no mailbox", "ä mbx-é"] {
            assert_eq!(shortened(same), same);
        }
    }

    #[test]
    fn spans_are_read_at_a_glance() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (720, "12 min"),
            (14_580, "4 h 3 min"),
            (90_000, "1 day 1 h"),
            (792_000, "9 days 4 h"),
        ] {
            assert_eq!(span_text(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_mail_says_what_where_since_when_and_what_to_do() {
        let who = Who { program: "postkeep-archiver", host: "arc.example".into() };
        let mut notice = Notice {
            event: Event::Raised,
            kind: Kind::HostDown,
            subject: "m365 at msgw1.example:995".into(),
            detail: "It cannot be reached: connection refused.".into(),
            since_ms: 1_790_553_600_000,
            at_ms: 1_790_555_400_000,
        };
        let mail = letter(&notice, &who);
        assert_eq!(mail.subject, "[ALARM] host down: m365 at msgw1.example:995 (arc.example)");
        for wanted in ["connection refused", "30 min", "What to do: ", "postkeep-archiver on arc.example"] {
            assert!(mail.text.contains(wanted), "{wanted}: {}", mail.text);
        }
        notice.event = Event::Resolved;
        let mail = letter(&notice, &who);
        assert!(mail.subject.starts_with("[resolved] host down") && mail.text.contains("It lasted 30 min"));
        assert_eq!(notice.json(&who, "x")["since"], "2026-09-28T00:00:00Z");
    }
}
