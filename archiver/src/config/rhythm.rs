//! When a source is asked, how long its servers may take, and how much one round takes.

use postkeep_shared::config::Section;
use std::{fmt, time::Duration};

const DAY_MS: u64 = 86_400_000;
const MINUTE_MS: u64 = 60_000;

/// When `serve` asks a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rhythm {
    /// From the end of a round to the beginning of the next one.
    pub interval: Duration,
    /// Up to so much is added to the interval, by chance, so that not all sources begin at once.
    pub jitter: Duration,
    /// Not at all, until this is changed.
    pub pause: bool,
    /// Not in these hours; a round that runs when they begin ends with its batch.
    pub maintenance: Vec<Window>,
}

/// How long a server may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Connecting, TLS and greeting together.
    pub connect: Duration,
    /// One answer, or one more piece of it.
    pub answer: Duration,
    /// QUIT: the server may have a great many files to remove.
    pub quit: Duration,
}

/// What one round takes from one host at most; `None`: everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MaxPerRound {
    /// Messages.
    pub messages: Option<u64>,
    /// Octets; the message that reaches it is still taken.
    pub bytes: Option<u64>,
}

/// Hours of every day, UTC: days of 23 or 25 hours, and a service without access to the zone files, change nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Minutes since midnight, first one inside.
    from: u64,
    /// Minutes since midnight, first one outside; not above `from` where it goes over midnight.
    to: u64,
}

impl Timeouts {
    /// Where nothing else is asked for.
    pub const USUAL: Self =
        Self { connect: Duration::from_secs(30), answer: Duration::from_secs(60), quit: Duration::from_secs(300) };

    pub(super) fn read(table: &Section) -> Self {
        let usual = Self::USUAL;
        let span = |key: &str, usual: Duration| {
            let span = table.duration(key).unwrap_or(usual);
            if span < Duration::from_secs(1) {
                table.mistake(key, "shorter than a second; write for example \"30s\"");
            }
            span
        };
        Self {
            connect: span("connect_timeout", usual.connect),
            answer: span("answer_timeout", usual.answer),
            quit: span("quit_timeout", usual.quit),
        }
    }
}

impl MaxPerRound {
    pub(super) fn read(table: &Section) -> Self {
        let most = table.section("max_per_round");
        Self { messages: most.integer("messages", 1..=i64::MAX).map(i64::unsigned_abs), bytes: most.size("bytes") }
    }
}

impl Rhythm {
    pub(super) fn read(table: &Section) -> Self {
        let interval = table.duration("interval").unwrap_or(Duration::from_secs(60));
        if interval < Duration::from_secs(1) {
            table.mistake("interval", "shorter than a second; write for example \"1m\"");
        }
        let mut maintenance = Vec::new();
        for text in table.list("maintenance").unwrap_or_default() {
            match Window::parse(&text) {
                Some(window) => maintenance.push(window),
                None => table.mistake(
                    "maintenance",
                    format!(
                        "`{text}` is not a time of day (UTC); write for example \"02:00-04:00\" or \"22:30-01:00\""
                    ),
                ),
            }
        }
        Self {
            interval,
            jitter: table.duration("jitter").unwrap_or(interval / 10),
            pause: table.flag("pause").unwrap_or(false),
            maintenance,
        }
    }

    /// How long the hours in which nothing is asked still last; `None`: it is not such an hour.
    #[must_use]
    pub fn rests_for(&self, now_ms: u64) -> Option<Duration> {
        // Windows may touch or overlap.
        let mut at = now_ms;
        for _ in 0..=self.maintenance.len() {
            match self.maintenance.iter().filter_map(|window| window.lasts(at)).max() {
                Some(left) => at += left,
                None => break,
            }
        }
        (at > now_ms).then(|| Duration::from_millis(at - now_ms))
    }

    /// How long it is until the next such hours begin.
    #[must_use]
    pub fn rests_in(&self, now_ms: u64) -> Option<Duration> {
        self.maintenance.iter().map(|window| window.begins_in(now_ms)).min().map(Duration::from_millis)
    }
}

impl Window {
    /// `hh:mm-hh:mm`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-')?;
        let (from, to) = (minutes(from)?, minutes(to)?);
        // All day long is a pause.
        (from < 1440 && from != to && (from, to) != (0, 1440)).then_some(Self { from, to: to % 1440 })
    }

    fn lasts(self, now_ms: u64) -> Option<u64> {
        let now = now_ms % DAY_MS;
        let (from, to) = (self.from * MINUTE_MS, self.to * MINUTE_MS);
        let inside = if from < to { (from..to).contains(&now) } else { now >= from || now < to };
        inside.then(|| (to + DAY_MS - now) % DAY_MS)
    }

    fn begins_in(self, now_ms: u64) -> u64 {
        (self.from * MINUTE_MS + DAY_MS - now_ms % DAY_MS) % DAY_MS
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02} UTC", from / 60, from % 60, to / 60, to % 60)
    }
}

fn minutes(text: &str) -> Option<u64> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |text: &str, most: u64| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|n| digits && *n <= most)
    };
    let (hours, minutes) = (number(hours, 24)?, number(minutes, 59)?);
    (hours < 24 || minutes == 0).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        20_000 * DAY_MS + minutes(text).expect("a time") * MINUTE_MS
    }

    fn rhythm(windows: &[&str]) -> Rhythm {
        let maintenance = windows.iter().map(|text| Window::parse(text).expect("a window")).collect();
        Rhythm { interval: Duration::from_secs(60), jitter: Duration::ZERO, pause: false, maintenance }
    }

    #[test]
    fn hours_of_the_day() {
        let rests = |windows: &[&str], now: &str| rhythm(windows).rests_for(at(now)).map(|left| left.as_secs() / 60);
        assert_eq!(rests(&["02:00-04:00"], "01:59"), None);
        assert_eq!(rests(&["02:00-04:00"], "02:00"), Some(120));
        assert_eq!(rests(&["02:00-04:00"], "03:59"), Some(1));
        assert_eq!(rests(&["02:00-04:00"], "04:00"), None);
        assert_eq!(rests(&["22:30-01:00"], "23:00"), Some(120));
        assert_eq!(rests(&["22:30-01:00"], "00:30"), Some(30));
        assert_eq!(rests(&["22:00-24:00"], "23:00"), Some(60));
        assert_eq!(rests(&["02:00-04:00", "03:00-05:00", "05:00-05:10"], "02:30"), Some(160));
        assert_eq!(rests(&[], "02:30"), None);
        let in_minutes = |now: &str| rhythm(&["02:00-04:00"]).rests_in(at(now)).map(|left| left.as_secs() / 60);
        assert_eq!((in_minutes("01:00"), in_minutes("05:00")), (Some(60), Some(21 * 60)));
    }

    #[test]
    fn what_is_no_window() {
        for bad in
            ["", "2-4", "02:00", "02:00-25:00", "02:60-03:00", "2:00-4:00", "02:00-02:00", "00:00-24:00", "24:00-01:00"]
        {
            assert!(Window::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(Window::parse("22:30-01:05").expect("a window").to_string(), "22:30-01:05 UTC");
    }
}
