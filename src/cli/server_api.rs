//! A client for the admin port of a running gateway, for the commands of this program.

use std::error::Error as _;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Secret;
use crate::http_client::{self, HttpClient, error_chain};

/// The time limit for a whole response, or for the head of a stream.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// The largest response.
const MAX_RESPONSE_BYTES: usize = 256 << 20;

/// The admin port of a running gateway, with a key of its server API.
#[derive(Clone)]
pub struct ServerApi {
    /// The host and port.
    authority: String,
    key: Option<Secret>,
    /// `None` = the port speaks plain HTTP.
    tls: Option<Arc<ClientConfig>>,
}

/// A complete response.
pub struct ApiResponse {
    pub status: StatusCode,
    pub body: Bytes,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// The gateway cannot be reached, or something else answered. A later attempt may succeed.
    Unavailable(String),
    /// The gateway refused the request. A later attempt would fail as well.
    Rejected(StatusCode, String),
}

impl Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unavailable(reason) | Self::Rejected(_, reason) => f.write_str(reason),
        }
    }
}

impl ServerApi {
    /// A client for the address that the gateway listens on. A wildcard address is reached over loopback.
    pub fn new(listen: SocketAddr, key: Option<&Secret>) -> Self {
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self::at(SocketAddr::new(ip, listen.port()).to_string(), key)
    }

    /// A client for a host and port.
    pub fn at(authority: String, key: Option<&Secret>) -> Self {
        Self { authority, key: key.cloned(), tls: None }
    }

    /// The same for a port with TLS, or without.
    pub fn with_tls(self, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { tls, ..self }
    }

    /// The host and port.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether requests have an API key.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Requests a new connection token with `POST /v1/tokens`. Blocks for at most [`DEADLINE`].
    pub fn issue_token(&self, request: &Value) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Issued {
            connection_token: String,
        }
        let body =
            block_on(self.post("/v1/tokens", request))?.map_err(|error| error.to_string())?;
        serde_json::from_slice::<Issued>(&body)
            .map(|issued| issued.connection_token)
            .map_err(|_| format!("{} sent a response without a connection token", self.authority))
    }

    /// Posts JSON, and returns the body of a 2xx response.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Bytes, ApiError> {
        let body =
            serde_json::to_vec(body).map_err(|error| ApiError::Unavailable(error.to_string()))?;
        let response = self.request(Method::POST, path, Some(body.into()), DEADLINE).await?;
        self.success_body(response)
    }

    /// Returns the body of a 2xx response to a GET.
    pub async fn get(&self, path: &str) -> Result<Bytes, ApiError> {
        let response = self.request(Method::GET, path, None, DEADLINE).await?;
        self.success_body(response)
    }

    /// Returns the body of a 2xx response to a GET that may take this long.
    pub async fn get_within(&self, path: &str, deadline: Duration) -> Result<Bytes, ApiError> {
        let response = self.request(Method::GET, path, None, deadline).await?;
        self.success_body(response)
    }

    /// Opens a stream of server-sent events, which lasts until one side ends it.
    pub async fn stream(&self, path: &str) -> Result<Incoming, ApiError> {
        let request = self.send(Method::GET, path, None);
        let response = self.with_deadline(DEADLINE, request).await?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let response = self.with_deadline(DEADLINE, collect_body(response)).await?;
        Err(self.status_error(&response))
    }

    /// Returns the response to a GET, whatever its status.
    pub async fn get_any_status(
        &self,
        path: &str,
        deadline: Duration,
    ) -> Result<ApiResponse, ApiError> {
        self.request(Method::GET, path, None, deadline).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        deadline: Duration,
    ) -> Result<ApiResponse, ApiError> {
        let response = async { collect_body(self.send(method, path, body).await?).await };
        self.with_deadline(deadline, response).await
    }

    fn success_body(&self, response: ApiResponse) -> Result<Bytes, ApiError> {
        if response.status.is_success() {
            Ok(response.body)
        } else {
            Err(self.status_error(&response))
        }
    }

    fn status_error(&self, response: &ApiResponse) -> ApiError {
        let reason = error_message(response.status, &response.body);
        let reason = format!("the admin port {}: {reason}", self.authority);
        // The gateway is overloaded or starting, or a proxy has no gateway to forward to.
        match response.status.as_u16() {
            429 | 500..=599 => ApiError::Unavailable(reason),
            _ => ApiError::Rejected(response.status, reason),
        }
    }

    async fn with_deadline<T>(
        &self,
        deadline: Duration,
        request: impl Future<Output = Result<T, String>>,
    ) -> Result<T, ApiError> {
        let late = || Err(format!("no response within {} ms", deadline.as_millis()));
        let result = tokio::time::timeout(deadline, request).await.unwrap_or_else(|_| late());
        result.map_err(|reason| {
            ApiError::Unavailable(format!("the admin port {}: {reason}", self.authority))
        })
    }

    /// Sends a request on a connection of its own.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{scheme}://{}{path}", self.authority))
            .header(ACCEPT, "application/json, text/event-stream, text/plain");
        if let Some(key) = &self.key {
            let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.expose()))
                .map_err(|_| "the API key is not a valid header value")?;
            bearer.set_sensitive(true);
            request = request.header(AUTHORIZATION, bearer);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body.unwrap_or_default())).map_err(text)?;
        let tls = self.tls.clone().map_or_else(|| http_client::tls_config(false), Ok)?;
        let client: HttpClient = http_client::new(&tls, DEADLINE, 0);
        client.request(request).await.map_err(|error| {
            // The outermost error says only which step failed.
            let reason = error_chain(error.source().unwrap_or(&error));
            if error.is_connect() { format!("{reason}; is the gateway running?") } else { reason }
        })
    }
}

/// Reads the whole body of a response.
async fn collect_body(response: Response<Incoming>) -> Result<ApiResponse, String> {
    let status = response.status();
    let body = http_client::read_body(response, MAX_RESPONSE_BYTES).await?;
    Ok(ApiResponse { status, body })
}

/// Runs `task` on a new runtime.
pub fn block_on<T>(task: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("runtime: {error}"))?;
    let output = runtime.block_on(task);
    // Do not wait for a thread that is blocked on standard input.
    runtime.shutdown_background();
    Ok(output)
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// The error message of the server API, or the status if there is none.
fn error_message(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct ErrorBody {
        error: ErrorDetail,
    }
    #[derive(Deserialize)]
    struct ErrorDetail {
        message: String,
    }
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => format!("{} ({})", body.error.message, status.as_u16()),
        Err(_) => status.to_string(),
    }
}

#[cfg(test)]
mod tests;
