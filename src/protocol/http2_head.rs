//! The head of a request over HTTP/2 (RFC 9113 section 8.3), which becomes that of a request over HTTP/1.1: one way through
//! the gateway serves both.
//!
//! The HTTP library has refused what is malformed in any request: names in upper case, headers of the connection, pseudo
//! headers that are unknown, repeated or behind other headers.

use hyper::header::{CONNECTION, COOKIE, HOST, HeaderMap, HeaderValue, UPGRADE};
use hyper::{Method, Request, Uri, ext};

use super::HeadMistake;
use super::request_head::is_host;

/// Checks the head of a request and gives it the form that it has in HTTP/1.1, but for its version. An extended CONNECT of a
/// WebSocket (RFC 8441 section 5) becomes a `GET` with `Upgrade`.
pub fn translate_http2_head<B>(request: &mut Request<B>) -> Result<(), HeadMistake> {
    let host = host_of(request.uri(), request.headers())?;
    let protocol = request.extensions().get::<ext::Protocol>().map(|it| it.as_str().to_owned());
    match (request.method() == Method::CONNECT, protocol.as_deref()) {
        (true, Some("websocket")) => {}
        // An unknown protocol (RFC 9220 section 3).
        (true, Some(_)) => return Err(HeadMistake::Protocol),
        (true, None) => return Err(HeadMistake::Connect),
        (false, Some(_)) => return Err(HeadMistake::Target),
        (false, None) => {}
    }
    let target = target(request.method(), request.uri())?;
    *request.uri_mut() = target;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    join_cookies(headers);
    if protocol.is_some() {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        *request.method_mut() = Method::GET;
    }
    Ok(())
}

/// The host that the request is for: `:authority`, with which a `Host` must agree.
fn host_of(uri: &Uri, headers: &HeaderMap) -> Result<HeaderValue, HeadMistake> {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, other) = (hosts.next(), hosts.next());
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let is_same = match (authority, host) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host.as_bytes()),
        _ => true,
    };
    let found = authority.or(host.map(HeaderValue::as_bytes)).filter(|host| is_host(host));
    match found.filter(|_| is_same && other.is_none()).map(HeaderValue::from_bytes) {
        Some(Ok(host)) => Ok(host),
        _ => Err(HeadMistake::Host),
    }
}

/// The target in origin form, or `*`.
fn target(method: &Method, uri: &Uri) -> Result<Uri, HeadMistake> {
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let path = uri.path_and_query().filter(|_| is_http).ok_or(HeadMistake::Target)?;
    let fits = match path.as_str() {
        "*" => *method == Method::OPTIONS,
        path => path.starts_with('/'),
    };
    match fits {
        true => path.as_str().parse().map_err(|_| HeadMistake::Target),
        false => Err(HeadMistake::Target),
    }
}

/// Joins the fields into which a client may split its cookies (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let fields: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if fields.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&fields.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests;
