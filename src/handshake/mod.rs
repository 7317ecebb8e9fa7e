//! Handshakes: a request becomes an [`Admission`] or a [`Rejection`]. Route, origin, credentials, channel, limits
//! and the backend's authorization are checked in this order. The endpoint that issues connection tokens is here as well.
//!
//! This module decides who may open a socket but opens none: the listener starts a session for an admission.
//! Invariants: the origin is checked before a token is consumed; a client with an invalid credential is refused,
//! whatever else it has; a client that cannot be checked is refused.

mod at_once;
mod attempt;
mod authorize;
mod client_handshake;
mod credentials;
#[cfg(feature = "internals")]
mod in_memory;
mod issue;
mod origin;
mod plain_request;
mod rejection;
mod routes;
mod session_cookie;
pub mod upgrade;

#[cfg(test)]
mod tests;

pub use attempt::HandshakeAttempt;
pub use client_handshake::remove_own_parameters;
pub use rejection::{Rejection, json_error};
pub use routes::{Found, Routes};

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::{HeaderMap, Request};

use crate::config::{self, AuthSource};
use crate::limits::{
    Claim, ConnectVerdict, LeaseKey, LeaseKind, LimitName, NewChannels, SharedLimits, Verdict,
};
use crate::protocol::{
    ChannelName, ClientNetwork, ConnectionId, Params, RequestId, ReservedChannels, ResumePoint,
    SenderKey, TemplateContext, TraceContext, UserId,
};
use crate::telemetry;
use crate::telemetry::connections::Admitted;
use crate::telemetry::messages::LocalLimit;
use crate::tokens::{Authenticator, CredentialContext, Identity};
use crate::upstream::Forwarded;
use authorize::{AuthorizeQuestion, Authorizer};
use credentials::OfferedCredentials;
use origin::RequestOrigin;

/// The decision that a client may open a socket.
#[derive(Debug)]
pub struct Admission {
    pub route: Arc<config::Route>,
    pub params: Params,
    /// `None` if the route has none.
    pub channel: Option<ChannelName>,
    pub identity: Identity,
    /// Where the credentials were.
    pub source: AuthSource,
    /// Identifies the one whose share of a bound the client takes.
    pub sender: SenderKey,
    pub connection_id: ConnectionId,
    pub request_id: RequestId,
    /// The origin of the page that connects; `None` = the request had none.
    pub origin: Option<Box<str>>,
    /// The `Sec-WebSocket-Protocol` that the response selects.
    pub subprotocol: Option<String>,
    pub trace: TraceContext,
    /// The client's last position in the channel; `None` = it does not resume.
    pub resume: Option<ResumePoint>,
    /// A lease of `connections_per_user`, which must be held as long as the connection.
    pub lease: Option<Claim>,
    /// What the upstream gets of this handshake with each message. The listener reads it.
    pub forwarded: Option<Arc<Forwarded>>,
}

impl Admission {
    /// Returns the user and channel for logs.
    pub fn admitted(&self) -> Admitted<'_> {
        Admitted { user: self.identity.user_id.as_ref(), channel: self.channel.as_ref() }
    }
}

/// Checks handshakes and issues connection tokens. Shared by all threads behind an `Arc`.
pub struct Handshake {
    routes: Routes,
    origins: config::Origins,
    tokens: config::Tokens,
    /// The name of the cookie that carries a session's JWT.
    session_cookie: String,
    authenticator: Authenticator,
    limits: SharedLimits,
    /// The channels that no client may join, whatever its route and credentials are.
    reserved: ReservedChannels,
    authorizer: Authorizer,
    new_channels: NewChannels,
    client_limits: config::ClientLimits,
    tells_addresses_apart: bool,
}

/// What a handshake is limited by.
pub struct HandshakeLimits {
    pub shared: SharedLimits,
    pub new_channels: NewChannels,
    pub client: config::ClientLimits,
    /// See [`config::Server::tells_addresses_apart`].
    pub tells_addresses_apart: bool,
}

impl Handshake {
    /// `Err` names the configuration key that cannot be used.
    pub fn new(
        routes: Routes,
        origins: &config::Origins,
        tokens: &config::Tokens,
        jwt: &config::Jwt,
        authenticator: Authenticator,
        limits: HandshakeLimits,
        reserved: ReservedChannels,
    ) -> Result<Self, String> {
        Ok(Self {
            origins: origins.clone(),
            tokens: tokens.clone(),
            session_cookie: jwt.cookie.clone(),
            authenticator,
            limits: limits.shared,
            new_channels: limits.new_channels,
            client_limits: limits.client,
            tells_addresses_apart: limits.tells_addresses_apart,
            reserved,
            authorizer: Authorizer::new(routes.with_channels())?,
            routes,
        })
    }

