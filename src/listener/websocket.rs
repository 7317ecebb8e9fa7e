//! WebSocket handshakes: the decision about one, and the response that the listener gives.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::REFERER;
use hyper::{Request, Response};

use super::http::HttpFrontend;
use super::http_phase::HttpPhase;
use super::upgraded::Upgraded;
use super::upstream_socket::Refused;
use crate::clock;
use crate::config;
use crate::handshake::{
    Admission, Handshake, HandshakeAttempt, Rejection, remove_own_parameters, upgrade,
};
use crate::limits::{IpPermit, Lease, LeaseKey, LeaseKind};
use crate::protocol::{ChannelName, ClientAddress, CloseReason, Params, with_timestamp};
use crate::session::UpstreamMode;
use crate::telemetry::connections::Admitted;
use crate::upstream::{Forwarded, PassedUpstream, TooLarge};

impl HttpFrontend {
    /// Admits or rejects a WebSocket of `route`.
    pub(super) async fn handshake(
        &self,
        phase: &HttpPhase,
        handshake: &Handshake,
        address: ClientAddress,
        (route, params): (&Arc<config::Route>, Params),
        request: &Request<Incoming>,
        ip: Result<Option<IpPermit>, Rejection>,
    ) -> Response<Full<Bytes>> {
        let asks_upstream = route.asks_upstream_first();
        let upgrade = match upgrade::check(request, asks_upstream) {
            Ok(upgrade) => upgrade,
            Err(response) => return response,
        };
        let attempt = HandshakeAttempt::new(request.headers(), address);
        let (verdict, ip) = match ip {
            Ok(ip) => {
                let admitted = handshake.admit(Arc::clone(route), params, request, &attempt).await;
                // While the engine is away no client can join its channel.
                let is_live = self.services.broker.is_live();
                let admitted = admitted.and_then(|one| match is_live || one.channel.is_none() {
                    true => Ok(one),
                    false => Err(Rejection::engine()),
                });
                (admitted, ip)
            }
            Err(rejection) => (Err(rejection), None),
        };
        let verdict = verdict.and_then(|admission| self.keep_forwarded(request, admission));
        let verdict = match verdict {
            Ok(admission) if asks_upstream => {
                let opened = self.open_upstream(phase, handshake, address, request, &admission);
                // Boxed, because it is large and most handshakes do without it.
                Box::pin(opened).await.map(|upstream| (admission, Some(Box::new(upstream))))
            }
            Ok(admission) => Ok((admission, None)),
            Err(rejection) => Err(rejection.into()),
        };
        let decision = match &verdict {
            Ok((admission, _)) => Ok(admission.admitted()),
            Err(refused) => Err(&refused.rejection),
        };
        attempt.finish(route.path.as_str(), decision);
        self.complete_upgrade(phase, (address.ip, ip), route, upgrade, verdict)
    }

    /// Keeps the headers and cookies of the handshake that the route's upstream asks for.
    fn keep_forwarded<B>(
        &self,
        request: &Request<B>,
        admission: Admission,
    ) -> Result<Admission, Rejection> {
        let config = self.services.config();
        let upstream = admission.route.upstream.as_deref();
        let names = match upstream.and_then(|name| config.upstreams.kind(name)) {
            Some(config::UpstreamKind::Http(http)) => &http.request.forward,
            _ => return Ok(admission),
        };
        let mut headers = Cow::Borrowed(request.headers());
        if names.headers.contains(&REFERER) {
            remove_own_parameters(&admission.route, headers.to_mut());
        }
        match Forwarded::read(names, &headers) {
            Ok(forwarded) => Ok(Admission { forwarded, ..admission }),
            Err(TooLarge) => {
                let Admission { identity, channel, .. } = &admission;
                let channel = channel.as_ref().map(ChannelName::as_str);
                Err(Rejection::forwarded_too_large().with_user(identity.user_id.as_ref(), channel))
            }
        }
    }

