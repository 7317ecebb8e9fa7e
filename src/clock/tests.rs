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
