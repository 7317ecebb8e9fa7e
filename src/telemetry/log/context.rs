//! The fields that tie a log line to one connection or one message, so that all lines about it can be found.

use crate::protocol::{ChannelName, ConnectionId, RequestId, UserId};

/// The fields of a connection, while it is open and for what it started.
#[derive(Clone, Copy)]
pub struct ConnectionFields<'a> {
    pub connection: ConnectionId,
    /// The request that opened the connection.
    pub request: &'a RequestId,
    /// `None` for an anonymous client.
    pub user: Option<&'a UserId>,
    /// `None` for a connection without a channel.
    pub channel: Option<&'a ChannelName>,
}

/// The fields of one message of a connection.
#[derive(Clone, Copy)]
pub struct MessageFields<'a> {
    pub connection: ConnectionFields<'a>,
    /// `None` for a WebSocket upstream, whose messages have no ids.
    pub message_id: Option<&'a str>,
    /// `None` for a WebSocket upstream.
    pub task_id: Option<&'a str>,
}

/// Logs an event of a connection: the fields of [`ConnectionFields`], then its own. `audit` before the level
/// makes it an audit event.
macro_rules! connection_event {
    (audit $level:ident, $($rest:tt)*) => {
        $crate::telemetry::log::connection_event!(@ $crate::telemetry::log::AUDIT, $level, $($rest)*)
    };
    (@ $target:expr, $level:ident, $fields:expr, event = $event:literal, $($rest:tt)*) => {{
        let fields: $crate::telemetry::log::ConnectionFields<'_> = $fields;
        ::tracing::$level!(
            target: $target,
            event = $event,
            connection = %fields.connection,
            request = %fields.request,
            user = fields.user.map(::tracing::field::display),
            channel = fields.channel.map($crate::protocol::ChannelName::as_str),
            $($rest)*
        )
    }};
    ($level:ident, $($rest:tt)*) => {
        $crate::telemetry::log::connection_event!(@ module_path!(), $level, $($rest)*)
    };
}
pub(in crate::telemetry) use connection_event;

/// Logs an event of a message: the fields of [`MessageFields`], then its own.
macro_rules! message_event {
    ($level:ident, $fields:expr, event = $event:literal, $($rest:tt)*) => {{
        let message: $crate::telemetry::log::MessageFields<'_> = $fields;
        $crate::telemetry::log::connection_event!(
            $level,
            message.connection,
            event = $event,
            message_id = message.message_id,
            task_id = message.task_id,
            $($rest)*
        )
    }};
}
pub(in crate::telemetry) use message_event;