    /// Finds what serves a path.
    pub fn find_route(&self, path: &str) -> Option<Found> {
        self.routes.find(path)
    }

    /// Checks everything after the route was found. `head` is the upgrade request.
    pub async fn admit<B>(
        &self,
        route: Arc<config::Route>,
        params: Params,
        head: &Request<B>,
        attempt: &HandshakeAttempt,
    ) -> Result<Admission, Rejection> {
        let origin = RequestOrigin::read(head.headers());
        let admitted = self.admit_from(&origin, route, params, head, attempt).await;
        admitted.map_err(|rejection| rejection.with_origin(origin.logged()))
    }

    async fn admit_from<B>(
        &self,
        origin: &RequestOrigin,
        route: Arc<config::Route>,
        params: Params,
        head: &Request<B>,
        attempt: &HandshakeAttempt,
    ) -> Result<Admission, Rejection> {
        let headers = head.headers();
        let HandshakeAttempt { connection_id, trace, .. } = *attempt;
        let request_id = attempt.request_id.clone();

        origin::check(&self.origins, origin, headers, attempt.address)?;

        let offered = OfferedCredentials::read(head);
        let (source, identity, limited) = match self
            .question(&route, &params, &offered, origin, attempt)
        {
            Some(question) => {
                // Boxed, because it is large and most handshakes do without it.
                let context = CredentialContext { params: &params, origin: origin.tag() };
                let answer = Box::pin(self.redeem_at_once(&route, question, context, attempt));
                let (identity, limited) = answer.await?;
                (AuthSource::ConnectionToken, identity, limited)
            }
            None => {
                let sources = route.auth.iter().copied();
                let identified = self.identify(sources, &params, headers, &offered, origin).await?;
                (identified.0, identified.1, None)
            }
        };

        let channel = self.channel_of(&route, &params, &identity)?;
        // Limits come before the question, so that nobody can make the backend answer any number of them, and after the
        // other checks, so that a refusal by one of those does not use up the user's limits.
        let refused = |rejection: Rejection| {
            let name = channel.as_ref().map(ChannelName::as_str);
            rejection.with_user(identity.user_id.as_ref(), name)
        };
        if let Some(channel) = &channel {
            self.check_channel_rate(channel, attempt.ip).map_err(refused)?;
        }
        let lease = match limited {
            Some(limited) => limited,
            None => self.check_limits(&route, &params, &identity, connection_id).await,
        };
        let lease = lease.map_err(refused)?;
        let sender = self.sender_key(identity.user_id.as_ref(), attempt);
        let question = AuthorizeQuestion {
            channel: channel.as_ref(),
            client: &sender,
            params: &params,
            identity: &identity,
            connection_id,
            request_id: &request_id,
            origin: origin.text(),
            trace: &trace,
        };
        self.authorizer.check(&route, question).await.map_err(refused)?;
        let subprotocol = offered.selected_subprotocol();
        let resume = offered.resume_point();
        Ok(Admission {
            route,
            params,
            channel,
            identity,
            source,
            sender,
            connection_id,
            request_id,
            origin: origin.text().map(Into::into),
            subprotocol,
            trace,
            resume,
            lease,
            forwarded: None,
        })
    }

    /// Verifies the credentials of the request. The first that is present, in the order of `auth`, says who the client
    /// is. The others must be valid as well: a client that offers a bad one is refused, and does not get in with a good
    /// one instead. Only cookies behind another credential are not looked at, because browsers send them unasked.
    async fn identify(
        &self,
        sources: impl Iterator<Item = AuthSource>,
        params: &Params,
        headers: &HeaderMap,
        offered: &OfferedCredentials<'_>,
        origin: &RequestOrigin,
    ) -> Result<(AuthSource, Identity), Rejection> {
        let mut first = None;
        for source in sources {
            let jwt = match source {
                AuthSource::ConnectionToken => {
                    if let Some(token) = offered.connection_token() {
                        let context = CredentialContext { params, origin: origin.tag() };
                        let redeemed = self.authenticator.redeem(&token, context).await;
                        let identity = redeemed.map_err(Rejection::credential)?;
                        first = first.or(Some((source, identity)));
                    }
                    continue;
                }
                AuthSource::Cookie => {
                    if first.is_none() {
                        let identity = self.identify_by_cookie(headers).await.transpose()?;
                        first = identity.map(|identity| (source, identity));
                    }
                    continue;
                }
                AuthSource::Bearer => offered.bearer().map(Cow::Borrowed),
                AuthSource::Query => offered.query_token(),
                AuthSource::Anonymous => {
                    first = first.or_else(|| Some((source, Identity::anonymous())));
                    continue;
                }
            };
            if let Some(jwt) = jwt {
                let verified = self.authenticator.verify(&jwt).await;
                let identity = verified.map_err(Rejection::credential)?;
                first = first.or(Some((source, identity)));
            }
        }
        first.ok_or_else(Rejection::no_credentials)
    }

