//! The parts of a request's head that HTTP/1.1 prescribes and that the HTTP library leaves to its user: `Host`, the form
//! of the request target and `Transfer-Encoding` (RFC 9112 sections 3.2 and 6.1).

use std::net::Ipv6Addr;

use hyper::header::{HOST, HeaderMap, HeaderValue, MAX_FORWARDS, TRANSFER_ENCODING};
use hyper::{Method, Request, Uri, Version};

use super::label_enum;

label_enum! {
    /// What is wrong with a request's head.
    pub enum HeadMistake {
        /// There is not exactly one `Host`, or it is not a host and port.
        Host => "host",
        /// The request target has a form that the method does not have.
        Target => "target",
        /// `CONNECT`: the gateway opens no tunnels.
        Connect => "connect",
        /// An extended `CONNECT` (RFC 8441) for something else than a WebSocket.
        Protocol => "protocol",
        /// A transfer coding other than `chunked`.
        TransferEncoding => "transfer_encoding",
        /// Neither a method, nor a version, nor headers of HTTP/1.1.
        Syntax => "syntax",
    }
}

impl HeadMistake {
    /// The status of the response, and its text.
    pub fn response(self) -> (u16, &'static str) {
        match self {
            Self::Host => {
                (400, "the request must have one Host header with a host and an optional port")
            }
            Self::Target => (400, "the request target does not have a form that this method takes"),
            Self::Connect => (501, "the gateway opens no tunnels"),
            Self::Protocol => (501, "the only protocol of an extended CONNECT is websocket"),
            Self::TransferEncoding => (501, "the only transfer coding is chunked"),
            Self::Syntax => (400, "the request is malformed"),
        }
    }
}

/// Checks the head of a request. The host of a target in absolute form replaces the `Host` header (RFC 9112 section
/// 3.2.2).
pub fn check_head<B>(request: &mut Request<B>) -> Result<(), HeadMistake> {
    check_host(request.version(), request.headers())?;
    check_transfer_encoding(request.headers())?;
    check_target(request.method(), request.uri())?;
    if let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    Ok(())
}

/// Whether a request asks for this server and not for one behind it: its target is `*`, or it must not be passed on
/// (`Max-Forwards`, RFC 9110 section 7.6.2).
pub fn is_about_the_server<B>(request: &Request<B>) -> bool {
    let may_be_forwarded = max_forwards(request.method(), request.headers()) != Some(0);
    !may_be_forwarded || (request.method() == Method::OPTIONS && request.uri().path() == "*")
}

/// How often a request may still be passed on, if it says so. Only `OPTIONS` and `TRACE` have that bound.
pub fn max_forwards(method: &Method, headers: &HeaderMap) -> Option<u64> {
    let is_bounded = [Method::OPTIONS, Method::TRACE].contains(method);
    headers.get(MAX_FORWARDS).filter(|_| is_bounded)?.to_str().ok()?.parse().ok()
}

/// HTTP/1.0 has no `Host`.
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), HeadMistake> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (None, None) if version == Version::HTTP_10 => Ok(()),
        _ => Err(HeadMistake::Host),
    }
}

fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), HeadMistake> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(HeadMistake::TransferEncoding),
    }
}

fn check_target(method: &Method, uri: &Uri) -> Result<(), HeadMistake> {
    // Targets with an authority and without a scheme are of authority form, such as `example.com:443`.
    match (uri.scheme_str(), uri.authority()) {
        (None, Some(authority)) => {
            let has_port = authority.port().is_some() && is_host(authority.as_str().as_bytes());
            Err(if *method == Method::CONNECT && has_port {
                HeadMistake::Connect
            } else {
                HeadMistake::Target
            })
        }
        _ if *method == Method::CONNECT => Err(HeadMistake::Target),
        (Some("http" | "https"), Some(authority)) if is_host(authority.as_str().as_bytes()) => {
            Ok(())
        }
        (None, None) if uri.path().starts_with('/') => Ok(()),
        (None, None) if uri.path() == "*" && *method == Method::OPTIONS => Ok(()),
        _ => Err(HeadMistake::Target),
    }
}

/// Whether this is `uri-host [ ":" port ]` (RFC 3986 section 3.2.2), of a host that is not empty. A comma is in no name,
/// but where a proxy has joined two headers.
pub fn is_host(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, port))) => {
            return is_ip_literal(address)
                && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        Some(None) => return false,
        None => text.split_once(':').unwrap_or((text, "")),
    };
    !host.is_empty() && is_registered_name(host) && is_port(port)
}

/// An empty port is that of the scheme.
fn is_port(port: &str) -> bool {
    port.is_empty() || (port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

fn is_ip_literal(address: &str) -> bool {
    address.parse::<Ipv6Addr>().is_ok()
}

fn is_registered_name(host: &str) -> bool {
    let mut bytes = host.bytes();
    while let Some(byte) = bytes.next() {
        let is_fine = match byte {
            b'%' => (0..2).all(|_| bytes.next().is_some_and(|b| b.is_ascii_hexdigit())),
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
            | b';' | b'=' => true,
            byte => byte.is_ascii_alphanumeric(),
        };
        if !is_fine {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests;
