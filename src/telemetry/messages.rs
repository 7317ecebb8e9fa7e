//! Clients' messages: received, accepted or refused; rates, limits and the leases that they hold.

use std::time::Duration;

use metrics::{Counter, SharedString};
use tracing::{debug, warn};

use super::definitions::{ROUTE, metrics, millis, words};
use super::log::{ConnectionFields, connection_event};
use super::recent_errors::{self, ErrorScope, Occurrence};
use super::replies::{Duplicate, duplicates_dropped};
use crate::protocol::{ChannelName, ErrorCode, label_enum};

metrics! {
    /// Clients' messages: accepted by the upstream, recognized as duplicates, or refused with an error code.
    MESSAGES = counter "tidegate_messages_total" [route: ROUTE, outcome: words(&[MessageOutcome::LABELS])];
    /// Requests for the turn of a channel, on routes with `concurrent = "queue"` or `"reject"`.
    TURNS = counter "tidegate_turns_total" [route: ROUTE, outcome: words(&[TurnOutcome::LABELS])];
    /// Messages that wait for the replies before them on their channel.
    WAITING = gauge "tidegate_messages_waiting";
    /// Refusals by a limit.
    LIMIT_REFUSALS = counter "tidegate_limit_refusals_total" [limit: words(&[LimitName::LABELS, LocalLimit::LABELS])];
    /// Times at which a limit could not be checked, because the engine was unavailable.
    LIMIT_ENGINE_DOWN = counter "tidegate_limit_engine_down_total" [limit: words(&[LimitName::LABELS])];
    /// Tokens of AI models that were charged to no user: the engine was unavailable for ten minutes, or the node stopped.
    USAGE_NOT_CHARGED = counter "tidegate_usage_not_charged_tokens_total";
    /// Renewals of leases that failed. They are tried again.
    LEASE_RENEWAL_FAILURES = counter "tidegate_lease_renewal_failures_total";
    /// Leases that were left to expire, because the engine was unavailable.
    LEASE_RELEASES_FORGOTTEN = counter "tidegate_lease_releases_forgotten_total";
}

label_enum! {
    /// What became of a client's message.
    enum MessageOutcome {
        /// The upstream accepted it.
        Queued => "queued",
        /// A message with the same id was relayed before.
        Duplicate => "duplicate";
        Refused(ErrorCode),
    }
}

label_enum! {
    /// What became of a message that needed the turn of its channel.
    pub enum TurnOutcome {
        /// No reply was in progress.
        Free => "free",
        /// It waited for the replies before it, and was relayed.
        Waited => "waited",
        /// A reply was in progress, or the queue was full.
        Busy => "busy",
        /// Its client disconnected while it waited.
        Left => "left",
        /// The node stopped while it waited.
        Stopping => "stopping",
        /// The engine was unavailable.
        EngineDown => "engine_down",
        /// The route relays messages at once since a reload.
        Reloaded => "reloaded",
    }
}

label_enum! {
    /// A limit per user, which all nodes share through the engine. Its label is also part of the engine's keys.
    pub enum LimitName {
        Messages => "messages_per_user",
        /// Tokens of AI models.
        Usage => "usage_per_user",
        Connects => "connects_per_user",
        Connections => "connections_per_user",
        Generations => "generations_per_user",
        TokenRequests => "token_requests_per_user",
        TokenRequestsOfIp => "token_requests_per_ip",
    }
}

label_enum! {
    /// A limit of one connection or of this process.
    pub enum LocalLimit {
        MessagesPerConnection => "messages_per_connection",
        PingsPerConnection => "pings_per_connection",
        FramesPerConnection => "frames_per_connection",
        ConnectsPerIp => "connects_per_ip",
        ChannelsPerIp => "channels_per_ip",
        ConnectionsPerIp => "connections_per_ip",
        /// HTTP requests of one address that are not WebSocket handshakes.
        RequestsPerIp => "requests_per_ip",
        ConnectionsTotal => "connections_total",
        /// The rest of the process's file descriptors is for Redis, upstreams and the admin port.
        Descriptors => "descriptors",
        /// `[server] max_memory`.
        Memory => "memory",
    }
}

label_enum! {
    /// What a client sent.
    pub enum FrameKind {
        Message => "message",
        Ping => "ping",
        Cancel => "cancel",
        Resume => "resume",
        Refresh => "refresh",
        /// JSON that is not a valid frame.
        Invalid => "invalid",
        /// A text message on a route that passes messages on unread.
        Text => "text",
        /// A binary message.
        Binary => "binary",
    }
}

/// The messages of one route.
pub struct MessageMetrics {
    queued: Counter,
    duplicates: Counter,
    /// In the order of [`ErrorCode::ALL`].
    refused: Box<[Counter]>,
    /// In the order of [`TurnOutcome::ALL`].
    turns: Box<[Counter]>,
}

/// Counts a message as waiting until this is dropped.
pub struct WaitingMessage(());

impl WaitingMessage {
    pub fn new() -> Self {
        WAITING.get().increment(1.0);
        Self(())
    }
}

