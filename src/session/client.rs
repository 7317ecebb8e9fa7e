//! Who and what a connection is: the handshake's result, in the session's terms.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::broker::Broker;
use crate::config::{AuthSource, Route, UpstreamKind};
use crate::limits::{ConnectionPermit, IpPermit, Lease};
use crate::protocol::{
    Bits128, ChannelName, ClientNetwork, ConnectionId, DeflateTerms, Params, RequestId,
    ResumePoint, SenderKey, TraceContext, UserId, label_enum,
};
use crate::replies::ThreadConfig;
use crate::tokens::Identity;
use crate::upstream::{Forwarded, PassedUpstream};

/// What a handshake has found out about a client.
pub struct NewClient {
    /// The route that admitted it.
    pub route: Arc<Route>,
    pub upstream: UpstreamMode,
    pub params: Params,
    /// `None` if the route has none.
    pub channel: Option<ChannelName>,
    pub identity: Identity,
    /// The kind of the credentials behind it.
    pub credentials: CredentialKind,
    /// Identifies the one whose share of a bound the client takes.
    pub sender: SenderKey,
    pub connection_id: ConnectionId,
    /// The request that opened the connection.
    pub request_id: RequestId,
    /// The client's address, behind trusted proxies.
    pub address: IpAddr,
    /// The origin of the page that connected. `None` if the handshake named none.
    pub origin: Option<Box<str>>,
    pub trace: TraceContext,
    /// What the upstream gets of the handshake with each message; `None` = nothing.
    pub forwarded: Option<Arc<Forwarded>>,
}

/// The client of one session. Each field costs its bytes for every idle connection, so what can be derived is not kept, and
/// what most clients do not have is in a box.
pub struct Client {
    /// A reload replaces it if an open connection can follow the change.
    pub route: RefCell<Arc<Route>>,
    pub upstream: UpstreamMode,
    pub params: Params,
    /// `None` if the route has none.
    pub channel: Option<ChannelName>,
    /// `None` if the client is anonymous. A refresh of the credentials does not change it.
    user_id: Option<Box<UserId>>,
    /// The kind of the credentials that are valid now.
    pub credentials: Cell<CredentialKind>,
    /// When these expire, in Unix seconds; 0 = never.
    expires_at: Cell<u64>,
    sender: SenderKind,
    pub connection_id: ConnectionId,
    /// The request that opened the connection.
    pub request_id: RequestId,
    /// The client's address, behind trusted proxies.
    pub address: IpAddr,
    span: u64,
    is_own_span: bool,
    is_sampled: bool,
    rare: OnceCell<Box<Rare>>,
}

/// What many clients do not have.
#[derive(Default)]
struct Rare {
    /// A refresh of the credentials replaces it.
    username: RefCell<Option<Box<str>>>,
    origin: Option<Box<str>>,
    forwarded: Option<Arc<Forwarded>>,
    /// The trace of the handshake, unless it is the id of the request.
    trace_id: Option<Bits128>,
}

/// How a [`SenderKey`] is made of a client.
#[derive(Clone, Copy)]
enum SenderKind {
    User,
    /// An IPv4 address.
    Address,
    /// An IPv6 network with a prefix of this length.
    Network(u8),
    Connection,
}

