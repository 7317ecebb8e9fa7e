//! `--expires 15m`: a positive whole number with a unit.

use std::time::Duration;

/// A session that lasts longer than a year is a mistake.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Reads `90s`, `15m`, `2h` or `7d`; from a second to a year.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write 90s, 15m, 2h or 7d (at most 366d)");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds: u64 = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let lifetime = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
        .map(Duration::from_secs)
        .ok_or_else(wrong)?;
    if lifetime.is_zero() || lifetime > LONGEST { Err(wrong()) } else { Ok(lifetime) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, seconds) in [("1s", 1), ("15m", 900), ("2h", 7200), ("366d", 31_622_400)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "15", "0m", "-1s", "1.5h", "1 m", "1w", "367d", "99999999999999999d"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
