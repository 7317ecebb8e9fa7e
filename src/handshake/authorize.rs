//! Asking the backend whether a client may join a channel (`authorize = { url = … }`). Fails closed.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use url::Url;

use super::Rejection;
use super::origin::RequestOrigin;
use crate::config::{Authorize, Route};
use crate::protocol::{ChannelName, ConnectionId, Params, TraceContext, UserId};
use crate::telemetry;
use crate::tokens::Identity;

/// What the backend is told.
#[derive(Serialize)]
struct Question<'a> {
    channel: &'a str,
    params: &'a Params,
    user: Option<User<'a>>,
    connection_id: ConnectionId,
    origin: Option<&'a str>,
}

#[derive(Serialize)]
struct User<'a> {
    id: &'a UserId,
    name: Option<&'a str>,
}

/// Lets in whom the route lets in by claims alone, or whom the backend lets in.
pub async fn check(
    route: &Route,
    params: &Params,
    channel: &ChannelName,
    identity: &Identity,
    connection_id: ConnectionId,
    origin: &RequestOrigin,
    trace: &TraceContext,
) -> Result<(), Rejection> {
    let Authorize::Url { url, timeout } = &route.authorize else { return Ok(()) };
    let question = Question {
        channel: channel.as_str(),
        params,
        user: identity.user_id.as_ref().map(|id| User { id, name: identity.username.as_deref() }),
        connection_id,
        origin: origin.text(),
    };
    let body = serde_json::to_vec(&question).map_err(|_| Rejection::authorize_unavailable())?;
    match ask(url, *timeout, body, connection_id, trace).await {
        Ok(status) if status.is_success() => Ok(()),
        Ok(status) if status.is_client_error() => Err(Rejection::not_authorized()),
        Ok(status) => {
            telemetry::handshake::authorize_failed(&format!("status {status}"));
            Err(Rejection::authorize_unavailable())
        }
        Err(why) => {
            telemetry::handshake::authorize_failed(&why);
            Err(Rejection::authorize_unavailable())
        }
    }
}

/// The answer's status. A connection a question: handshakes come on several threads, whose runtimes
/// cannot share a pool.
async fn ask(
    url: &Url,
    timeout: Duration,
    body: Vec<u8>,
    connection_id: ConnectionId,
    trace: &TraceContext,
) -> Result<StatusCode, String> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(|error| error.to_string())?
        .https_or_http()
        .enable_http1()
        .build();
    let client: Client<_, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let request = Request::post(url.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header("x-request-id", connection_id.to_string())
        .header("traceparent", trace.child())
        .body(Full::from(body))
        .map_err(|error| error.to_string())?;
    match tokio::time::timeout(timeout, client.request(request)).await {
        Ok(Ok(response)) => Ok(response.status()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {timeout:?}")),
    }
}
