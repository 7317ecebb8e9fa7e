//! The server API, what its callers change, and commands between nodes.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::LazyLock;

use metrics::Counter;
use tracing::{debug, info, warn};

use super::definitions::{metrics, words};
use super::log::AUDIT;
use crate::protocol::label_enum;

metrics! {
    /// Calls of the server API, by outcome.
    API_CALLS = counter "tidegate_api_calls_total" [
        call: words(&[Call::LABELS]),
        outcome: words(&[CallOutcome::LABELS]),
    ];
    /// Commands from other nodes, and answers to commands, that this node received.
    COMMANDS = counter "tidegate_control_orders_total" [outcome: words(&[CommandOutcome::LABELS])];
}

label_enum! {
    /// A call of the server API.
    pub enum Call {
        Publish => "publish",
        Tokens => "tokens",
        Disconnect => "disconnect",
        Drain => "drain",
        Channels => "channels",
        Channel => "channel",
        Presence => "presence",
        History => "history",
        Tail => "tail",
        Connections => "connections",
        Explain => "explain",
        Limits => "limits",
        ResetLimits => "reset_limits",
        Debug => "debug",
        Debugged => "debugged",
    }
}

label_enum! {
    /// How a call was answered.
    enum CallOutcome {
        Ok => "ok",
        Unauthorized => "unauthorized",
        ApiDisabled => "api_disabled",
        Timeout => "timeout",
        NotFound => "not_found",
        TooLarge => "too_large",
        TooMany => "too_many",
        /// Not all nodes answered.
        Incomplete => "incomplete",
        EngineDown => "engine_down",
        BadRequest => "bad_request",
    }
}

impl CallOutcome {
    fn of_status(status: u16) -> Self {
        match status {
            200..300 => Self::Ok,
            401 => Self::Unauthorized,
            403 => Self::ApiDisabled,
            408 => Self::Timeout,
            404 => Self::NotFound,
            413 => Self::TooLarge,
            429 => Self::TooMany,
            504 => Self::Incomplete,
            503 => Self::EngineDown,
            _ => Self::BadRequest,
        }
    }
}

/// The calls of which there may be one for each publication.
static PUBLISHED: LazyLock<Counter> =
    LazyLock::new(|| API_CALLS.at([Call::Publish.label(), CallOutcome::Ok.label()]));

/// A call from this address was answered with this HTTP status.
pub fn api_called(call: Call, status: u16, from: SocketAddr) {
    let outcome = CallOutcome::of_status(status);
    match (call, outcome) {
        (Call::Publish, CallOutcome::Ok) => PUBLISHED.increment(1),
        _ => API_CALLS.at([call.label(), outcome.label()]).increment(1),
    }
    let (call, is_unauthorized) = (call.label(), outcome == CallOutcome::Unauthorized);
    let outcome = outcome.label();
    if is_unauthorized {
        // The caller should not have access, or a new key is missing on one side.
        info!(target: AUDIT, event = "api_unauthorized", call, %from, "a call without a valid API key");
    } else {
        debug!(event = "api_called", call, outcome, %from, "a call of the server API");
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

/// An audit event: who did `what`, or to whom. `key` is the number of the API key in the config, from 1; the key
/// itself is never logged.
pub fn audit(action: Action, key: usize, from: SocketAddr, what: &dyn Display) {
    match action {
        // One line for each publication would be too many at a higher level.
        Action::Published => {
            debug!(target: AUDIT, event = "admin_published", key, %from, %what, "published through the API");
        }
        Action::TokenIssued => info!(
            target: AUDIT, event = "admin_token_issued", key, %from, user = %what,
            "a connection token was issued through the API"
        ),
        Action::Disconnect => info!(
            target: AUDIT, event = "admin_disconnect", key, %from, %what,
            "connections were disconnected through the API"
        ),
        Action::LimitsReset => info!(
            target: AUDIT, event = "admin_limits_reset", key, %from, user = %what,
            "the limits of a user were reset through the API"
        ),
        Action::Debug => info!(
            target: AUDIT, event = "admin_debug", key, %from, %what,
            "debug lines were enabled through the API"
        ),
        Action::Drain => info!(
            target: AUDIT, event = "admin_drain", key, %from, node = %what,
            "this node was drained through the API"
        ),
    }
}

label_enum! {
    /// What became of a command that this node received.
    pub enum CommandOutcome {
        Done => "done",
        /// A thread of this node has not answered in time.
        Incomplete => "incomplete",
        /// Too many commands came at once.
        Dropped => "dropped",
        TooLarge => "too_large",
        /// This node does not know its version or kind.
        Unknown => "unknown",
        Malformed => "malformed",
    }
}

/// This node received a command, or an answer to one, from another node or from itself.
pub fn command_received(outcome: CommandOutcome) {
    let label = outcome.label();
    COMMANDS.at([label]).increment(1);
    if outcome != CommandOutcome::Done {
        warn!(event = "order_not_done", outcome = label, "a command was not completed");
    }
}

/// What a disconnect command has reached.
#[derive(Debug, Clone, Copy)]
pub struct Disconnected {
    pub connections: u64,
    /// Nodes that answered, out of `nodes`.
    pub answered: u64,
    pub nodes: u64,
}

/// An audit event: a server disconnected the connections of `id`, which is of the kind `by`. `None` = the command
/// could not be sent.
pub fn disconnected(by: &'static str, id: &str, code: u16, reached: Option<Disconnected>) {
    match reached {
        Some(Disconnected { connections: closed, answered, nodes: asked }) => info!(
            target: AUDIT,
            event = "disconnect_ordered",
            by, id, code, closed, answered, asked, "connections were disconnected by a server"
        ),
        None => {
            warn!(target: AUDIT, event = "disconnect_failed", by, id, code, "failed to send a disconnect command");
        }
    }
}
