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

/// A peer that vanished is found after about 60 s of silence: an open socket to an upstream has no
/// deadline of its own, and a reply has a long one.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

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
    tcp.set_keepalive(Some(KEEPALIVE_IDLE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    tcp.set_connect_timeout(Some(timeout.min(CONNECT_TIMEOUT)));
    HttpsConnectorBuilder::new()
        .with_tls_config(ClientConfig::clone(tls))
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp)
}

/// Whether the client gave up before it wrote a byte of the request: the connection closed first. A
/// reused connection it has replaced by itself; this is a fresh one.
pub(super) fn was_never_sent(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_canceled)
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

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncReadExt;

    /// As the client wraps it.
    #[derive(Debug)]
    struct Behind(hyper::Error);

    impl std::fmt::Display for Behind {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("client error")
        }
    }

    impl std::error::Error for Behind {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[tokio::test]
    async fn only_what_was_not_written_was_never_sent() {
        let request = || Request::new(Full::new(Bytes::new()));

        let (ours, theirs) = tokio::io::duplex(1024);
        let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        let asked = sender.send_request(request());
        drop((connection, theirs));
        assert!(was_never_sent(&Behind(asked.await.unwrap_err())));

        let (ours, mut theirs) = tokio::io::duplex(1024);
        let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        let asked = sender.send_request(request());
        let (_, asked, read) =
            tokio::join!(connection, asked, async move { theirs.read(&mut [0; 64]).await });
        assert!(read.unwrap() > 0, "it was written");
        assert!(!was_never_sent(&Behind(asked.unwrap_err())));
    }
}
