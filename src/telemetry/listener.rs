//! Facts about accepting connections.

use tracing::{debug, error};

use super::definitions::{metrics, words};

metrics! {
    /// Connections that the operating system could not give.
    ACCEPT_ERRORS = counter "tidegate_accept_errors_total";
    /// Connections that ended in the middle of a request.
    HTTP_ERRORS = counter "tidegate_http_errors_total" [
        cause: words(&[&["timeout", "too_large", "malformed", "broken"]]),
    ];
}

/// The operating system gave no connection.
pub fn accept_failed(error: &std::io::Error) {
    ACCEPT_ERRORS.get().increment(1);
    error!(event = "accept_failed", %error, "cannot accept connections");
}

/// A connection ended in the middle of a request: a slow or oversized head, garbage, a reset.
pub fn http_failed(error: &hyper::Error) {
    let cause = if error.is_timeout() {
        "timeout"
    } else if error.is_parse_too_large() {
        "too_large"
    } else if error.is_parse() {
        "malformed"
    } else {
        "broken"
    };
    HTTP_ERRORS.at([cause]).increment(1);
    debug!(event = "http_failed", cause, %error, "a connection ended in the middle of a request");
}
