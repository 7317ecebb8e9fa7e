//! The time of day in frames, as `datetime.utcnow().isoformat() + "Z"` writes it in Python.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 24 * 60 * 60;

/// An instant in UTC; displayed as in RFC 3339, to the microsecond: `2026-11-23T23:57:38.603226Z`.
#[derive(Debug, Clone, Copy)]
pub struct Timestamp(Duration);

impl Timestamp {
    pub fn now() -> Self {
        Self::of(SystemTime::now())
    }

    /// Before 1970 counts as its begin.
    fn of(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// `json` with `"timestamp"` as its last member; `json` is an object that has some already.
    pub fn stamp(self, json: &str) -> String {
        match json.strip_suffix('}') {
            Some(members) => format!(r#"{members},"timestamp":"{self}"}}"#),
            None => json.to_owned(),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = date(seconds / DAY);
        let of_day = seconds % DAY;
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let micros = self.0.subsec_micros();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// Year, month and day of the Gregorian calendar, so many days after the begin of 1970. Counts in years
/// that begin in March, so that a leap day is a year's last, and in eras of 400 of them.
fn date(days: u64) -> (u64, u64, u64) {
    // From the first of March of the year 0.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_as_python_does() {
        // `datetime.fromtimestamp(s, UTC)`, with all six digits of the fraction.
        for (seconds, micros, text) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000001Z"),
            (1_709_164_799, 999_999, "2024-02-28T23:59:59.999999Z"),
            (1_709_251_199, 0, "2024-02-29T23:59:59.000000Z"),
            (1_709_251_200, 0, "2024-03-01T00:00:00.000000Z"),
            (1_795_478_258, 603_226, "2026-11-23T23:57:38.603226Z"),
            (4_107_542_399, 0, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59.000000Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
            assert_eq!(Timestamp::of(time).to_string(), text);
        }
        assert_eq!(Timestamp::of(UNIX_EPOCH - Duration::from_secs(1)).to_string()[..4], *"1970");
    }

    /// Every day of 800 years, by the rule that everybody knows.
    #[test]
    fn days_follow_each_other() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..292_194 {
            assert_eq!(date(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > last {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn a_stamp_is_the_last_member() {
        let stamped = Timestamp(Duration::from_secs(1)).stamp(r#"{"event":"pong"}"#);
        assert_eq!(stamped, r#"{"event":"pong","timestamp":"1970-01-01T00:00:01.000000Z"}"#);
    }
}
