//! The WebSocket upgrade itself: the request's checks (RFC 6455 section 4.2.1) and the 101.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};

use super::credentials::{PROTOCOL, subprotocols};
use super::rejection::json_error;

/// A request that may become a WebSocket.
pub struct Accepted {
    /// The value of `Sec-WebSocket-Accept`.
    accept: HeaderValue,
    /// The client offered `tidegate.v1`.
    offers_protocol: bool,
}

/// Checks an upgrade request; the error is the answer to what is none.
pub fn check<B>(request: &Request<B>) -> Result<Accepted, Response<Full<Bytes>>> {
    let headers = request.headers();
    if request.method() != Method::GET {
        let mut response = json_error(StatusCode::METHOD_NOT_ALLOWED, "GET only", "method");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return Err(response);
    }
    if request.version() != Version::HTTP_11
        || !has_token(headers, &header::UPGRADE, "websocket")
        || !has_token(headers, &header::CONNECTION, "upgrade")
    {
        return Err(upgrade_required("this is a WebSocket endpoint"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(upgrade_required("WebSocket version 13 only"));
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) => key.as_bytes(),
        _ => return Err(bad_request("one Sec-WebSocket-Key, please")),
    };
    if STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
        return Err(bad_request("Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    let accept = HeaderValue::from_str(&accept_key(key))
        .map_err(|_| bad_request("Sec-WebSocket-Key cannot be answered"))?;
    let offers_protocol = subprotocols(headers).any(|offered| offered == PROTOCOL);
    Ok(Accepted { accept, offers_protocol })
}

impl Accepted {
    /// The 101 of an admitted client.
    pub fn switch(self, subprotocol: Option<&str>) -> Response<Full<Bytes>> {
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

    /// The 101 of a refused client, which is closed at once. It must select what was offered, or a
    /// browser would fail before it reads the close code.
    pub fn switch_refused(self) -> Response<Full<Bytes>> {
        let protocol = self.offers_protocol.then_some(PROTOCOL);
        self.switch(protocol)
    }
}

/// RFC 6455 section 4.2.2, step 5.4: SHA-1 is the protocol's, not ours, and guards nothing.
fn accept_key(key: &[u8]) -> String {
    use sha1::{Digest, Sha1};
    let mut sha1 = Sha1::new();
    sha1.update(key);
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sha1.finalize())
}

/// Whether a comma-separated header has `token`, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
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

    #[test]
    fn the_key_of_the_rfc_is_answered_as_the_rfc_says() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    fn status(change: impl FnOnce(&mut Request<()>)) -> Option<StatusCode> {
        let mut request = Request::builder()
            .uri("/ws/chat/1/")
            .header("upgrade", "WebSocket")
            .header("connection", "keep-alive, Upgrade")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap();
        change(&mut request);
        check(&request).err().map(|response| response.status())
    }

    #[test]
    fn only_a_whole_upgrade_is_one() {
        assert_eq!(status(|_| ()), None);
        assert_eq!(
            status(|r| *r.method_mut() = Method::POST),
            Some(StatusCode::METHOD_NOT_ALLOWED)
        );
        assert_eq!(
            status(|r| *r.version_mut() = Version::HTTP_10),
            Some(StatusCode::UPGRADE_REQUIRED)
        );
        for name in ["upgrade", "connection", "sec-websocket-version"] {
            let removed = status(|r| drop(r.headers_mut().remove(name)));
            assert_eq!(removed, Some(StatusCode::UPGRADE_REQUIRED), "{name}");
        }
        for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZWxvbmdlcg=="] {
            let value = HeaderValue::from_str(key).unwrap();
            let changed = status(|r| drop(r.headers_mut().insert("sec-websocket-key", value)));
            assert_eq!(changed, Some(StatusCode::BAD_REQUEST), "{key}");
        }
    }
}
