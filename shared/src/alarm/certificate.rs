//! How close to its end a certificate is, in stages: 21, 14, 7 and 3 days before it, its end, and every day from then on.
//!
//! A certificate whose last third is shorter than 30 days has the same stages closer to its end, in proportion: one of
//! 47 days would alarm although it is renewed in time.

const DAY: i64 = 86_400;
const DAYS: [i64; 4] = [21, 14, 7, 3];
/// The last third of a certificate of 90 days.
const WINDOW: i64 = 30 * DAY;

/// The stage, counted from 1; `None` while there is time. All in seconds since 1970-01-01 UTC.
#[must_use]
pub fn certificate_stage(not_before: i64, not_after: i64, now: i64) -> Option<u64> {
    if now >= not_after {
        return u64::try_from((now - not_after) / DAY).ok().map(|days| days + DAYS.len() as u64 + 1);
    }
    let window = not_after.saturating_sub(not_before) / 3;
    let passed = DAYS.iter().filter(|days| {
        let before = **days * DAY;
        let before = if window >= WINDOW { before } else { before.saturating_mul(window) / WINDOW };
        now >= not_after - before
    });
    Some(passed.count() as u64).filter(|stage| *stage > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_come_in_order() {
        let at = |days: i64| certificate_stage(0, 90 * DAY, 90 * DAY - days * DAY);
        assert_eq!(
            [at(22), at(21), at(14), at(8), at(7), at(3), at(1)],
            [None, Some(1), Some(2), Some(2), Some(3), Some(4), Some(4)]
        );
        assert_eq!([at(0), at(-1), at(-2)], [Some(5), Some(6), Some(7)]);
        // Six days: the last third is two days, so everything is a fifteenth.
        assert_eq!(certificate_stage(0, 6 * DAY, 4 * DAY), None);
        assert_eq!(certificate_stage(0, 6 * DAY, 6 * DAY - 33 * 3600), Some(1));
    }
}
