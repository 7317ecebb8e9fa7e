//! Reverse proxy for requests that match no route. It streams both ways and owns the hop-by-hop and the
//! forwarding headers.
//!
//! The client's `Host` is kept, because applications build absolute URLs and check allowed hosts with it. Bodies pass
//! as they are, whatever their encoding.

mod failure;
mod framing;
mod in_flight;
mod interim;
mod pace;
#[cfg(test)]
mod tests;
mod upload;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Incoming};
use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};

use crate::config::{self, PlainRequests, UpstreamKind};
use crate::http_client::{self, HttpClient};
use crate::protocol::{
    ClientAddress, add_via, count_forward, is_path_step, remove_hop_by_hop, set_forwarded,
};
use crate::telemetry;
use crate::telemetry::proxy::ProxyFailure;
pub use failure::refuse;
pub use in_flight::InFlight;
pub use interim::InterimResponses;
pub use pace::Pace;
use upload::{Progress, Stalled, Upload};

pub type ProxyBody = BoxBody<Bytes, hyper::Error>;

/// The idle connections that each thread keeps for its next requests.
const MAX_IDLE: usize = 256;

/// The proxy of one worker thread, with its own connection pool.
#[derive(Clone)]
pub struct Proxy {
    /// `[proxy]`; `None` = it has no upstream.
    upstream: Option<Upstream>,
    /// How requests are sent to the upstreams of routes.
    to_routes: Sender,
}

#[derive(Clone)]
struct Upstream {
    /// The URL without its query and without the trailing slash of its path.
    base: String,
    /// Whether the URL has a path, which requests must stay below.
    has_path: bool,
    sender: Sender,
}

/// Sends requests on connections of its own.
#[derive(Clone)]
struct Sender {
    timeout: Duration,
    min_pace: config::MinPace,
    client: HttpClient<Upload>,
}

/// Where a request goes.
pub struct Destination {
    pub target: Uri,
    /// The headers that the gateway sets.
    pub headers: HeaderMap,
    /// Whether `Host` becomes that of `target`.
    pub rewrites_host: bool,
}

impl Proxy {
    /// `Err` = the URL of an upstream is secure, and the system has no root certificates.
    pub fn new(config: &config::Config) -> Result<Self, String> {
        let (timeout, min_pace) = (config.proxy.timeout, config.server.min_pace);
        let sender = |is_secure| {
            let tls = http_client::tls_config(is_secure)?;
            let client = http_client::new(&tls, timeout, MAX_IDLE);
            Ok::<_, String>(Sender { timeout, min_pace, client })
        };
        let upstream = config.proxy.upstream.as_ref().map(|url| {
            let sender = sender(url.scheme() == "https")
                .map_err(|error| format!("proxy.upstream: {error}"))?;
            let base = url.as_str().split(['?', '#']).next().unwrap_or_default();
            let base = base.trim_end_matches('/').to_owned();
            Ok::<_, String>(Upstream { base, has_path: url.path() != "/", sender })
        });
        let is_secure = config.routes.iter().any(|route| {
            let upstream = route.upstream.as_ref().and_then(|name| config.upstreams.get(name));
            route.plain_requests == PlainRequests::Upstream
                && upstream.is_some_and(|upstream| match &upstream.kind {
                    UpstreamKind::WebSocket(socket) => {
                        socket.urls.iter().any(|url| url.as_str().starts_with("wss://"))
                    }
                    _ => false,
                })
        });
        let to_routes = sender(is_secure).map_err(|error| format!("upstream: {error}"))?;
        Ok(Self { upstream: upstream.transpose()?, to_routes })
    }

    /// Whether a change of the configuration changes the proxy.
    pub fn is_changed(before: &config::Config, after: &config::Config) -> bool {
        before.proxy != after.proxy
            || before.server.min_pace != after.server.min_pace
            || before.routes != after.routes
            || before.upstreams != after.upstreams
    }

    /// Whether requests without a route have somewhere to go.
    pub fn has_upstream(&self) -> bool {
        self.upstream.is_some()
    }

    /// Forwards a request to the upstream of `[proxy]`. Failures become a 400, 404, 408, 502 or 504 response with a JSON
    /// body. Interim responses go to `interim`.
    pub async fn forward(
        &self,
        request: Request<Incoming>,
        client: ClientAddress,
        interim: &InterimResponses,
    ) -> Response<ProxyBody> {
        let started = Instant::now();
        let forwarded = match &self.upstream {
            Some(upstream) => match upstream.target(request.uri()) {
                Ok(target) => {
                    let to =
                        Destination { target, headers: HeaderMap::new(), rewrites_host: false };
                    upstream.sender.forward(request, to, client, interim).await
                }
                Err(failure) => Err(failure),
            },
            None => Err(ProxyFailure::NoUpstream),
        };
        finish(forwarded, started)
    }

