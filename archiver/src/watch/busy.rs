//! When a source is usually busy, and how long it has been silent then. Pure.
//!
//! Configured hours are taken as they are. Learnt ones: an hour of the week is busy when, in the median of
//! the weeks on record (at least two, at most the last eight), so many reports came in it that [`EXPECTED`] would have come
//! in the time that silence may last. At ten expected reports, silence by chance is rarer than one in twenty thousand; and
//! the median lets a public holiday pass. Silence counts seconds of busy hours only, so a night is not silence, and Monday
//! morning goes on where Friday evening ended.

use super::Activity;
use postkeep_shared::run::LocalTime;
use std::time::Duration;

/// Reports that must be expected before silence means something.
const EXPECTED: u64 = 10;
const WEEK_HOURS: u64 = 168;
const HOUR_MS: u64 = 3_600_000;
/// Weeks looked back.
pub(super) const WEEKS: u64 = 8;
/// Silence is not counted further back than this.
const BACK: u64 = 9 * 24 * HOUR_MS;

/// Hours of a week that somebody configured: `Mon-Fri 08:00-18:00`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusyHours {
    days: (u8, u8),
    minutes: (u16, u16),
}

impl BusyHours {
    /// Reads `Mon-Fri 08:00-18:00` or `Mon 08:00-18:00`.
    ///
    /// # Errors
    /// A sentence with the form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let forms = || format!("`{text}` are no hours of a week; write for example \"Mon-Fri 08:00-18:00\"");
        let (days, hours) = text.split_once(' ').ok_or_else(forms)?;
        let (first, last) = days.split_once('-').unwrap_or((days, days));
        let day = |name: &str| day_of_week(name).ok_or_else(forms);
        let (from, to) = hours.split_once('-').ok_or_else(forms)?;
        let minute = |time: &str| minute_of_day(time).ok_or_else(forms);
        let parsed = Self { days: (day(first)?, day(last)?), minutes: (minute(from)?, minute(to)?) };
        if parsed.days.0 > parsed.days.1 || parsed.minutes.0 >= parsed.minutes.1 { Err(forms()) } else { Ok(parsed) }
    }

    fn hold(&self, at: &LocalTime) -> bool {
        (self.days.0..=self.days.1).contains(&at.weekday())
            && (self.minutes.0..self.minutes.1).contains(&at.minute_of_day())
    }
}

/// `mon` to `sun`, in any case: 0 to 6.
pub(super) fn day_of_week(name: &str) -> Option<u8> {
    let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    names.iter().position(|day| name.eq_ignore_ascii_case(day)).and_then(|at| u8::try_from(at).ok())
}

/// `07:00`; `24:00` is the end of the day.
pub(super) fn minute_of_day(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let whole = hour * 60 + minute;
    (hour <= 24 && minute < 60 && whole <= 24 * 60).then_some(whole)
}

/// Whether a moment lies in hours in which a silence of `span` means something.
#[must_use]
pub fn is_busy(ms: u64, configured: Option<&BusyHours>, activity: &Activity, span: Duration, now_ms: u64) -> bool {
    if let Some(hours) = configured {
        return hours.hold(&LocalTime::of(ms));
    }
    let (first, slot) = (activity.first_hour(), ms / HOUR_MS);
    let now = now_ms / HOUR_MS;
    let mut counts: Vec<u64> = (1..=WEEKS)
        .map(|week| slot.saturating_sub(week * WEEK_HOURS))
        .filter(|hour| first.is_some_and(|first| *hour >= first) && *hour < now)
        .map(|hour| activity.count(hour))
        .collect();
    if counts.len() < 2 {
        return false;
    }
    counts.sort_unstable();
    let median = counts.get((counts.len() - 1) / 2).copied().unwrap_or_default();
    u128::from(median) * span.as_millis() >= u128::from(EXPECTED * HOUR_MS)
}

