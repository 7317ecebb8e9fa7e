//! A single GET of a key set, bounded in time and size.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::keys::Key;
use crate::http_client::{self, HttpClient, error_chain};
use crate::protocol::strip_bom;

/// The time from the start of the connection to the last byte of the body.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// The maximum length of a key set.
const MAX_BYTES: usize = 1024 * 1024;

/// The endpoint of a key set. Each fetch opens a new connection, because it may run on any of several
/// runtimes.
pub(super) struct Source {
    uri: hyper::Uri,
    /// The host name for logs; the URL itself may contain a secret in its query.
    pub(super) host: Box<str>,
    client: HttpClient,
}

/// The result of one fetch.
pub(super) struct Fetched {
    pub(super) keys: Vec<Arc<Key>>,
    /// The number of keys in the set that the gateway cannot verify with.
    pub(super) skipped: usize,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// Fetches a key set once, and returns how many of its keys can be used. `Err` describes the failure without the URL.
pub async fn usable_keys(url: &Url) -> Result<usize, String> {
    Ok(Source::new(url)?.fetch().await?.keys.len())
}

impl Source {
    pub(super) fn new(url: &Url) -> Result<Self, String> {
        let tls = http_client::tls_config(url.scheme() == "https")?;
        Ok(Self {
            uri: url.as_str().parse().map_err(|_| "not a URL that can be fetched".to_owned())?,
            host: url.host_str().unwrap_or_default().into(),
            client: http_client::new(&tls, DEADLINE, 0),
        })
    }

    /// Fetches the key set within [`DEADLINE`]. `Err` describes the failure without the URL.
    pub(super) async fn fetch(&self) -> Result<Fetched, String> {
        match tokio::time::timeout(DEADLINE, self.get()).await {
            Ok(body) => parse(&body?),
            Err(_) => Err(format!("no key set within {DEADLINE:?}")),
        }
    }

    async fn get(&self) -> Result<Bytes, String> {
        let request = Request::get(self.uri.clone())
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .header(USER_AGENT, http_client::USER_AGENT)
            .body(Full::default())
            .map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| error_chain(&error))?;
        if response.status() != hyper::StatusCode::OK {
            return Err(format!("answered {}", response.status()));
        }
        http_client::read_body(response, MAX_BYTES).await
    }
}

/// Parses a key set. Keys that are not understood are skipped.
fn parse(body: &[u8]) -> Result<Fetched, String> {
    let set: KeySet =
        serde_json::from_slice(strip_bom(body)).map_err(|_| "not a JSON key set".to_owned())?;
    let given = set.keys.len();
    let read = |value| serde_json::from_value::<Jwk>(value).ok().as_ref().and_then(Key::from_jwk);
    let keys: Vec<_> = set.keys.into_iter().filter_map(read).map(Arc::new).collect();
    Ok(Fetched { skipped: given - keys.len(), keys })
}
