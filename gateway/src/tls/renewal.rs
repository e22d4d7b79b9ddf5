//! When to ask for a certificate: when a third of its life is left; after a failure, later each time.
//!
//! Back-off: 5 minutes, doubled each time up to 6 hours, each between 80 and 120 per cent of it, so that gateways that
//! failed together do not come back together. Let's Encrypt allows five failed validations an hour.

use super::facts::Facts;

const FIRST: i64 = 300;
const LONGEST: i64 = 6 * 3600;

/// When a third of its life is left.
#[must_use]
pub fn due(facts: &Facts) -> i64 {
    facts.not_after - (facts.not_after - facts.not_before) / 3
}

/// Seconds to wait after so many failures in a row; `fraction` between 0 and 1 is chance.
#[must_use]
pub fn back_off(failures: u32, fraction: f64) -> i64 {
    let doubled = FIRST.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(LONGEST);
    let span = doubled.min(LONGEST);
    span * 4 / 5 + (span as f64 * 0.4 * fraction.clamp(0.0, 1.0)) as i64
}

/// Chance for [`back_off`].
#[must_use]
pub fn chance() -> f64 {
    f64::from(u32::from_be_bytes(postkeep_shared::crypt::random())) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_third_and_five_tries_in_the_first_hour_at_most() {
        let facts = Facts {
            names: Vec::new(),
            issuer: String::new(),
            not_before: 1000,
            not_after: 91_000,
            public_key_sha256: String::new(),
        };
        assert_eq!(due(&facts), 61_000);
        let quickest: i64 = (1..=4).map(|n| back_off(n, 0.0)).sum();
        assert!(quickest >= 3600, "the fifth failure comes after {quickest} s");
        assert_eq!((back_off(1, 0.0), back_off(1, 1.0)), (240, 360));
        assert_eq!((back_off(50, 0.0), back_off(50, 1.0)), (17_280, 25_920));
        assert!((0..1000).map(|_| chance()).all(|c| (0.0..=1.0).contains(&c)));
    }
}
