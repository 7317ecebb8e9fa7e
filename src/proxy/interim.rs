//! Interim responses (RFC 9110 section 15.2) of the proxy's upstream, such as 103 (Early Hints), on their way to the
//! client. The HTTP library cannot send them, so the listener writes them into the connection itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Request, StatusCode};

use crate::protocol::header_has_token;

/// The most bytes that wait for a client; more are dropped, since an interim response is only a hint.
const MAX_BYTES: usize = 64 * 1024;

/// Headers of a connection, and those that would frame a body, which an interim response has not.
const NOT_PASSED_ON: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::CONTENT_LENGTH,
];

/// The interim responses to one request.
#[derive(Debug, Clone, Default)]
pub struct InterimResponses(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    waker: Option<Waker>,
}

impl InterimResponses {
    /// Collects the interim responses to `request`. 100 (Continue) is left out: the listener sends its own when it
    /// reads the body.
    pub(super) fn collect_from<B>(&self, request: &mut Request<B>) {
        let interim = self.clone();
        hyper::ext::on_informational(request, move |response| {
            let status = response.status();
            if status != StatusCode::CONTINUE && status != StatusCode::SWITCHING_PROTOCOLS {
                interim.push(status, response.headers());
            }
        });
    }

    fn push(&self, status: StatusCode, headers: &HeaderMap) {
        let reason = status.canonical_reason().unwrap_or("Interim Response");
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
        let is_named =
            |name: &HeaderName| header_has_token(headers, &header::CONNECTION, name.as_str());
        let is_passed_on = |name: &HeaderName| !NOT_PASSED_ON.contains(name) && !is_named(name);
        for (name, value) in headers.iter().filter(|(name, _)| is_passed_on(name)) {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.bytes.len() + head.len() <= MAX_BYTES {
            queue.bytes.extend_from_slice(&head);
        }
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }

    /// Takes the complete interim responses that have come. `waker` is woken by the next one.
    pub fn take(&self, waker: &Waker) -> Vec<u8> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.waker = Some(waker.clone());
        std::mem::take(&mut queue.bytes)
    }
}
