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
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, value.as_bytes());
        }
        request.body(()).unwrap()
    }

    #[test]
    fn connection_tokens_come_by_query_or_subprotocol() {
        let with_token = [("sec-websocket-protocol", "tidegate.v1, tidegate.token.abc")];
        let in_two_headers = [
            ("sec-websocket-protocol", "tidegate.token.abc"),
            ("sec-websocket-protocol", "tidegate.v1"),
        ];
        for (uri, headers, token, selected) in [
            ("/ws/", &[] as &[_], None, None),
            ("/ws/?token=abc", &[], None, None),
            ("/ws/?a=b&connection_token=tok%2Den", &[], Some("tok-en"), None),
            ("/ws/?connection%5Ftoken=abc", &[], Some("abc"), None),
            ("/ws/?connection_token=", &[], Some(""), None),
            ("/ws/?connection_token", &[], Some(""), None),
            ("/ws/", &with_token, Some("abc"), Some("tidegate.v1")),
            ("/ws/", &in_two_headers, Some("abc"), Some("tidegate.v1")),
            ("/ws/", &[("sec-websocket-protocol", "tidegate.token.")], Some(""), None),
            ("/ws/", &[("sec-websocket-protocol", "chat")], None, None),
            ("/ws/?connection_token=abc", &with_token, Some("abc"), Some("tidegate.v1")),
            // Two different tokens are refused.
            ("/ws/?connection_token=other", &with_token, Some(""), Some("tidegate.v1")),
            ("/ws/?connection_token=a&connection_token=b", &[], Some(""), None),
            ("/ws/?connection_token=a&connection_token=", &[], Some(""), None),
        ] {
            let request = request(uri, headers);
            let offered = OfferedCredentials::read(&request);
            assert_eq!(offered.connection_token().as_deref(), token, "{uri} {headers:?}");
            assert_eq!(offered.selected_subprotocol().as_deref(), selected, "{uri} {headers:?}");
        }
    }

    #[test]
    fn malformed_bearers_are_returned() {
        for (values, found) in [
            (&[] as &[&str], None),
            (&["Basic dGVzdA=="], None),
            (&["bearer  tok"], Some("tok")),
            (&["Bearer"], Some("")),
            (&["Bearer é"], Some("é")),
            (&["Basic dGVzdA==", "Bearer tok"], Some("tok")),
            (&["Bearer a", "Bearer a"], Some("")),
        ] {
            let headers: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
            assert_eq!(bearer(request("/", &headers).headers()), found, "{values:?}");
        }
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        for (header, found) in [
            ("access_token=jwt", Some("jwt")),
            ("a=1; access_token=jwt; b=2", Some("jwt")),
            ("a=1;access_token=\"jwt\"", Some("jwt")),
            ("city=Köln; access_token=a=b", Some("a=b")),
            ("access_token=; access_token=jwt", Some("jwt")),
            ("access_token=", None),
            ("access_token", None),
            ("xaccess_token=jwt; Access_Token=jwt", None),
        ] {
            let request = request("/", &[("cookie", header)]);
            assert_eq!(cookie(request.headers(), "access_token"), found, "{header}");
        }
        let request = request("/", &[("cookie", "a=1"), ("cookie", "access_token=jwt")]);
        assert_eq!(cookie(request.headers(), "access_token"), Some("jwt"));
    }

    #[test]
    fn two_different_jwts_in_the_query_are_refused() {
        for (query, found) in
            [("token=a", Some("a")), ("token=a&token=a", Some("a")), ("token=a&token=b", Some(""))]
        {
            let request = request(&format!("/?{query}"), &[]);
            assert_eq!(
                OfferedCredentials::read(&request).query_token().as_deref(),
                found,
                "{query}"
            );
        }
    }
}
