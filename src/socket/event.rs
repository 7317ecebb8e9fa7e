//! What the owner of a socket hears: of the peer while it is open, and how it ended.

use crate::protocol::CloseReason;

/// What the owner of a socket hears of its peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// Answered already.
    Ping,
    /// The peer broke the protocol. Nothing more is read; the owner is to close with this reason, at
    /// once or when what came before is answered.
    Fault(CloseReason),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// We closed it.
    ByGateway(CloseReason),
    /// We closed it with this code, on a server's order.
    ByServer(u16),
    /// The peer sent the first close frame.
    ByPeer(Option<u16>),
    /// It broke without a close frame.
    Lost,
}

impl Ended {
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
