//! The admin port: `/metrics`, `/livez`, `/readyz` and the server API under `/v1`.
//!
//! Metrics, health and the API's description need no key and are served while the gateway drains; liveness
//! never depends on other systems, nor on how many connections strangers hold. The server API needs one of `[admin] api_keys`, compared in constant
//! time. Invariants: every answer is bounded, and a tail that is not read is closed; no call waits for
//! another system without a deadline.

mod api;
mod body;
mod channels;
mod code;
mod connection;
mod connections;
mod debug;
mod disconnect;
mod drain;
mod explain;
mod history;
mod limits;
mod lists;
mod open_connections;
mod openapi;
mod presence;
mod publish;
mod publish_call;
mod publish_calls;
mod read_ahead;
mod resource;
mod stream;
mod tail;
#[cfg(test)]
mod tests;
mod tokens;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;

use crate::broker::{History, Publisher, Tails};
use crate::config::{Rate, SharedConfig};
use crate::control::Control;
use crate::limits::{NetworkRates, SharedLimits, Verdict};
use crate::presence::PresenceStore;
use crate::protocol::{ChannelName, ClientNetwork, HeadMistake, check_head};
use crate::shutdown::Shutdown;
use crate::socket::{TlsAcceptor, TlsHandshakes, is_failed_connection};
use crate::telemetry;
use crate::telemetry::log::LogControl;
use crate::tokens::TokenStore;
use body::Body;
use code::Code;
use connection::{Caller, Connection};
pub use lists::Listings;
use open_connections::OpenConnections;
#[cfg(feature = "internals")]
pub use publish_call::{Front, front};
use resource::{Endpoint, Found, Resource};
pub use tail::EndReason;

/// The most open connections to the admin port, if the process may have that many descriptors.
pub const MAX_CONNECTIONS: usize = 512;

/// How often one address may fail to give a valid API key before its next failures are answered with 429. A caller
/// with a valid key is not concerned, so that nobody locks it out.
const FAILED_KEYS: Rate = Rate { count: 10, per: Duration::from_secs(1), burst: 100 };

/// After so many requests of one connection, others get their turn.
const REQUESTS_IN_A_ROW: u32 = 16;

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A condition of readiness, checked at each `/readyz`. The error is its text in the answer.
pub type ReadyCheck = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks of the queues of upstreams, each with its name.
pub type ReadyQueues = Arc<dyn Fn() -> Vec<(String, Result<(), String>)> + Send + Sync>;

/// Runs TLS handshakes, and what they need; `None` = the port speaks plain HTTP.
pub type AdminHandshakes = (TlsHandshakes, Arc<dyn Fn() -> Option<Arc<TlsAcceptor>> + Send + Sync>);

type Answer = Response<Body>;

