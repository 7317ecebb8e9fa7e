//! Where client messages go. An upstream returns a reply value or a stream of events; it never
//! touches a client's socket.
//!
//! This module owns the upstreams' common side: bounds in flight, circuits, deadlines and what an
//! answer comes to. Each kind has a file of its own. Invariant: everything that waits for an upstream
//! has a deadline, and whatever is under way at one holds a place in its bound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use crate::config::{self, OnDisconnect, UpstreamKind};
use crate::http_client::{self, HttpClient};
use crate::protocol::{
    ChannelName, ConnectionId, EventName, Params, RequestId, TraceContext, UserId,
};
use crate::telemetry::log::{ConnectionFields, MessageFields};
use crate::telemetry::spans::{Kind, Span};
use crate::telemetry::upstreams::RequestOutcome;

mod answer;
mod celery;
mod circuit;
mod event;
mod gate;
mod http;
mod ndjson;
mod payload;
mod queue;
mod reply;
mod signature;
mod socket_task;
#[cfg(test)]
mod tests;
mod websocket;

use answer::{Answer, Follows};
use celery::Celery;
pub use celery::TaskEnd;
use gate::{Entry, Gate};
use queue::Queue;
pub use reply::{Reply, ReplyBroken};
pub use websocket::{
    FromUpstream, SocketMessage, UpstreamReceiver, UpstreamSender, UpstreamSocket,
};

/// One client message with the facts that every upstream gets.
#[derive(Debug, Clone)]
pub struct Message {
    /// Trimmed, not empty.
    pub text: String,
    /// The client's whole object, untouched.
    pub data: Box<RawValue>,
    pub channel: ChannelName,
    pub params: Arc<Params>,
    /// `None` = anonymous.
    pub user_id: Option<UserId>,
    pub username: Option<Box<str>>,
    pub connection_id: ConnectionId,
    /// That opened the connection.
    pub request_id: RequestId,
    /// Chosen by the client, or made by the gateway.
    pub message_id: String,
    /// A fresh UUID; an HTTP upstream may answer with another.
    pub task_id: String,
    pub trace: TraceContext,
}

impl Message {
    /// For lines about it.
    pub fn log_fields(&self) -> MessageFields<'_> {
        let connection = ConnectionFields {
            connection: self.connection_id,
            request: &self.request_id,
            user: self.user_id.as_ref(),
            channel: &self.channel,
        };
        MessageFields {
            connection,
            message_id: Some(&self.message_id),
            task_id: Some(&self.task_id),
        }
    }
}

/// The upstream has the message.
#[derive(Debug)]
pub struct Taken {
    pub task_id: String,
    pub reply: TakenReply,
}

/// Where the reply to a message that was taken comes from.
#[derive(Debug)]
pub enum TakenReply {
    /// There is none.
    None,
    /// A worker publishes it.
    ByWorker,
    /// The upstream streams it in its answer.
    Streamed(Reply),
}

/// Why a message was not taken; each is told to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayError {
    /// `max_in_flight` reached, or the upstream said that it has too much to do.
    Busy,
    /// Not reachable, no answer in time, 5xx, or the circuit is open.
    Unavailable,
    /// A 4xx; the text is the body's `error`, bounded.
    Rejected(String),
}

/// The facts an upstream socket is opened with: URL placeholders and request headers.
pub struct Opening<'a> {
    pub channel: &'a ChannelName,
    pub params: &'a Params,
    pub user_id: Option<&'a UserId>,
    pub username: Option<&'a str>,
    pub connection_id: ConnectionId,
    pub request_id: &'a RequestId,
    pub trace: &'a TraceContext,
    /// `max_message_bytes` of the route: bounds upstream messages too.
    pub max_message_bytes: usize,
}

impl Opening<'_> {
    fn log_fields(&self) -> MessageFields<'_> {
        let connection = ConnectionFields {
            connection: self.connection_id,
            request: self.request_id,
            user: self.user_id,
            channel: self.channel,
        };
        MessageFields { connection, message_id: None, task_id: None }
    }
}

/// What the threads share: in-flight bounds, circuits, metrics handles, queue connections.
#[derive(Clone)]
pub struct UpstreamsShared {
    upstreams: Arc<BTreeMap<String, Arc<Shared>>>,
}

/// One upstream's part of it.
struct Shared {
    config: Arc<config::Upstream>,
    gate: Gate,
    link: Link,
}

