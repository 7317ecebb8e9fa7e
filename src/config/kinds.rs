//! The kinds of values that keys have: how each is called, written and read.
//!
//! A kind's `right` says how to write one; it is what a mistake tells and the reference page lists.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use ipnet::IpNet;
use toml::Value;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::redis_url::{NoRedisUrl, Written};
use super::{Rate, Secret, values};
use crate::protocol::{OriginPattern, PathPattern, Template};

/// One kind of value.
pub(super) struct Kind<T> {
    /// For the reference page.
    pub name: &'static str,
    /// How to write one: "write {right}".
    pub right: &'static str,
    pub read: fn(&Value) -> Result<T, Wrong>,
}

impl<T> Clone for Kind<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Kind<T> {}

/// Why a value is not of its kind.
#[derive(Debug)]
pub(super) enum Wrong {
    /// `Kind::right` says all there is to say.
    Kind,
    /// A sentence that says what is right, without anything of the value.
    Rule(String),
    /// A sentence that says what is wrong or right and quotes the value.
    Quoting(String),
}

pub(super) const fn kind<T>(
    name: &'static str,
    right: &'static str,
    read: fn(&Value) -> Result<T, Wrong>,
) -> Kind<T> {
    Kind { name, right, read }
}

pub(super) const ADDRESS: Kind<SocketAddr> =
    kind("address", r#"an IP address and a port such as "127.0.0.1:8000""#, |value| {
        parsed(value, |text| text.parse().ok())
    });

pub(super) const BLOCK: Kind<IpNet> =
    kind("address block", r#"an address block such as "10.0.0.0/8" or "192.0.2.7""#, |value| {
        parsed(value, values::block)
    });

pub(super) const DURATION: Kind<Duration> =
    kind("duration", r#"a duration such as "250ms", "25s", "5m" or "1h""#, |value| {
        parsed(value, values::duration)
    });

pub(super) const POSITIVE_DURATION: Kind<Duration> = kind(
    "duration",
    r#"a duration longer than 0s such as "250ms", "25s", "5m" or "1h""#,
    |value| parsed(value, |text| values::duration(text).filter(|duration| !duration.is_zero())),
);

/// `0s` is none.
pub(super) const OPTIONAL_DURATION: Kind<Option<Duration>> =
    kind(DURATION.name, DURATION.right, |value| {
        (DURATION.read)(value).map(|duration| (!duration.is_zero()).then_some(duration))
    });

pub(super) const SIZE: Kind<usize> =
    kind("size", r#"a number of bytes from 1 to 1GiB such as 4096, "64KiB" or "1MiB""#, |value| {
        size(value, 1, 1 << 30)
    });

/// The smallest read buffer that the HTTP library takes is 8 KiB.
pub(super) const HEADER_SIZE: Kind<usize> =
    kind("size", r#"a size from "8KiB" to "1MiB" such as "16KiB""#, |value| {
        size(value, 8 << 10, 1 << 20)
    });

pub(super) const COUNT: Kind<usize> =
    kind("integer", "an integer from 0 to 1000000000", integer::<usize, 0, 1_000_000_000>);

pub(super) const POSITIVE_COUNT: Kind<usize> =
    kind("integer", "an integer from 1 to 1000000000", integer::<usize, 1, 1_000_000_000>);

pub(super) const BOOLEAN: Kind<bool> = kind("boolean", "true or false", |value| match value {
    Value::Boolean(boolean) => Ok(*boolean),
    // From the environment.
    Value::String(text) => text.parse().map_err(|_| Wrong::Kind),
    _ => Err(Wrong::Kind),
});

pub(super) const THREADS: Kind<usize> =
    kind("integer", "an integer from 0 to 1024", integer::<usize, 0, 1024>);

/// Bytes before a message of a Django Channels layer.
pub(super) const RANDOM_PREFIX: Kind<usize> =
    kind("integer", "an integer from 0 to 255", integer::<usize, 0, 255>);

pub(super) const RETRIES: Kind<u32> =
    kind("integer", "an integer from 0 to 10", integer::<u32, 0, 10>);

pub(super) const FAILURES: Kind<u32> =
    kind("integer", "an integer from 1 to 1000000", integer::<u32, 1, 1_000_000>);

pub(super) const LENGTH: Kind<u64> =
    kind("integer", "an integer from 0 to 1000000000", integer::<u64, 0, 1_000_000_000>);

/// Of a Celery task on Redis.
pub(super) const PRIORITY: Kind<u8> =
    kind("integer", "an integer from 0 to 9", integer::<u8, 0, 9>);

/// 0 is no limit.
pub(super) const LIMIT: Kind<Option<u32>> =
    kind("integer", "an integer from 0 to 1000000000", |value| {
        let limit = integer::<u32, 0, 1_000_000_000>(value)?;
        Ok((limit > 0).then_some(limit))
    });

