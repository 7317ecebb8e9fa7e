//! One GET of a key set, bounded in time and size.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::header::{ACCEPT, USER_AGENT};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::jwk::Jwk;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::keys::Key;

/// From the first packet to the last byte of the body.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// A longer body is not read to its end.
const MAX_BYTES: usize = 1024 * 1024;

/// Where the keys are, and how to get there. Each fetch opens a connection of its own, because any
/// of several runtimes may be the one that fetches.
pub(super) struct Source {
    uri: hyper::Uri,
    /// For logs; the URL itself may hold a secret in its query.
    pub(super) host: Box<str>,
    connector: HttpsConnector<HttpConnector>,
}

/// What one fetch brought.
pub(super) struct Fetched {
    pub(super) keys: Vec<Arc<Key>>,
    /// Keys in the set that verify nothing here.
    pub(super) skipped: usize,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Source {
    pub(super) fn new(url: &Url) -> Result<Self, String> {
        let builder = HttpsConnectorBuilder::new();
        let builder = if url.scheme() == "https" {
            builder
                .with_provider_and_native_roots(aws_lc_rs::default_provider())
                .map_err(|error| format!("the system's root certificates: {error}"))?
        } else {
            builder.with_tls_config(trusting_nobody()?)
        };
        Ok(Self {
            uri: url.as_str().parse().map_err(|_| "not a URL that can be fetched".to_owned())?,
            host: url.host_str().unwrap_or_default().into(),
            connector: builder.https_or_http().enable_http1().build(),
        })
    }

    /// Within [`DEADLINE`]; `Err` says what went wrong, without the URL.
    pub(super) async fn fetch(&self) -> Result<Fetched, String> {
        match tokio::time::timeout(DEADLINE, self.get()).await {
            Ok(body) => parse(&body?),
            Err(_) => Err(format!("no key set within {DEADLINE:?}")),
        }
    }

    async fn get(&self) -> Result<Bytes, String> {
        let request = Request::get(self.uri.clone())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(self.connector.clone());
        let response = client.request(request).await.map_err(|error| causes(&error))?;
        if response.status() != hyper::StatusCode::OK {
            return Err(format!("answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    }
}

/// For a plain URL, so that a machine without root certificates can fetch it.
fn trusting_nobody() -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// A key that is not understood does not spoil the others.
fn parse(body: &[u8]) -> Result<Fetched, String> {
    let set: KeySet = serde_json::from_slice(body).map_err(|_| "not a JSON key set".to_owned())?;
    let given = set.keys.len();
    let read = |value| serde_json::from_value::<Jwk>(value).ok().as_ref().and_then(Key::published);
    let keys: Vec<_> = set.keys.into_iter().filter_map(read).map(Arc::new).collect();
    Ok(Fetched { skipped: given - keys.len(), keys })
}

/// An error with what is behind it: the client's own text says no more than "connect error".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
