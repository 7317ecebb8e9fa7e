//! Facts about the server API.

use metrics::counter;
use tracing::{debug, warn};

/// A call of the server API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Disconnect,
    Publish,
    Tokens,
    Presence,
}

impl Call {
    fn label(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::Publish => "publish",
            Self::Tokens => "tokens",
            Self::Presence => "presence",
        }
    }
}

/// A call was answered with this HTTP status.
pub fn api_called(call: Call, status: u16) {
    let (call, outcome) = (call.label(), outcome(status));
    counter!("tidegate_api_calls_total", "call" => call, "outcome" => outcome).increment(1);
    match outcome {
        // Somebody is at the door who should not be there, or a key was not rolled out.
        "unauthorized" => warn!(event = "api_unauthorized", call, "a call without a valid API key"),
        _ => debug!(event = "api_called", call, outcome),
    }
}

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
