//! admit(request) → [`Admission`] or [`Rejection`]: route, origin, credentials, channel, limits, in
//! this order. Also the endpoint that issues connection tokens.
//!
//! This module decides who may open a socket, and opens none: the listener joins its answer with a
//! session. Invariants: the origin is looked at before a token is consumed; a credential that was given
//! and is bad never falls through to the next; what cannot be checked is refused.

mod authorize;
mod credentials;
mod issue;
#[cfg(test)]
mod issue_tests;
mod origin;
mod rejection;
mod routes;
mod session_cookie;
pub mod upgrade;

#[cfg(test)]
mod tests;

pub use rejection::{Rejection, json_error};
pub use routes::{Found, Routes};

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::{HeaderMap, Request};

use crate::config::{self, AuthSource};
use crate::limits::{Claim, LeaseKey, Leased, LimitName, SharedLimits, Verdict};
use crate::protocol::{
    ChannelName, ClientAddress, ConnectionId, OriginTag, Params, RequestId, ReservedChannels,
    ResumePoint, TemplateContext, TraceContext,
};
use crate::telemetry;
use crate::telemetry::connections::{Admitted, Attempt, HandshakeOutcome};
use crate::telemetry::credentials::{CredentialCause, RejectionCause};
use crate::telemetry::spans::{self, Kind, Span, SpanStatus};
use crate::tokens::{Authenticator, CredentialContext, Identity};
use authorize::{Authorizer, Question};
use credentials::Offered;
use origin::RequestOrigin;

/// A client that knocks: what it is called from here on, whether it is let in or not.
#[derive(Debug)]
pub struct HandshakeAttempt {
    /// Of the connection that may come of it.
    connection_id: ConnectionId,
    request_id: RequestId,
    /// Its span's, where it has one.
    trace: TraceContext,
    span: Span,
    ip: IpAddr,
    started: Instant,
}

impl HandshakeAttempt {
    /// The headers are those of its request; a proxy that is trusted may have named it.
    pub fn new(headers: &HeaderMap, address: ClientAddress) -> Self {
        let header = |name: &str| headers.get(name)?.to_str().ok();
        let trace = spans::sample(header("traceparent").and_then(TraceContext::parse));
        let given = header("x-request-id").filter(|_| address.through_proxy);
        let request_id = RequestId::new(given, &trace);
        let span = Span::start(&trace, Kind::Server, || "handshake".into());
        let trace = span.context().unwrap_or(trace);
        let (connection_id, started) = (ConnectionId::random(), Instant::now());
        Self { connection_id, request_id, trace, span, ip: address.ip, started }
    }

    /// It was decided; `Err` says why it was refused.
    pub fn finished(mut self, route: &str, decision: Result<Admitted<'_>, RejectionCause>) {
        let Self { connection_id, request_id, ip, .. } = &self;
        let attempt = Attempt { route, connection: *connection_id, request: request_id, ip: *ip };
        telemetry::connections::handshake_finished(attempt, decision, self.started.elapsed());
        if self.span.is_recording() {
            self.span.set("tidegate.connection", self.connection_id.to_string());
            self.span.set("tidegate.request", self.request_id.to_string());
            self.span.set("http.route", route.to_owned());
            self.span.set("client.address", self.ip.to_string());
            let status = match decision {
                Ok(_) => SpanStatus::Ok,
                Err(
                    RejectionCause::AuthorizeUnavailable
                    | RejectionCause::Credential(CredentialCause::Engine),
                ) => SpanStatus::Error,
                Err(_) => SpanStatus::Refused,
            };
            let outcome =
                decision.err().map_or(HandshakeOutcome::Admitted, HandshakeOutcome::Rejected);
            self.span.set_outcome(outcome.label(), status);
        }
    }
}

/// A client that may open a socket.
#[derive(Debug)]
pub struct Admission {
    pub route: Arc<config::Route>,
    pub params: Arc<Params>,
    pub channel: ChannelName,
    pub identity: Identity,
    pub connection_id: ConnectionId,
    pub request_id: RequestId,
    /// Of the page that connects; `None` = the request named none.
    pub origin: Option<OriginTag>,
    /// The `Sec-WebSocket-Protocol` that the answer selects.
    pub subprotocol: Option<String>,
    pub trace: TraceContext,
    /// Where the client was when it was lost.
    pub resume: Option<ResumePoint>,
    /// A lease of `connections_per_user`, to be kept as long as the connection.
    pub lease: Option<Claim>,
}

impl Admission {
    /// What of it is told of.
    pub fn told(&self) -> Admitted<'_> {
        Admitted { user: self.identity.user_id.as_ref(), channel: Some(&self.channel) }
    }
}

/// Shared by all threads behind an `Arc`.
pub struct Handshake {
    routes: Routes,
    origins: config::Origins,
    tokens: config::Tokens,
    /// The cookie that carries a session's JWT.
    session_cookie: String,
    authenticator: Authenticator,
    limits: SharedLimits,
    /// No client hears these, whatever its route and credentials say.
    reserved: ReservedChannels,
    authorizer: Authorizer,
}