    /// Forwards a request to the upstream of its route.
    pub async fn forward_to(
        &self,
        to: Destination,
        request: Request<Incoming>,
        client: ClientAddress,
        interim: &InterimResponses,
    ) -> Response<ProxyBody> {
        let started = Instant::now();
        finish(self.to_routes.forward(request, to, client, interim).await, started)
    }
}

/// Counts the answer of an upstream, or answers in its place.
fn finish(
    forwarded: Result<Response<Incoming>, ProxyFailure>,
    started: Instant,
) -> Response<ProxyBody> {
    match forwarded {
        Ok(response) => {
            telemetry::proxy::answered(response.status().as_u16(), started.elapsed());
            response.map(|body| body.map_err(failure::of_body).boxed())
        }
        Err(failure) => {
            telemetry::proxy::failed(failure);
            failure::to_response(failure)
        }
    }
}

impl Sender {
    async fn forward(
        &self,
        request: Request<Incoming>,
        to: Destination,
        client: ClientAddress,
        interim: &InterimResponses,
    ) -> Result<Response<Incoming>, ProxyFailure> {
        let (mut head, body) = request.into_parts();
        // The proxy opens no tunnels.
        if head.method == Method::CONNECT {
            return Err(ProxyFailure::BadTarget);
        }
        head.uri = to.target;
        let received = std::mem::replace(&mut head.version, Version::HTTP_11);
        // An HTTP/1.0 client knows no interim responses.
        let takes_interim = received == Version::HTTP_11;
        remove_hop_by_hop(&mut head.headers);
        set_forwarded(&mut head.headers, client);
        add_via(&mut head.headers, received);
        count_forward(&head.method, &mut head.headers);
        head.headers.extend(to.headers);
        if to.rewrites_host {
            // The HTTP client writes that of the URL.
            head.headers.remove(HOST);
        }
        let may_repeat = body.is_end_stream() && head.method.is_idempotent();
        let again = may_repeat.then(|| head.clone());
        let build = |head: Parts, upload| {
            let mut request = Request::from_parts(head, upload);
            if takes_interim {
                interim.collect_from(&mut request);
            }
            request
        };
        // A long upload does not mean that the upstream is slow: the timeout of the response head starts at the
        // upload's last progress.
        let (upload, progress) = Upload::new(body, self.min_pace);
        let again = again.map(|head| build(head, Upload::empty(self.min_pace)));
        let mut response = self.send(build(head, upload), again, &progress).await?;
        // `Upgrade` was removed from the request, and neither side is ready to speak another protocol.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(ProxyFailure::Switched);
        }
        // The connection to the client is HTTP/1.1, whatever version the upstream answered with.
        *response.version_mut() = Version::HTTP_11;
        framing::unify(&mut response).map_err(failure::of_framing)?;
        remove_hop_by_hop(response.headers_mut());
        Ok(response)
    }

    /// Sends a request, and sends it `again` once if it met a connection that the upstream was closing.
    async fn send(
        &self,
        request: Request<Upload>,
        again: Option<Request<Upload>>,
        progress: &Progress,
    ) -> Result<Response<Incoming>, ProxyFailure> {
        let sending = async {
            match (self.client.request(request).await, again) {
                (Err(error), Some(again)) if http_client::was_closed_while_idle(&error) => {
                    telemetry::proxy::retried();
                    self.client.request_on_new_connection(again).await
                }
                (sent, _) => sent,
            }
        };
        let sent = tokio::select! {
            sent = sending => sent,
            stalled = progress.stalled(self.timeout) => return Err(match stalled {
                Stalled::Client => ProxyFailure::ClientTimedOut,
                Stalled::Upstream => ProxyFailure::TimedOut,
            }),
        };
        sent.map_err(|error| match progress.client_fault() {
            Some(fault) => fault.into(),
            None => failure::of_upstream(&error),
        })
    }
}

impl Upstream {
    /// Appends the request's path and query to the upstream's own path.
    fn target(&self, uri: &Uri) -> Result<Uri, ProxyFailure> {
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if !path.starts_with('/') {
            return Err(ProxyFailure::BadTarget);
        }
        // A step such as `..` would lead out of the upstream's own path.
        if self.has_path && is_path_step(uri.path()) {
            return Err(ProxyFailure::BadTarget);
        }
        format!("{}{path}", self.base).parse().map_err(|_| ProxyFailure::BadTarget)
    }
}
