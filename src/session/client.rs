//! Who and what a connection is: the handshake's result, in the session's terms.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::{AuthSource, Route, UpstreamKind};
use crate::limits::{ConnectionPermit, IpPermit, Lease};
use crate::protocol::{
    ChannelName, ConnectionId, Params, RequestId, ResumePoint, SenderKey, TraceContext, UserId,
    label_enum,
};
use crate::replies::ThreadConfig;
use crate::tokens::Identity;
use crate::upstream::{Forwarded, PassedUpstream};

/// The client of one session.
pub struct Client {
    /// The route that admitted the client. A reload replaces it if an open connection can follow the change.
    pub route: RefCell<Arc<Route>>,
    pub upstream: UpstreamMode,
    pub params: Arc<Params>,
    /// `None` if the route has none.
    pub channel: Option<ChannelName>,
    /// A refresh of the credentials replaces it; the user stays.
    pub identity: RefCell<Identity>,
    /// The kind of the credentials behind it.
    pub credentials: Cell<CredentialKind>,
    /// The user of `identity`, for places that cannot borrow it. `None` if the client is anonymous.
    pub user_id: Option<UserId>,
    pub connection_id: ConnectionId,
    /// The request that opened the connection.
    pub request_id: RequestId,
    /// The client's address, behind trusted proxies.
    pub address: IpAddr,
    /// Identifies the one whose share of a bound the client takes.
    pub key: SenderKey,
    /// The origin of the page that connected. `None` if the handshake named none.
    pub origin: Option<Box<str>>,
    pub trace: TraceContext,
    /// What the upstream gets of the handshake with each message; `None` = nothing.
    pub forwarded: Option<Arc<Forwarded>>,
}

impl Client {
    /// The current route, for work that outlasts a borrow.
    pub fn route(&self) -> Arc<Route> {
        Arc::clone(&self.route.borrow())
    }
}

label_enum! {
    /// What kind of credentials says who a client is.
    pub enum CredentialKind {
        ConnectionToken => "connection_token",
        Cookie => "cookie",
        Bearer => "bearer",
        Query => "query",
        /// A JWT that came in a `refresh`.
        Jwt => "jwt",
        Anonymous => "anonymous",
    }
}

impl From<AuthSource> for CredentialKind {
    fn from(source: AuthSource) -> Self {
        match source {
            AuthSource::ConnectionToken => Self::ConnectionToken,
            AuthSource::Cookie => Self::Cookie,
            AuthSource::Bearer => Self::Bearer,
            AuthSource::Query => Self::Query,
            AuthSource::Anonymous => Self::Anonymous,
        }
    }
}

/// What a client brings along and its session uses once, when it opens.
pub struct Arrival {
    /// Bytes that came right behind the handshake.
    pub early: Vec<u8>,
    /// The 101 response if it has not been sent, so that it leaves with `connected`.
    pub head: Bytes,
    /// The position at which the client lost its previous connection.
    pub resume: Option<ResumePoint>,
    /// The socket that the upstream has opened for it; only where the route asks the upstream before the 101.
    pub upstream: Option<Box<PassedUpstream>>,
}

/// How a route's messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamMode {
    /// The route takes no messages.
    None,
    /// Each message is relayed by itself.
    Relay,
    /// Each connection has an upstream socket of its own.
    Socket,
}

impl UpstreamMode {
    pub fn of(config: &ThreadConfig, route: &Route) -> Self {
        match route.upstream.as_deref().and_then(|name| config.upstreams.kind(name)) {
            None => Self::None,
            Some(UpstreamKind::WebSocket(_)) => Self::Socket,
            Some(_) => Self::Relay,
        }
    }
}

/// What a connection gives back when it ends: held, never read.
#[expect(dead_code, reason = "a guard does its work when it is dropped")]
pub struct Permits {
    pub process: ConnectionPermit,
    pub ip: Option<IpPermit>,
    /// Counts against `connections_per_user`.
    pub lease: Option<Lease>,
}
