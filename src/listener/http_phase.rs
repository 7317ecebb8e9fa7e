//! A connection before its session begins, and what its requests share.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::exchange::Exchange;
use super::upgraded::Upgraded;
use crate::limits::ConnectionPermit;
use crate::session::Permits;

/// One accepted connection.
pub(super) struct Connection {
    /// The address of the connection, or of the client that a load balancer has named (`[server] proxy_protocol`).
    pub peer: SocketAddr,
    /// Whether that client uses TLS.
    pub over_tls: bool,
    pub permits: Permits,
    /// Makes a drain wait for this connection until its session is open.
    pub tracked: TaskTrackerToken,
}

/// The state that the requests of one connection share.
pub(super) struct HttpPhase {
    /// See [`Connection`].
    pub peer: SocketAddr,
    pub over_tls: bool,
    /// Whether this is a stream of its own connection, with one request.
    pub is_http2: bool,
    /// The permit of the process for a WebSocket on such a stream.
    pub process: RefCell<Option<ConnectionPermit>>,
    pub upgraded: RefCell<Option<Upgraded>>,
    /// Whether the connection was counted for its address when it was accepted. Otherwise its requests are.
    pub has_ip_permit: bool,
    /// Whether a handshake was attempted. Accepting the connection has paid for the first.
    pub has_attempted: Cell<bool>,
    pub exchange: Rc<Exchange>,
    /// Notified when a request has arrived.
    pub request_received: Notify,
}

impl HttpPhase {
    /// The phase of a connection whose client is not counted by its address, or of a stream.
    pub fn new(peer: SocketAddr, over_tls: bool) -> Self {
        Self {
            peer,
            over_tls,
            is_http2: false,
            process: RefCell::default(),
            upgraded: RefCell::default(),
            has_ip_permit: false,
            has_attempted: Cell::default(),
            exchange: Rc::default(),
            request_received: Notify::new(),
        }
    }
}