/// What all threads speak to an upstream by.
enum Link {
    /// Each thread has a client of its own, with these TLS settings.
    Http(Arc<ClientConfig>),
    Queue(Queue),
    Celery(Celery),
}

impl Link {
    fn is_up(&self) -> bool {
        match self {
            Self::Http(_) => true,
            Self::Queue(queue) => queue.is_up(),
            Self::Celery(celery) => celery.is_up(),
        }
    }
}

impl UpstreamsShared {
    /// `Err` names the upstream and what is wrong. Starts queue connections on the current runtime.
    pub fn new(
        upstreams: &BTreeMap<String, Arc<config::Upstream>>,
        engine: &config::Engine,
        shutdown: &crate::shutdown::Shutdown,
    ) -> Result<Self, String> {
        Self::build(upstreams, engine, shutdown, None)
    }

    /// What the settings have come to: upstreams that are as before go on with their bounds, circuits and
    /// connections. The others begin anew; what is under way at the old ones is finished there.
    pub fn renewed(
        &self,
        upstreams: &BTreeMap<String, Arc<config::Upstream>>,
        engine: &config::Engine,
        shutdown: &crate::shutdown::Shutdown,
    ) -> Result<Self, String> {
        Self::build(upstreams, engine, shutdown, Some(self))
    }

    fn build(
        upstreams: &BTreeMap<String, Arc<config::Upstream>>,
        engine: &config::Engine,
        shutdown: &crate::shutdown::Shutdown,
        before: Option<&Self>,
    ) -> Result<Self, String> {
        let mut shared = BTreeMap::new();
        for (name, config) in upstreams {
            let same = before.and_then(|before| before.upstreams.get(name));
            if let Some(same) = same.filter(|same| same.config == *config) {
                shared.insert(name.clone(), Arc::clone(same));
                continue;
            }
            let link = match &config.kind {
                UpstreamKind::RedisStream(queue) | UpstreamKind::RedisList(queue) => {
                    Queue::start(&queue.redis_url, name, engine, shutdown).map(Link::Queue)
                }
                UpstreamKind::Celery(celery) => {
                    Celery::start(celery, name, shutdown).map(Link::Celery)
                }
                UpstreamKind::Http(http) => {
                    http_client::tls_config(http.url.as_str().starts_with("https://"))
                        .map(Link::Http)
                }
                UpstreamKind::WebSocket(socket) => {
                    http_client::tls_config(socket.url.as_str().starts_with("wss://"))
                        .map(Link::Http)
                }
            };
            let link = link.map_err(|error| format!("upstream.{name}: {error}"))?;
            let config = Arc::clone(config);
            let upstream = Shared { gate: Gate::new(&config), config, link };
            shared.insert(name.clone(), Arc::new(upstream));
        }
        Ok(Self { upstreams: Arc::new(shared) })
    }

    /// Whether every queue's Redis can be reached.
    pub fn queues_are_up(&self) -> bool {
        self.upstreams.values().all(|shared| shared.link.is_up())
    }
}

/// The upstreams of one worker thread: connection pools of its own, bounds and circuits shared.
#[derive(Clone)]
pub struct Upstreams {
    shared: UpstreamsShared,
    /// Of the upstreams that are spoken to in HTTP; the names are those of `shared`.
    clients: Arc<BTreeMap<String, HttpClient>>,
}

impl Upstreams {
    /// Called once on each worker thread, inside its runtime.
    pub fn new(shared: &UpstreamsShared) -> Self {
        Self::build(shared, None)
    }

    /// The same of other settings, on the same thread: connections to what is as before are kept.
    pub fn renewed(&self, shared: &UpstreamsShared) -> Self {
        Self::build(shared, Some(self))
    }

    fn build(shared: &UpstreamsShared, before: Option<&Self>) -> Self {
        let client = |(name, upstream): (&String, &Arc<Shared>)| {
            let same = before.and_then(|before| {
                let same = Arc::ptr_eq(before.shared.upstreams.get(name)?, upstream);
                before.clients.get(name).filter(|_| same)
            });
            if let Some(client) = same {
                return Some((name.clone(), client.clone()));
            }
            let Link::Http(tls) = &upstream.link else { return None };
            // A socket keeps its connection for itself.
            let is_socket = matches!(upstream.config.kind, UpstreamKind::WebSocket(_));
            let max_idle = if is_socket { 0 } else { usize::MAX };
            let client = http_client::new(tls, upstream.config.timeout, max_idle);
            Some((name.clone(), client))
        };
        let clients = Arc::new(shared.upstreams.iter().filter_map(client).collect());
        Self { shared: shared.clone(), clients }
    }

