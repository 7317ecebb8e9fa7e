//! How values are written: durations, sizes, rates, networks. An error says what is right.

use std::time::Duration;

use ipnet::IpNet;

use super::Rate;

const DURATION: &str = "write a duration such as \"250ms\", \"10s\", \"5m\" or \"1h\"";
const SIZE: &str = "write a size in bytes such as 65536, \"64KiB\" or \"1MiB\"";
const RATE: &str = "write a rate such as \"50/1h\" or \"10/1s burst 20\", or \"\" for none";

/// The longest duration that makes sense anywhere.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| DURATION.to_owned())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(DURATION.to_owned()),
    };
    let duration = Duration::from_millis(number.saturating_mul(millis));
    if duration > MAX_DURATION {
        return Err("write a duration of at most 366 days".to_owned());
    }
    Ok(duration)
}

pub fn size(value: &toml::Value) -> Result<usize, String> {
    let wrong = || SIZE.to_owned();
    if let Some(bytes) = value.as_integer() {
        return usize::try_from(bytes).map_err(|_| wrong());
    }
    let text = value.as_str().ok_or_else(wrong)?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: usize = number.parse().map_err(|_| wrong())?;
    let factor = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

/// `None` = not limited.
pub fn rate(text: &str) -> Result<Option<Rate>, String> {
    if text.is_empty() || text == "off" {
        return Ok(None);
    }
    let wrong = || RATE.to_owned();
    let (rate, burst) = match text.split_once(" burst ") {
        Some((rate, burst)) => (rate, Some(burst)),
        None => (text, None),
    };
    let (count, per) = rate.split_once('/').ok_or_else(wrong)?;
    let count: u32 = count.trim().parse().map_err(|_| wrong())?;
    let per = duration(per.trim()).map_err(|_| wrong())?;
    let burst: u32 = burst.map_or(Ok(count), |burst| burst.trim().parse().map_err(|_| wrong()))?;
    if count == 0 || burst == 0 || per.is_zero() {
        return Err(wrong());
    }
    Ok(Some(Rate { count, per, burst }))
}

/// A network; a bare address is a network of one.
pub fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| "write networks such as \"10.0.0.0/8\" or \"::1\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_refused() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for text in ["", "10", "s", "1.5s", "-1s", "10 s", "99999999999999999999s", "400d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(size(&"64KiB".into()), Ok(65536));
        assert_eq!(size(&toml::Value::Integer(7)), Ok(7));
        for text in ["", "KiB", "1XB", "-1", "99999999999GiB"] {
            assert!(size(&text.into()).is_err(), "{text}");
        }
        let rate_of = |count, per, burst| Some(Rate { count, per, burst });
        assert_eq!(rate("50/1h"), Ok(rate_of(50, Duration::from_secs(3600), 50)));
        assert_eq!(rate("10/1s burst 20"), Ok(rate_of(10, Duration::from_secs(1), 20)));
        assert_eq!(rate("off"), Ok(None));
        for text in ["50", "0/1s", "5/0s", "5/1s burst 0", "x/1s", "5/1s burst"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert!(network("10.0.0.0/8").is_ok() && network("127.0.0.1").is_ok());
        assert!(network("10.0.0.0/33").is_err() && network("localhost").is_err());
    }
}
