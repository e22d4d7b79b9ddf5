//! Sizes and durations as people write them.

use std::time::Duration;

/// Octets: `320 MiB`, `64KiB`, `1 GiB`, `512` (octets). Decimal units are refused: `MB` means two things.
///
/// # Errors
/// A sentence with the accepted forms.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let forms =
        || format!("`{text}` is not a size; write for example `320 MiB`, `64 KiB`, `2 GiB` or a number of octets");
    let (number, unit) = split(text).ok_or_else(forms)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(forms()),
    };
    number.checked_mul(factor).filter(|n| *n > 0).ok_or_else(forms)
}

/// A time span: `500ms`, `90s`, `5m`, `2h`, `7d`.
///
/// # Errors
/// A sentence with the accepted forms.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let forms = || format!("`{text}` is not a time span; write for example `90s`, `5m`, `2h` or `7d`");
    let (number, unit) = split(text).ok_or_else(forms)?;
    let seconds: u64 = match unit {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(forms()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(forms)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(parse_size("1KiB"), Ok(1024));
        assert_eq!(parse_size(" 7 "), Ok(7));
        for bad in ["", "1 GB", "-1", "0", "99999999999999 TiB", "MiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "5", "5 years", "-5s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
