//! Whom a line is about, so that all that concerns one connection or one message can be found.

use crate::protocol::{ChannelName, ConnectionId, RequestId, UserId};

/// A connection that is open, or was when what is told began.
#[derive(Clone, Copy)]
pub struct About<'a> {
    pub connection: ConnectionId,
    /// That opened it.
    pub request: &'a RequestId,
    /// `None` = anonymous.
    pub user: Option<&'a UserId>,
    pub channel: &'a ChannelName,
}

/// One of its messages; an upstream's socket has no ids.
#[derive(Clone, Copy)]
pub struct AboutMessage<'a> {
    pub about: About<'a>,
    pub message_id: Option<&'a str>,
    pub task_id: Option<&'a str>,
}

/// A line about a connection: the fields of [`About`], then its own. `audit` before its level makes it one
/// of the audit's.
macro_rules! line {
    (audit $level:ident, $($rest:tt)*) => {
        $crate::telemetry::about::line!(@ $crate::telemetry::log::AUDIT, $level, $($rest)*)
    };
    (@ $target:expr, $level:ident, $about:expr, event = $event:literal, $($rest:tt)*) => {{
        let about: $crate::telemetry::about::About<'_> = $about;
        ::tracing::$level!(
            target: $target,
            event = $event,
            connection = %about.connection,
            request = %about.request,
            user = about.user.map(::tracing::field::display),
            channel = about.channel.as_str(),
            $($rest)*
        )
    }};
    ($level:ident, $($rest:tt)*) => {
        $crate::telemetry::about::line!(@ module_path!(), $level, $($rest)*)
    };
}
pub(super) use line;

/// A line about a message: the fields of [`AboutMessage`], then its own.
macro_rules! message_line {
    ($level:ident, $message:expr, event = $event:literal, $($rest:tt)*) => {{
        let message: $crate::telemetry::about::AboutMessage<'_> = $message;
        $crate::telemetry::about::line!(
            $level,
            message.about,
            event = $event,
            message_id = message.message_id,
            task_id = message.task_id,
            $($rest)*
        )
    }};
}
pub(super) use message_line;
