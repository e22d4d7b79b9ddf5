//! Trying again what will be possible in a moment.

use std::time::{Duration, Instant};

/// How long it is tried.
const LONGEST: Duration = Duration::from_secs(2);
/// How long to wait in between.
const PAUSE: Duration = Duration::from_millis(5);

/// Tries until it succeeds or fails with something that does not pass; for two seconds at most. Blocking.
///
/// # Errors
/// The last one.
pub fn try_for_a_moment<T, E>(passes: impl Fn(&E) -> bool, mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(error) if passes(&error) && begun.elapsed() < LONGEST => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_is_told() {
        let mut left = 3;
        let tried = try_for_a_moment(
            |error: &&str| *error == "held",
            || {
                left -= 1;
                if left > 0 { Err("held") } else { Ok(left) }
            },
        );
        assert_eq!(tried, Ok(0));
        let mut tries = 0;
        let failed: Result<(), _> = try_for_a_moment(
            |error: &&str| *error == "held",
            || {
                tries += 1;
                Err("broken")
            },
        );
        assert_eq!((failed, tries), (Err("broken"), 1));
        let begun = Instant::now();
        assert_eq!(try_for_a_moment(|_| true, || Err::<(), _>("held")), Err("held"));
        assert!(begun.elapsed() >= LONGEST);
    }
}
