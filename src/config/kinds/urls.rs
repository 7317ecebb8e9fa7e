//! Kinds of addresses: sockets, networks, origins and URLs.

use std::net::SocketAddr;

use ipnet::IpNet;
use url::Url;

use super::{Kind, ValueError, kind, parsed, text};
use crate::config::redis_url::{RedisUrlError, UnloadedRedisUrl};
use crate::config::{AllowedOrigin, values};
use crate::protocol::{OriginPattern, Template};

pub(in crate::config) const ADDRESS: Kind<SocketAddr> =
    kind("address", r#"an IP address and a port such as "127.0.0.1:8000""#, |value| {
        parsed(value, |text| text.parse().ok())
    });

pub(in crate::config) const OPTIONAL_ADDRESS: Kind<Option<SocketAddr>> =
    kind("address", r#"an IP address and a port such as "0.0.0.0:80", or """#, |value| match text(
        value,
    )? {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| ValueError::WrongKind),
    });

pub(in crate::config) const NETWORK: Kind<IpNet> =
    kind("address block", r#"an address block such as "10.0.0.0/8" or "192.0.2.7""#, |value| {
        parsed(value, values::network)
    });

pub(in crate::config) const ORIGIN: Kind<AllowedOrigin> = kind(
    "origin",
    r#"an origin such as "https://app.example.com", or "self""#,
    |value| match text(value)? {
        "self" => Ok(AllowedOrigin::Own),
        text => {
            OriginPattern::parse(text).map(AllowedOrigin::Matching).map_err(ValueError::Quoting)
        }
    },
);

pub(in crate::config) const HTTP_URL: Kind<Url> =
    kind("URL", r#"a URL such as "http://127.0.0.1:8001/path""#, |value| {
        http_url(text(value)?, &["http", "https"])
    });

/// `""` stands for `None`.
pub(in crate::config) const OPTIONAL_HTTP_URL: Kind<Option<Url>> =
    kind("URL", r#"a URL such as "http://127.0.0.1:8001", or """#, |value| match text(value)? {
        "" => Ok(None),
        text => http_url(text, &["http", "https"]).map(Some),
    });

/// A name in a certificate: a host name (RFC 1123 section 2.1) with a dot in it.
pub(in crate::config) const DOMAIN: Kind<String> = kind(
    "host name",
    "a host name such as \"chat.example.com\", not in ASCII as xn--…; names with * need another challenge",
    |value| parsed(value, host_name),
);

pub(in crate::config) const CONTACT: Kind<String> =
    kind("e-mail address", "an e-mail address such as \"ops@example.com\"", |value| {
        parsed(value, |text| {
            let address = text.strip_prefix("mailto:").unwrap_or(text);
            let (user, host) = address.rsplit_once('@')?;
            let is_plain =
                |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b',' | b'%');
            (!user.is_empty() && user.bytes().all(is_plain) && host_name(host).is_some())
                .then(|| format!("mailto:{address}"))
        })
    });

pub(in crate::config) const HTTPS_URL: Kind<Url> =
    kind("URL", "a URL that begins with https://", |value| {
        parsed(value, |text| {
            Url::parse(text).ok().filter(|url| url.scheme() == "https" && url.has_host())
        })
    });

/// A host name in lower case, as certificates have it.
fn host_name(text: &str) -> Option<String> {
    let is_label = |label: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..64).contains(&label.len())
            && label.bytes().all(is_part)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // The last label of an address is a number, that of a host name is not.
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let is_address = text.rsplit('.').next().is_none_or(is_number);
    (text.len() < 254 && text.contains('.') && !is_address && text.split('.').all(is_label))
        .then(|| text.to_ascii_lowercase())
}

pub(in crate::config) const HTTP_TEMPLATE: Kind<Template> = kind(
    "URL template",
    r#"a URL such as "http://127.0.0.1:8001/chat/{conversation_id}""#,
    |value| url_template(text(value)?, &["http", "https"]),
);

pub(in crate::config) const WEBSOCKET_TEMPLATE: Kind<Template> = kind(
    "URL template",
    r#"a URL such as "ws://127.0.0.1:8001/chat/{conversation_id}""#,
    |value| url_template(text(value)?, &["ws", "wss"]),
);

/// For [`Section::redis_url`](crate::config::section::Section::redis_url), as the next one.
pub(in crate::config) const REDIS_URL: Kind<Option<UnloadedRedisUrl>> =
    kind("Redis URL", r#"a URL such as "redis://127.0.0.1:6379/0""#, |value| {
        redis_url(text(value)?).map(Some)
    });

/// `""` stands for `None`.
pub(in crate::config) const OPTIONAL_REDIS_URL: Kind<Option<UnloadedRedisUrl>> =
    kind("Redis URL", r#"a URL such as "redis://127.0.0.1:6379/0", or """#, |value| {
        match text(value)? {
            "" => Ok(None),
            text => redis_url(text).map(Some),
        }
    });

fn http_url(text: &str, schemes: &[&str]) -> Result<Url, ValueError> {
    if text.contains(['{', '}']) {
        return Err(ValueError::Rule("write a URL without {placeholders}".to_owned()));
    }
    checked_url(text, schemes)
}

/// Parses a URL and refuses the parts that an HTTP request does not carry.
fn checked_url(text: &str, schemes: &[&str]) -> Result<Url, ValueError> {
    let url = Url::parse(text).map_err(|_| ValueError::WrongKind)?;
    if !schemes.contains(&url.scheme()) || !url.has_host() {
        return Err(ValueError::WrongKind);
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        let fix = "write a URL without user, password and fragment, which are never sent";
        return Err(ValueError::Rule(fix.to_owned()));
    }
    Ok(url)
}

fn url_template(text: &str, schemes: &[&str]) -> Result<Template, ValueError> {
    let template = Template::parse(text).map_err(|_| ValueError::WrongKind)?;
    let server = text.split_once("://").map_or(text, |(scheme, rest)| {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        &text[..scheme.len() + "://".len() + end]
    });
    if server.contains('{') {
        let fix =
            "write {placeholders} only after the host, so that clients cannot choose the server";
        return Err(ValueError::Rule(fix.to_owned()));
    }
    checked_url(&text.replace(['{', '}'], "_"), schemes)?;
    Ok(template)
}

fn redis_url(text: &str) -> Result<UnloadedRedisUrl, ValueError> {
    UnloadedRedisUrl::parse(text).map_err(|error| match error {
        RedisUrlError::Invalid => ValueError::WrongKind,
        RedisUrlError::Reason(sentence) => ValueError::Rule(sentence),
    })
}
