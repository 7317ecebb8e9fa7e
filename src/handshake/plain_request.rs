//! Requests of a route's path that are no WebSocket handshakes and go to the upstream of the route: the same checks as for
//! its sockets, without those that count sockets.

use hyper::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use hyper::{Method, Request};

use super::authorize::AuthorizeQuestion;
use super::credentials::OfferedCredentials;
use super::origin::{self, RequestOrigin};
use super::{Handshake, HandshakeAttempt, Rejection};
use crate::config::{self, AuthSource};
use crate::protocol::{ChannelName, ConnectionId, Params, RequestId, SenderKey, TraceContext};
use crate::tokens::Identity;

/// The decision that a request may go to the upstream.
#[derive(Debug)]
pub struct RequestAdmission {
    /// `None` = a preflight, which browsers send without credentials.
    pub identity: Option<Identity>,
    pub channel: Option<ChannelName>,
    /// Identifies the one whose share of a bound the request takes.
    pub sender: SenderKey,
    pub connection_id: ConnectionId,
    pub request_id: RequestId,
    pub trace: TraceContext,
}

impl Handshake {
    /// Checks the origin, the credentials, the channel and the authorization of a request. A connection token opens one
    /// socket and is no credential here, because a page makes many requests. The preflight of a page that is allowed
    /// passes without credentials.
    pub async fn admit_request<B>(
        &self,
        route: &config::Route,
        params: &Params,
        head: &Request<B>,
        attempt: &HandshakeAttempt,
    ) -> Result<RequestAdmission, Rejection> {
        let origin = RequestOrigin::read(head.headers());
        let admitted = self.admit_request_from(&origin, route, params, head, attempt).await;
        admitted.map_err(|rejection| rejection.with_origin(origin.logged()))
    }

    async fn admit_request_from<B>(
        &self,
        origin: &RequestOrigin,
        route: &config::Route,
        params: &Params,
        head: &Request<B>,
        attempt: &HandshakeAttempt,
    ) -> Result<RequestAdmission, Rejection> {
        let headers = head.headers();
        let HandshakeAttempt { connection_id, trace, .. } = *attempt;
        let request_id = attempt.request_id.clone();
        origin::check(&self.origins, origin, headers, attempt.address)?;
        if is_preflight(head) {
            let sender = self.sender_key(None, attempt);
            let (identity, channel) = (None, None);
            return Ok(RequestAdmission {
                identity,
                channel,
                sender,
                connection_id,
                request_id,
                trace,
            });
        }
        let offered = OfferedCredentials::read(head);
        let sources = route.auth.iter().copied();
        let sources = sources.filter(|source| *source != AuthSource::ConnectionToken);
        let (_, identity) = self.identify(sources, params, headers, &offered, origin).await?;
        let channel = self.channel_of(route, params, &identity)?;
        let sender = self.sender_key(identity.user_id.as_ref(), attempt);
        let question = AuthorizeQuestion {
            channel: channel.as_ref(),
            client: &sender,
            params,
            identity: &identity,
            connection_id,
            request_id: &request_id,
            origin: origin.text(),
            trace: &trace,
        };
        let authorized = self.authorizer.check(route, question).await;
        authorized.map_err(|rejection| {
            let name = channel.as_ref().map(ChannelName::as_str);
            rejection.with_user(identity.user_id.as_ref(), name)
        })?;
        let identity = Some(identity);
        Ok(RequestAdmission { identity, channel, sender, connection_id, request_id, trace })
    }
}

/// Whether a browser asks in the name of a page whether it may send a request (CORS).
fn is_preflight<B>(head: &Request<B>) -> bool {
    let headers = head.headers();
    *head.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}
