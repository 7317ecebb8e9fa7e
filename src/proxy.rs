//! HTTP pass-through of everything that is no route: streams both ways, and owns the hop-by-hop and the
//! forwarding headers.
//!
//! The client's `Host` is kept, since applications build absolute URLs and check allowed hosts by it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::config;
use crate::protocol::{ClientAddress, random_hex};
use crate::telemetry;

mod upload;

use upload::Upload;

pub type ProxyBody = BoxBody<Bytes, hyper::Error>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Connection-level headers (RFC 9110 section 7.6.1), which end at this hop.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// One a worker thread: its connection pool is its own.
#[derive(Clone)]
pub struct Proxy {
    upstream: Option<Upstream>,
}

#[derive(Clone)]
struct Upstream {
    base: url::Url,
    timeout: Duration,
    client: Client<HttpsConnector<HttpConnector>, Upload>,
}

/// How a request ended that was not answered by the upstream.
#[derive(Debug, Clone, Copy)]
enum Failure {
    NoUpstream,
    BadTarget,
    Unreachable,
    TimedOut,
}

impl Proxy {
    /// `Err` = the system's root certificates cannot be read.
    pub fn new(settings: &config::Proxy) -> Result<Self, String> {
        let Some(base) = settings.upstream.clone() else { return Ok(Self { upstream: None }) };
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| format!("proxy.upstream: root certificates: {error}"))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self { upstream: Some(Upstream { base, timeout: settings.timeout, client }) })
    }

    /// Never fails: what goes wrong is a 404, 400, 502 or 504 with a JSON body.
    pub async fn forward(
        &self,
        request: Request<Incoming>,
        client: ClientAddress,
    ) -> Response<ProxyBody> {
        let started = Instant::now();
        let forwarded = match &self.upstream {
            Some(upstream) => upstream.forward(request, client).await,
            None => Err(Failure::NoUpstream),
        };
        match forwarded {
            Ok(response) => {
                telemetry::proxy::answered(response.status().as_u16(), started.elapsed());
                response.map(BodyExt::boxed)
            }
            Err(failure) => {
                telemetry::proxy::failed(failure.label());
                failure.answer()
            }
        }
    }
}

impl Upstream {
    async fn forward(
        &self,
        mut request: Request<Incoming>,
        client: ClientAddress,
    ) -> Result<Response<Incoming>, Failure> {
        *request.uri_mut() = self.target(request.uri())?;
        *request.version_mut() = hyper::Version::HTTP_11;
        let headers = request.headers_mut();
        remove_hop_by_hop(headers);
        forward_headers(headers, client);
        let (head, body) = request.into_parts();
        let (upload, progress) = Upload::new(body);
        let request = Request::from_parts(head, upload);
        match progress.within(self.timeout, self.client.request(request)).await {
            Ok(Ok(mut response)) => {
                remove_hop_by_hop(response.headers_mut());
                Ok(response)
            }
            Ok(Err(error)) => {
                telemetry::proxy::broken(&error);
                Err(Failure::Unreachable)
            }
            Err(upload::TimedOut) => Err(Failure::TimedOut),
        }
    }

    /// The request's path and query below the upstream's own path.
    fn target(&self, uri: &Uri) -> Result<Uri, Failure> {
        let asked = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let base = self.base.as_str().split(['?', '#']).next().unwrap_or_default();
        let asked = if asked.starts_with('/') { asked } else { return Err(Failure::BadTarget) };
        format!("{}{asked}", base.trim_end_matches('/')).parse().map_err(|_| Failure::BadTarget)
    }
}

impl Failure {
    fn label(self) -> &'static str {
        match self {
            Self::NoUpstream => "no_upstream",
            Self::BadTarget => "bad_target",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
        }
    }

    fn answer(self) -> Response<ProxyBody> {
        let (status, error) = match self {
            Self::NoUpstream => (StatusCode::NOT_FOUND, "not found"),
            Self::BadTarget => (StatusCode::BAD_REQUEST, "the request's target is no path"),
            Self::Unreachable => (StatusCode::BAD_GATEWAY, "the service cannot be reached"),
            Self::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "the service did not answer in time"),
        };
        let body = serde_json::json!({ "error": error, "code": self.label() }).to_string();
        let body = Full::from(body).map_err(|never| match never {}).boxed();
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

/// The fixed ones, those that `Connection` names, and `TE` but for trailers.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        headers.remove(header::TE);
    }
}

/// What an untrusted peer says of itself is replaced; what a trusted proxy says is kept and added to.
fn forward_headers(headers: &mut HeaderMap, client: ClientAddress) {
    let mut chain = String::new();
    if client.through_proxy {
        for value in headers.get_all(&X_FORWARDED_FOR) {
            chain.push_str(value.to_str().unwrap_or_default());
            chain.push_str(", ");
        }
    } else {
        headers.remove(&X_FORWARDED_HOST);
        headers.remove(&X_FORWARDED_PROTO);
        headers.remove(header::FORWARDED);
    }
    chain.push_str(&client.peer.to_string());
    if let Ok(chain) = HeaderValue::from_str(&chain) {
        headers.insert(X_FORWARDED_FOR, chain);
    }
    if !headers.contains_key(&X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(&X_FORWARDED_HOST)
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
    let reasonable = |id: &HeaderValue| {
        !id.is_empty()
            && id.len() <= MAX_REQUEST_ID_BYTES
            && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    if !headers.get(&X_REQUEST_ID).is_some_and(reasonable)
        && let Ok(id) = HeaderValue::from_str(&random_hex(16))
    {
        headers.insert(X_REQUEST_ID, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_headers_end_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic x"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("accept"));
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        let peer = "10.0.0.1".parse().unwrap();
        for (through_proxy, chain, host) in
            [(false, "10.0.0.1", "api.test"), (true, "1.2.3.4, 10.0.0.1", "outer.test")]
        {
            let mut headers = HeaderMap::new();
            headers.insert("host", "api.test".parse().unwrap());
            headers.insert("x-forwarded-for", "1.2.3.4".parse().unwrap());
            headers.insert("x-forwarded-host", "outer.test".parse().unwrap());
            headers.insert("x-request-id", "bad id".parse().unwrap());
            forward_headers(&mut headers, ClientAddress { ip: peer, peer, through_proxy });
            assert_eq!(headers["x-forwarded-for"], chain);
            assert_eq!(headers["x-forwarded-host"], host);
            assert_eq!(headers["x-forwarded-proto"], "http");
            assert_eq!(headers["x-request-id"].len(), 32);
        }
    }
}