impl Handshake {
    /// `Err` names the key that cannot be used.
    pub fn new(
        routes: Routes,
        origins: &config::Origins,
        tokens: &config::Tokens,
        jwt: &config::Jwt,
        authenticator: Authenticator,
        limits: SharedLimits,
        reserved: ReservedChannels,
    ) -> Result<Self, String> {
        Ok(Self {
            origins: origins.clone(),
            tokens: tokens.clone(),
            session_cookie: jwt.cookie.clone(),
            authenticator,
            limits,
            reserved,
            authorizer: Authorizer::new(routes.of_channels())?,
            routes,
        })
    }

    /// What a path leads to.
    pub fn route(&self, path: &str) -> Option<Found> {
        self.routes.find(path)
    }

    /// Everything after the route was found. `head` is the upgrade request.
    pub async fn admit<B>(
        &self,
        route: Arc<config::Route>,
        params: Params,
        head: &Request<B>,
        attempt: &HandshakeAttempt,
    ) -> Result<Admission, Rejection> {
        let headers = head.headers();
        let HandshakeAttempt { connection_id, trace, .. } = *attempt;
        let request_id = attempt.request_id.clone();

        let origin = RequestOrigin::read(headers);
        origin::check(&self.origins, &origin)?;

        let offered = Offered::read(head);
        let identity = self.identify(&route, &params, headers, &offered, &origin).await?;

        let channel = self.channel(&route, &params, &identity)?;
        let question = Question {
            channel: &channel,
            params: &params,
            identity: &identity,
            connection_id,
            request_id: &request_id,
            origin: origin.text(),
            trace: &trace,
        };
        self.authorizer.check(&route, question).await?;

        // Last, so that a refusal before it costs the user nothing.
        let lease = self.limit(&route, &params, &identity, connection_id).await?;
        let subprotocol = offered.select();
        let resume = offered.resume_point();
        let params = Arc::new(params);
        Ok(Admission {
            route,
            params,
            channel,
            identity,
            connection_id,
            request_id,
            origin: origin.tag(),
            subprotocol,
            trace,
            resume,
            lease,
        })
    }

    /// The first credential that is there decides.
    async fn identify(
        &self,
        route: &config::Route,
        params: &Params,
        headers: &HeaderMap,
        offered: &Offered<'_>,
        origin: &RequestOrigin,
    ) -> Result<Identity, Rejection> {
        for source in &route.auth {
            let jwt = match source {
                AuthSource::ConnectionToken => match offered.connection_token() {
                    Some(token) => {
                        let context = CredentialContext { params, origin: origin.tag() };
                        let redeemed = self.authenticator.redeem(&token, context).await;
                        return redeemed.map_err(Rejection::credential);
                    }
                    None => continue,
                },
                AuthSource::Cookie => match self.identify_by_cookie(headers).await {
                    Some(identified) => return identified,
                    None => continue,
                },
                AuthSource::Bearer => offered.bearer().map(Cow::Borrowed),
                AuthSource::Query => offered.query_token(),
                AuthSource::Anonymous => return Ok(Identity::anonymous()),
            };
            if let Some(jwt) = jwt {
                return self.authenticator.verify(&jwt).await.map_err(Rejection::credential);
            }
        }
        Err(Rejection::no_credentials())
    }

    /// Takes a connect and leases a connection. Anonymous clients have no user to count.
    async fn limit(
        &self,
        route: &config::Route,
        params: &Params,
        identity: &Identity,
        connection_id: ConnectionId,
    ) -> Result<Option<Claim>, Rejection> {
        let Some(user) = identity.user_id.as_ref().map(ToString::to_string) else {
            return Ok(None);
        };
        let path = route.path.as_str();
        if let Some(rate) = &route.limits.connects_per_user {
            let limit = LimitName::Connects;
            let verdict = self.limits.take(limit, path, params, &user, rate).await;
            if let Verdict::Refused { retry_after } = verdict.map_err(|_| Rejection::engine())? {
                return Err(Rejection::connects(retry_after));
            }
        }
        let Some(max) = route.limits.connections_per_user else { return Ok(None) };
        let key = LeaseKey { of: Leased::Connection, route: path, user: &user };
        let claim = Claim::new(&self.limits, key, connection_id.into());
        match self.limits.acquire(key, connection_id.into(), max).await {
            Ok(Verdict::Allowed) => Ok(Some(claim)),
            Ok(Verdict::Refused { retry_after }) => {
                claim.hand_on();
                Err(Rejection::connections(retry_after))
            }
            Err(_) => Err(Rejection::engine()),
        }
    }

    /// The route's channel for this client, if the credentials allow it.
    fn channel(
        &self,
        route: &config::Route,
        params: &Params,
        identity: &Identity,
    ) -> Result<ChannelName, Rejection> {
        let context = TemplateContext { params, user_id: &identity.key(), channel: None };
        let channel =
            ChannelName::new(&route.channel.fill(context)).map_err(|_| Rejection::channel())?;
        if self.may_join(identity, &channel) { Ok(channel) } else { Err(Rejection::channel()) }
    }

    fn may_join(&self, identity: &Identity, channel: &ChannelName) -> bool {
        identity.may_join(channel.as_str()) && !self.reserved.contains(channel)
    }
}
