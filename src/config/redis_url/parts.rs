//! Splits URLs as Python's `urlsplit` does, so that each part means here what it means to redis-py and Celery.
//!
//! The `url` crate follows browsers instead, which know neither a user without a host (`unix://:pw@/path`) nor a Redis
//! on the local host that is not named (`redis://`).

use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

/// The parts of a URL. Those that stand before the path are decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// In lower case.
    pub scheme: String,
    /// `None` if it is empty, as for the next two.
    pub username: Option<String>,
    pub password: Option<String>,
    /// In lower case, and without the brackets of an IPv6 address.
    pub host: Option<String>,
    /// `None` if it is empty or 0, which redis-py takes for the default.
    pub port: Option<u16>,
    /// As it is written.
    pub path: &'a str,
    /// As it is written.
    pub query: &'a str,
}

impl<'a> Parts<'a> {
    /// `None` if the text is not a URL with `://`. It must not have a fragment.
    pub fn split(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once("://")?;
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if scheme.is_empty() || !scheme.chars().all(is_scheme) {
            return None;
        }
        let (server, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, server) = server.rsplit_once('@').unwrap_or(("", server));
        let (username, password) = user.split_once(':').unwrap_or((user, ""));
        let (host, port) = split_server(server)?;
        let given = |text: &str| (!text.is_empty()).then(|| decode(text));
        Some(Self {
            scheme: scheme.to_ascii_lowercase(),
            username: given(username),
            password: given(password),
            host: given(host).map(|host| host.to_lowercase()),
            port: match port {
                "" => None,
                port if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                    Some(port.parse().ok()?).filter(|port| *port > 0)
                }
                _ => return None,
            },
            path,
            query,
        })
    }
}

/// Splits host and port. An IPv6 address stands in brackets.
fn split_server(server: &str) -> Option<(&str, &str)> {
    let Some(rest) = server.strip_prefix('[') else {
        let (host, port) = server.split_once(':').unwrap_or((server, ""));
        let is_host =
            |c: char| !c.is_control() && !c.is_whitespace() && !"[]\\^`{|}<>\";,".contains(c);
        return host.chars().all(is_host).then_some((host, port));
    };
    let (address, port) = rest.split_once(']')?;
    address.parse::<Ipv6Addr>().ok()?;
    match port {
        "" => Some((address, "")),
        port => Some((address, port.strip_prefix(':')?)),
    }
}

/// Decodes percent signs as Python's `unquote` does: what is not an escape stays.
pub(super) fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}