/// What the admin port needs.
pub struct Admin {
    /// `None` = there is no TLS in this process.
    pub tls: Option<AdminHandshakes>,
    pub config: SharedConfig,
    pub token_ttl: Duration,
    pub max_publication_bytes: usize,
    pub publisher: Publisher,
    pub history: History,
    pub tails: Tails,
    pub limits: SharedLimits,
    pub listings: Listings,
    pub tokens: TokenStore,
    pub control: Control,
    pub presence: PresenceStore,
    pub log: LogControl,
    /// The conditions of readiness, with their names.
    pub ready: Vec<(&'static str, ReadyCheck)>,
    /// The same for each upstream with a queue, which a reload may change.
    pub ready_queues: ReadyQueues,
    pub metrics: metrics_exporter_prometheus::PrometheusHandle,
    pub shutdown: Shutdown,
    /// The most open connections, at most [`MAX_CONNECTIONS`].
    pub max_connections: usize,
    /// The failures of each address to give a valid API key.
    pub failed_keys: NetworkRates,
}

impl Admin {
    /// Serves until the process is stopped. Must run within a `LocalSet`.
    pub async fn serve(self, listener: TcpListener) {
        let shutdown = self.shutdown.clone();
        let admin = Rc::new(self);
        let connections = Rc::new(OpenConnections::new(admin.max_connections));
        let accept_all = async {
            loop {
                match listener.accept().await {
                    Ok((stream, address)) => {
                        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                        let network = admin.network_of(address);
                        let connection = Rc::new(Connection::new(address, network));
                        let Some(guard) = connections.add(&connection) else { continue };
                        let served = connection.serve(Rc::clone(&admin), stream, guard);
                        tokio::task::spawn_local(served);
                    }
                    Err(error) if is_failed_connection(&error) => {}
                    Err(error) => {
                        telemetry::connections::accept_failed(&error);
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

    fn network_of(&self, address: SocketAddr) -> ClientNetwork {
        ClientNetwork::of(address.ip(), self.config.load().limits.ipv6_prefix)
    }

    /// Answers a request. A connection without a valid key is kept alive for health and metrics only.
    async fn answer(
        &self,
        mut request: Request<Incoming>,
        connection: &Connection,
        connections: &OpenConnections,
    ) -> Answer {
        connection.used.set(Instant::now());
        connection.has_key.set(false);
        let in_a_row = connection.requests_in_a_row.get() + 1;
        connection.requests_in_a_row.set(in_a_row % REQUESTS_IN_A_ROW);
        if in_a_row == REQUESTS_IN_A_ROW {
            // The library answers many requests of one connection in a row. This thread also delivers publications.
            tokio::task::yield_now().await;
        }
        if let Err(mistake) = check_head(&mut request) {
            return refuse_head(mistake, connection);
        }
        let mut answer = self.find_answer(request, connection, connections).await;
        if !connection.has_key.get() && !answer.status().is_success() {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    async fn find_answer(
        &self,
        request: Request<Incoming>,
        connection: &Connection,
        connections: &OpenConnections,
    ) -> Answer {
        let resource = match Resource::find(request.method().as_str(), request.uri().path()) {
            Found::Resource(resource) => resource,
            Found::Allow(allow) => return other_method(request.method(), &allow),
            Found::Nothing => {
                return api::error(Code::NotFound, "no such path");
            }
        };
        match resource {
            Resource::Metrics => self.scrape().await,
            Resource::Live => text("text/plain; charset=utf-8", "ok\n"),
            Resource::Ready => self.readiness(),
            Resource::OpenApi => match api::Query::of(&request).and_then(|query| query.finish(&[]))
            {
                Ok(()) => text("application/json", openapi::DESCRIPTION),
                Err(refusal) => refusal,
            },
            Resource::Api(endpoint) => self.api(&endpoint, request, connection, connections).await,
        }
    }

    /// One call of the server API.
    async fn api(
        &self,
        endpoint: &Endpoint,
        request: Request<Incoming>,
        connection: &Connection,
        connections: &OpenConnections,
    ) -> Answer {
        let authenticated =
            api::authenticate(request.headers(), &self.config.load().admin.api_keys);
        let answered = match authenticated {
            Err(refusal) if refusal.status() == StatusCode::UNAUTHORIZED => {
                Err(self.refuse_key(connection, refusal))
            }
            Err(refusal) => Err(refusal),
            Ok(key) => {
                connection.has_key.set(true);
                match connections.begin_call() {
                    Some(call) => {
                        *connection.call.borrow_mut() = Some(call);
                        self.call(endpoint, request, &Caller { connection, key }).await
                    }
                    None => Err(api::error(Code::Busy, "too many calls are in progress")),
                }
            }
        };
        // The answer of a tail is a stream that goes on.
        if !matches!((endpoint, &answered), (Endpoint::Tail(_), Ok(_))) {
            connection.call.borrow_mut().take();
        }
        let answer = answered.unwrap_or_else(|refusal| refusal);
        let status = answer.status().as_u16();
        telemetry::admin::api_called(endpoint.call(), status, connection.address);
        answer
    }

    /// Counts a call without a valid key. `refusal` is its answer, unless its address has failed too often.
    fn refuse_key(&self, connection: &Connection, refusal: Answer) -> Answer {
        let rate = Some(FAILED_KEYS);
        let Verdict::Refused { retry_after } = self.failed_keys.take(connection.network, rate)
        else {
            return refusal;
        };
        let message = "too many calls without a valid API key";
        let mut answer = api::error(Code::TooManyFailures, message);
        let seconds = retry_after.as_secs() + 1;
        answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        answer
    }

    async fn scrape(&self) -> Answer {
        // For its side effect: the readiness metric shows the current state.
        let _ = self.readiness();
        text(telemetry::recorder::CONTENT_TYPE, telemetry::recorder::page(&self.metrics).await)
    }

    async fn call(
        &self,
        endpoint: &Endpoint,
        request: Request<Incoming>,
        caller: &Caller<'_>,
    ) -> Result<Answer, Answer> {
        match endpoint {
            Endpoint::Publish => self.publish(request, caller).await,
            Endpoint::Tokens => self.issue_token(request, caller).await,
            Endpoint::Disconnect => self.disconnect(request, caller).await,
            Endpoint::Drain => self.drain(request, caller).await,
            Endpoint::Channels => self.list_channels(request).await,
            Endpoint::Channel(channel) => self.describe_channel(channel, request).await,
            Endpoint::Presence(channel) => self.list_presence(channel, request).await,
            Endpoint::History(channel) => self.read_history(channel, request).await,
            Endpoint::Tail(channel) => self.tail(channel, request, caller).await,
            Endpoint::Connections => self.list_connections(request).await,
            Endpoint::Explain => self.explain(request).await,
            Endpoint::Limits => self.look_at_limits(request).await,
            Endpoint::ResetLimits => self.reset_limits(request, caller).await,
            Endpoint::Debug => self.debug(request, caller).await,
            Endpoint::Debugged => self.list_debugged(&request),
        }
    }

    /// Decodes a channel's name from a path; the gateway's own channels are refused.
    fn open_channel(&self, encoded: &str) -> Result<ChannelName, Answer> {
        let channel = api::channel(encoded)?;
        if self.config.load().reserved.contains(&channel) {
            return Err(api::bad_channel(
                "this channel is reserved for the gateway or another system",
            ));
        }
        Ok(channel)
    }

    fn readiness(&self) -> Answer {
        let mut checks = serde_json::Map::new();
        let mut ready = true;
        let mut note = |name: &str, result: Result<(), String>| {
            ready &= result.is_ok();
            checks.insert(name.to_owned(), result.err().unwrap_or_else(|| "ok".into()).into());
        };
        for (name, check) in &self.ready {
            note(name, check());
        }
        for (name, checked) in (self.ready_queues)() {
            note(&name, checked);
        }
        let draining = self.shutdown.is_draining();
        note("shutdown", if draining { Err("draining".into()) } else { Ok(()) });
        telemetry::process::readiness_checked(ready);
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        api::json(status, &serde_json::json!({ "ready": ready, "checks": checks }))
    }
}

/// Answers a request whose head is not valid, the last of its connection.
fn refuse_head(mistake: HeadMistake, connection: &Connection) -> Answer {
    telemetry::connections::http_head_refused(mistake, connection.address.ip());
    let (status, message) = mistake.response();
    let mut answer = api::error(Code::BadRequest, message);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn text(kind: &'static str, body: impl Into<Body>) -> Answer {
    let mut answer = Response::new(body.into());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// The answer to a method that a path does not accept. Which methods it accepts is public.
fn other_method(method: &Method, allow: &str) -> Answer {
    let mut answer = if *method == Method::OPTIONS {
        let mut answer = Response::new(Body::from(""));
        *answer.status_mut() = StatusCode::NO_CONTENT;
        answer
    } else {
        let message = format!("this path accepts {allow}");
        api::error(Code::Method, &message)
    };
    if let Ok(allow) = HeaderValue::from_str(allow) {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    answer
}
