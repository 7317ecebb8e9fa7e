//! Requests that are no WebSocket handshakes: to `[proxy]`, or with the checks of their route to the route's own upstream.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::http::{HttpFrontend, boxed};
use super::http_phase::HttpPhase;
use crate::config::{self, HostHeader, PlainRequests};
use crate::handshake::{Handshake, HandshakeAttempt, json_error, upgrade};
use crate::protocol::{ClientAddress, Params};
use crate::proxy::{Destination, InterimResponses, Proxy, ProxyBody};
use crate::upstream::{BalanceKey, SocketRequest};

/// What a request is passed on with.
pub(super) struct PassedRequest<'a> {
    pub phase: &'a HttpPhase,
    pub handshake: &'a Handshake,
    pub proxy: Proxy,
    pub address: ClientAddress,
    /// The route that its path belongs to, if there is one.
    pub route: Option<(Arc<config::Route>, Params)>,
}

/// Checks that the request's route passes requests of this method on. `Err` is the answer if it does not.
pub(super) fn served<B>(
    passing: &PassedRequest<'_>,
    request: &Request<B>,
) -> Result<(), Response<Full<Bytes>>> {
    let Some((route, _)) = &passing.route else { return Ok(()) };
    if upgrade::has_lost_upgrade(request.headers()) {
        return Err(upgrade::lost());
    }
    let is_passed = match route.plain_requests {
        PlainRequests::Refused => false,
        PlainRequests::Proxy => passing.proxy.has_upstream(),
        PlainRequests::Upstream => true,
    };
    if !is_passed {
        return Err(upgrade::required(request.method()));
    }
    if route.methods.is_empty() || route.methods.contains(request.method()) {
        return Ok(());
    }
    let error = "this method is not passed on";
    let mut response = json_error(StatusCode::METHOD_NOT_ALLOWED, error, "method");
    let methods: Vec<&str> = route.methods.iter().map(Method::as_str).collect();
    if let Ok(allow) = HeaderValue::from_str(&methods.join(", ")) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    Err(response)
}

/// Answers a request whose path has the shape of a route's, and a value that does not fit it.
pub(super) fn unfit_path() -> Response<ProxyBody> {
    let error = "the path has a value that this route does not take";
    boxed(json_error(StatusCode::BAD_REQUEST, error, "bad_target"))
}

impl HttpFrontend {
    /// Passes a request on as its route says, or to `[proxy]` if it has none.
    pub(super) async fn pass_request(
        &self,
        passing: PassedRequest<'_>,
        mut request: Request<Incoming>,
    ) -> Response<ProxyBody> {
        let PassedRequest { phase, handshake, proxy, address, route } = passing;
        let interim = InterimResponses::default();
        let checked = route.filter(|(route, _)| route.plain_requests == PlainRequests::Upstream);
        let Some((route, params)) = checked else {
            phase.exchange.expect_interim(interim.clone());
            return proxy.forward(request, address, &interim).await;
        };
        let attempt = HandshakeAttempt::of_request(request.headers(), address);
        let admission = match handshake.admit_request(&route, &params, &request, &attempt).await {
            Ok(admission) => admission,
            Err(rejection) => {
                attempt.refuse_request(route.path.as_str(), &rejection);
                return boxed(rejection.to_response());
            }
        };
        let config = self.services.config();
        let upstreams = config.upstreams.shared();
        let Some((name, pool)) =
            route.upstream.as_deref().and_then(|name| Some((name, upstreams.pool(name)?)))
        else {
            return unfit_path();
        };
        let identity = admission.identity.as_ref();
        let socket_request = SocketRequest {
            channel: admission.channel.as_ref(),
            params: &params,
            user_id: identity.and_then(|identity| identity.user_id.as_ref()),
            username: identity.and_then(|identity| identity.username.as_deref()),
            sender: &admission.sender,
            connection_id: admission.connection_id,
            request_id: &admission.request_id,
            trace: &admission.trace,
            max_message_bytes: route.max_message_bytes,
        };
        let client = handshake.for_upstream(&route, &request, address);
        let head_at = |replica| upstreams.request_head(name, replica, &socket_request, &client);
        let channel = admission.channel.as_ref();
        let at = pool.begin_request(BalanceKey { channel, sender: &admission.sender });
        let Some((target, mut headers)) = head_at(at.replica()) else { return unfit_path() };
        if let Some(forwarded) = client.headers.get(header::FORWARDED) {
            headers.insert(header::FORWARDED, forwarded.clone());
        }
        for name in [header::COOKIE, header::AUTHORIZATION] {
            replace(&mut request, &name, &client.headers);
        }
        let rewrites_host = client.host == HostHeader::Upstream;
        let target_at = |replica| Some(head_at(replica)?.0);
        let to = Destination { at, target, target_at: &target_at, headers, rewrites_host };
        phase.exchange.expect_interim(interim.clone());
        proxy.forward_to(to, request, address, &interim).await
    }
}

/// Replaces the headers of this name by those in `headers`.
fn replace<B>(request: &mut Request<B>, name: &HeaderName, headers: &header::HeaderMap) {
    request.headers_mut().remove(name);
    for value in headers.get_all(name) {
        request.headers_mut().append(name.clone(), value.clone());
    }
}
