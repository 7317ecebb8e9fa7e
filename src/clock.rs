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
mod tests;
