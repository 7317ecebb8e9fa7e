//! The admin port: `/metrics`, `/livez`, `/readyz` and the server API under `/v1`.
//!
//! Metrics and health need no key and go on while the gateway drains; liveness never depends on
//! anything outside. The server API needs one of `[admin] api_keys`, compared in constant time.

mod api;
mod disconnect;
mod presence;
mod publish;
mod resource;
#[cfg(test)]
mod tests;
mod tokens;

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::broker::Publisher;
use crate::control::Control;
use crate::presence::PresenceStore;
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::tokens::TokenStore;
pub use api::ApiKeys;
use resource::{Endpoint, Resource};

/// Open connections to this port.
const MAX_CONNECTIONS: usize = 512;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One thing that must be so for the node to be ready. Called at each `/readyz`.
pub type ReadyCheck = Arc<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

type Answer = Response<Full<Bytes>>;

/// What the admin port needs.
pub struct Admin {
    pub api_keys: ApiKeys,
    pub token_ttl: Duration,
    pub max_publication_bytes: usize,
    pub publisher: Publisher,
    pub tokens: TokenStore,
    pub control: Control,
    pub presence: PresenceStore,
    /// Name and check.
    pub ready: Vec<(&'static str, ReadyCheck)>,
    pub metrics: metrics_exporter_prometheus::PrometheusHandle,
    pub shutdown: Shutdown,
}

impl Admin {
    /// Serves until killed. Must run within a `LocalSet`.
    pub async fn serve(self, listener: TcpListener) {
        let shutdown = self.shutdown.clone();
        let admin = Rc::new(self);
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accept_all = async {
            loop {
                let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        tokio::task::spawn_local(Rc::clone(&admin).connection(stream, permit));
                    }
                    Err(error) => {
                        telemetry::listener::accept_failed(&error);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accept_all => {}
            () = shutdown.killed() => {}
        }
    }

    async fn connection(self: Rc<Self>, stream: TcpStream, permit: OwnedSemaphorePermit) {
        let service = service_fn(move |request| {
            let admin = Rc::clone(&self);
            async move { Ok::<_, Infallible>(admin.answer(request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            telemetry::listener::http_failed(&error);
        }
        drop(permit);
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let Some(resource) = Resource::at(request.uri().path()) else {
            return api::error(StatusCode::NOT_FOUND, "not_found", "there is no such path");
        };
        let method = resource.method();
        if *request.method() != method
            && !(method == Method::GET && *request.method() == Method::HEAD)
        {
            let message = format!("{method} only");
            let mut answer = api::error(StatusCode::METHOD_NOT_ALLOWED, "method", &message);
            if let Ok(allow) = HeaderValue::from_str(method.as_str()) {
                answer.headers_mut().insert(header::ALLOW, allow);
            }
            return answer;
        }
        match resource {
            Resource::Metrics => {
                text("text/plain; version=0.0.4; charset=utf-8", self.metrics.render())
            }
            Resource::Live => text("text/plain", "ok\n".to_owned()),
            Resource::Ready => self.readiness(),
            Resource::Api(endpoint) => self.api(&endpoint, request).await,
        }
    }

    /// One call of the server API.
    async fn api(&self, endpoint: &Endpoint, request: Request<Incoming>) -> Answer {
        let authenticated = api::authenticate(request.headers(), &self.api_keys);
        let answered = match (authenticated, endpoint) {
            (Err(refusal), _) => Err(refusal),
            (Ok(()), Endpoint::Disconnect) => self.disconnect(request).await,
            (Ok(()), Endpoint::Publish) => self.publish(request).await,
            (Ok(()), Endpoint::Tokens) => self.issue_token(request).await,
            (Ok(()), Endpoint::Presence(channel)) => self.list_presence(channel, request).await,
        };
        let answer = answered.unwrap_or_else(|refusal| refusal);
        telemetry::admin::api_called(endpoint.call(), answer.status().as_u16());
        answer
    }

    fn readiness(&self) -> Answer {
        let mut checks = serde_json::Map::new();
        let mut ready = true;
        let mut note = |name: &str, result: Result<(), &'static str>| {
            ready &= result.is_ok();
            checks.insert(name.to_owned(), result.err().unwrap_or("ok").into());
        };
        for (name, check) in &self.ready {
            note(name, check());
        }
        let draining = self.shutdown.is_draining();
        note("shutdown", if draining { Err("draining") } else { Ok(()) });
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        api::json(status, &serde_json::json!({ "ready": ready, "checks": checks }))
    }
}

fn text(kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::from(body));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
