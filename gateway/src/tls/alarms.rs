//! When a certificate that nobody renews becomes an alarm: 21, 14, 7 and 3 days before its end, at its end, and once a
//! day from then on.
//!
//! A certificate whose last third is shorter than 30 days gets the same alarms closer to its end, in proportion:
//! otherwise one of 47 days would alarm although it is renewed in time.

use super::facts::Facts;

const DAY: i64 = 86_400;
/// Days before the end of a certificate of 90 days or more.
pub const DAYS: [i64; 4] = [21, 14, 7, 3];
/// The last third of a certificate of 90 days.
const WINDOW: i64 = 30 * DAY;

/// An alarm that has become due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// When it became due.
    pub at: i64,
    /// Whole days left; 0 and less: expired.
    pub days_left: i64,
}

/// Which alarms were raised for the certificate in use.
#[derive(Debug, Default)]
pub struct Alarms {
    certificate: Option<(i64, String)>,
    raised: Option<i64>,
}

impl Alarms {
    /// The alarm that is due now and was not raised yet: the latest, where several have passed.
    pub fn due(&mut self, facts: &Facts, now: i64) -> Option<Alarm> {
        let certificate = (facts.not_after, facts.public_key_sha256.clone());
        if self.certificate.as_ref() != Some(&certificate) {
            *self = Self { certificate: Some(certificate), raised: None };
        }
        let at = latest(facts, now)?;
        if self.raised.is_some_and(|raised| raised >= at) {
            return None;
        }
        self.raised = Some(at);
        // Told on time it has the number of its moment, told late (after a pause of the machine) that of now.
        let days_left = facts.days_left(if now - at < DAY { at } else { now });
        Some(Alarm { at, days_left })
    }

    /// When the next one becomes due if nothing happens.
    #[must_use]
    pub fn next(facts: &Facts, now: i64) -> i64 {
        let before = before_end(facts).into_iter().chain([facts.not_after]).filter(|at| *at > now).min();
        before.unwrap_or_else(|| facts.not_after + ((now - facts.not_after) / DAY + 1) * DAY)
    }
}

fn before_end(facts: &Facts) -> [i64; 4] {
    let window = (facts.not_after - facts.not_before) / 3;
    DAYS.map(|days| {
        let days = days * DAY;
        facts.not_after - if window >= WINDOW { days } else { days.saturating_mul(window) / WINDOW }
    })
}

fn latest(facts: &Facts, now: i64) -> Option<i64> {
    if now >= facts.not_after {
        return Some(facts.not_after + (now - facts.not_after) / DAY * DAY);
    }
    before_end(facts).into_iter().filter(|at| *at <= now).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(days: i64) -> Facts {
        let text = String::new;
        Facts { names: Vec::new(), issuer: text(), not_before: 0, not_after: days * DAY, public_key_sha256: text() }
    }

    fn raised(days: i64) -> Vec<i64> {
        let (facts, mut alarms, mut found) = (facts(days), Alarms::default(), Vec::new());
        for hour in 0..(days + 3) * 24 {
            found.extend(alarms.due(&facts, hour * 3600).map(|alarm| (facts.not_after - alarm.at) / 3600));
        }
        found
    }

    #[test]
    fn each_day_once_and_daily_after_the_end() {
        assert_eq!(raised(90), [504, 336, 168, 72, 0, -24, -48]);
        assert_eq!(raised(398), [504, 336, 168, 72, 0, -24, -48]);
        // Six days: the last third is two days, so everything is a fifteenth.
        assert_eq!(raised(6).len(), 7);
        assert_eq!(raised(6)[..2], [33, 22]);
    }

    #[test]
    fn a_new_certificate_starts_again_and_next_is_what_comes() {
        let (old, new, mut alarms) = (facts(90), facts(100), Alarms::default());
        assert!(alarms.due(&old, 80 * DAY).is_some() && alarms.due(&old, 80 * DAY).is_none());
        assert!(alarms.due(&new, 80 * DAY).is_some());
        for day in 0..95 {
            let at = Alarms::next(&old, day * DAY);
            assert!(at > day * DAY);
            let mut fresh = Alarms::default();
            assert_eq!(fresh.due(&old, at).expect("due").at, at, "{day}");
        }
    }
}
