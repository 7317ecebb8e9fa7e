//! The WebSocket upgrade: the checks of the request (RFC 6455 section 4.2.1) and the 101 response.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};

use super::credentials::{PROTOCOL, TOKEN_PROTOCOL, looks_like_token, subprotocols};
use super::rejection::json_error;
use crate::protocol::{DeflateTerms, header_has_token, websocket_accept};

/// Decodes a `Sec-WebSocket-Key`. The bits after the last byte may be set: they are in the example of RFC 6455 section
/// 4.1, `AQIDBAUGBwgJCgsMDQ4PEC==`.
const KEY: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// A valid upgrade request.
pub struct UpgradeRequest {
    /// The value of `Sec-WebSocket-Accept`. `None` over HTTP/2, which has none (RFC 8441 section 5).
    accept: Option<HeaderValue>,
    /// Whether the client offered `tidegate.v1`.
    offers_protocol: bool,
    /// The first subprotocol of an application that the client offered; only where the upstream may select it.
    offered: Option<Box<str>>,
}

/// Checks an upgrade request. `Err` is the response to an invalid one. With `asks_upstream`, the upstream may select one of
/// the subprotocols.
pub fn check<B>(
    request: &Request<B>,
    asks_upstream: bool,
) -> Result<UpgradeRequest, Response<Full<Bytes>>> {
    let headers = request.headers();
    if request.method() != Method::GET {
        let mut response = json_error(StatusCode::METHOD_NOT_ALLOWED, "GET only", "method");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return Err(response);
    }
    if !matches!(request.version(), Version::HTTP_11 | Version::HTTP_2)
        || !header_has_token(headers, &header::UPGRADE, "websocket")
        || !header_has_token(headers, &header::CONNECTION, "upgrade")
    {
        return Err(upgrade_required("this is a WebSocket endpoint"));
    }
    let mut versions = headers.get_all(header::SEC_WEBSOCKET_VERSION).iter();
    if versions.next().is_none_or(|version| version != "13") || versions.next().is_some() {
        return Err(upgrade_required("WebSocket version 13 only"));
    }
    if headers.get_all(header::HOST).iter().count() != 1 {
        return Err(bad_request("the request must have exactly one Host header"));
    }
    // The bytes of a body would be read as frames.
    if has_body(headers) {
        return Err(bad_request("an upgrade request must not have a body"));
    }
    let accept = match request.version() {
        Version::HTTP_2 => None,
        _ => Some(accept(headers).map_err(bad_request)?),
    };
    let offers_protocol = subprotocols(headers).any(|offered| offered == PROTOCOL);
    let is_of_application = |offered: &&str| *offered != PROTOCOL && !looks_like_token(offered);
    let offered = asks_upstream.then(|| subprotocols(headers).find(is_of_application)).flatten();
    // The subprotocol with the token is never selected. A browser fails a handshake that selects none of the
    // offered subprotocols, and the token would have been consumed.
    if !offers_protocol
        && offered.is_none()
        && subprotocols(headers).any(|offered| offered.starts_with(TOKEN_PROTOCOL))
    {
        return Err(bad_request("offer tidegate.v1 beside the subprotocol with the token"));
    }
    Ok(UpgradeRequest { accept, offers_protocol, offered: offered.map(Into::into) })
}

/// Returns the answer to the request's key; `Err` = what is wrong with it.
fn accept(headers: &HeaderMap) -> Result<HeaderValue, &'static str> {
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) => key.as_bytes(),
        _ => return Err("the request must have exactly one Sec-WebSocket-Key header"),
    };
    if KEY.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
        return Err("Sec-WebSocket-Key is not 16 bytes in base64");
    }
    HeaderValue::from_str(&websocket_accept(key)).map_err(|_| "Sec-WebSocket-Key is not valid")
}

/// Whether a request asks for a WebSocket, even if it is not a valid upgrade.
pub fn is_requested(headers: &HeaderMap) -> bool {
    header_has_token(headers, &header::UPGRADE, "websocket")
}

impl UpgradeRequest {
    /// Returns the response for an admitted client: 101, over HTTP/2 200.
    pub fn accept(
        self,
        subprotocol: Option<&str>,
        deflate: Option<DeflateTerms>,
    ) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        if let Some(accept) = self.accept {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        let headers = response.headers_mut();
        if let Some(Ok(selected)) = subprotocol.map(HeaderValue::from_str) {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, selected);
        }
        if let Some(extensions) = deflate.and_then(DeflateTerms::response) {
            headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, extensions);
        }
        response
    }

    /// Returns the 101 response of an upstream: with its `headers` and the subprotocol that it selected. If it selected none,
    /// the gateway's own is selected where it was offered.
    pub fn accept_as(
        self,
        headers: HeaderMap,
        subprotocol: Option<HeaderValue>,
        deflate: Option<DeflateTerms>,
    ) -> Response<Full<Bytes>> {
        let own = self.offers_protocol.then_some(HeaderValue::from_static(PROTOCOL));
        let mut response = self.accept(None, deflate);
        for (name, value) in std::mem::replace(response.headers_mut(), headers) {
            // Each of the gateway's own headers has one value.
            if let Some(name) = name {
                response.headers_mut().insert(name, value);
            }
        }
        if let Some(selected) = subprotocol.or(own) {
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, selected);
        }
        response
    }

    /// Returns the 101 response for a refused client, whose socket is closed at once. It must select an
    /// offered subprotocol, or a browser would fail before it reads the close code.
    pub fn accept_to_close(self) -> Response<Full<Bytes>> {
        let offered = self.offered.clone();
        let protocol = self.offers_protocol.then_some(PROTOCOL).or(offered.as_deref());
        self.accept(protocol, None)
    }
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0")
}

/// Whether a request has the key of a handshake and no `Upgrade`, which a proxy in front may have removed.
pub fn has_lost_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::SEC_WEBSOCKET_KEY) && !is_requested(headers)
}

/// Returns the response to a handshake that has lost its `Upgrade`.
pub fn lost() -> Response<Full<Bytes>> {
    upgrade_required(
        "a WebSocket handshake without its Upgrade header, which a proxy in front may have removed",
    )
}

/// Returns the response to a request that is no upgrade, where nothing else is served.
pub fn required(method: &Method) -> Response<Full<Bytes>> {
    if *method == Method::GET {
        return upgrade_required("this is a WebSocket endpoint");
    }
    let mut response = json_error(StatusCode::METHOD_NOT_ALLOWED, "GET only", "method");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    response
}

fn upgrade_required(error: &str) -> Response<Full<Bytes>> {
    let mut response = json_error(StatusCode::UPGRADE_REQUIRED, error, "upgrade_required");
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

fn bad_request(error: &str) -> Response<Full<Bytes>> {
    json_error(StatusCode::BAD_REQUEST, error, "bad_request")
}

#[cfg(test)]
mod tests;
