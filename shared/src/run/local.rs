//! The time of day where the machine stands: for settings such as `07:00`, and for people.
//!
//! The zone is the system's (`TZ`, else `/etc/localtime`), summer time included; UTC where there is none. Everything that
//! is kept or compared is in UTC: this is for reading and for schedules only.

use jiff::{Timestamp, ToSpan as _, ZonedDateTime, civil::Weekday, tz::TimeZone};

/// A moment on the clock and the calendar of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTime(ZonedDateTime);

impl LocalTime {
    /// Of milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn of(ms: u64) -> Self {
        Self::within(ms, TimeZone::system())
    }

    fn within(ms: u64, zone: TimeZone) -> Self {
        let moment = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        Self(moment.unwrap_or(Timestamp::UNIX_EPOCH).to_zoned_datetime(zone))
    }

    /// 0 is Monday, 6 Sunday.
    #[must_use]
    pub fn weekday(&self) -> u8 {
        self.0.weekday().to_monday_zero_offset().unsigned_abs()
    }

    /// Minutes since midnight as the clock on the wall shows them.
    #[must_use]
    pub fn minute_of_day(&self) -> u16 {
        u16::from(self.0.hour().unsigned_abs()) * 60 + u16::from(self.0.minute().unsigned_abs())
    }

    /// Hour of the week, 0 (Monday 0:00) to 167.
    #[must_use]
    pub fn hour_of_week(&self) -> usize {
        usize::from(self.weekday()) * 24 + usize::from(self.0.hour().unsigned_abs())
    }

    /// The next moment after this one at which the clock shows `minute_of_day`, on `weekday` (0 is Monday) where one is
    /// asked for; milliseconds since 1970-01-01 UTC. A time that summer time leaves out is the one after it.
    #[must_use]
    pub fn next(&self, minute_of_day: u16, weekday: Option<u8>) -> u64 {
        let wanted = weekday.and_then(|day| Weekday::from_monday_zero_offset(i8::try_from(day).ok()?).ok());
        let (hour, minute) = (i8::try_from(minute_of_day / 60 % 24), i8::try_from(minute_of_day % 60));
        let (hour, minute) = (hour.unwrap_or_default(), minute.unwrap_or_default());
        let found = (0..=8).find_map(|days: i64| {
            let date = self.0.date().checked_add(days.days()).ok()?;
            let at = date.at(hour, minute, 0, 0).to_zoned_datetime(self.0.time_zone().clone()).ok()?;
            (at > self.0 && wanted.is_none_or(|day| date.weekday() == day)).then_some(at)
        });
        let moment = found.map_or_else(|| self.0.timestamp(), |at| at.timestamp());
        u64::try_from(moment.as_millisecond()).unwrap_or_default()
    }

    /// `2026-08-18 09:14 +02:00`.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.strftime("%Y-%m-%d %H:%M %:z").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY: u64 = 1_790_553_600_000; // 2026-09-28 00:00 UTC

    #[test]
    fn days_and_hours_of_the_week() {
        let at = LocalTime::within(MONDAY + 9 * 3_600_000 + 14 * 60_000, TimeZone::UTC);
        assert_eq!((at.weekday(), at.minute_of_day(), at.hour_of_week()), (0, 554, 9));
        assert_eq!(at.text(), "2026-09-28 09:14 +00:00");
        let sunday = LocalTime::within(MONDAY - 1, TimeZone::UTC);
        assert_eq!((sunday.weekday(), sunday.hour_of_week()), (6, 167));
    }

    #[test]
    fn the_next_time_of_day() {
        let hour = 3_600_000;
        let at = LocalTime::within(MONDAY + 9 * hour, TimeZone::UTC);
        assert_eq!(at.next(10 * 60, None), MONDAY + 10 * hour);
        assert_eq!(at.next(9 * 60, None), MONDAY + 33 * hour, "after, not at");
        assert_eq!(at.next(7 * 60, Some(0)), MONDAY + 7 * 24 * hour + 7 * hour);
        assert_eq!(at.next(7 * 60, Some(2)), MONDAY + 55 * hour);
    }

    /// In the night to 2026-03-29 the clock goes from 1:59 to 3:00, 2:30 is left out.
    #[test]
    fn summer_time_leaves_no_day_out() {
        let Ok(zone) = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3") else { panic!("a zone") };
        let saturday = LocalTime::within(1_774_735_200_000, zone.clone()); // 2026-03-28 23:00 +01:00
        let next = saturday.next(150, None);
        assert_eq!(LocalTime::within(next, zone.clone()).text(), "2026-03-29 03:30 +02:00");
        assert_eq!(
            LocalTime::within(LocalTime::within(next, zone.clone()).next(150, None), zone).text(),
            "2026-03-30 02:30 +02:00"
        );
    }
}
