//! Facts about the server API.

use std::fmt::Display;
use std::net::SocketAddr;

use tracing::{debug, info};

use super::definitions::{labels, metrics, words};
use super::log::AUDIT;

metrics! {
    /// Calls of the server API, by how they were answered.
    API_CALLS = counter "tidegate_api_calls_total" [call: words(&[Call::LABELS]), outcome: words(&[OUTCOMES])];
}

labels! {
    /// A call of the server API.
    pub enum Call {
        Publish = "publish",
        Tokens = "tokens",
        Disconnect = "disconnect",
        Drain = "drain",
        Channels = "channels",
        Channel = "channel",
        Presence = "presence",
        History = "history",
        Tail = "tail",
        Connections = "connections",
        Limits = "limits",
        ResetLimits = "reset_limits",
        Debug = "debug",
        Debugged = "debugged",
    }
}

/// A call was answered with this HTTP status.
pub fn api_called(call: Call, status: u16) {
    let (call, outcome) = (call.label(), outcome(status));
    API_CALLS.at([call, outcome]).increment(1);
    match outcome {
        // Somebody is at the door who should not be there, or a key was not rolled out.
        "unauthorized" => {
            info!(target: AUDIT, event = "api_unauthorized", call, "a call without a valid API key");
        }
        _ => debug!(event = "api_called", call, outcome, "a call of the server API"),
    }
}

const OUTCOMES: &[&str] = &[
    "ok",
    "unauthorized",
    "api_disabled",
    "timeout",
    "not_found",
    "too_large",
    "too_many",
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
        404 => "not_found",
        413 => "too_large",
        429 => "too_many",
        504 => "incomplete",
        503 => "engine_down",
        _ => "bad_request",
    }
}

/// What a caller of the server API has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Published,
    TokenIssued,
    Disconnect,
    LimitsReset,
    Drain,
    Debug,
}

/// An audit event: who did what to whom. `key` is the API key's number in the config, from 1; the key itself is
/// nowhere.
pub fn audit(action: Action, key: usize, from: SocketAddr, what: &dyn Display) {
    match action {
        // As many as there are publications.
        Action::Published => {
            debug!(target: AUDIT, event = "admin_published", key, %from, %what, "published by the API");
        }
        Action::TokenIssued => info!(
            target: AUDIT, event = "admin_token_issued", key, %from, user = %what,
            "a connection token was issued by the API"
        ),
        Action::Disconnect => info!(
            target: AUDIT, event = "admin_disconnect", key, %from, %what,
            "connections were ordered closed by the API"
        ),
        Action::LimitsReset => info!(
            target: AUDIT, event = "admin_limits_reset", key, %from, user = %what,
            "a user's limits were reset by the API"
        ),
        Action::Debug => info!(
            target: AUDIT, event = "admin_debug", key, %from, %what,
            "debug lines were ordered by the API"
        ),
        Action::Drain => info!(
            target: AUDIT, event = "admin_drain", key, %from, node = %what,
            "this node drains by order of the API"
        ),
    }
}
