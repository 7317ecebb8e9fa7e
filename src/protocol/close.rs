//! Every close the gateway sends: code, text and what the client should do (docs/protocol.md).

/// Why the gateway closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// 1000: the peer closed first, or the gateway has nothing more to say.
    Normal,
    /// 1002: the peer broke RFC 6455.
    ProtocolError,
    /// 1003: a binary message on a route that takes none.
    BinaryRefused,
    /// 1007: text that is not UTF-8.
    InvalidUtf8,
    /// 1008: went on sending after being refused.
    Flooding,
    /// 1009: a message over `max_message_bytes`.
    MessageTooBig,
    /// 1011: a fault of ours.
    InternalError,
    /// 1012: this node stops.
    Restarting,
    /// 1012: publications may have been missed while the broker was away.
    BrokerGap,
    /// 1013: the engine or the upstream cannot be reached, or the node is full.
    Overloaded,
    /// 4001: no valid credentials, or they have expired.
    Unauthenticated,
    /// 4001, unless it was ordered with another code: a server ended it.
    Disconnected,
    /// 4003: origin or channel not allowed.
    Forbidden,
    /// 4008: its send queue overflowed.
    TooSlow,
    /// 4009: no sign of life after a ping.
    PongTimeout,
    /// 4029: too many connections or connects.
    TooManyConnections,
}

impl CloseReason {
    pub const ALL: [Self; 16] = [
        Self::Normal,
        Self::ProtocolError,
        Self::BinaryRefused,
        Self::InvalidUtf8,
        Self::Flooding,
        Self::MessageTooBig,
        Self::InternalError,
        Self::Restarting,
        Self::BrokerGap,
        Self::Overloaded,
        Self::Unauthenticated,
        Self::Disconnected,
        Self::Forbidden,
        Self::TooSlow,
        Self::PongTimeout,
        Self::TooManyConnections,
    ];

    /// All values of the `reason` metric label that it has.
    pub const LABELS: [&'static str; Self::ALL.len()] = {
        let mut labels = [""; Self::ALL.len()];
        let mut index = 0;
        while index < labels.len() {
            labels[index] = Self::ALL[index].label();
            index += 1;
        }
        labels
    };

    /// The status code of the close frame (RFC 6455 section 7.4).
    pub fn code(self) -> u16 {
        self.row().0
    }

    /// The reason text of the close frame; at most 123 bytes.
    pub fn text(self) -> &'static str {
        self.row().1
    }

    /// The value of the `reason` metric label.
    pub const fn label(self) -> &'static str {
        self.row().2
    }

    const fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Normal => (1000, "", "normal"),
            Self::ProtocolError => (1002, "protocol error", "protocol_error"),
            Self::BinaryRefused => (1003, "binary messages are not accepted", "binary_refused"),
            Self::InvalidUtf8 => (1007, "text is not UTF-8", "invalid_utf8"),
            Self::Flooding => (1008, "kept sending after being refused", "flooding"),
            Self::MessageTooBig => (1009, "message too big", "message_too_big"),
            Self::InternalError => (1011, "internal error", "internal_error"),
            Self::Restarting => (1012, "restarting", "restarting"),
            Self::BrokerGap => (1012, "publications may have been missed", "broker_gap"),
            Self::Overloaded => (1013, "try again later", "overloaded"),
            Self::Unauthenticated => (4001, "not authenticated", "unauthenticated"),
            Self::Disconnected => (4001, "disconnected by the server", "disconnected"),
            Self::Forbidden => (4003, "not allowed", "forbidden"),
            Self::TooSlow => (4008, "too slow", "too_slow"),
            Self::PongTimeout => (4009, "no sign of life", "pong_timeout"),
            Self::TooManyConnections => (4029, "too many connections", "too_many_connections"),
        }
    }
}
