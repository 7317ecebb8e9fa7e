//! The credentials in a request: query, subprotocols, cookie, `Authorization`.
//!
//! This module reads credentials but does not verify them. Invariant: a credential that was offered is
//! returned even if it is malformed; several different ones are returned as the empty string, which is never
//! valid. So a malformed credential never gives a client more than no credential.

use std::borrow::Cow;

use hyper::header::{AUTHORIZATION, COOKIE, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use hyper::{HeaderMap, Request};
use url::form_urlencoded;

use crate::protocol::{ResumePoint, header_list};

/// The subprotocol that the gateway speaks.
pub const PROTOCOL: &str = "tidegate.v1";

/// A subprotocol that carries a connection token, so that it stays out of access logs.
pub const TOKEN_PROTOCOL: &str = "tidegate.token.";

/// The query parameters that carry a connection token and a JWT.
pub const CONNECTION_TOKEN: &str = "connection_token";
pub const QUERY_TOKEN: &str = "token";

/// The credentials of one request, each read on demand.
pub struct OfferedCredentials<'h> {
    headers: &'h HeaderMap,
    query: &'h str,
}

impl<'h> OfferedCredentials<'h> {
    pub fn read<B>(head: &'h Request<B>) -> Self {
        Self { headers: head.headers(), query: head.uri().query().unwrap_or_default() }
    }

    pub fn headers(&self) -> &'h HeaderMap {
        self.headers
    }

    /// Returns the connection token of the query or of a subprotocol.
    pub fn connection_token(&self) -> Option<Cow<'h, str>> {
        let headers = self.headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        let by_protocol = headers.flat_map(|value| {
            // A token may be in a header that cannot be read.
            let list = value.to_str().unwrap_or(TOKEN_PROTOCOL);
            list.split(',').filter_map(|offered| token_of(offered.trim()))
        });
        single(query_values(self.query, CONNECTION_TOKEN).chain(by_protocol.map(Cow::Borrowed)))
    }

    /// Returns the JWT of the query.
    pub fn query_token(&self) -> Option<Cow<'h, str>> {
        single(query_values(self.query, QUERY_TOKEN))
    }

    /// Reads `?since=<offset>&epoch=<epoch>`.
    pub fn resume_point(&self) -> Option<ResumePoint> {
        let since = single(query_values(self.query, "since"));
        let epoch = single(query_values(self.query, "epoch"));
        ResumePoint::read(since.as_deref(), epoch.as_deref())
    }

    pub fn bearer(&self) -> Option<&'h str> {
        bearer(self.headers)
    }

    /// Returns the subprotocol for the response, which is never the one with the token.
    pub fn selected_subprotocol(&self) -> Option<String> {
        subprotocols(self.headers).any(|offered| offered == PROTOCOL).then(|| PROTOCOL.to_owned())
    }
}

/// Returns the token of a subprotocol; the empty string if it only looks like one with a token, such as one in quotes or
/// behind a semicolon.
fn token_of(subprotocol: &str) -> Option<&str> {
    looks_like_token(subprotocol)
        .then(|| subprotocol.strip_prefix(TOKEN_PROTOCOL).unwrap_or_default())
}

/// Whether a subprotocol carries a connection token, or only looks as if it did.
pub fn looks_like_token(subprotocol: &str) -> bool {
    let name = TOKEN_PROTOCOL.trim_end_matches('.').as_bytes();
    let mut parts = subprotocol.as_bytes().windows(name.len());
    parts.any(|part| part.eq_ignore_ascii_case(name))
}

/// Returns the value if all are equal, or the empty string if they differ.
fn single<'v>(mut values: impl Iterator<Item = Cow<'v, str>>) -> Option<Cow<'v, str>> {
    let first = values.next()?;
    Some(if values.all(|value| value == first) { first } else { Cow::Borrowed("") })
}

/// Returns the first of [`cookies`].
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    cookies(headers, name).next()
}

/// Returns the cookies called `name` whose values are not empty: signing out leaves empty ones behind.
/// Other cookies may contain any bytes (RFC 6265 section 5.4 asks servers not to rely on ASCII).
pub fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| split_at_byte(pair.trim_ascii(), b'='))
        // Backends ignore white space around both.
        .map(|(key, value)| (key.trim_ascii(), value.trim_ascii()))
        .filter(move |(key, value)| *key == name.as_bytes() && !value.is_empty())
        .map(|(_, value)| unquote(std::str::from_utf8(value).unwrap_or_default()))
}

/// Removes the two quotes that the value of a cookie may stand in (RFC 6265 section 4.1.1). Others belong to it.
fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// Reads `Authorization: Bearer …` (RFC 6750 section 2.1). Several bearers, one with anything but spaces between the scheme
/// and the token, and a value without a scheme, such as a JWT alone, are returned as the empty string.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut bearers = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, rest) = split_scheme(value);
        let token = || {
            let token = std::str::from_utf8(rest.strip_prefix(b" ")?).ok()?;
            Some(token.trim_matches(' '))
        };
        // No scheme has a dot, and every JWT has one.
        if scheme.contains(&b'.') || (scheme.is_empty() && !rest.is_empty()) {
            return Some("");
        }
        scheme.eq_ignore_ascii_case(b"bearer").then(|| token().unwrap_or_default())
    });
    let first = bearers.next()?;
    Some(if bearers.next().is_none() { first } else { "" })
}

/// Whether the value of an `Authorization` header is a bearer, even if a malformed one.
pub fn is_bearer(value: &HeaderValue) -> bool {
    split_scheme(value).0.eq_ignore_ascii_case(b"bearer")
}

/// Splits the value of an `Authorization` header behind its scheme.
fn split_scheme(value: &HeaderValue) -> (&[u8], &[u8]) {
    let is_token_byte =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let value = value.as_bytes();
    let end = value.iter().position(|byte| !is_token_byte(byte)).unwrap_or(value.len());
    value.split_at(end)
}

fn split_at_byte(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// Returns the offered subprotocols in order.
pub fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    header_list(headers, &SEC_WEBSOCKET_PROTOCOL)
}

/// Returns the values of a query parameter. Names and values are decoded as backends decode them, so that
/// both see the same parameters.
fn query_values<'q>(query: &'q str, name: &str) -> impl Iterator<Item = Cow<'q, str>> {
    form_urlencoded::parse(query.as_bytes()).filter(move |(key, _)| key == name).map(|(_, v)| v)
}

#[cfg(test)]
mod tests;
