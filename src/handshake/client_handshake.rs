//! What the upstream of a pass route gets of a client's handshake: everything but what belongs to the connection, what a
//! stranger must not say, and the gateway's own credentials.
//!
//! Invariant: a credential that the gateway takes for its own never reaches the upstream. Connection tokens are the
//! gateway's on every route; JWTs where the route's `auth` has their source.

use hyper::Request;
use hyper::header::{
    self, AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL,
};
use url::form_urlencoded;

use super::Handshake;
use super::credentials::{CONNECTION_TOKEN, PROTOCOL, QUERY_TOKEN, is_bearer, looks_like_token};
use crate::config::{AuthSource, Route};
use crate::protocol::{
    ClientAddress, add_via, append_forwarded, header_list, remove_hop_by_hop, set_forwarded,
};
use crate::upstream::{ClientHandshake, is_of_handshake};

/// Headers that belong to this request, although they are not of the connection.
const OF_REQUEST: [HeaderName; 5] = [
    header::CONNECTION,
    header::TE,
    header::CONTENT_LENGTH,
    header::EXPECT,
    HeaderName::from_static("http2-settings"),
];

/// Headers in which browsers and trusted proxies repeat a URL, with its query.
const WITH_URL: [HeaderName; 5] = [
    header::REFERER,
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-original-uri"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-forwarded-uri"),
];

impl Handshake {
    /// Returns what the upstream of `route` gets of the request `head`.
    pub fn for_upstream<B>(
        &self,
        route: &Route,
        head: &Request<B>,
        address: ClientAddress,
    ) -> ClientHandshake {
        let takes = |source: AuthSource| route.auth.contains(&source);
        let mut headers = head.headers().clone();
        remove_hop_by_hop(&mut headers);
        set_forwarded(&mut headers, address);
        if !headers.contains_key(header::FORWARDED) {
            append_forwarded(&mut headers, address);
        }
        add_via(&mut headers, head.version());
        let of_handshake: Vec<HeaderName> =
            headers.keys().filter(|name| is_of_handshake(name)).cloned().collect();
        for name in of_handshake.iter().chain(&OF_REQUEST) {
            headers.remove(name);
        }
        offer_subprotocols(&mut headers);
        if takes(AuthSource::Cookie) {
            remove_cookie(&mut headers, &self.session_cookie);
        }
        if takes(AuthSource::Bearer) {
            retain(&mut headers, &AUTHORIZATION, |value| !is_bearer(value));
        }
        remove_own_parameters(route, &mut headers);
        let removed = own_parameters(route);
        ClientHandshake {
            path: head.uri().path().to_owned(),
            query: head.uri().query().and_then(|query| without_parameters(query, removed)),
            headers,
            host: route.host,
        }
    }
}

/// The parameters of a query in which clients of `route` may have a credential of the gateway.
fn own_parameters(route: &Route) -> &'static [&'static str] {
    match route.auth.contains(&AuthSource::Query) {
        true => &[CONNECTION_TOKEN, QUERY_TOKEN],
        false => &[CONNECTION_TOKEN],
    }
}

/// Removes credentials of the gateway from the URLs that headers repeat.
pub fn remove_own_parameters(route: &Route, headers: &mut HeaderMap) {
    for name in WITH_URL {
        strip_parameters(headers, &name, own_parameters(route));
    }
}

/// Offers the client's subprotocols, except for those of the gateway.
fn offer_subprotocols(headers: &mut HeaderMap) {
    let offered: Vec<&str> = header_list(headers, &SEC_WEBSOCKET_PROTOCOL)
        .filter(|offered| *offered != PROTOCOL && !looks_like_token(offered))
        .collect();
    let value = match offered.is_empty() {
        true => None,
        false => HeaderValue::from_str(&offered.join(", ")).ok(),
    };
    match value {
        Some(value) => headers.insert(SEC_WEBSOCKET_PROTOCOL, value),
        None => headers.remove(SEC_WEBSOCKET_PROTOCOL),
    };
}

/// Removes the cookies called `name`. Headers without one stay as they are.
fn remove_cookie(headers: &mut HeaderMap, name: &str) {
    let is_named = |pair: &[u8]| {
        let key = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        key.trim_ascii() == name.as_bytes()
    };
    let values: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for value in values {
        let pairs = || value.as_bytes().split(|byte| *byte == b';');
        if !pairs().any(is_named) {
            headers.append(COOKIE, value);
            continue;
        }
        let kept: Vec<&[u8]> =
            pairs().filter(|pair| !is_named(pair)).map(<[u8]>::trim_ascii).collect();
        let kept = kept.join(&b"; "[..]);
        if !kept.is_empty()
            && let Ok(value) = HeaderValue::from_bytes(&kept)
        {
            headers.append(COOKIE, value);
        }
    }
}

fn retain(headers: &mut HeaderMap, name: &HeaderName, keep: impl Fn(&HeaderValue) -> bool) {
    let values: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
    if values.iter().all(&keep) {
        return;
    }
    headers.remove(name);
    for value in values.into_iter().filter(|value| keep(value)) {
        headers.append(name, value);
    }
}

/// Removes these parameters from the query of the URL that a header has. A value that is not text is left out.
fn strip_parameters(headers: &mut HeaderMap, name: &HeaderName, removed: &[&str]) {
    let values: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
    headers.remove(name);
    for value in values {
        let Ok(url) = value.to_str() else { continue };
        let Some((path, query)) = url.split_once('?') else {
            headers.append(name, value);
            continue;
        };
        let kept = without_parameters(query, removed).map(|query| format!("{path}?{query}"));
        if let Ok(value) = HeaderValue::from_str(kept.as_deref().unwrap_or(path)) {
            headers.append(name, value);
        }
    }
}

/// Returns the query without these parameters, however their names are encoded. The others stay as they are. `None` if
/// nothing is left.
fn without_parameters(query: &str, names: &[&str]) -> Option<String> {
    let is_removed = |pair: &str| {
        form_urlencoded::parse(pair.as_bytes()).any(|(name, _)| names.contains(&&*name))
    };
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_removed(pair)).collect();
    let kept = kept.join("&");
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests;
