//! Parsers for values that TOML has no type for: durations, sizes, rates and address blocks.
//!
//! The parsers of config values check bounds, so that their results can be added to a clock or multiplied
//! by a small number without overflow.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::Rate;

/// The longest duration: a year, which is far below what overflows a clock.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The largest size: 1 TiB. Most keys have a lower bound of their own.
const MAX_SIZE: u64 = 1 << 40;

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

/// Parses a number of bytes: `4096`, `64KiB`, `1MiB`, `16KB`; at most 1 TiB.
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

/// Parses `50/1h`, `1000/1d` or `10/1s burst 20`; `""` and `off` stand for no limit, the inner `None`.
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
    // A day is a usual time for a limit.
    let per = parse_duration(per).filter(|per| !per.is_zero() && *per <= MAX_DURATION)?;
    Some(Some(Rate { count, per, burst }))
}

/// Parses `10.0.0.0/8`; a bare address is a block of one address. Bits beyond the prefix are dropped, and
/// `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
pub(super) fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical().into()),
        Err(_) => text.parse::<IpNet>().ok().map(|net| canonical(net.trunc())),
    }
}

/// A block of IPv4 addresses in their IPv6 form as the IPv4 block: addresses are compared in their IPv4 form.
fn canonical(network: IpNet) -> IpNet {
    match network.addr().to_canonical() {
        IpAddr::V4(address) if network.prefix_len() >= 96 => {
            Ipv4Net::new(address, network.prefix_len() - 96).map_or(network, IpNet::V4)
        }
        _ => network,
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
mod tests;
