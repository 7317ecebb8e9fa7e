//! admit(request) → [`Admission`] or [`Rejection`]: route, origin, credentials, channel, limits, in
//! this order. Also the endpoint that issues connection tokens.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};

use crate::config;
use crate::limits::SharedLimits;
use crate::protocol::{ChannelName, CloseReason, ConnectionId, Params, TraceContext};
use crate::tokens::{Identity, JwtVerifier, TokenStore};

/// A client that may open a socket.
#[derive(Debug)]
pub struct Admission {
    pub route: Arc<config::Route>,
    pub params: Arc<Params>,
    pub channel: ChannelName,
    pub identity: Identity,
    pub connection_id: ConnectionId,
    /// The `Sec-WebSocket-Protocol` that the answer selects.
    pub subprotocol: Option<String>,
    pub trace: TraceContext,
    /// Whether a lease of `connections_per_user` is held and must be renewed and released.
    pub leased: bool,
}

/// Why a client may not. One place maps it to a close code, an HTTP status and a metric label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// A bounded, stable word: `origin`, `token`, `jwt`, `no_credentials`, `channel`, `authorize`,
    /// `connects`, `connections`, `engine`, …; the metric label.
    pub cause: &'static str,
    pub reason: CloseReason,
    /// What the client is told; never why a credential failed in detail.
    pub message: &'static str,
    /// Seconds, with 4029 and 1013.
    pub retry_after: Option<u64>,
}

/// Shared by all threads behind an `Arc`.
pub struct Handshake {}

impl Handshake {
    pub fn new(
        routes: &[Arc<config::Route>],
        origins: &config::Origins,
        tokens: &config::Tokens,
        jwt: &config::Jwt,
        store: TokenStore,
        limits: SharedLimits,
    ) -> Result<Self, String> {
        let _ = (routes, origins, tokens, jwt, store, limits);
        todo!()
    }

    /// The first route whose path matches.
    pub fn route(&self, path: &str) -> Option<(Arc<config::Route>, Params)> {
        let _ = path;
        todo!()
    }

    /// Everything after the route was found. `head` is the upgrade request.
    pub async fn admit<B>(
        &self,
        route: Arc<config::Route>,
        params: Params,
        head: &Request<B>,
    ) -> Result<Admission, Rejection> {
        let _ = (route, params, head);
        todo!()
    }

    /// Whether this path is the token endpoint.
    pub fn issues_at(&self, path: &str) -> bool {
        let _ = path;
        todo!()
    }

    /// The token endpoint: POST, and its CORS preflight.
    pub async fn issue(
        &self,
        request: Request<hyper::body::Incoming>,
        client: IpAddr,
    ) -> Response<Full<Bytes>> {
        let _ = (request, client);
        todo!()
    }

    pub fn verifier(&self) -> &JwtVerifier {
        todo!()
    }
}

impl Rejection {
    pub fn connections_per_ip() -> Self {
        todo!()
    }
    pub fn to_http(&self) -> Response<Full<Bytes>> {
        todo!()
    }
}
#[derive(Clone, Copy)]
pub struct ClientAddress {
    pub ip: IpAddr,
    pub trusted: bool,
}
impl ClientAddress {
    pub fn resolve(p: IpAddr, h: &hyper::HeaderMap, t: &[ipnet::IpNet]) -> Self {
        todo!()
    }
}
pub mod upgrade {
    use super::*;
    pub struct Accepted {}
    impl Accepted {
        pub fn switch(self, s: Option<&str>) -> Response<Full<Bytes>> {
            todo!()
        }
        pub fn switch_refused(self) -> Response<Full<Bytes>> {
            todo!()
        }
    }
    pub fn check<B>(r: &Request<B>) -> Result<Accepted, Response<Full<Bytes>>> {
        todo!()
    }
}
