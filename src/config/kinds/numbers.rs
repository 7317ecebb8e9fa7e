//! Kinds of numbers and quantities: durations, sizes, counts, rates and ratios.

use std::time::Duration;

use toml::Value;

use super::{Kind, ValueError, kind, parsed};
use crate::config::{Rate, values};

pub(in crate::config) const DURATION: Kind<Duration> =
    kind("duration", r#"a duration such as "250ms", "25s", "5m" or "1h""#, |value| {
        parsed(value, values::duration)
    });

pub(in crate::config) const POSITIVE_DURATION: Kind<Duration> = kind(
    "duration",
    r#"a duration longer than 0s such as "250ms", "25s", "5m" or "1h""#,
    |value| parsed(value, |text| values::duration(text).filter(|duration| !duration.is_zero())),
);

/// `0s` stands for `None`.
pub(in crate::config) const OPTIONAL_DURATION: Kind<Option<Duration>> =
    kind(DURATION.name, DURATION.expected, |value| {
        (DURATION.parse)(value).map(|duration| (!duration.is_zero()).then_some(duration))
    });

pub(in crate::config) const PORT: Kind<u16> = kind("port", "a port from 1 to 65535", |value| {
    match value {
        Value::Integer(port) => u16::try_from(*port).ok().filter(|port| *port > 0),
        Value::String(port) => port.parse().ok().filter(|port| *port > 0),
        _ => None,
    }
    .ok_or(ValueError::WrongKind)
});

/// Short, since the clients that wait are connections that do nothing.
pub(in crate::config) const REFUSAL_DELAY: Kind<Duration> =
    kind("duration", r#"a duration from "0s" to "5s" such as "1s""#, |value| {
        let is_short = |duration: &Duration| *duration <= Duration::from_secs(5);
        parsed(value, |text| values::duration(text).filter(is_short))
    });

/// Whole seconds, the resolution of channels_redis.
pub(in crate::config) const SECONDS: Kind<Duration> =
    kind("duration", r#"a duration of whole seconds such as "60s" or "24h""#, |value| {
        match (POSITIVE_DURATION.parse)(value)? {
            time if time.subsec_nanos() == 0 => Ok(time),
            _ => Err(ValueError::WrongKind),
        }
    });

pub(in crate::config) const SIZE: Kind<usize> =
    kind("size", r#"a number of bytes from 1 to 1GiB such as 4096, "64KiB" or "1MiB""#, |value| {
        size(value, 1, 1 << 30)
    });

/// 0 stands for no limit, `usize::MAX`.
pub(in crate::config) const OPTIONAL_SIZE: Kind<usize> = kind(
    "size",
    r#"0, or a number of bytes from 1 to 1GiB such as 4096, "64KiB" or "1MiB""#,
    |value| match size(value, 0, 1 << 30)? {
        0 => Ok(usize::MAX),
        size => Ok(size),
    },
);

/// A rate below which a client is too slow. Nobody who is slower than a modem is to be refused.
pub(in crate::config) const BYTES_PER_SECOND: Kind<usize> =
    kind("size", r#"a number of bytes from 0 to 64KiB such as 240 or "1KiB""#, |value| {
        size(value, 0, 64 << 10)
    });

/// A share of a machine's memory. 0 stands for no limit.
pub(in crate::config) const MEMORY: Kind<usize> =
    kind("size", r#"0, or a number of bytes from "1MiB" to "1024GiB" such as "2GiB""#, |value| {
        if matches!(value, Value::Integer(0)) || value.as_str() == Some("0") {
            return Ok(0);
        }
        size(value, 1 << 20, 1 << 40)
    });

/// hyper's smallest read buffer is 8 KiB.
pub(in crate::config) const HEADER_SIZE: Kind<usize> =
    kind("size", r#"a size from "8KiB" to "1MiB" such as "16KiB""#, |value| {
        size(value, 8 << 10, 1 << 20)
    });

pub(in crate::config) const COUNT: Kind<usize> =
    kind("integer", "an integer from 0 to 1000000000", integer::<usize, 0, 1_000_000_000>);

pub(in crate::config) const POSITIVE_COUNT: Kind<usize> =
    kind("integer", "an integer from 1 to 1000000000", integer::<usize, 1, 1_000_000_000>);

/// The length of a queue of messages in the engine.
pub(in crate::config) const WAITING: Kind<usize> =
    kind("integer", "an integer from 1 to 1000", integer::<usize, 1, 1_000>);

/// How many bits of an IPv6 address are the customer's network.
pub(in crate::config) const IPV6_PREFIX: Kind<u8> =
    kind("integer", "an integer from 16 to 128", integer::<u8, 16, 128>);

pub(in crate::config) const THREADS: Kind<usize> =
    kind("integer", "an integer from 0 to 1024", integer::<usize, 0, 1024>);

/// The number of random bytes before each message of a Django Channels layer.
pub(in crate::config) const RANDOM_PREFIX: Kind<usize> =
    kind("integer", "an integer from 0 to 255", integer::<usize, 0, 255>);

pub(in crate::config) const RETRIES: Kind<u32> =
    kind("integer", "an integer from 0 to 10", integer::<u32, 0, 10>);

pub(in crate::config) const FAILURES: Kind<u32> =
    kind("integer", "an integer from 1 to 1000000", integer::<u32, 1, 1_000_000>);

pub(in crate::config) const LENGTH: Kind<u64> =
    kind("integer", "an integer from 0 to 1000000000", integer::<u64, 0, 1_000_000_000>);

/// The priority of a Celery task on Redis.
pub(in crate::config) const PRIORITY: Kind<u8> =
    kind("integer", "an integer from 0 to 9", integer::<u8, 0, 9>);

/// `0` stands for `None`, which is no limit.
pub(in crate::config) const LIMIT: Kind<Option<u32>> =
    kind("integer", "an integer from 0 to 1000000000", |value| {
        let limit = integer::<u32, 0, 1_000_000_000>(value)?;
        Ok((limit > 0).then_some(limit))
    });

pub(in crate::config) const RATE: Kind<Option<Rate>> =
    kind("rate", r#"a rate such as "50/1h" or "10/1s burst 20", or "off""#, |value| {
        parsed(value, values::rate)
    });

/// The number of similar log lines that are written per interval.
pub(in crate::config) const REPEATS: Kind<Option<Rate>> =
    kind("rate", r#"a number of lines such as "10/10s", or "off""#, |value| {
        parsed(value, |text| values::rate(text).filter(|_| !text.contains("burst")))
    });

pub(in crate::config) const RATIO: Kind<f64> = kind("number", "a number from 0 to 1", |value| {
    let number = match value {
        Value::Float(number) => *number,
        Value::Integer(number) => *number as f64,
        // The environment has strings only.
        Value::String(text) => text.parse().map_err(|_| ValueError::WrongKind)?,
        _ => return Err(ValueError::WrongKind),
    };
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err(ValueError::WrongKind) }
});

/// Also parses a string of digits, because the environment has strings only.
fn integer<T: TryFrom<i64>, const MIN: i64, const MAX: i64>(
    value: &Value,
) -> Result<T, ValueError> {
    let number = match value {
        Value::Integer(number) => Some(*number),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let number = number.filter(|number| (MIN..=MAX).contains(number));
    number.and_then(|number| T::try_from(number).ok()).ok_or(ValueError::WrongKind)
}

fn size(value: &Value, min: u64, max: u64) -> Result<usize, ValueError> {
    let bytes = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::String(text) => values::size(text),
        _ => None,
    };
    bytes
        .filter(|bytes| (min..=max).contains(bytes))
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or(ValueError::WrongKind)
}