impl Drop for WaitingMessage {
    fn drop(&mut self) {
        WAITING.get().decrement(1.0);
    }
}

impl MessageMetrics {
    pub(super) fn new(route: &SharedString) -> Self {
        let counter =
            |outcome: MessageOutcome| MESSAGES.at([route.clone(), outcome.label().into()]);
        let refused = ErrorCode::ALL.iter().map(|code| counter(MessageOutcome::Refused(*code)));
        Self {
            queued: counter(MessageOutcome::Queued),
            duplicates: counter(MessageOutcome::Duplicate),
            refused: refused.collect(),
            turns: TurnOutcome::ALL
                .iter()
                .map(|outcome| TURNS.at([route.clone(), outcome.label().into()]))
                .collect(),
        }
    }

    /// A message needed the turn of its channel.
    pub fn turn(&self, outcome: TurnOutcome) {
        self.turns[outcome as usize].increment(1);
    }

    /// An upstream accepted a message.
    pub fn queued(&self, fields: ConnectionFields<'_>, task_id: Option<&str>) {
        self.queued.increment(1);
        connection_event!(
            debug,
            fields,
            event = "message_queued",
            task_id,
            "an upstream accepted a message"
        );
    }

    /// A message was answered with an error; `message_id` is the id that the client chose.
    pub fn refused(&self, fields: ConnectionFields<'_>, code: ErrorCode, message_id: Option<&str>) {
        self.refused[code as usize].increment(1);
        let code = code.label();
        recent_errors::record(Occurrence {
            scope: ErrorScope::Answer,
            code,
            connection: Some(fields.connection),
            user: fields.user,
            channel: fields.channel.map(ChannelName::as_str),
            task: None,
        });
        connection_event!(
            debug,
            fields,
            event = "message_refused",
            code,
            message_id,
            "a message was refused"
        );
    }

    /// A message that had been relayed before got the same answer and was not relayed again.
    pub fn duplicate(&self, fields: ConnectionFields<'_>, message_id: &str, task_id: &str) {
        self.duplicates.increment(1);
        duplicates_dropped(Duplicate::Message, 1);
        connection_event!(
            debug,
            fields,
            event = "message_repeated",
            message_id,
            task_id,
            "a duplicate message got the answer of the first one"
        );
    }
}

/// A client sent a frame. Its content is not logged.
pub fn frame_received(
    fields: ConnectionFields<'_>,
    kind: FrameKind,
    bytes: usize,
    message_id: Option<&str>,
) {
    connection_event!(
        debug,
        fields,
        event = "frame_received",
        kind = kind.label(),
        bytes,
        message_id,
        "received a frame from a client"
    );
}

/// A shared limit refused something. `route` is a path pattern, or empty for a limit of no route.
pub fn limit_refused(limit: LimitName, route: &str, user: &str, retry_after: Duration) {
    let limit = limit.label();
    LIMIT_REFUSALS.at([limit]).increment(1);
    let retry_after_ms = millis(retry_after);
    debug!(event = "limit_refused", limit, route, user, retry_after_ms, "a limit was exceeded");
}

/// A limit of a connection or of this process refused something.
pub fn local_limit_refused(limit: LocalLimit) {
    LIMIT_REFUSALS.at([limit.label()]).increment(1);
}

label_enum! {
    /// Who sent a message that is too large.
    pub enum TooBigFrom {
        Client => "client",
        Upstream => "upstream",
    }
}

/// A connection ends because of a message with at least this many bytes.
pub fn message_too_big(fields: ConnectionFields<'_>, from: TooBigFrom, bytes: u64, max: usize) {
    let from = from.label();
    connection_event!(
        info,
        fields,
        event = "message_too_big",
        from,
        bytes,
        max,
        "a message is larger than max_message_bytes"
    );
}

/// A connection is closed because its client is over this limit.
pub fn closed_over_limit(fields: ConnectionFields<'_>, limit: &'static str) {
    connection_event!(info, fields, event = "closed_over_limit", limit, "a client is over a limit");
}

/// A limit could not be checked, because the engine is unavailable.
pub fn limit_not_checked(limit: LimitName) {
    let limit = limit.label();
    LIMIT_ENGINE_DOWN.at([limit]).increment(1);
    debug!(event = "limit_not_known", limit, "failed to check a limit");
}

/// What a reply took is not charged to its user any more.
pub fn usage_not_charged(route: &str, user: &str, tokens: u64) {
    USAGE_NOT_CHARGED.get().increment(tokens);
    warn!(event = "usage_not_charged", route, user, tokens, "failed to charge a reply to its user");
}

/// Leases could not be renewed. They are tried again.
pub fn leases_not_renewed(count: usize) {
    LEASE_RENEWAL_FAILURES.get().increment(1);
    debug!(event = "leases_not_renewed", count, "failed to renew leases");
}

/// Leases could not be released, and are left to expire.
pub fn releases_forgotten(count: usize) {
    LEASE_RELEASES_FORGOTTEN.get().increment(u64::try_from(count).unwrap_or(u64::MAX));
    debug!(event = "releases_forgotten", count, "leases are left to expire");
}
