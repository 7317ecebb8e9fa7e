//! Facts about the server API.

use tracing::{debug, warn};

use super::definitions::{labels, metrics, words};

metrics! {
    /// Calls of the server API, by how they were answered.
    API_CALLS = counter "tidegate_api_calls_total" [call: words(&[Call::LABELS]), outcome: words(&[OUTCOMES])];
}

labels! {
    /// A call of the server API.
    pub enum Call {
        Disconnect = "disconnect",
        Publish = "publish",
        Tokens = "tokens",
        Presence = "presence",
    }
}

/// A call was answered with this HTTP status.
pub fn api_called(call: Call, status: u16) {
    let (call, outcome) = (call.label(), outcome(status));
    API_CALLS.at([call, outcome]).increment(1);
    match outcome {
        // Somebody is at the door who should not be there, or a key was not rolled out.
        "unauthorized" => warn!(event = "api_unauthorized", call, "a call without a valid API key"),
        _ => debug!(event = "api_called", call, outcome),
    }
}

const OUTCOMES: &[&str] = &[
    "ok",
    "unauthorized",
    "api_disabled",
    "timeout",
    "too_large",
    "incomplete",
    "engine_down",
    "bad_request",
];

fn outcome(status: u16) -> &'static str {
    match status {
        200..300 => "ok",
        401 => "unauthorized",
        403 => "api_disabled",
        408 => "timeout",
        413 => "too_large",
        504 => "incomplete",
        503 => "engine_down",
        _ => "bad_request",
    }
}
