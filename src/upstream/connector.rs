//! Clients that speak HTTP/1.1 to backends, in the clear or over TLS: the upstreams' own, and what the
//! handshake and the proxy build theirs of.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

/// Connections of one thread to one upstream.
pub type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The longest a TCP connect may take, where the upstream's timeout is longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Shorter than what common servers keep an idle connection for (5 s), so that a request seldom meets
/// a connection that is just being closed.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// How upstreams are trusted: by the system's roots. A machine that has none can still use upstreams
/// in the clear, so the roots are read only if `needed`.
pub fn tls(needed: bool) -> Result<Arc<ClientConfig>, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = if needed {
        config
            .with_native_roots()
            .map_err(|error| format!("the system's root certificates: {error}"))?
    } else {
        config.with_root_certificates(RootCertStore::empty())
    };
    Ok(Arc::new(config.with_no_client_auth()))
}

/// Keeps idle connections for the next request if `pooled`.
pub fn client(tls: &Arc<ClientConfig>, timeout: Duration, pooled: bool) -> HttpClient {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(if pooled { usize::MAX } else { 0 })
        .build(connector(tls, timeout))
}

/// Connects within `timeout`, and within five seconds.
pub fn connector(tls: &Arc<ClientConfig>, timeout: Duration) -> HttpsConnector<HttpConnector> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(timeout.min(CONNECT_TIMEOUT)));
    HttpsConnectorBuilder::new()
        .with_tls_config(ClientConfig::clone(tls))
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp)
}

/// An error with what is behind it: the client's own text says no more than "connect error".
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
