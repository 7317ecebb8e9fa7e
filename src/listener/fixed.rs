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
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::protocol::PathPattern;

    #[tokio::test]
    async fn a_draining_node_answers_503() {
        let path = PathPattern::parse("/health/").unwrap();
        let reply = config::FixedReply { path, reply: r#"{"status":"healthy"}"#.into(), after: 0 };
        for (method, draining, status, body) in [
            ("GET", false, 200, r#"{"status":"healthy"}"#),
            ("HEAD", false, 200, r#"{"status":"healthy"}"#),
            ("POST", false, 405, r#"{"code":"method","error":"GET or HEAD only"}"#),
            ("GET", true, 503, r#"{"code":"draining","error":"this node is stopping"}"#),
        ] {
            let request = Request::builder().method(method).body(()).unwrap();
            let answer = answer(&reply, &request, draining);
            assert_eq!(answer.status(), status, "{method}");
            assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
            assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
            let bytes = answer.into_body().collect().await.unwrap().to_bytes();
            let (found, expected): (serde_json::Value, serde_json::Value) =
                (serde_json::from_slice(&bytes).unwrap(), serde_json::from_str(body).unwrap());
            assert_eq!(found, expected, "{method}");
        }
    }
}