pub(super) const RATE: Kind<Option<Rate>> =
    kind("rate", r#"a rate such as "50/1h" or "10/1s burst 20", or "off""#, |value| {
        parsed(value, values::rate)
    });

/// Text that goes into a Redis key or is compared with a claim.
pub(super) const TEXT: Kind<String> =
    kind("text", "a text of at most 255 bytes without control characters", |value| {
        parsed(value, plain_text)
    });

/// Text that begins Redis keys and the names of channels.
pub(super) const KEY_PREFIX: Kind<String> =
    kind("text", "a text of at most 128 bytes without spaces and control characters", |value| {
        parsed(value, |text| {
            plain_text(text).filter(|text| text.len() <= 128 && !text.contains(char::is_whitespace))
        })
    });

pub(super) const NAME: Kind<String> =
    kind("text", "a text of 1 to 255 bytes without control characters", |value| {
        parsed(value, |text| plain_text(text).filter(|text| !text.is_empty()))
    });

pub(super) const OPTIONAL_TEXT: Kind<Option<String>> = kind(TEXT.name, TEXT.right, |value| {
    parsed(value, |text| plain_text(text).map(|text| (!text.is_empty()).then_some(text)))
});

/// A cookie's or header's name: both are tokens of RFC 9110 section 5.6.2.
pub(super) const TOKEN: Kind<String> =
    kind("name", r#"a name of letters, digits and - such as "X-CSRFToken""#, |value| {
        parsed(value, |text| HeaderName::from_str(text).is_ok().then(|| text.to_owned()))
    });

/// A path of this gateway without parameters; `""` is none.
pub(super) const OPTIONAL_PATH: Kind<Option<String>> =
    kind("path", r#"a path such as "/api/tokens/", or """#, |value| {
        let text = text(value)?;
        if text.is_empty() {
            return Ok(None);
        }
        let pattern = PathPattern::parse(text).map_err(Wrong::Quoting)?;
        match pattern.names().next() {
            None => Ok(Some(text.to_owned())),
            Some(_) => Err(Wrong::Kind),
        }
    });

pub(super) const PATH_PATTERN: Kind<PathPattern> =
    kind("path pattern", r#"a path such as "/ws/chat/{conversation_id}/""#, |value| {
        PathPattern::parse(text(value)?).map_err(Wrong::Quoting)
    });

pub(super) const TEMPLATE: Kind<Template> =
    kind("template", r#"a text such as "chat_{conversation_id}""#, |value| {
        let text = text(value).ok().filter(|text| !text.is_empty()).ok_or(Wrong::Kind)?;
        Template::parse(text).map_err(Wrong::Quoting)
    });

pub(super) const OPTIONAL_TEMPLATE: Kind<Option<Template>> =
    kind("template", r#"a text such as "chat-{conversation_id}-*", or """#, |value| {
        let text = text(value)?;
        let template = (!text.is_empty()).then(|| Template::parse(text)).transpose();
        template.map_err(Wrong::Quoting)
    });

pub(super) const ORIGIN: Kind<OriginPattern> =
    kind("origin", r#"an origin such as "https://app.example.com""#, |value| {
        OriginPattern::parse(text(value)?).map_err(Wrong::Quoting)
    });

pub(super) const HTTP_URL: Kind<Url> =
    kind("URL", r#"a URL such as "http://127.0.0.1:8001/path""#, |value| {
        http_url(text(value)?, &["http", "https"])
    });

pub(super) const OPTIONAL_HTTP_URL: Kind<Option<Url>> =
    kind("URL", r#"a URL such as "http://127.0.0.1:8001", or """#, |value| match text(value)? {
        "" => Ok(None),
        text => http_url(text, &["http", "https"]).map(Some),
    });

pub(super) const HTTP_TEMPLATE: Kind<Template> = kind(
    "URL template",
    r#"a URL such as "http://127.0.0.1:8001/chat/{conversation_id}""#,
    |value| url_template(text(value)?, &["http", "https"]),
);

pub(super) const WEBSOCKET_TEMPLATE: Kind<Template> = kind(
    "URL template",
    r#"a URL such as "ws://127.0.0.1:8001/chat/{conversation_id}""#,
    |value| url_template(text(value)?, &["ws", "wss"]),
);

pub(super) const SECRET: Kind<Secret> =
    kind("secret", "a text that is not empty", |value| match text(value)? {
        "" => Err(Wrong::Kind),
        text => Ok(Secret::new(text)),
    });

pub(super) const OPTIONAL_SECRET: Kind<Option<Secret>> =
    kind("secret", "a text", |value| match text(value)? {
        "" => Ok(None),
        text => Ok(Some(Secret::new(text))),
    });

/// Read by [`Section::redis_url`](super::section::Section::redis_url), as the next one.
pub(super) const REDIS_URL: Kind<Option<Written>> =
    kind("Redis URL", r#"a URL such as "redis://127.0.0.1:6379/0""#, |value| {
        redis_url(text(value)?).map(Some)
    });