impl From<NewClient> for Client {
    fn from(new: NewClient) -> Self {
        let Identity { user_id, username, expires_at, .. } = new.identity;
        let (trace, origin, forwarded) = (new.trace, new.origin, new.forwarded);
        let trace_id = Bits128::from(trace.trace_id());
        let trace_id = (new.request_id.as_trace() != Some(trace_id)).then_some(trace_id);
        let has_rare =
            username.is_some() || origin.is_some() || forwarded.is_some() || trace_id.is_some();
        let rare = OnceCell::new();
        if has_rare {
            let username = RefCell::new(username);
            rare.get_or_init(|| Box::new(Rare { username, origin, forwarded, trace_id }));
        }
        Self {
            route: RefCell::new(new.route),
            upstream: new.upstream,
            params: new.params,
            channel: new.channel,
            user_id: user_id.map(Box::new),
            credentials: Cell::new(new.credentials),
            expires_at: Cell::new(encode_expiry(expires_at)),
            sender: match new.sender {
                SenderKey::User(_) => SenderKind::User,
                SenderKey::Network(ClientNetwork::V4(_)) => SenderKind::Address,
                SenderKey::Network(ClientNetwork::V6(_, prefix)) => SenderKind::Network(prefix),
                SenderKey::Connection(_) => SenderKind::Connection,
            },
            connection_id: new.connection_id,
            request_id: new.request_id,
            address: new.address,
            span: trace.span_id(),
            is_own_span: trace.is_own(),
            is_sampled: trace.is_sampled(),
            rare,
        }
    }
}

/// Credentials that expired with the epoch have expired long ago as well if they did a second later.
fn encode_expiry(expires_at: Option<u64>) -> u64 {
    expires_at.map_or(0, |at| at.max(1))
}

impl Client {
    /// The current route, for work that outlasts a borrow.
    pub fn route(&self) -> Arc<Route> {
        Arc::clone(&self.route.borrow())
    }

    /// Takes the channel's name as others of the channel have it, if there are any.
    pub fn share_channel(&mut self, broker: &Broker) {
        if let Some(name) = self.channel.as_ref().and_then(|name| broker.shared_name(name)) {
            self.channel = Some(name);
        }
    }

    /// `None` if the client is anonymous.
    pub fn user_id(&self) -> Option<&UserId> {
        self.user_id.as_deref()
    }

    fn rare(&self) -> Option<&Rare> {
        self.rare.get().map(|rare| &**rare)
    }

    /// The name that the credentials have for the user; `None` = they have none.
    pub fn username(&self) -> Option<Box<str>> {
        self.rare()?.username.borrow().clone()
    }

    /// When the credentials expire, in Unix seconds; `None` = never.
    pub fn expires_at(&self) -> Option<u64> {
        Some(self.expires_at.get()).filter(|at| *at > 0)
    }

    /// The origin of the page that connected. `None` if the handshake named none.
    pub fn origin(&self) -> Option<&str> {
        self.rare()?.origin.as_deref()
    }

    /// What the upstream gets of the handshake with each message; `None` = nothing.
    pub fn forwarded(&self) -> Option<&Arc<Forwarded>> {
        self.rare()?.forwarded.as_ref()
    }

    /// The trace of the handshake.
    pub fn trace(&self) -> TraceContext {
        let trace_id = self.request_id.as_trace().or_else(|| self.rare()?.trace_id);
        // One of the two has it.
        let trace_id = trace_id.unwrap_or_else(Bits128::random);
        TraceContext::from_parts(trace_id, self.span, self.is_own_span, self.is_sampled)
    }

    /// Identifies the one whose share of a bound the client takes.
    pub fn sender(&self) -> SenderKey {
        let network = |prefix| SenderKey::Network(ClientNetwork::of(self.address, prefix));
        match (self.sender, &self.user_id) {
            (SenderKind::User, Some(user)) => SenderKey::User(UserId::clone(user)),
            (SenderKind::Address, _) => network(128),
            (SenderKind::Network(prefix), _) => network(prefix),
            (SenderKind::User | SenderKind::Connection, _) => {
                SenderKey::Connection(self.connection_id)
            }
        }
    }

    /// New credentials of the same user are valid from now on.
    pub fn refresh(&self, identity: Identity, kind: CredentialKind) {
        self.credentials.set(kind);
        self.expires_at.set(encode_expiry(identity.expires_at));
        if identity.username.is_some() || self.rare.get().is_some() {
            *self.rare.get_or_init(Box::default).username.borrow_mut() = identity.username;
        }
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
    /// What compression it has agreed on; `None` = none.
    pub deflate: Option<DeflateTerms>,
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
    /// Counts against `connections_per_user`. In a box, since many clients have none.
    pub lease: Option<Box<Lease>>,
}
