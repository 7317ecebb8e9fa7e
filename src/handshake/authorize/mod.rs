//! Authorization by the backend (`authorize = { url = … }`). It fails closed: only a 2xx response within the
//! deadline admits a client.

mod bound;
mod decisions;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT_ENCODING, CONTENT_TYPE};
use hyper::{Request, StatusCode};
use serde::Serialize;

use super::Rejection;
use crate::config::{Authorize, AuthorizeUrl, Route};
use crate::http_client::{self, HttpClient, error_chain};
use crate::protocol::{
    ChannelName, ConnectionId, Params, RequestId, SenderKey, TraceContext, UserId,
};
use crate::telemetry;
use crate::tokens::Identity;
use crate::upstream::signature;
use bound::{QuestionBound, TooManyQuestions};
use decisions::Decisions;

/// The time limit of the TCP connect, where a route's deadline is longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The data that the backend decides by, and the trace of the handshake.
pub struct AuthorizeQuestion<'a> {
    /// `None` if the route has none.
    pub channel: Option<&'a ChannelName>,
    pub params: &'a Params,
    pub identity: &'a Identity,
    /// The client whose share of the questions in flight this takes.
    pub client: &'a SenderKey,
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
    /// The bounds of the routes with an authorize URL, by their path patterns.
    bounds: HashMap<String, QuestionBound>,
    decisions: Decisions,
}

/// Why there is no decision.
enum NotDecided {
    /// Too many questions wait for their turn.
    Busy,
    /// The reason for the log.
    Failed(String),
}

impl Authorizer {
    /// `Err` = an authorize URL is `https`, and the system has no root certificates.
    pub fn new(routes: &[Arc<Route>]) -> Result<Self, String> {
        let asking = routes.iter().filter_map(|route| match &route.authorize {
            Authorize::Claims | Authorize::None => None,
            Authorize::Url(config) => Some((route.path.as_str(), config)),
        });
        let mut authorizer =
            Self { client: None, bounds: HashMap::new(), decisions: Decisions::default() };
        let mut needs_tls = false;
        for (path, config) in asking {
            needs_tls |= config.url.scheme() == "https";
            authorizer.bounds.insert(path.to_owned(), QuestionBound::new(config));
        }
        if authorizer.bounds.is_empty() {
            return Ok(authorizer);
        }
        let tls = http_client::tls_config(needs_tls)
            .map_err(|error| format!("route.authorize.url: {error}"))?;
        authorizer.client = Some(http_client::new(&tls, CONNECT_TIMEOUT, 0));
        Ok(authorizer)
    }

    /// Authorizes a client if the route needs no request to the backend, or if the backend allows it. A 4xx
    /// is a refusal, except for those that mean "try again".
    pub async fn check(
        &self,
        route: &Route,
        question: AuthorizeQuestion<'_>,
    ) -> Result<(), Rejection> {
        let Authorize::Url(config) = &route.authorize else { return Ok(()) };
        let key = Decisions::key(config, &question);
        let known = key.as_ref().and_then(|key| self.decisions.get(key));
        let decided = match known {
            Some(is_allowed) => Ok(is_allowed),
            None => self.ask(route, config, &question).await,
        };
        let why = match decided {
            Ok(is_allowed) => {
                if let (None, Some(key)) = (known, key) {
                    self.decisions.remember(key, is_allowed, config.cache);
                }
                return if is_allowed { Ok(()) } else { Err(Rejection::not_authorized()) };
            }
            Err(NotDecided::Busy) => return Err(Rejection::authorize_busy()),
            Err(NotDecided::Failed(why)) => why,
        };
        let (connection, request) = (question.connection_id, question.request_id);
        telemetry::connections::authorize_failed(route.path.as_str(), connection, request, &why);
        Err(Rejection::authorize_unavailable())
    }

    /// Waits until the question may be sent, sends it, and returns whether the client is allowed.
    async fn ask(
        &self,
        route: &Route,
        config: &AuthorizeUrl,
        question: &AuthorizeQuestion<'_>,
    ) -> Result<bool, NotDecided> {
        let asking = async {
            let bound = self.bounds.get(route.path.as_str());
            let bound = bound.ok_or_else(|| NotDecided::Failed("no client".to_owned()))?;
            let permit = bound.enter(question.client).await;
            let _permit = permit.map_err(|TooManyQuestions| NotDecided::Busy)?;
            self.send(config, question).await.map_err(NotDecided::Failed)
        };
        match tokio::time::timeout(config.timeout, asking).await {
            Ok(Ok(status)) if status.is_success() => Ok(true),
            Ok(Ok(status)) if is_refusal(status) => Ok(false),
            Ok(Ok(status)) => Err(NotDecided::Failed(format!("status {}", status.as_u16()))),
            Ok(Err(not_decided)) => Err(not_decided),
            Err(_) => Err(NotDecided::Failed(format!("no answer within {:?}", config.timeout))),
        }
    }

    /// Sends the question and returns the status of the response. `Err` is the reason for the log.
    async fn send(
        &self,
        config: &AuthorizeUrl,
        question: &AuthorizeQuestion<'_>,
    ) -> Result<StatusCode, String> {
        let client = self.client.as_ref().ok_or("no client")?;
        let body = question.to_json()?;
        let mut request = Request::post(config.url.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .header("x-request-id", question.request_id.to_string())
            .header("traceparent", question.trace.child());
        if let Some(secret) = &config.signing_secret {
            request = request.header(signature::HEADER, signature::sign(secret, &body));
        }
        let request = request.body(Full::from(body)).map_err(|error| error.to_string())?;
        let response = client.request(request).await;
        response.map(|response| response.status()).map_err(|error| error_chain(&error))
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
            channel: Option<&'a ChannelName>,
            params: &'a Params,
            user: Option<User<'a>>,
            connection_id: ConnectionId,
            origin: Option<&'a str>,
        }
        let name = self.identity.username.as_deref();
        let body = Body {
            channel: self.channel,
            params: self.params,
            user: self.identity.user_id.as_ref().map(|id| User { id, name }),
            connection_id: self.connection_id,
            origin: self.origin,
        };
        serde_json::to_vec(&body).map(Bytes::from).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests;
