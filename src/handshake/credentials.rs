//! What a request brings to say who it is: query, subprotocols, cookie, Authorization.

use std::borrow::Cow;

use hyper::header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL};
use hyper::{HeaderMap, Request};
use percent_encoding::percent_decode_str;

use super::Rejection;
use crate::protocol::{ChannelPattern, Params, Template, TemplateContext};
use crate::tokens::Identity;

/// The subprotocol that the gateway speaks.
pub const PROTOCOL: &str = "tidegate.v1";

/// A subprotocol that carries a connection token, so that it stays out of access logs.
const TOKEN_PROTOCOL: &str = "tidegate.token.";

/// The credentials of one request.
pub struct Offered {
    /// Present even if it is empty: who offers a token wants to be judged by it.
    pub connection_token: Option<String>,
    pub bearer: Option<String>,
    pub query_token: Option<String>,
    cookies: Vec<String>,
    offers_protocol: bool,
}

impl Offered {
    /// Two different connection tokens are refused rather than chosen from.
    pub fn read<B>(head: &Request<B>) -> Result<Self, Rejection> {
        let headers = head.headers();
        let query = head.uri().query().unwrap_or_default();
        let mut tokens: Vec<Cow<'_, str>> = query_values(query, "connection_token").collect();
        tokens.extend(
            subprotocols(headers).filter_map(|p| p.strip_prefix(TOKEN_PROTOCOL)).map(Cow::Borrowed),
        );
        tokens.dedup();
        if tokens.len() > 1 {
            return Err(Rejection::token());
        }
        Ok(Self {
            connection_token: tokens.pop().map(Cow::into_owned),
            bearer: bearer(headers),
            query_token: query_values(query, "token").next().map(Cow::into_owned),
            cookies: headers
                .get_all(COOKIE)
                .iter()
                .filter_map(|value| value.to_str().ok().map(str::to_owned))
                .collect(),
            offers_protocol: subprotocols(headers).any(|offered| offered == PROTOCOL),
        })
    }

    /// The value of the first cookie called `name` that is not empty.
    pub fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.iter().find_map(|header| cookie_of(header, name)).map(str::to_owned)
    }

    /// The subprotocol of the answer; never the one with the token.
    pub fn select(&self) -> Option<String> {
        self.offers_protocol.then(|| PROTOCOL.to_owned())
    }
}

/// The cookie called `name` of a request's headers.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(|header| cookie_of(header, name))
}

fn cookie_of<'h>(header: &'h str, name: &str) -> Option<&'h str> {
    header
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| value.trim_matches('"'))
}

/// `Authorization: Bearer …` (RFC 6750 section 2.1).
pub fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

/// The offered subprotocols, in order.
pub fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// The values of a query parameter, percent-decoded.
fn query_values<'q>(query: &'q str, name: &str) -> impl Iterator<Item = Cow<'q, str>> {
    query
        .split('&')
        .filter_map(move |pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
        .map(|value| percent_decode_str(value).decode_utf8_lossy())
}

/// Whether a record's connection id fits `[tokens] binding`, a template with `*` for any run of
/// characters. A parameter with a star of its own fits nothing, since it would stand for anything.
pub fn is_bound(binding: &Template, id: &str, params: &Params, identity: &Identity) -> bool {
    let user = identity.key();
    if params.iter().any(|(_, value)| value.contains('*')) || user.contains('*') {
        return false;
    }
    let filled = binding.fill(TemplateContext { params, user_id: &user, channel: None });
    ChannelPattern::new(filled).matches(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PathPattern;

    fn offered(uri: &str, headers: &[(&str, &str)]) -> Result<Offered, Rejection> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Offered::read(&request.body(()).unwrap())
    }

    #[test]
    fn tokens_come_by_query_or_subprotocol() {
        let by_query = offered("/ws/?a=b&connection_token=tok%2Den", &[]).unwrap();
        assert_eq!(by_query.connection_token.as_deref(), Some("tok-en"));
        assert_eq!(by_query.select(), None);
        let protocols = [("sec-websocket-protocol", "tidegate.v1, tidegate.token.abc")];
        let by_protocol = offered("/ws/", &protocols).unwrap();
        assert_eq!(by_protocol.connection_token.as_deref(), Some("abc"));
        assert_eq!(by_protocol.select().as_deref(), Some("tidegate.v1"));
        let empty = offered("/ws/?connection_token=", &[]).unwrap();
        assert_eq!(empty.connection_token.as_deref(), Some(""));
        assert!(offered("/ws/?connection_token=abc", &protocols).is_ok());
        assert!(offered("/ws/?connection_token=other", &protocols).is_err());
    }

    #[test]
    fn cookies_and_bearers_are_found() {
        let given = offered(
            "/ws/?token=q",
            &[("cookie", "a=1; access_token=jwt; b=2"), ("authorization", "bearer  tok")],
        )
        .unwrap();
        assert_eq!(given.cookie("access_token").as_deref(), Some("jwt"));
        assert_eq!(given.cookie("xaccess_token"), None);
        assert_eq!(given.bearer.as_deref(), Some("tok"));
        assert_eq!(given.query_token.as_deref(), Some("q"));
    }

    #[test]
    fn a_binding_is_no_wildcard_for_clients() {
        let binding = Template::parse("chat-{id}-*").unwrap();
        let path = PathPattern::parse("/{id}").unwrap();
        let fits = |path_text: &str, id: &str| {
            let params = path.matches(path_text).unwrap();
            is_bound(&binding, id, &params, &Identity::anonymous())
        };
        assert!(fits("/42", "chat-42-1764500000"));
        assert!(!fits("/42", "chat-421-1764500000"));
        assert!(!fits("/42", ""));
        assert!(!fits("/*", "chat-42-1764500000"));
    }
}
