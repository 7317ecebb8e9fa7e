//! What the owner of a socket hears: of the peer while it is open, and how it ended.

use crate::protocol::CloseReason;
use crate::telemetry::connections::{CloseCause, ClosedBy};

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
    /// Who closed it, the close code (RFC 6455 section 7.1.5), and the cause for logs and metrics.
    pub fn describe(self) -> (ClosedBy, u16, CloseCause) {
        match self {
            Self::ByGateway(reason) => {
                (ClosedBy::Gateway, reason.code(), CloseCause::Reason(reason))
            }
            Self::ByServer(code) => {
                (ClosedBy::Server, code, CloseCause::Reason(CloseReason::Disconnected))
            }
            Self::ByPeer(code) => (ClosedBy::Client, code.unwrap_or(1005), CloseCause::Closed),
            Self::Lost => (ClosedBy::Client, 1006, CloseCause::Lost),
        }
    }
}
