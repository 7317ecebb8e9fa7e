//! Facts about handshakes.

use std::time::Duration;

use tracing::{info, warn};

use super::definitions::{ROUTE, buckets, metrics, words};
use super::tokens::CREDENTIAL_REJECTIONS;

metrics! {
    /// WebSocket handshakes: admitted, or why not.
    HANDSHAKES = counter "tidegate_handshakes_total" [
        route: ROUTE,
        outcome: words(&[&[ADMITTED], REJECTIONS, CREDENTIAL_REJECTIONS]),
    ];
    /// From an upgrade request to its decision.
    HANDSHAKE_DURATION = histogram "tidegate_handshake_duration_seconds" in buckets::REQUEST;
    /// Authorize URLs that gave no decision.
    AUTHORIZE_FAILURES = counter "tidegate_authorize_failures_total";
    /// Requests to the token endpoint that got no token.
    TOKEN_REQUESTS_REFUSED = counter "tidegate_token_requests_refused_total" [
        cause: words(&[&["bad_request", "method", "csrf", "body"], REJECTIONS, CREDENTIAL_REJECTIONS]),
    ];
}

const ADMITTED: &str = "admitted";

/// Why a client stays out, whatever its credentials.
const REJECTIONS: &[&str] = &[
    "origin",
    "no_credentials",
    "several_cookies",
    "channel",
    "authorize",
    "authorize_unavailable",
    "connects",
    "connections",
    "connections_per_ip",
];

/// A handshake was decided; `cause` says why it was refused.
pub fn finished(route: &str, cause: Option<&'static str>, took: Duration) {
    HANDSHAKES.at([route.to_owned(), cause.unwrap_or(ADMITTED).to_owned()]).increment(1);
    HANDSHAKE_DURATION.get().record(took);
    if let Some(cause) = cause {
        info!(event = "handshake_refused", route, cause, "a handshake was refused");
    }
}

/// The backend that decides about channels gave no decision.
pub fn authorize_failed(route: &str, why: &str) {
    AUTHORIZE_FAILURES.get().increment(1);
    warn!(
        event = "authorize_failed",
        route, why, "the authorize URL gave no decision; the client stays out"
    );
}

/// The token endpoint gave no token; `cause` is a word of a fixed set.
pub fn issue_refused(cause: &'static str) {
    TOKEN_REQUESTS_REFUSED.at([cause]).increment(1);
    info!(event = "issue_refused", cause, "the token endpoint gave no token");
}
