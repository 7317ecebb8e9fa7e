//! Routes with a fixed reply, for monitoring. They send the same text over HTTP and over WebSocket.
//!
//! They do not check credentials, `Host` or `Origin`, since the reply is the same for every client. Their sockets
//! count as connections during the short time that they are open.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::config;
use crate::handshake::json_error;

/// Answers a plain request. A draining node answers 503, so that a load balancer chooses another node.
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
        return json_error(StatusCode::SERVICE_UNAVAILABLE, "this node is stopping", "draining");
    }
    let mut response = Response::new(Full::from(Bytes::copy_from_slice(reply.reply.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
