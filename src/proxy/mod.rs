//! Reverse proxy for requests that match no route. It streams both ways and owns the hop-by-hop and the
//! forwarding headers.
//!
//! The client's `Host` is kept, because applications build absolute URLs and check allowed hosts with it.

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

/// The proxy of one worker thread, with its own connection pool.
#[derive(Clone)]
pub struct Proxy {
    upstream: Option<Upstream>,
}

#[derive(Clone)]
struct Upstream {
    /// The URL without its query and without the trailing slash of its path.
    base: String,
    timeout: Duration,
    client: HttpClient<Upload>,
}

impl Proxy {
    /// `Err` = the upstream's URL is `https`, and the system has no root certificates.
    pub fn new(settings: &config::Proxy) -> Result<Self, String> {
        let Some(url) = &settings.upstream else { return Ok(Self { upstream: None }) };
        let tls = http_client::tls_config(url.scheme() == "https")
            .map_err(|error| format!("proxy.upstream: {error}"))?;
        let client = http_client::new(&tls, settings.timeout, MAX_IDLE);
        let base = url.as_str().split(['?', '#']).next().unwrap_or_default();
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { upstream: Some(Upstream { base, timeout: settings.timeout, client }) })
    }

    /// Forwards a request. Failures become a 400, 404, 408, 502 or 504 response with a JSON body.
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
                failure.to_response()
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
        // The proxy opens no tunnels.
        if head.method == Method::CONNECT {
            return Err(ProxyFailure::BadTarget);
        }
        head.uri = self.target(&head.uri)?;
        head.version = Version::HTTP_11;
        headers::remove_hop_by_hop(&mut head.headers);
        headers::set_forwarded(&mut head.headers, client);
        // A long upload does not mean that the upstream is slow: the timeout of the response head starts at the
        // upload's last progress.
        let (upload, progress) = Upload::new(body);
        let response = tokio::select! {
            response = self.client.request(Request::from_parts(head, upload)) => response,
            stalled = progress.stalled(self.timeout) => return Err(match stalled {
                Stalled::Client => ProxyFailure::ClientTimedOut,
                Stalled::Upstream => ProxyFailure::TimedOut,
            }),
        };
        let mut response = response.map_err(|error| {
            telemetry::upstreams::proxy_unreachable(&error);
            ProxyFailure::Unreachable
        })?;
        // `Upgrade` was removed from the request, and neither side is ready to speak another protocol.
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(ProxyFailure::Switched);
        }
        // The connection to the client is HTTP/1.1, whatever version the upstream answered with.
        *response.version_mut() = Version::HTTP_11;
        headers::remove_hop_by_hop(response.headers_mut());
        Ok(response)
    }

    /// Appends the request's path and query to the upstream's own path.
    fn target(&self, uri: &Uri) -> Result<Uri, ProxyFailure> {
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if !path.starts_with('/') {
            return Err(ProxyFailure::BadTarget);
        }
        format!("{}{path}", self.base).parse().map_err(|_| ProxyFailure::BadTarget)
    }
}

impl ProxyFailure {
    /// The answer that the client gets instead of the upstream's.
    fn to_response(self) -> Response<ProxyBody> {
        let (status, error) = match self {
            Self::NoUpstream => (StatusCode::NOT_FOUND, "not found"),
            Self::BadTarget => (StatusCode::BAD_REQUEST, "the request target is not a path"),
            Self::Unreachable => (StatusCode::BAD_GATEWAY, "the service cannot be reached"),
            Self::ClientTimedOut => {
                (StatusCode::REQUEST_TIMEOUT, "timed out reading the request body")
            }
            Self::Switched => (StatusCode::BAD_GATEWAY, "the service switched protocols"),
            Self::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "the service did not answer in time"),
        };
        let body = serde_json::json!({ "error": error, "code": self.label() }).to_string();
        let body = Full::from(body).map_err(|never| match never {}).boxed();
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