    /// `None` = there is none of this name.
    pub fn kind(&self, name: &str) -> Option<&UpstreamKind> {
        self.shared.upstreams.get(name).map(|shared| &shared.config.kind)
    }

    /// The longest that [`Upstreams::relay`] takes, all attempts together.
    pub fn relay_timeout(&self, name: &str) -> Duration {
        self.shared.upstreams.get(name).map_or(Duration::ZERO, |shared| shared.config.timeout)
    }

    /// The span of a request to the upstream called `name`, under that of what it is made for.
    pub fn span(&self, name: &str, parent: &TraceContext) -> Span {
        let Some(upstream) = self.shared.upstreams.get(name) else { return Span::default() };
        let (kind, word) = match upstream.config.kind {
            UpstreamKind::Http(_) => (Kind::Client, "http"),
            UpstreamKind::WebSocket(_) => (Kind::Client, "websocket"),
            UpstreamKind::Celery(_) => (Kind::Producer, "celery"),
            UpstreamKind::RedisStream(_) => (Kind::Producer, "redis-stream"),
            UpstreamKind::RedisList(_) => (Kind::Producer, "redis-list"),
        };
        let mut span = Span::start(parent, kind, || format!("upstream {name}").into());
        if span.is_recording() {
            span.set("tidegate.upstream", name.to_owned());
            span.set("tidegate.upstream.kind", word);
        }
        span
    }

    /// Whether a streaming reply ends with the connection that asked for it.
    pub fn cancels_on_disconnect(&self, name: &str) -> bool {
        self.shared.upstreams.get(name).is_some_and(|shared| {
            matches!(&shared.config.kind, UpstreamKind::Http(http) if http.on_disconnect == OnDisconnect::Cancel)
        })
    }

    /// Hands `message` to the upstream called `name`, which config has checked to exist and not to be
    /// a `websocket`.
    pub async fn relay(&self, name: &str, message: &Message) -> Result<Taken, RelayError> {
        let Some(upstream) = self.shared.upstreams.get(name) else {
            return Err(RelayError::Unavailable);
        };
        if let (UpstreamKind::Celery(config), Link::Celery(celery)) =
            (&upstream.config.kind, &upstream.link)
        {
            return upstream.relay_task(config, celery, message).await;
        }
        let entry = upstream.gate.enter(message.log_fields())?;
        let deadline = after(upstream.config.timeout);
        match (&upstream.config.kind, self.clients.get(name), &upstream.link) {
            (UpstreamKind::Http(config), Some(client), _) => {
                let metrics = &upstream.gate.metrics;
                let answer = http::Relay { client, config, metrics, message, deadline }.run().await;
                answered(entry, answer, message, config)
            }
            (UpstreamKind::RedisStream(config), _, Link::Queue(queue)) => {
                queued(entry, message, deadline, queue.add_to_stream(config, message)).await
            }
            (UpstreamKind::RedisList(config), _, Link::Queue(queue)) => {
                queued(entry, message, deadline, queue.push_to_list(config, message)).await
            }
            _ => Err(entry.refused(RelayError::Unavailable, "takes no messages")),
        }
    }

    /// Lets the worker of a task know that it is to stop, where its queue is not in the engine's own
    /// Redis, which the engine looks after. It has `ttl` to look. False = it could not be told.
    pub async fn tell_cancelled(&self, name: &str, task_id: &str, ttl: Duration) -> bool {
        let Some(upstream) = self.shared.upstreams.get(name) else { return true };
        match (&upstream.link, &upstream.config.kind) {
            (Link::Queue(queue), _) => queue.tell_cancelled(task_id, ttl).await,
            (Link::Celery(celery), UpstreamKind::Celery(config)) => {
                celery.revoke(config, task_id).await
            }
            _ => true,
        }
    }

    /// Completes when a worker's task has ended; `None` = its upstream does not know.
    pub fn task_end(&self, name: &str, task_id: &str) -> Option<impl Future<Output = TaskEnd>> {
        match &self.shared.upstreams.get(name)?.link {
            Link::Celery(celery) => Some(celery.results()?.end(task_id)),
            Link::Http(_) | Link::Queue(_) => None,
        }
    }

