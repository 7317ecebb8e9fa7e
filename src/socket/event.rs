//! What a socket reports to its owner: events of the peer while it is open, and how the connection ended.

use crate::protocol::CloseReason;

/// An event of the peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// The socket has answered it.
    Ping,
    /// The peer broke the protocol, and nothing more is read. The owner must close with this reason, at once or
    /// when earlier messages are answered.
    Fault(CloseReason),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The gateway closed it.
    ByGateway(CloseReason),
    /// The gateway closed it with this code, on a server's command.
    ByServer(u16),
    /// The peer sent the first close frame.
    ByPeer(Option<u16>),
    /// It broke without a close frame of the peer.
    Lost,
}

impl ConnectionEnd {
    /// Who ended it, the close code (RFC 6455 section 7.1.5), and a word for logs and metrics.
    pub fn describe(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::ByGateway(reason) => ("gateway", reason.code(), reason.label()),
            Self::ByServer(code) => ("server", code, CloseReason::Disconnected.label()),
            Self::ByPeer(code) => ("client", code.unwrap_or(1005), "closed"),
            Self::Lost => ("client", 1006, "lost"),
        }
    }
}
