//! Authorization by the backend (`authorize = { url = … }`). It fails closed: only a 2xx response within the
//! deadline admits a client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT_ENCODING, CONTENT_TYPE};
use hyper::{Request, StatusCode};
use serde::Serialize;
use url::Url;

use super::Rejection;
use crate::config::{Authorize, Route};
use crate::http_client::{self, HttpClient, error_chain};
use crate::protocol::{ChannelName, ConnectionId, Params, RequestId, TraceContext, UserId};
use crate::telemetry;
use crate::tokens::Identity;

/// The time limit of the TCP connect, where a route's deadline is longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The data that the backend decides by, and the trace of the handshake.
pub struct AuthorizeQuestion<'a> {
    pub channel: &'a ChannelName,
    pub params: &'a Params,
    pub identity: &'a Identity,
    pub connection_id: ConnectionId,
    pub request_id: &'a RequestId,
    pub origin: Option<&'a str>,
    pub trace: &'a TraceContext,
}

/// Authorizes the handshakes of all threads. Each request opens a new connection, because a pooled
/// connection is driven by the runtime of the thread that opened it.
pub struct Authorizer {
    /// `None` = no route has an authorize URL.
    client: Option<HttpClient>,
}

impl Authorizer {
    /// `Err` = an authorize URL is `https`, and the system has no root certificates.
    pub fn new(routes: &[Arc<Route>]) -> Result<Self, String> {
        let is_https = |route: &Arc<Route>| match &route.authorize {
            Authorize::Claims | Authorize::None => None,
            Authorize::Url { url, .. } => Some(url.scheme() == "https"),
        };
        let Some(needs_tls) = routes.iter().filter_map(is_https).reduce(|a, b| a | b) else {
            return Ok(Self { client: None });
        };
        let tls = http_client::tls_config(needs_tls)
            .map_err(|error| format!("route.authorize.url: {error}"))?;
        Ok(Self { client: Some(http_client::new(&tls, CONNECT_TIMEOUT, 0)) })
    }

    /// Authorizes a client if the route needs no request to the backend, or if the backend allows it. A 4xx
    /// is a refusal, except for those that mean "try again".
    pub async fn check(
        &self,
        route: &Route,
        question: AuthorizeQuestion<'_>,
    ) -> Result<(), Rejection> {
        let Authorize::Url { url, timeout } = &route.authorize else { return Ok(()) };
        let why = match self.send(url, *timeout, &question).await {
            Ok(status) if status.is_success() => return Ok(()),
            Ok(status) if is_refusal(status) => return Err(Rejection::not_authorized()),
            Ok(status) => format!("status {}", status.as_u16()),
            Err(why) => why,
        };
        let (connection, request) = (question.connection_id, question.request_id);
        telemetry::connections::authorize_failed(route.path.as_str(), connection, request, &why);
        Err(Rejection::authorize_unavailable())
    }

    /// Sends the question and returns the status of the response. `Err` is the reason for the log.
    async fn send(
        &self,
        url: &Url,
        timeout: Duration,
        question: &AuthorizeQuestion<'_>,
    ) -> Result<StatusCode, String> {
        let client = self.client.as_ref().ok_or("no client")?;
        let request = Request::post(url.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .header("x-request-id", question.request_id.to_string())
            .header("traceparent", question.trace.child())
            .body(Full::from(question.to_json()?))
            .map_err(|error| error.to_string())?;
        match tokio::time::timeout(timeout, client.request(request)).await {
            Ok(Ok(response)) => Ok(response.status()),
            Ok(Err(error)) => Err(error_chain(&error)),
            Err(_) => Err(format!("no answer within {timeout:?}")),
        }
    }
}

fn is_refusal(status: StatusCode) -> bool {
    let retryable = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    status.is_client_error() && !retryable.contains(&status)
}

impl AuthorizeQuestion<'_> {
    fn to_json(&self) -> Result<Bytes, String> {
        #[derive(Serialize)]
        struct User<'a> {
            id: &'a UserId,
            name: Option<&'a str>,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            channel: &'a str,
            params: &'a Params,
            user: Option<User<'a>>,
            connection_id: ConnectionId,
            origin: Option<&'a str>,
        }
        let name = self.identity.username.as_deref();
        let body = Body {
            channel: self.channel.as_str(),
            params: self.params,
            user: self.identity.user_id.as_ref().map(|id| User { id, name }),
            connection_id: self.connection_id,
            origin: self.origin,
        };
        serde_json::to_vec(&body).map(Bytes::from).map_err(|error| error.to_string())
    }
}