    /// The name of the event that tells a client of this channel that its message was taken.
    pub fn queued_event(&self, name: &str, channel: &ChannelName) -> &str {
        match self.shared.upstreams.get(name).map(|shared| &shared.config.kind) {
            Some(UpstreamKind::Celery(config)) => &config.task(channel.as_str()).queued_event,
            _ => EventName::TaskQueued.label(),
        }
    }

    /// Opens the upstream socket of one client (`kind = "websocket"`).
    pub async fn open_socket(
        &self,
        name: &str,
        opening: &Opening<'_>,
    ) -> Result<UpstreamSocket, RelayError> {
        let Some(upstream) = self.shared.upstreams.get(name) else {
            return Err(RelayError::Unavailable);
        };
        let entry = upstream.gate.enter(opening.log_fields())?;
        let (UpstreamKind::WebSocket(config), Some(client)) =
            (&upstream.config.kind, self.clients.get(name))
        else {
            return Err(entry.refused(RelayError::Unavailable, "opens no sockets"));
        };
        let timeout = upstream.config.timeout;
        let opened = websocket::shake_hands(client, config, opening);
        match timeout_at(after(timeout), opened).await {
            Ok(Ok(stream)) => {
                let in_flight = entry.taken(RequestOutcome::Taken);
                Ok(websocket::start(stream, opening.max_message_bytes, timeout, in_flight))
            }
            Ok(Err((error, reason))) => Err(entry.refused(error, &reason)),
            Err(_) => Err(entry.refused(RelayError::Unavailable, NO_ANSWER)),
        }
    }
}

impl Shared {
    async fn relay_task(
        &self,
        config: &config::CeleryUpstream,
        celery: &Celery,
        message: &Message,
    ) -> Result<Taken, RelayError> {
        // What is wrong with a message says nothing of the broker: its circuit is not asked.
        let element = Celery::compose(config, message).inspect_err(|_| {
            self.gate.metrics.request_not_sent(message.log_fields(), RequestOutcome::Rejected)
        })?;
        let entry = self.gate.enter(message.log_fields())?;
        let deadline = after(self.config.timeout);
        queued(entry, message, deadline, celery.push(config, element)).await
    }
}

const NO_ANSWER: &str = "no answer in time";

fn answered(
    entry: Entry<'_>,
    answer: Answer,
    message: &Message,
    config: &config::HttpUpstream,
) -> Result<Taken, RelayError> {
    match answer {
        Answer::Taken { task_id, follows } => {
            entry.taken(RequestOutcome::Taken);
            let task_id = task_id.unwrap_or_else(|| message.task_id.clone());
            let reply = match follows {
                Follows::Nothing => TakenReply::None,
                Follows::Work => TakenReply::ByWorker,
            };
            Ok(Taken { task_id, reply })
        }
        Answer::Streaming(format, body) => {
            let in_flight = entry.taken(RequestOutcome::Streaming);
            let reply = Reply::new(body, format, after(config.max_reply), in_flight, message);
            Ok(Taken { task_id: message.task_id.clone(), reply: TakenReply::Streamed(reply) })
        }
        Answer::NotTaken(error, reason) => Err(entry.refused(error, &reason)),
    }
}

async fn queued(
    entry: Entry<'_>,
    message: &Message,
    deadline: Instant,
    adding: impl Future<Output = Result<(), (RelayError, String)>>,
) -> Result<Taken, RelayError> {
    match timeout_at(deadline, adding).await {
        Ok(Ok(())) => {
            entry.taken(RequestOutcome::Taken);
            Ok(Taken { task_id: message.task_id.clone(), reply: TakenReply::ByWorker })
        }
        Ok(Err((error, reason))) => Err(entry.refused(error, &reason)),
        Err(_) => Err(entry.refused(RelayError::Unavailable, NO_ANSWER)),
    }
}

/// `time` from now, at most a year: the clock cannot tell every moment that a setting can name.
fn after(time: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + time.min(YEAR)
}

/// What `{user_id}` stands for.
fn user_in_template(user_id: Option<&UserId>) -> &dyn std::fmt::Display {
    match user_id {
        Some(id) => id,
        None => &"anonymous",
    }
}
