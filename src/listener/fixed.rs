//! Routes that answer by themselves, for monitoring: one text over HTTP and over WebSocket.
//!
//! They ask for no credentials, no `Host` and no `Origin`: what they say is the same for everybody and says
//! nothing. Their sockets count as connections while they last, which is not long.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::config;
use crate::handshake::json_error;

/// The answer to a plain request. A node that stops says so, so that a load balancer looks elsewhere.
pub(super) fn answer<B>(
    reply: &config::FixedReply,
    request: &Request<B>,
    draining: bool,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = json_error(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD only", "method");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if draining {
        return json_error(StatusCode::SERVICE_UNAVAILABLE, "this node stops", "draining");
    }
    let mut response = Response::new(Full::from(Bytes::copy_from_slice(reply.reply.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
