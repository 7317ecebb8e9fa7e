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
pub fn authorize_failed(why: &str) {
    counter!("tidegate_authorize_failures_total").increment(1);
    warn!(
        event = "authorize_failed",
        why, "the authorize URL gave no decision; the client stays out"
    );
}