    /// Answers a WebSocket of a route with a fixed reply.
    pub(super) fn answer_fixed(
        &self,
        phase: &HttpPhase,
        address: ClientAddress,
        reply: &config::FixedReply,
        request: &Request<Incoming>,
        ip: Result<Option<IpPermit>, Rejection>,
    ) -> Response<Full<Bytes>> {
        let upgrade = match upgrade::check(request, false) {
            Ok(upgrade) => upgrade,
            Err(response) => return response,
        };
        let decision = match &ip {
            Ok(_) => Ok(Admitted::default()),
            Err(rejection) => Err(rejection),
        };
        HandshakeAttempt::new(request.headers(), address).finish(reply.path.as_str(), decision);
        let upgraded = match ip {
            Err(rejection) => match self.linger_places.acquire() {
                Some(place) => Upgraded::OverLimit(rejection.event(), rejection.reason, place),
                None => return rejection.to_response(),
            },
            Ok(ip) if self.services.shutdown.is_draining() => {
                Upgraded::Closed(None, CloseReason::Restarting, ip)
            }
            Ok(ip) => Upgraded::Closed(Some(reply.reply.to_string()), CloseReason::Normal, ip),
        };
        *phase.upgraded.borrow_mut() = Some(upgraded);
        upgrade.accept_to_close()
    }

    /// Returns the 101 response, or the rejection in the form that the route configures (`reject`).
    fn complete_upgrade(
        &self,
        phase: &HttpPhase,
        (address, ip): (IpAddr, Option<IpPermit>),
        route: &config::Route,
        upgrade: upgrade::UpgradeRequest,
        verdict: Result<(Admission, Option<Box<PassedUpstream>>), Refused>,
    ) -> Response<Full<Bytes>> {
        let (upgraded, response) = match verdict {
            Ok((mut admission, Some(mut upstream))) => {
                let lease = self.hold_lease(&mut admission);
                let headers = std::mem::take(&mut upstream.headers);
                let response =
                    upgrade.accept_as(headers, upstream.subprotocol.take(), admission.deflate);
                let admission = Box::new(admission);
                (Upgraded::Admitted(admission, Some(upstream), address, ip, lease), response)
            }
            Ok((mut admission, None)) => {
                let lease = self.hold_lease(&mut admission);
                let response = upgrade.accept(admission.subprotocol.as_deref(), admission.deflate);
                if !phase.is_http2 && self.greets_at_once(&admission.route) {
                    phase.exchange.hold_response();
                }
                let admission = Box::new(admission);
                (Upgraded::Admitted(admission, None, address, ip, lease), response)
            }
            // A redirect has no close code.
            Err(Refused { answer: Some(answer), .. })
                if route.reject == config::Reject::Http || answer.status().is_redirection() =>
            {
                return *answer;
            }
            Err(Refused { rejection, .. }) if route.reject == config::Reject::Http => {
                return rejection.to_response();
            }
            Err(Refused { rejection, .. }) => {
                let event = rejection.event();
                let event = match route.timestamps {
                    true => event.map(|event| with_timestamp(&event, &clock::now_rfc3339())),
                    false => event,
                };
                let upgraded = if rejection.is_of_address() {
                    let Some(place) = self.linger_places.acquire() else {
                        return rejection.to_response();
                    };
                    Upgraded::OverLimit(event, rejection.reason, place)
                } else {
                    Upgraded::Refused(event, rejection.reason, address, ip)
                };
                (upgraded, upgrade.accept_to_close())
            }
        };
        *phase.upgraded.borrow_mut() = Some(upgraded);
        response
    }

    /// Whether the session sends `connected` as soon as its channel is subscribed, so that the 101 can leave with it.
    fn greets_at_once(&self, route: &config::Route) -> bool {
        let upstream = UpstreamMode::of(&self.services.config(), route);
        route.protocol == config::Protocol::Json && upstream != UpstreamMode::Socket
    }

    /// Adds the lease to this thread's lease set, which releases it when the connection ends.
    fn hold_lease(&self, admission: &mut Admission) -> Option<Lease> {
        let claim = admission.lease.take()?;
        let Admission { route, identity, connection_id, .. } = admission;
        let user = identity.key();
        let key = LeaseKey { kind: LeaseKind::Connection, route: route.path.as_str(), user: &user };
        let lease = self.services.leases.hold(key, (*connection_id).into());
        claim.transfer();
        Some(lease)
    }
}