/// `""` is none.
pub(super) const OPTIONAL_REDIS_URL: Kind<Option<Written>> =
    kind("Redis URL", r#"a URL such as "redis://127.0.0.1:6379/0", or """#, |value| {
        match text(value)? {
            "" => Ok(None),
            text => redis_url(text).map(Some),
        }
    });

pub(super) const LOG_LEVEL: Kind<String> =
    kind("log filter", r#"a filter such as "info" or "tidegate=debug,warn""#, |value| {
        parsed(value, |text| is_log_filter(text).then(|| text.to_owned()))
    });

/// A share of something.
pub(super) const RATIO: Kind<f64> = kind("number", "a number from 0 to 1", |value| {
    let number = match value {
        Value::Float(number) => *number,
        Value::Integer(number) => *number as f64,
        // From the environment.
        Value::String(text) => text.parse().map_err(|_| Wrong::Kind)?,
        _ => return Err(Wrong::Kind),
    };
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err(Wrong::Kind) }
});

/// A header of a request, whose value may be a secret.
pub(super) const HEADER: Kind<(HeaderName, HeaderValue)> =
    kind("header", r#"a header such as "authorization: Bearer …""#, |value| {
        let (name, value) = text(value)?.split_once(':').ok_or(Wrong::Kind)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| Wrong::Kind)?;
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| Wrong::Kind)?;
        // So that it is not shown.
        value.set_sensitive(true);
        Ok((name, value))
    });

/// Lines of one kind within an interval.
pub(super) const REPEATS: Kind<Option<Rate>> =
    kind("rate", r#"a number of lines such as "10/10s", or "off""#, |value| {
        parsed(value, |text| values::rate(text).filter(|_| !text.contains("burst")))
    });

/// A kind that is named by its words.
pub(super) const fn words<T>(words: &'static str, read: fn(&Value) -> Result<T, Wrong>) -> Kind<T> {
    Kind { name: words, right: words, read }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, Wrong> {
    let text = text(value)?;
    words.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice).ok_or(Wrong::Kind)
}

fn text(value: &Value) -> Result<&str, Wrong> {
    value.as_str().ok_or(Wrong::Kind)
}

fn parsed<T>(value: &Value, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Wrong> {
    parse(text(value)?).ok_or(Wrong::Kind)
}

/// Also reads a string of digits, so that a number can come from the environment.
fn integer<T: TryFrom<i64>, const MIN: i64, const MAX: i64>(value: &Value) -> Result<T, Wrong> {
    let number = match value {
        Value::Integer(number) => Some(*number),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let number = number.filter(|number| (MIN..=MAX).contains(number)).ok_or(Wrong::Kind)?;
    T::try_from(number).map_err(|_| Wrong::Kind)
}

fn size(value: &Value, min: u64, max: u64) -> Result<usize, Wrong> {
    let bytes = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::String(text) => values::size(text),
        _ => None,
    };
    bytes
        .filter(|bytes| (min..=max).contains(bytes))
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or(Wrong::Kind)
}

fn plain_text(text: &str) -> Option<String> {
    (text.len() <= 255 && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// A level alone, or `target=level` and spans; a lone word that is no level would silently name a
/// target, so it is refused.
fn is_log_filter(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |part: &str| {
        part.contains(['=', '[']) || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part))
    };
    text.split(',').all(|part| known(part.trim())) && EnvFilter::try_new(text).is_ok()
}

fn http_url(text: &str, schemes: &[&str]) -> Result<Url, Wrong> {
    if text.contains(['{', '}']) {
        return Err(Wrong::Rule("write a URL without {placeholders}".to_owned()));
    }
    checked_url(text, schemes)
}

/// The URL that `text` is, without what a request could not carry.
fn checked_url(text: &str, schemes: &[&str]) -> Result<Url, Wrong> {
    let url = Url::parse(text).map_err(|_| Wrong::Kind)?;
    if !schemes.contains(&url.scheme()) || !url.has_host() {
        return Err(Wrong::Kind);
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        let right = "write a URL without user, password and fragment: they would not be sent";
        return Err(Wrong::Rule(right.to_owned()));
    }
    Ok(url)
}

fn url_template(text: &str, schemes: &[&str]) -> Result<Template, Wrong> {
    let template = Template::parse(text).map_err(|_| Wrong::Kind)?;
    let server = text.split_once("://").map_or(text, |(scheme, rest)| {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        &text[..scheme.len() + "://".len() + end]
    });
    if server.contains('{') {
        let right = "write {placeholders} after the host only: a client must not choose the server";
        return Err(Wrong::Rule(right.to_owned()));
    }
    checked_url(&text.replace(['{', '}'], "_"), schemes)?;
    Ok(template)
}

fn redis_url(text: &str) -> Result<Written, Wrong> {
    Written::parse(text).map_err(|wrong| match wrong {
        NoRedisUrl::Other => Wrong::Kind,
        NoRedisUrl::Because(sentence) => Wrong::Rule(sentence),
    })
}
