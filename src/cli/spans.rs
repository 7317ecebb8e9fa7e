//! Sends spans to the configured collector, from the thread of the exporter.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT_ENCODING, HeaderName, HeaderValue};
use hyper::{Request, Response};
use tokio::runtime::Runtime;

use super::Failure;
use crate::config::Tracing as Config;
use crate::http_client::{self, HttpClient, error_chain};
use crate::protocol::random_hex;
use crate::telemetry::spans::{self, Collector, HttpError, Settings, Tracing};

/// The responses of collectors are short.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Starts tracing; `None` if the config has no collector.
pub fn start(settings: &Config) -> Result<Option<Tracing>, Failure> {
    let Some(endpoint) = &settings.otlp_endpoint else { return Ok(None) };
    let mut endpoint = endpoint.clone();
    if endpoint.path() == "/" {
        endpoint.set_path("/v1/traces");
    }
    let failure = |reason: String| Failure(format!("tracing: {reason}"));
    let tls = http_client::tls_config(endpoint.scheme() == "https").map_err(failure)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failure(error.to_string()))?;
    let client = Exporter {
        runtime,
        client: http_client::new(&tls, settings.timeout, usize::MAX),
        headers: settings.headers.clone(),
        timeout: settings.timeout,
    };
    let collector = Collector {
        endpoint: endpoint.into(),
        timeout: settings.timeout,
        client: Arc::new(client),
    };
    let tracing = spans::start(Settings {
        collector,
        sample_ratio: settings.sample_ratio,
        service_name: settings.service_name.clone(),
        instance: random_hex(8),
    });
    tracing.map(Some).map_err(failure)
}

/// Sends requests from the thread of the exporter, which has no runtime of its own and waits for the response.
struct Exporter {
    runtime: Runtime,
    client: HttpClient,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}

impl Exporter {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut request = request.map(Full::new);
        let headers = request.headers_mut();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        let response = self.client.request(request).await.map_err(|error| error_chain(&error))?;
        let (head, body) = response.into_parts();
        let response = Response::from_parts(head.clone(), body);
        let body = http_client::read_body(response, MAX_ANSWER_BYTES).await?;
        Ok(Response::from_parts(head, body))
    }
}

#[async_trait]
impl spans::HttpClient for Exporter {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.runtime.block_on(async {
            match tokio::time::timeout(self.timeout, self.send(request)).await {
                Ok(sent) => sent,
                Err(_) => Err(format!("no response within {:?}", self.timeout).into()),
            }
        })
    }
}
