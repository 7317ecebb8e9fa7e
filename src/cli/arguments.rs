//! Parsers for the values of arguments.

use std::time::Duration;

use url::Url;

use crate::config::parse_duration;
use crate::protocol::ChannelName;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Host and port of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority(pub String);

/// Parses the URL of an admin port, such as `http://127.0.0.1:9000`. The admin port has no TLS.
pub fn parse_authority(text: &str) -> Result<Authority, String> {
    let invalid =
        || format!("{text:?} is not the URL of an admin port; write http://127.0.0.1:9000");
    let url = Url::parse(text).map_err(|_| invalid())?;
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    let host = url.host_str().filter(|_| url.scheme() == "http" && bare && anonymous);
    let port = url.port_or_known_default();
    match (host, port) {
        (Some(host), Some(port)) => Ok(Authority(format!("{host}:{port}"))),
        _ => Err(invalid()),
    }
}

/// Parses the name of a channel, or a pattern: `*` is an ordinary character of names.
pub fn parse_channel(text: &str) -> Result<String, String> {
    ChannelName::new(text).map(|name| name.to_string()).map_err(|invalid| invalid.to_string())
}

/// Parses a waiting time such as `500ms` or `2s`, longer than zero and at most an hour.
pub fn parse_deadline(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(60 * 60);
    parse_duration(text).filter(|time| !time.is_zero() && *time <= longest).ok_or_else(|| {
        format!("{text:?} is not a valid duration; write 500ms, 2s or 1m, at most 1h")
    })
}

/// Parses the lifetime of a session such as `90s`, `15m`, `2h` or `7d`: whole seconds, at most a leap year.
pub fn parse_lifetime(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|time| !time.is_zero() && *time <= DAY * 366 && !text.ends_with("ms"))
        .ok_or_else(|| {
            format!("{text:?} is not a valid duration; write 90s, 15m, 2h or 7d, at most 366d")
        })
}

#[cfg(test)]
mod tests;