    /// Counts the connect and leases a connection. Anonymous clients have no limits of users.
    async fn check_limits(
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
        let rate = route.limits.connects_per_user.as_ref();
        let Some(max) = route.limits.connections_per_user else {
            let Some(rate) = rate else { return Ok(None) };
            let verdict = self.limits.take(LimitName::Connects, path, params, &user, rate).await;
            return match verdict.map_err(|_| Rejection::engine())? {
                Verdict::Allowed => Ok(None),
                Verdict::Refused { retry_after } => Err(Rejection::connects(retry_after)),
            };
        };
        let key = LeaseKey { kind: LeaseKind::Connection, route: path, user: &user };
        let holder = connection_id.into();
        let claim = Claim::new(&self.limits, key, holder);
        let verdict = match rate {
            Some(rate) => self.limits.connect(params, rate, key, holder, max).await,
            None => self.limits.acquire(key, holder, max).await.map(|verdict| match verdict {
                Verdict::Allowed => ConnectVerdict::Allowed,
                Verdict::Refused { retry_after } => ConnectVerdict::TooMany { retry_after },
            }),
        };
        let rejection = match verdict {
            Ok(ConnectVerdict::Allowed) => return Ok(Some(claim)),
            // The claim stays responsible: the lease may have been granted.
            Err(_) => return Err(Rejection::engine()),
            Ok(ConnectVerdict::TooOften { retry_after }) => Rejection::connects(retry_after),
            Ok(ConnectVerdict::TooMany { retry_after }) => Rejection::connections(retry_after),
        };
        claim.transfer();
        Err(rejection)
    }

    /// Identifies a client for bounds of which each has a share. Anonymous clients whose addresses are not known are one
    /// each.
    fn sender_key(&self, user_id: Option<&UserId>, attempt: &HandshakeAttempt) -> SenderKey {
        match user_id {
            None if !self.tells_addresses_apart => SenderKey::Connection(attempt.connection_id),
            user => SenderKey::new(user, attempt.ip, self.client_limits.ipv6_prefix),
        }
    }

    /// Counts a channel that is new to this node for the address of the client.
    fn check_channel_rate(&self, channel: &ChannelName, ip: IpAddr) -> Result<(), Rejection> {
        let config::ClientLimits { channels_per_ip, ipv6_prefix, .. } = self.client_limits;
        let network = ClientNetwork::of(ip, ipv6_prefix);
        match self.new_channels.join(channel, network, channels_per_ip) {
            Verdict::Allowed => Ok(()),
            Verdict::Refused { retry_after } => {
                telemetry::messages::local_limit_refused(LocalLimit::ChannelsPerIp);
                Err(Rejection::channels(retry_after))
            }
        }
    }

    /// Returns the route's channel for this client, if the credentials allow it. `None` if the route has none.
    fn channel_of(
        &self,
        route: &config::Route,
        params: &Params,
        identity: &Identity,
    ) -> Result<Option<ChannelName>, Rejection> {
        let Some(template) = &route.channel else {
            return match identity.may_join_route(None) {
                true => Ok(None),
                false => Err(Rejection::channel().with_user(identity.user_id.as_ref(), None)),
            };
        };
        let context = TemplateContext { params, user_id: &identity.key(), channel: None };
        let name = template.fill(context);
        let channel = ChannelName::new(&name).ok();
        channel
            .filter(|channel| self.may_join(identity, channel))
            .map(Some)
            .ok_or_else(|| Rejection::channel().with_user(identity.user_id.as_ref(), Some(&name)))
    }

    fn may_join(&self, identity: &Identity, channel: &ChannelName) -> bool {
        identity.may_join(channel.as_str()) && !self.reserved.contains(channel)
    }
}