/// How much busy time has passed since the last report, counted until it reaches `span`. It grows in busy hours only, and
/// stays what it was in the hours between them: an evening is no report.
#[must_use]
pub fn silent_for(
    last_ms: u64,
    configured: Option<&BusyHours>,
    activity: &Activity,
    span: Duration,
    now_ms: u64,
) -> Duration {
    let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
    let step = (span_ms / 8).clamp(100, 60_000);
    let from = last_ms.max(now_ms.saturating_sub(BACK));
    let (mut at, mut silent) = (now_ms, 0);
    while at > from && silent < span_ms {
        let before = at.saturating_sub(step).max(from);
        if is_busy(before, configured, activity, span, now_ms) {
            silent += at - before;
        }
        at = before;
    }
    Duration::from_millis(silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY: u64 = 1_790_553_600_000; // 2026-09-28 00:00 UTC
    const DAY: u64 = 24 * HOUR_MS;
    const HOUR: Duration = Duration::from_hours(1);

    /// Nine weeks of Mondays to Fridays from 8 to 18 o'clock UTC, `rate` reports an hour; nothing on one Monday.
    fn office(rate: u64) -> Activity {
        let mut activity = Activity::default();
        for day in 0..63 {
            let start = MONDAY - 63 * DAY + day * DAY;
            if day % 7 < 5 && day != 35 {
                (8..18).for_each(|hour| activity.add(start + hour * HOUR_MS, rate));
            }
        }
        activity
    }

    #[test]
    fn learnt_hours_are_those_with_enough_reports() {
        let activity = office(12);
        let busy = |ms| is_busy(ms, None, &activity, HOUR, MONDAY + 7 * DAY);
        assert!(busy(MONDAY + 9 * HOUR_MS) && busy(MONDAY + 17 * HOUR_MS), "a holiday weeks ago unlearns nothing");
        assert!(!busy(MONDAY + 7 * HOUR_MS) && !busy(MONDAY + 18 * HOUR_MS) && !busy(MONDAY + 5 * DAY + 9 * HOUR_MS));
        let quiet = office(3);
        assert!(!is_busy(MONDAY + 9 * HOUR_MS, None, &quiet, HOUR, MONDAY + DAY), "too few to tell");
        assert!(is_busy(MONDAY + 9 * HOUR_MS, None, &quiet, HOUR * 4, MONDAY + DAY), "in four hours twelve would come");
        assert!(!is_busy(MONDAY, None, &Activity::default(), HOUR, MONDAY));
    }

    #[test]
    fn silence_counts_busy_time_only() {
        let activity = office(60);
        let silent = |last: u64, now: u64| silent_for(last, None, &activity, HOUR, now).as_secs() / 60;
        let at = |hour: u64, minute: u64| MONDAY + hour * HOUR_MS + minute * 60_000;
        assert_eq!(silent(at(9, 0), at(9, 30)), 30);
        assert_eq!(silent(at(9, 0), at(11, 0)), 60, "no further than asked for");
        assert_eq!(silent(at(9, 0), at(20, 0)), 60, "the evening resolves nothing");
        assert_eq!(silent(at(17, 50), at(23, 0)), 10, "and adds nothing");
        let friday = MONDAY - 3 * DAY + 17 * HOUR_MS + 40 * 60_000;
        assert_eq!(silent(friday, at(8, 10)), 30, "20 minutes of Friday and 10 of Monday");
    }

    #[test]
    fn configured_hours() {
        for bad in
            ["", "Mon", "Mon 8", "Fri-Mon 08:00-18:00", "Mon 18:00-08:00", "Mon-Fri 08:00-25:00", "Xyz 1:00-2:00"]
        {
            assert!(BusyHours::parse(bad).is_err(), "{bad}");
        }
        let all = BusyHours::parse("mon-SUN 00:00-24:00").expect("hours");
        let none = Activity::default();
        assert_eq!(silent_for(MONDAY, Some(&all), &none, HOUR, MONDAY + 45 * 60_000).as_secs(), 45 * 60);
        assert_eq!(
            silent_for(MONDAY, Some(&all), &none, Duration::from_secs(3), MONDAY + 9000),
            Duration::from_secs(3)
        );
    }
}
