//! Every close that the gateway sends: its code, its text and what the client should do (docs/protocol.md).

use super::label_enum;

label_enum! {
    /// Why the gateway closes a connection.
    pub enum CloseReason {
        /// 1000: the client closed first, or the gateway has nothing more to send.
        Normal => "normal",
        /// 1002: the client broke RFC 6455.
        ProtocolError => "protocol_error",
        /// 1003: a binary message on a route that does not accept them.
        BinaryRefused => "binary_refused",
        /// 1007: text that is not valid UTF-8.
        InvalidUtf8 => "invalid_utf8",
        /// 1007: a compressed message that cannot be inflated.
        InvalidCompression => "invalid_compression",
        /// 1008: the client kept sending after refusals.
        Flooding => "flooding",
        /// 1009: a message larger than `max_message_bytes`.
        MessageTooBig => "message_too_big",
        /// 1011: a fault of the gateway.
        InternalError => "internal_error",
        /// 1012: this node is stopping.
        Restarting => "restarting",
        /// 1012: publications may have been missed while the engine was unavailable.
        BrokerGap => "broker_gap",
        /// 1013: the engine or the upstream is unavailable, or the node is full.
        Overloaded => "overloaded",
        /// 1014: the upstream of a pass route broke RFC 6455, or takes nothing any more.
        BadGateway => "bad_gateway",
        /// 4001: no valid credentials, or they have expired.
        Unauthenticated => "unauthenticated",
        /// 4001, or the code of the command: a server closed the connection through the server API.
        Disconnected => "disconnected",
        /// 4003: the origin or the channel is not allowed.
        Forbidden => "forbidden",
        /// 4008: the send queue of the connection overflowed.
        TooSlow => "too_slow",
        /// 4009: the client did not answer pings.
        PongTimeout => "pong_timeout",
        /// 4029: too many open connections, or too many connects.
        TooManyConnections => "too_many_connections",
    }
}

label_enum! {
    /// What a client should do after a close; [`Self::description`] says it exactly.
    pub enum ClientAction {
        Stop => "stop",
        FixClient => "fix_client",
        Resume => "resume",
        BackOff => "back_off",
        Wait => "wait",
        Reauthenticate => "reauthenticate",
    }
}

impl ClientAction {
    /// The text for the documentation.
    pub fn description(self) -> &'static str {
        match self {
            Self::Stop => {
                "do not reconnect automatically: the gateway has sent everything, or it would refuse the next connection too"
            }
            Self::FixClient => "do not reconnect: the client has a bug, and would be closed again",
            Self::Resume => {
                "reconnect and resume: after `reconnect_in_ms` if `going_away` came, or else after a short random delay"
            }
            Self::BackOff => {
                "reconnect and resume, after a random delay that grows with each attempt; if an `error` with `retry_after` came before the close, not earlier than that"
            }
            Self::Wait => {
                "reconnect after the `retry_after` of the `error` that came before the close"
            }
            Self::Reauthenticate => {
                "get new credentials (a connection token or a JWT), then reconnect and resume"
            }
        }
    }
}

impl CloseReason {
    /// The status code of the close frame (RFC 6455 section 7.4).
    pub fn code(self) -> u16 {
        self.row().0
    }

    /// The reason text of the close frame; at most 123 bytes.
    pub fn text(self) -> &'static str {
        self.row().1
    }

    /// What the client should do. It depends on the code alone, so that a client need not read the text.
    pub fn action(self) -> ClientAction {
        self.row().2
    }

    const fn row(self) -> (u16, &'static str, ClientAction) {
        use ClientAction::{BackOff, FixClient, Reauthenticate, Resume, Stop, Wait};
        match self {
            Self::Normal => (1000, "", Stop),
            Self::ProtocolError => (1002, "protocol error", FixClient),
            Self::BinaryRefused => (1003, "binary messages are not accepted", FixClient),
            Self::InvalidUtf8 => (1007, "text is not UTF-8", FixClient),
            Self::InvalidCompression => (1007, "compressed data is not valid", FixClient),
            Self::Flooding => (1008, "kept sending after being refused", Stop),
            Self::MessageTooBig => (1009, "message too big", FixClient),
            Self::InternalError => (1011, "internal error", BackOff),
            Self::Restarting => (1012, "restarting", Resume),
            Self::BrokerGap => (1012, "publications may have been missed", Resume),
            Self::Overloaded => (1013, "try again later", BackOff),
            Self::BadGateway => (1014, "bad gateway", BackOff),
            Self::Unauthenticated => (4001, "not authenticated", Reauthenticate),
            Self::Disconnected => (4001, "disconnected by the server", Reauthenticate),
            Self::Forbidden => (4003, "not allowed", Stop),
            Self::TooSlow => (4008, "too slow", Resume),
            Self::PongTimeout => (4009, "no sign of life", Resume),
            Self::TooManyConnections => (4029, "too many connections", Wait),
        }
    }
}

/// Whether a peer may send this code in a close frame: those of RFC 6455 section 7.4, those that IANA has registered
/// since (1012 to 1014), and those of libraries and applications (3000 to 4999).
pub fn is_valid_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests;
