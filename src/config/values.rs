//! Parsers for values that TOML has no type for: durations, sizes, rates and address blocks.
//!
//! The parsers of config values check bounds, so that their results can be added to a clock or multiplied
//! by a small number without overflow.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::Rate;

/// The longest duration: a year, which is far below what overflows a clock.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The largest size: 1 GiB.
const MAX_SIZE: u64 = 1 << 30;

/// Parses `250ms`, `10s`, `5m` or `1h`; at most a year.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let duration = parse_duration(text).filter(|_| !text.ends_with('d'))?;
    (duration <= MAX_DURATION).then_some(duration)
}

/// Parses a whole number with one of the units `ms`, `s`, `m`, `h` and `d`. The result has no other bound
/// than that it does not overflow; callers set their own bounds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(millis)?))
}

/// Parses a number of bytes: `4096`, `64KiB`, `1MiB`, `16KB`; at most 1 GiB.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "KB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor).filter(|bytes| *bytes <= MAX_SIZE)
}

/// Parses `50/1h` or `10/1s burst 20`; `""` and `off` stand for no limit, the inner `None`.
pub(super) fn rate(text: &str) -> Option<Option<Rate>> {
    if matches!(text, "" | "off") {
        return Some(None);
    }
    let (count, rest) = text.split_once('/')?;
    let (per, burst) = match rest.split_once(" burst ") {
        Some((per, burst)) => (per, Some(burst)),
        None => (rest, None),
    };
    let count = positive(count)?;
    let burst = burst.map_or(Some(count), positive)?;
    let per = duration(per).filter(|per| !per.is_zero())?;
    Some(Some(Rate { count, per, burst }))
}

/// Parses `10.0.0.0/8`; a bare address is a block of one address. Bits beyond the prefix are dropped.
pub(super) fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.into()),
        Err(_) => text.parse::<IpNet>().ok().map(|net| net.trunc()),
    }
}

fn positive(text: &str) -> Option<u32> {
    digits(text)?.parse().ok().filter(|number| *number > 0)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((digits(number)?.parse().ok()?, unit))
}

/// `text` if it consists of digits only, because `parse` would accept a sign as well.
fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("250ms", Some(250)),
            ("10s", Some(10_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("0s", Some(0)),
            ("8760h", Some(31_536_000_000)),
            ("8761h", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
            ("10", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("+1s", None),
            ("1.5s", None),
            ("1 s", None),
            ("1d", None),
            ("١s", None),
        ] {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512B", Some(512)),
            ("64KiB", Some(65_536)),
            ("16KB", Some(16_000)),
            ("1MiB", Some(1_048_576)),
            ("1GiB", Some(1 << 30)),
            ("2GiB", None),
            ("18446744073709551615KiB", None),
            ("64kb", None),
            ("KiB", None),
            ("-1", None),
            ("1 MiB", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn rates() {
        let rate_of =
            |count, secs, burst| Some(Some(Rate { count, per: Duration::from_secs(secs), burst }));
        for (text, expected) in [
            ("50/1h", rate_of(50, 3600, 50)),
            ("10/1s burst 20", rate_of(10, 1, 20)),
            ("", Some(None)),
            ("off", Some(None)),
            ("0/1s", None),
            ("10/0s", None),
            ("10/1s burst 0", None),
            ("10/1s burst", None),
            ("10/s", None),
            ("10", None),
            ("+1/1s", None),
            ("4294967296/1s", None),
        ] {
            assert_eq!(rate(text), expected, "{text}");
        }
    }

    #[test]
    fn networks() {
        for (text, expected) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("192.0.2.7", Some("192.0.2.7/32")),
            ("::1", Some("::1/128")),
            ("fd00::/8", Some("fd00::/8")),
            ("10.0.0.0/33", None),
            ("localhost", None),
            ("", None),
        ] {
            assert_eq!(network(text).map(|net| net.to_string()).as_deref(), expected, "{text}");
        }
    }
}
