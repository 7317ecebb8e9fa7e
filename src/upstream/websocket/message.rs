//! What passes between a session and the task of its upstream socket.

use bytes::Bytes;
use tokio::sync::oneshot;

/// A whole message, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketMessage {
    Text(Bytes),
    Binary(Bytes),
}

/// An event of an upstream socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromUpstream {
    Message(SocketMessage),
    /// A message that is larger than the limit, for which the upstream is closed with 1009.
    TooBig,
    /// The close frame's code and reason; `None` = the connection ended without a close frame.
    Closed(Option<(u16, String)>),
}

/// What the session sends. The channel is notified when it is written.
pub(super) enum Outgoing {
    Message(SocketMessage, oneshot::Sender<()>),
    Close(u16, String, oneshot::Sender<()>),
}
