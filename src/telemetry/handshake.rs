//! Facts about handshakes.

use std::time::Duration;

use metrics::{counter, histogram};
use tracing::{info, warn};

/// A handshake was decided; `cause` says why it was refused.
pub fn finished(route: &str, cause: Option<&'static str>, took: Duration) {
    counter!("tidegate_handshakes_total", "outcome" => cause.unwrap_or("admitted")).increment(1);
    histogram!("tidegate_handshake_duration_seconds").record(took);
    if let Some(cause) = cause {
        info!(event = "handshake_refused", route, cause, "a handshake was refused");
    }
}

/// The backend that decides about channels gave no decision.
pub fn authorize_failed(route: &str, why: &str) {
    counter!("tidegate_authorize_failures_total").increment(1);
    warn!(
        event = "authorize_failed",
        route, why, "the authorize URL gave no decision; the client stays out"
    );
}

/// The token endpoint gave no token; `cause` is a word of a fixed set.
pub fn issue_refused(cause: &'static str) {
    counter!("tidegate_token_requests_refused_total", "cause" => cause).increment(1);
    info!(event = "issue_refused", cause, "the token endpoint gave no token");
}
