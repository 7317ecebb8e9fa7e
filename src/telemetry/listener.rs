//! Facts about accepting connections.

use std::sync::LazyLock;

use metrics::Gauge;
use tracing::{debug, error};

use super::definitions::{metrics, words};

metrics! {
    /// Open connections of the public port, whatever they carry.
    CLIENT_SOCKETS = gauge "tidegate_client_sockets";
    /// How many may be open, by `[server] max_connections`.
    CLIENT_SOCKETS_MAX = gauge "tidegate_client_sockets_max";
    /// Connections that the operating system could not give.
    ACCEPT_ERRORS = counter "tidegate_accept_errors_total";
    /// Connections that ended in the middle of a request.
    HTTP_ERRORS = counter "tidegate_http_errors_total" [
        cause: words(&[&["timeout", "too_large", "malformed", "broken"]]),
    ];
}

static OPEN: LazyLock<Gauge> = LazyLock::new(|| CLIENT_SOCKETS.get());

/// A connection of the public port takes its place.
pub fn client_socket_opened() {
    OPEN.increment(1.0);
}

/// It leaves it.
pub fn client_socket_closed() {
    OPEN.decrement(1.0);
}

/// As many places are there from now on.
pub fn client_sockets_bounded(max: usize) {
    CLIENT_SOCKETS_MAX.get().set(max as f64);
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
