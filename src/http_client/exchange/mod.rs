//! An HTTP/1.1 client for requests of one thread, of which there are many: who sends a request drives its connection.
//!
//! A connection serves one request at a time, so it needs no task of its own: the future of the request, and then the
//! body of the response, reads and writes it. That saves two wake-ups and a task for each request. A connection that has
//! served its response completely is kept for the next request, for as long as [`HttpClient`](super::HttpClient) keeps one.
//!
//! Invariant: what hyper hands over between a connection and its request is made by a poll of the connection, so that
//! whoever polls the connection with its waker need not be woken by it.

mod body;
mod connection;
mod idle;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use rustls::ClientConfig;
use tokio::sync::oneshot;
use tower_service::Service;

use super::connections::Connector;
use super::tcp::TcpConnector;
use super::{BoxedError, FailedRequest, Failure, failure_of};
pub use body::ResponseBody;
use connection::{Connection, Unsent};
use idle::IdleConnections;

/// The body of a request.
type Body = Full<Bytes>;

/// Cheap to clone; clones share the connections. Must be used on one runtime, which drives them.
#[derive(Clone)]
pub struct ExchangeClient {
    connector: Connector<HttpsConnector<TcpConnector>>,
    idle: IdleConnections,
}

/// Where a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Origin(Scheme, Authority);

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        Some(Self(uri.scheme()?.clone(), uri.authority()?.clone()))
    }

    /// The URI by which a connection is opened.
    fn uri(&self) -> Option<Uri> {
        let uri = Uri::builder().scheme(self.0.clone()).authority(self.1.clone());
        uri.path_and_query("/").build().ok()
    }

    /// The value of `Host`, without the port if it is that of the scheme (RFC 9110 section 7.2).
    fn host(&self) -> Option<HeaderValue> {
        let Self(scheme, authority) = self;
        let default = if *scheme == Scheme::HTTPS { 443 } else { 80 };
        match authority.port_u16() {
            Some(port) if port != default => {
                let host = format!("{}:{port}", authority.host());
                HeaderValue::from_maybe_shared(Bytes::from(host)).ok()
            }
            _ => HeaderValue::from_str(authority.host()).ok(),
        }
    }
}

/// How a request failed.
#[derive(Debug)]
pub enum ExchangeError {
    /// No connection could be opened.
    Connect(BoxedError),
    /// There was no answer.
    Send {
        error: hyper::Error,
        /// The connection had served requests before.
        was_used: bool,
    },
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect(_) => "client error (Connect)",
            Self::Send { .. } => "client error (SendRequest)",
        })
    }
}

impl std::error::Error for ExchangeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(error) => Some(&**error),
            Self::Send { error, .. } => Some(error),
        }
    }
}

impl ExchangeError {
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect(_))
    }

    /// Whether the request was lost because the server had closed the connection, which had answered requests before.
    /// Such a request can be sent again if it is idempotent.
    pub fn was_closed_while_idle(&self) -> bool {
        self.failure() == Failure::Lost && matches!(self, Self::Send { was_used: true, .. })
    }
}

impl FailedRequest for ExchangeError {
    fn failure(&self) -> Failure {
        failure_of(self.is_connect(), self)
    }
}

impl ExchangeClient {
    /// Connects within `timeout`, at most within five seconds.
    pub fn new(tls: &Arc<ClientConfig>, timeout: Duration) -> Self {
        let idle = IdleConnections::new(super::POOL_IDLE_TIMEOUT);
        Self { connector: super::connector(tls, timeout), idle }
    }

    /// Sends a request, on an idle connection if there is one. `Host` is added if it has none.
    pub async fn request(
        &self,
        request: Request<Body>,
    ) -> Result<Response<ResponseBody>, ExchangeError> {
        let (origin, mut request) = prepare(request)?;
        loop {
            let idle = poll_fn(|cx| self.idle.take(&origin, cx)).await;
            let connection = match idle {
                Some(connection) => connection,
                None => Box::pin(self.wait_or_connect(&origin)).await?,
            };
            request = match self.exchange(&origin, connection, request).await? {
                Ok(response) => return Ok(response),
                // The connection was closed before any of the request was written.
                Err(unsent) => unsent,
            };
        }
    }

    /// Sends a request on a connection of its own.
    pub async fn request_on_new_connection(
        &self,
        request: Request<Body>,
    ) -> Result<Response<ResponseBody>, ExchangeError> {
        let (origin, request) = prepare(request)?;
        let connection = self.connecting(&origin).await?;
        match self.exchange(&origin, connection, request).await? {
            Ok(response) => Ok(response),
            Err(_) => Err(ExchangeError::Connect("the new connection was closed".into())),
        }
    }

    /// Returns the response, or the request if a connection that had been used was closed before it was sent.
    async fn exchange(
        &self,
        origin: &Origin,
        mut connection: Box<Connection>,
        request: Request<Body>,
    ) -> Result<Result<Response<ResponseBody>, Request<Body>>, ExchangeError> {
        let was_used = connection.was_used;
        match connection.send(request).await {
            Ok(response) => {
                connection.was_used = true;
                Ok(Ok(response.map(|body| self.idle.attach(body, origin, connection))))
            }
            Err(Unsent { request: Some(request), .. }) if was_used => Ok(Err(request)),
            Err(Unsent { error, .. }) => Err(ExchangeError::Send { error, was_used }),
        }
    }

    /// Opens a connection, but takes one that becomes idle meanwhile. The opened one is kept then.
    async fn wait_or_connect(&self, origin: &Origin) -> Result<Box<Connection>, ExchangeError> {
        let mut returned = self.idle.wait(origin);
        let mut connecting = self.connecting(origin);
        tokio::select! {
            biased;
            connected = &mut connecting => connected,
            Ok(connection) = &mut returned => {
                let (idle, origin) = (self.idle.clone(), origin.clone());
                tokio::spawn(async move {
                    // Whoever needs a connection next finds out why there is none.
                    if let Ok(connection) = connecting.await {
                        idle.put(&origin, connection);
                    }
                });
                Ok(connection)
            }
        }
    }

    fn connecting(&self, origin: &Origin) -> Connecting {
        let (mut connector, origin) = (self.connector.clone(), origin.clone());
        Box::pin(async move {
            let uri = origin.uri().ok_or_else(|| connect_error("the URL has no host"))?;
            poll_fn(|cx| connector.poll_ready(cx)).await.map_err(connect_error)?;
            let stream = connector.call(uri).await.map_err(connect_error)?;
            Connection::open(stream).await.map_err(connect_error)
        })
    }
}

type Connecting = Pin<Box<dyn Future<Output = Result<Box<Connection>, ExchangeError>> + Send>>;
/// Gets the next connection that becomes idle.
type Returned = oneshot::Receiver<Box<Connection>>;

fn connect_error(error: impl Into<BoxedError>) -> ExchangeError {
    ExchangeError::Connect(error.into())
}

/// Returns where a request goes, and the request as it is written.
fn prepare(mut request: Request<Body>) -> Result<(Origin, Request<Body>), ExchangeError> {
    let no_host = || connect_error("the URL has no host");
    let origin = Origin::of(request.uri()).ok_or_else(no_host)?;
    if !request.headers().contains_key(HOST) {
        let host = origin.host().ok_or_else(no_host)?;
        request.headers_mut().insert(HOST, host);
    }
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = target.unwrap_or(PathAndQuery::from_static("/")).into();
    Ok((origin, request))
}
