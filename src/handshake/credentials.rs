//! The credentials in a request: query, subprotocols, cookie, `Authorization`.
//!
//! This module reads credentials but does not verify them. Invariant: a credential that was offered is
//! returned even if it is malformed; several different ones are returned as the empty string, which is never
//! valid. So a malformed credential never gives a client more than no credential.

use std::borrow::Cow;

use hyper::header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL};
use hyper::{HeaderMap, Request};
use url::form_urlencoded;

use crate::protocol::{ResumePoint, header_list};

/// The subprotocol that the gateway speaks.
pub const PROTOCOL: &str = "tidegate.v1";

/// A subprotocol that carries a connection token, so that it stays out of access logs.
pub const TOKEN_PROTOCOL: &str = "tidegate.token.";

/// The credentials of one request, each read on demand.
pub struct OfferedCredentials<'h> {
    headers: &'h HeaderMap,
    query: &'h str,
}

impl<'h> OfferedCredentials<'h> {
    pub fn read<B>(head: &'h Request<B>) -> Self {
        Self { headers: head.headers(), query: head.uri().query().unwrap_or_default() }
    }

    /// Returns the connection token of the query or of a subprotocol.
    pub fn connection_token(&self) -> Option<Cow<'h, str>> {
        let by_protocol =
            subprotocols(self.headers).filter_map(|offered| offered.strip_prefix(TOKEN_PROTOCOL));
        single(query_values(self.query, "connection_token").chain(by_protocol.map(Cow::Borrowed)))
    }

    /// Returns the JWT of the query.
    pub fn query_token(&self) -> Option<Cow<'h, str>> {
        single(query_values(self.query, "token"))
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
        .filter(move |(key, value)| *key == name.as_bytes() && !value.is_empty())
        .map(|(_, value)| std::str::from_utf8(value).unwrap_or_default().trim_matches('"'))
}

/// Reads `Authorization: Bearer …` (RFC 6750 section 2.1). Several bearers are returned as the empty string.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut bearers = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let value = value.as_bytes();
        let (scheme, token) = split_at_byte(value, b' ').unwrap_or((value, b""));
        scheme
            .eq_ignore_ascii_case(b"bearer")
            .then(|| std::str::from_utf8(token).unwrap_or_default().trim())
    });
    let first = bearers.next()?;
    Some(if bearers.next().is_none() { first } else { "" })
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
