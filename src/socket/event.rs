//! What a socket reports to its owner: events of the peer while it is open, and how the connection ended.

use crate::protocol::CloseReason;
use crate::telemetry::connections::{CloseCause, ClosedBy};

/// An event of the peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// The socket has answered it.
    Ping,
    Pong,
    /// A part of a message with little or no payload.
    SmallFragment,
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
    /// The upstream, whose frames are forwarded, sent the first close frame.
    ByUpstream(Option<u16>),
    /// The upstream was gone without a close frame.
    UpstreamLost,
    /// It broke without a close frame of the peer.
    Lost,
}

impl ConnectionEnd {
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
            Self::ByUpstream(code) => {
                (ClosedBy::Upstream, code.unwrap_or(1005), CloseCause::Closed)
            }
            Self::UpstreamLost => (ClosedBy::Upstream, 1006, CloseCause::Lost),
            Self::Lost => (ClosedBy::Client, 1006, CloseCause::Lost),
        }
    }
}
