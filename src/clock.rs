//! The wall clock as time since the Unix epoch, 1970-01-01T00:00:00Z, and its text in RFC 3339.
//!
//! A clock that is set before 1970 reads as the epoch. Durations and deadlines are measured by
//! `std::time::Instant` and do not belong here.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The last second that RFC 3339 can express: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// The length of the longest text that [`from_rfc3339`] reads: nine digits of a second.
const MAX_RFC3339_BYTES: usize = "9999-12-31T23:59:59.999999999Z".len();

pub fn since_unix_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

pub fn unix_seconds() -> u64 {
    since_unix_epoch().as_secs()
}

pub fn now_rfc3339() -> String {
    to_rfc3339(since_unix_epoch())
}

/// Writes an instant in UTC, to the microsecond: `2026-11-23T23:57:38.603226Z`. An instant after the
/// year 9999 is written as the end of that year.
pub fn to_rfc3339(since_unix_epoch: Duration) -> String {
    let last = Duration::new(LAST_SECOND, 999_999_999);
    let at = OffsetDateTime::UNIX_EPOCH + since_unix_epoch.min(last);
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second, micros) = at.to_hms_micro();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Reads an instant in UTC (`Z`), with at most nine digits of a second. `None` = it is not one, or it
/// is before 1970.
pub fn from_rfc3339(text: &str) -> Option<Duration> {
    if !text.ends_with('Z') || text.len() > MAX_RFC3339_BYTES {
        return None;
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    (at - OffsetDateTime::UNIX_EPOCH).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_as_python_does() {
        // `datetime.fromtimestamp(s, UTC)`, with all six digits of the fraction.
        for (seconds, micros, text) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, 999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000001Z"),
            (1_709_164_799, 999_999, "2024-02-28T23:59:59.999999Z"),
            (1_709_251_199, 0, "2024-02-29T23:59:59.000000Z"),
            (1_709_251_200, 0, "2024-03-01T00:00:00.000000Z"),
            (1_795_477_908, 403_057, "2026-11-23T23:51:48.403057Z"),
            (1_795_478_258, 603_226, "2026-11-23T23:57:38.603226Z"),
            (1_798_761_599, 1, "2026-12-31T23:59:59.000001Z"),
            (4_107_542_399, 0, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59.000000Z"),
            (253_402_300_800, 0, "9999-12-31T23:59:59.999999Z"),
            (u64::MAX, 0, "9999-12-31T23:59:59.999999Z"),
        ] {
            let at = Duration::new(seconds, micros * 1000);
            assert_eq!(to_rfc3339(at), text);
        }
    }

    /// Every day of 800 years, by the rule for leap years.
    #[test]
    fn days_follow_each_other() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..292_194 {
            let text = to_rfc3339(Duration::from_secs(days * 86_400));
            assert_eq!(text, format!("{year:04}-{month:02}-{day:02}T00:00:00.000000Z"));
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
    fn instants_are_read() {
        for (text, seconds, nanos) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2000-02-29T12:00:00.5Z", 951_825_600, 500_000_000),
            ("2026-11-23T23:57:38.603226Z", 1_795_478_258, 603_226_000),
            ("2026-11-23T23:57:38.603226123Z", 1_795_478_258, 603_226_123),
        ] {
            assert_eq!(from_rfc3339(text), Some(Duration::new(seconds, nanos)), "{text}");
        }
        for wrong in [
            "",
            "2026-11-23",
            "2026-11-23T23:57:38",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.0000000001Z",
            "0000-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:00:00Z",
        ] {
            assert_eq!(from_rfc3339(wrong), None, "{wrong}");
        }
    }
}
