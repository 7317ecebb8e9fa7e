//! Moments of the calendar, as text in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 24 * 60 * 60;

/// `2026-11-23T23:51:48.403057+00:00`, as Python's `isoformat` writes it. A clock before 1970 is at 1970.
pub fn utc_text(moment: SystemTime) -> String {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / DAY, since.as_secs() % DAY);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}+00:00")
}

/// Year, month and day, so many days after 1970-01-01, in the Gregorian calendar. Years are counted
/// from March, so that the leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    // From 0000-03-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_written() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000+00:00"),
            (951_782_399_999_999, "2000-02-28T23:59:59.999999+00:00"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000+00:00"),
            (1_795_477_908_403_057, "2026-11-23T23:51:48.403057+00:00"),
            (1_798_761_599_000_001, "2026-12-31T23:59:59.000001+00:00"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000+00:00"),
        ] {
            assert_eq!(utc_text(UNIX_EPOCH + Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = date(0);
        for days in 1..400 * 366 {
            let today = date(days);
            let (year, month, day) = before;
            let next = [(year, month, day + 1), (year, month + 1, 1), (year + 1, 1, 1)];
            assert!(next.contains(&today) && today.2 <= 31, "{before:?} {today:?}");
            before = today;
        }
        assert_eq!(date(20_780), (2026, 11, 23));
    }
}
