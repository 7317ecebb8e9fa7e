//! The WebSocket upgrade: the checks of the request (RFC 6455 section 4.2.1) and the 101 response.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};

use super::credentials::{PROTOCOL, TOKEN_PROTOCOL, subprotocols};
use super::rejection::json_error;
use crate::protocol::{header_has_token, websocket_accept};

/// A valid upgrade request.
pub struct UpgradeRequest {
    /// The value of `Sec-WebSocket-Accept`.
    accept: HeaderValue,
    /// Whether the client offered `tidegate.v1`.
    offers_protocol: bool,
}

/// Checks an upgrade request. `Err` is the response to an invalid one.
pub fn check<B>(request: &Request<B>) -> Result<UpgradeRequest, Response<Full<Bytes>>> {
    let headers = request.headers();
    if request.method() != Method::GET {
        let mut response = json_error(StatusCode::METHOD_NOT_ALLOWED, "GET only", "method");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return Err(response);
    }
    if request.version() != Version::HTTP_11
        || !header_has_token(headers, &header::UPGRADE, "websocket")
        || !header_has_token(headers, &header::CONNECTION, "upgrade")
    {
        return Err(upgrade_required("this is a WebSocket endpoint"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(upgrade_required("WebSocket version 13 only"));
    }
    if headers.get_all(header::HOST).iter().count() != 1 {
        return Err(bad_request("the request must have exactly one Host header"));
    }
    // The bytes of a body would be read as frames.
    if has_body(headers) {
        return Err(bad_request("an upgrade request must not have a body"));
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) => key.as_bytes(),
        _ => return Err(bad_request("the request must have exactly one Sec-WebSocket-Key header")),
    };
    if STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
        return Err(bad_request("Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    let accept = HeaderValue::from_str(&websocket_accept(key))
        .map_err(|_| bad_request("Sec-WebSocket-Key is not valid"))?;
    let offers_protocol = subprotocols(headers).any(|offered| offered == PROTOCOL);
    // The subprotocol with the token is never selected. A browser fails a handshake that selects none of the
    // offered subprotocols, and the token would have been consumed.
    if !offers_protocol && subprotocols(headers).any(|offered| offered.starts_with(TOKEN_PROTOCOL))
    {
        return Err(bad_request("offer tidegate.v1 beside the subprotocol with the token"));
    }
    Ok(UpgradeRequest { accept, offers_protocol })
}

/// Whether a request asks for a WebSocket, even if it is not a valid upgrade.
pub fn is_requested(headers: &HeaderMap) -> bool {
    header_has_token(headers, &header::UPGRADE, "websocket")
}

impl UpgradeRequest {
    /// Returns the 101 response for an admitted client.
    pub fn accept(self, subprotocol: Option<&str>) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Some(Ok(selected)) = subprotocol.map(HeaderValue::from_str) {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, selected);
        }
        response
    }

    /// Returns the 101 response for a refused client, whose socket is closed at once. It must select an
    /// offered subprotocol, or a browser would fail before it reads the close code.
    pub fn accept_to_close(self) -> Response<Full<Bytes>> {
        let protocol = self.offers_protocol.then_some(PROTOCOL);
        self.accept(protocol)
    }
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0")
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
mod tests {
    use super::*;

    fn request() -> Request<()> {
        Request::builder()
            .uri("/ws/chat/1/")
            .header("host", "gateway.test")
            .header("upgrade", "WebSocket")
            .header("connection", "keep-alive, Upgrade")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap()
    }

    fn status(change: impl FnOnce(&mut Request<()>)) -> Option<u16> {
        let mut request = request();
        change(&mut request);
        check(&request).err().map(|response| response.status().as_u16())
    }

    #[test]
    fn only_a_complete_upgrade_request_is_valid() {
        assert_eq!(status(|_| ()), None);
        assert_eq!(status(|r| *r.method_mut() = Method::POST), Some(405));
        assert_eq!(status(|r| *r.version_mut() = Version::HTTP_10), Some(426));
        for (name, without) in [
            ("upgrade", 426),
            ("connection", 426),
            ("sec-websocket-version", 426),
            ("sec-websocket-key", 400),
            ("host", 400),
        ] {
            let removed = status(|r| drop(r.headers_mut().remove(name)));
            assert_eq!(removed, Some(without), "without {name}");
        }
        for (name, value, expected) in [
            ("connection", "upgrade", None),
            ("connection", "keep-alive", Some(426)),
            ("upgrade", "h2c, websocket", None),
            ("upgrade", "websocketx", Some(426)),
            ("sec-websocket-version", "8", Some(426)),
            ("sec-websocket-key", "", Some(400)),
            ("sec-websocket-key", "short", Some(400)),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ", Some(400)),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZWxvbmdlcg==", Some(400)),
            ("content-length", "0", None),
            ("content-length", "5", Some(400)),
            ("transfer-encoding", "chunked", Some(400)),
            ("sec-websocket-protocol", "chat", None),
            ("sec-websocket-protocol", "tidegate.token.abc, tidegate.v1", None),
            ("sec-websocket-protocol", "tidegate.token.abc", Some(400)),
        ] {
            let changed = status(|r| drop(r.headers_mut().insert(name, value.parse().unwrap())));
            assert_eq!(changed, expected, "{name}: {value}");
        }
        for name in ["host", "sec-websocket-key"] {
            let again = request().headers()[name].clone();
            let twice = status(|r| assert!(r.headers_mut().append(name, again)));
            assert_eq!(twice, Some(400), "{name} twice");
        }
    }

    #[test]
    fn a_request_without_upgrade_is_told_what_is_required() {
        let plain = Request::get("/ws/chat/1/").body(()).unwrap();
        let answer = check(&plain).err().unwrap();
        assert_eq!(answer.status(), StatusCode::UPGRADE_REQUIRED);
        assert_eq!(answer.headers()["upgrade"], "websocket");
        assert_eq!(answer.headers()["sec-websocket-version"], "13");
    }

    #[test]
    fn the_response_switches_protocols() {
        let answer = check(&request()).ok().unwrap().accept(None);
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(answer.headers()["upgrade"], "websocket");
        assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!answer.headers().contains_key("sec-websocket-protocol"));

        let mut offering = request();
        let offered = "chat, tidegate.v1".parse().unwrap();
        offering.headers_mut().insert("sec-websocket-protocol", offered);
        let refused = check(&offering).ok().unwrap().accept_to_close();
        assert_eq!(refused.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(refused.headers()["sec-websocket-protocol"], "tidegate.v1");
    }
}
