//! Reverse proxy for requests that match no route. It streams both ways and owns the hop-by-hop and the
//! forwarding headers.
//!
//! The client's `Host` is kept, because applications build absolute URLs and check allowed hosts with it. Bodies pass
//! as they are, whatever their encoding.

mod failure;
mod framing;
mod held_body;
mod in_flight;
mod interim;
mod pace;
mod sender;
mod shared;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Request, Response, Uri};

use crate::config::{self, PlainRequests};
use crate::http_client;
use crate::protocol::{ClientAddress, SenderKey, is_path_step};
use crate::telemetry;
use crate::telemetry::proxy::ProxyFailure;
use crate::upstream::{BalanceKey, Pool};
pub use failure::refuse;
pub use held_body::HeldBody;
pub use interim::InterimResponses;
pub use pace::Pace;
pub use sender::Destination;
use sender::{Answered, Sender};
pub use shared::SharedProxy;

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

/// Where `[proxy]` leads. Cheap to clone.
#[derive(Clone)]
struct Upstream {
    /// In the order of `urls`.
    bases: Arc<[Base]>,
    pool: Arc<Pool>,
    ipv6_prefix: u8,
    sender: Sender,
}

/// What the path and query of a request are appended to.
struct Base {
    /// The URL without its query and without the trailing slash of its path.
    url: String,
    /// Whether the URL has a path, which requests must stay below.
    has_path: bool,
}

impl Proxy {
    /// `Err` = the URL of an upstream is secure, and the system has no root certificates.
    pub fn new(config: &config::Config, shared: &SharedProxy) -> Result<Self, String> {
        let (timeout, min_pace) = (config.proxy.timeout, config.server.min_pace);
        // There is time to try every replica.
        let sender = |is_secure, replicas: usize| {
            let tls = http_client::tls_config(is_secure)?;
            let client =
                http_client::new(&tls, http_client::share_of_timeout(timeout, replicas), MAX_IDLE);
            Ok::<_, String>(Sender { timeout, min_pace, client })
        };
        let urls = &config.proxy.urls;
        let upstream = (!urls.is_empty()).then(|| {
            let sender = sender(urls.iter().any(|url| url.scheme() == "https"), urls.len())
                .map_err(|error| format!("proxy: {error}"))?;
            let base = |url: &url::Url| {
                let text = url.as_str().split(['?', '#']).next().unwrap_or_default();
                let has_path = url.path() != "/";
                Base { url: text.trim_end_matches('/').to_owned(), has_path }
            };
            let (bases, pool) = (urls.iter().map(base).collect(), Arc::clone(&shared.pool));
            let ipv6_prefix = config.limits.ipv6_prefix;
            Ok::<_, String>(Upstream { bases, pool, ipv6_prefix, sender })
        });
        let of_routes = config.routes.iter().filter_map(|route| {
            let is_passed = route.plain_requests == PlainRequests::Upstream;
            let name = route.upstream.as_ref().filter(|_| is_passed)?;
            config.upstreams.get(name).map(|upstream| upstream.urls())
        });
        let is_secure = of_routes.clone().flatten().any(|url| url.as_str().starts_with("wss://"));
        let replicas = of_routes.map(|urls| urls.len()).max().unwrap_or_default();
        let to_routes =
            sender(is_secure, replicas).map_err(|error| format!("upstream: {error}"))?;
        Ok(Self { upstream: upstream.transpose()?, to_routes })
    }

    /// Whether a change of the configuration changes the proxy.
    pub fn is_changed(before: &config::Config, after: &config::Config) -> bool {
        before.proxy != after.proxy
            || before.server.min_pace != after.server.min_pace
            || before.limits.ipv6_prefix != after.limits.ipv6_prefix
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
            Some(upstream) => upstream.forward(request, client, interim).await,
            None => Err(ProxyFailure::NoUpstream),
        };
        finish(forwarded, started)
    }

    /// Forwards a request to the upstream of its route.
    pub async fn forward_to(
        &self,
        to: Destination<'_>,
        request: Request<Incoming>,
        client: ClientAddress,
        interim: &InterimResponses,
    ) -> Response<ProxyBody> {
        let started = Instant::now();
        finish(self.to_routes.forward(request, to, client, interim).await, started)
    }
}

/// Counts the answer of an upstream, or answers in its place.
fn finish(forwarded: Result<Answered, ProxyFailure>, started: Instant) -> Response<ProxyBody> {
    match forwarded {
        Ok(Answered { response, load }) => {
            telemetry::proxy::answered(response.status().as_u16(), started.elapsed());
            HeldBody::hold(response.map(|body| body.map_err(failure::of_body).boxed()), load)
        }
        Err(failure) => {
            telemetry::proxy::failed(failure);
            failure::to_response(failure)
        }
    }
}

impl Upstream {
    async fn forward(
        &self,
        request: Request<Incoming>,
        client: ClientAddress,
        interim: &InterimResponses,
    ) -> Result<Answered, ProxyFailure> {
        let sender = SenderKey::new(None, client.ip, self.ipv6_prefix);
        let at = self.pool.begin_request(BalanceKey { channel: None, sender: &sender });
        let uri = request.uri().clone();
        let target_at = |replica: usize| self.bases.get(replica)?.target(&uri);
        let target = target_at(at.replica()).ok_or(ProxyFailure::BadTarget)?;
        let headers = HeaderMap::new();
        let to = Destination { at, target, target_at: &target_at, headers, rewrites_host: false };
        self.sender.forward(request, to, client, interim).await
    }
}

impl Base {
    /// Appends the request's path and query. `None` = the target is not a path, or would lead elsewhere.
    fn target(&self, uri: &Uri) -> Option<Uri> {
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if !path.starts_with('/') {
            return None;
        }
        // A step such as `..` would lead out of the upstream's own path.
        if self.has_path && is_path_step(uri.path()) {
            return None;
        }
        format!("{}{path}", self.url).parse().ok()
    }
}
