//! HTTP/1.1 clients towards backends, in the clear or over TLS: for upstreams, the proxy, `authorize`
//! requests, JWKS, the collector of spans and the gateway's own command line.
//!
//! This module owns how connections are opened (timeouts, keepalive probes, the trusted roots) and how
//! answers and errors are read. Deadlines of whole requests belong to the callers.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

mod buffered;
mod connections;
mod content;
mod exchange;
mod tcp;
mod trust;
mod upgraded;

pub use buffered::BufferedStream;
use connections::Connector;
pub use content::{BodyError, DecodedBody};
pub use exchange::{ExchangeClient, ResponseBody};
pub use hyper_util::client::legacy::Error as RequestError;
use tcp::TcpConnector;
pub use tcp::reserve_descriptors;
pub use trust::{ServerTrust, trusting};
pub use upgraded::UpgradedStream;

type BoxedError = Box<dyn Error + Send + Sync>;

/// A client that sends bodies of type `B`.
pub struct HttpClient<B = Full<Bytes>> {
    pooled: Client<Connector<HttpsConnector<TcpConnector>>, B>,
    /// Keeps no connections; its requests are never sent on one that idled.
    unpooled: Client<Connector<HttpsConnector<TcpConnector>>, B>,
}

impl<B> Clone for HttpClient<B> {
    fn clone(&self) -> Self {
        Self { pooled: self.pooled.clone(), unpooled: self.unpooled.clone() }
    }
}

impl<B> HttpClient<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    /// Sends a request, on an idle connection if there is one.
    pub async fn request(&self, request: Request<B>) -> Result<Response<Incoming>, RequestError> {
        let response = self.pooled.request(request).await?;
        connections::note_response(&response);
        Ok(response)
    }

    /// Sends a request on a connection of its own.
    pub async fn request_on_new_connection(
        &self,
        request: Request<B>,
    ) -> Result<Response<Incoming>, RequestError> {
        let response = self.unpooled.request(request).await?;
        connections::note_response(&response);
        Ok(response)
    }
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be opened.
    Unreachable,
    /// The connection was lost before there was an answer.
    Lost,
    /// The head of the answer is larger than the client reads.
    HeadTooLarge,
    /// The answer is not HTTP/1.1.
    Malformed,
}

/// The error of a request, of either client.
pub trait FailedRequest: Error + Sized + 'static {
    fn failure(&self) -> Failure;
}

impl FailedRequest for RequestError {
    fn failure(&self) -> Failure {
        failure_of(self.is_connect(), self)
    }
}

/// Names the failure of a request.
pub fn failure(error: &RequestError) -> Failure {
    error.failure()
}

fn failure_of(is_connect: bool, error: &(dyn Error + 'static)) -> Failure {
    let hyper = hyper_error(error);
    if is_connect {
        Failure::Unreachable
    } else if hyper.is_some_and(hyper::Error::is_parse_too_large) {
        Failure::HeadTooLarge
    } else if hyper.is_some_and(hyper::Error::is_parse) {
        Failure::Malformed
    } else {
        Failure::Lost
    }
}

/// Whether a request was lost because the server had closed the connection, which had answered requests before. Such a
/// request can be sent again if it is idempotent.
pub fn was_closed_while_idle(error: &RequestError) -> bool {
    failure(error) == Failure::Lost && error.connect_info().is_some_and(connections::was_used)
}

fn hyper_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a hyper::Error> {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<hyper::Error>())
}

/// The `User-Agent` of requests that the gateway makes on its own account.
pub const USER_AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

/// The upper bound of a TCP connect, where the caller's timeout is longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Shorter than what common servers keep an idle connection for (gunicorn 2 s, uvicorn and Node.js 5 s), so that a
/// request seldom meets a connection that is just being closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_millis(1500);

/// A peer that vanished is detected after about 60 s of silence: an open socket to an upstream has no
/// deadline of its own, and a reply has a long one.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Returns the time to connect to one of several replicas, so that all can be tried within `timeout`.
pub fn share_of_timeout(timeout: Duration, replicas: usize) -> Duration {
    timeout / u32::try_from(replicas.max(1)).unwrap_or(u32::MAX)
}

/// Returns a client that connects within `timeout`, at most within five seconds.
///
/// It keeps up to `max_idle` idle connections to each host. A client that several runtimes use must
/// keep none: a pooled connection is driven by the runtime that opened it.
pub fn new<B>(tls: &Arc<ClientConfig>, timeout: Duration, max_idle: usize) -> HttpClient<B>
where
    B: Body<Data: Send> + Send,
{
    let connector = connector(tls, timeout);
    let client = |max_idle| {
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(max_idle)
            .build(connector.clone())
    };
    HttpClient { pooled: client(max_idle), unpooled: client(0) }
}

/// Opens connections within `timeout`, at most within five seconds.
fn connector(tls: &ClientConfig, timeout: Duration) -> Connector<HttpsConnector<TcpConnector>> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE_IDLE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    tcp.set_connect_timeout(Some(timeout.min(CONNECT_TIMEOUT)));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls.clone())
        .https_or_http()
        .enable_http1()
        .wrap_connector(TcpConnector(tcp));
    Connector(connector)
}

/// Returns the TLS settings of a client: it trusts the system's root certificates, which are read once a
/// process. If they are not `needed`, they are not read and no server is trusted, so that a machine
/// without root certificates can still call backends in the clear.
pub fn tls_config(needed: bool) -> Result<Arc<ClientConfig>, String> {
    static WITH_SYSTEM_ROOTS: Mutex<Option<Arc<ClientConfig>>> = Mutex::new(None);

    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    if !needed {
        let config = builder.with_root_certificates(RootCertStore::empty());
        return Ok(Arc::new(config.with_no_client_auth()));
    }
    let mut loaded = WITH_SYSTEM_ROOTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(config) = &*loaded {
        return Ok(Arc::clone(config));
    }
    let config = builder
        .with_native_roots()
        .map_err(|error| format!("the system's root certificates: {error}"))?
        .with_no_client_auth();
    Ok(Arc::clone(loaded.insert(Arc::new(config))))
}

/// Reads the whole body of an answer and decodes it, at most `max_bytes` of it; a longer one is an error.
pub async fn read_body(response: Response<Incoming>, max_bytes: usize) -> Result<Bytes, String> {
    let body = DecodedBody::new(response).collect(max_bytes).await;
    body.map_err(|error| error.to_string())
}

/// Returns the text of an error followed by those of its sources: the client's own text says no more
/// than "connect error".
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let texts = std::iter::successors(Some(error), |&error| error.source());
    texts.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
