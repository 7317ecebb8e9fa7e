//! HTTP pass-through of everything that is no route: streams both ways, and owns the hop-by-hop and the
//! forwarding headers.
//!
//! The client's `Host` is kept, since applications build absolute URLs and check allowed hosts by it.

mod headers;
#[cfg(test)]
mod tests;
mod upload;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};

use crate::config;
use crate::http_client::{self, HttpClient};
use crate::protocol::ClientAddress;
use crate::telemetry;
use crate::telemetry::upstreams::ProxyFailure;
use upload::{Stalled, Upload};

pub type ProxyBody = BoxBody<Bytes, hyper::Error>;

/// The idle connections that each thread keeps for its next requests.
const MAX_IDLE: usize = 256;

/// One a worker thread: its connection pool is its own.
#[derive(Clone)]
pub struct Proxy {
    upstream: Option<Upstream>,
}

#[derive(Clone)]
struct Upstream {
    /// Without a query, and without the last slash of its path.
    base: String,
    timeout: Duration,
    client: HttpClient<Upload>,
}

impl Proxy {
    /// `Err` = the upstream is `https`, and the system has no root certificates.
    pub fn new(settings: &config::Proxy) -> Result<Self, String> {
        let Some(url) = &settings.upstream else { return Ok(Self { upstream: None }) };
        let tls = http_client::tls_config(url.scheme() == "https")
            .map_err(|error| format!("proxy.upstream: {error}"))?;
        let client = http_client::new(&tls, settings.timeout, MAX_IDLE);
        let base = url.as_str().split(['?', '#']).next().unwrap_or_default();
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { upstream: Some(Upstream { base, timeout: settings.timeout, client }) })
    }

    /// Never fails: what goes wrong is a 400, 404, 408, 502 or 504 with a JSON body.
    pub async fn forward(
        &self,
        request: Request<Incoming>,
        client: ClientAddress,
    ) -> Response<ProxyBody> {
        let started = Instant::now();
        let forwarded = match &self.upstream {
            Some(upstream) => upstream.forward(request, client).await,
            None => Err(ProxyFailure::NoUpstream),
        };
        match forwarded {
            Ok(response) => {
                telemetry::upstreams::proxy_answered(response.status().as_u16(), started.elapsed());
                response.map(BodyExt::boxed)
            }
            Err(failure) => {
                telemetry::upstreams::proxy_failed(failure);
                answer(failure)
            }
        }
    }
}

impl Upstream {
    async fn forward(
        &self,
        request: Request<Incoming>,
        client: ClientAddress,
    ) -> Result<Response<Incoming>, ProxyFailure> {
        let (mut head, body) = request.into_parts();
        // A tunnel is no request to pass on.
        if head.method == Method::CONNECT {
            return Err(ProxyFailure::BadTarget);
        }
        head.uri = self.target(&head.uri)?;
        head.version = Version::HTTP_11;
        headers::remove_hop_by_hop(&mut head.headers);
        headers::set_forwarded(&mut head.headers, client);
        // A long upload is not a slow upstream: the time to the answer's head counts from its last move.
        let (upload, progress) = Upload::new(body);
        let answered = tokio::select! {
            answered = self.client.request(Request::from_parts(head, upload)) => answered,
            stalled = progress.stalled(self.timeout) => return Err(match stalled {
                Stalled::Client => ProxyFailure::ClientTimedOut,
                Stalled::Upstream => ProxyFailure::TimedOut,
            }),
        };
        let mut response = answered.map_err(|error| {
            telemetry::upstreams::proxy_unreachable(&error);
            ProxyFailure::Unreachable
        })?;
        // Not asked for, since `Upgrade` ends here; and nothing is there to speak another protocol.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(ProxyFailure::Switched);
        }
        // The client's side speaks as its client does.
        *response.version_mut() = Version::HTTP_11;
        headers::remove_hop_by_hop(response.headers_mut());
        Ok(response)
    }

    /// The request's path and query below the upstream's own path.
    fn target(&self, uri: &Uri) -> Result<Uri, ProxyFailure> {
        let asked = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if !asked.starts_with('/') {
            return Err(ProxyFailure::BadTarget);
        }
        format!("{}{asked}", self.base).parse().map_err(|_| ProxyFailure::BadTarget)
    }
}

/// The answer that the client gets instead of the upstream's.
fn answer(failure: ProxyFailure) -> Response<ProxyBody> {
    let (status, error) = match failure {
        ProxyFailure::NoUpstream => (StatusCode::NOT_FOUND, "not found"),
        ProxyFailure::BadTarget => (StatusCode::BAD_REQUEST, "the request's target is no path"),
        ProxyFailure::Unreachable => (StatusCode::BAD_GATEWAY, "the service cannot be reached"),
        ProxyFailure::ClientTimedOut => {
            (StatusCode::REQUEST_TIMEOUT, "the request's body did not come in time")
        }
        ProxyFailure::Switched => (StatusCode::BAD_GATEWAY, "the service changed the protocol"),
        ProxyFailure::TimedOut => {
            (StatusCode::GATEWAY_TIMEOUT, "the service did not answer in time")
        }
    };
    let body = serde_json::json!({ "error": error, "code": failure.label() }).to_string();
    let body = Full::from(body).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
