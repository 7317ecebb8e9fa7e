//! Upstreams: the backends that client messages are relayed to. An upstream returns a value or a stream of
//! events; it never touches a client's socket.
//!
//! This module owns what all upstreams have in common: limits of requests in flight, circuit breakers,
//! deadlines and the meaning of responses. Each kind of upstream has its own file. Invariant: everything
//! that waits for an upstream has a deadline, and everything in flight holds a permit of its limit.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use tokio::time::Instant;

use crate::config::{self, OnDisconnect, UpstreamKind};
use crate::http_client::{self, ExchangeClient, HttpClient};
use crate::protocol::{ChannelName, EventName, Params, TemplateContext, TraceContext, UserId};
use crate::telemetry::spans::{Kind, Span};
use crate::telemetry::upstreams::RequestOutcome;

mod celery;
mod circuit;
mod client_json;
mod dialect;
mod ended_reply;
mod event;
mod format;
mod forwarded;
mod gate;
mod http;
mod json_values;
mod kept;
mod message;
mod ndjson;
mod on_complete;
mod outgoing;
mod own_events;
mod payload;
mod plain_request;
mod pool;
mod queue;
mod reply;
mod response;
#[cfg(feature = "internals")]
mod response_reader;
mod shared;
pub mod signature;
mod sockets;
mod template;
#[cfg(test)]
mod tests;
mod websocket;

use celery::Celery;
pub use celery::TaskEnd;
pub use dialect::{Collected, Conclusion, Outcome, ReplySummary, Usage};
pub use ended_reply::{EndedReply, EndedReplyError, EndedReplyUser, ReplyOutcome, Timings};
pub use forwarded::{Forwarded, TooLarge};
use gate::PendingRequest;
pub use gate::{InFlightPermit, TaskPermit};
pub use kept::{KeptShare, kept_bytes};
use message::user_in_template;
pub use message::{Limited, Message, QueueState, RelayError, SocketRequest};
pub use on_complete::ReplyPoster;
use outgoing::{Outgoing, Written};
pub use plain_request::{PlainRequest, RequestEnd};
pub use pool::{BalanceKey, Pool, ReplicaLoad};
pub use reply::{Accepted, Reply, ReplyBroken, ReplyEvent, ReplySource};
use response::RelayResponse;
#[cfg(feature = "internals")]
pub use response_reader::{ReadResponse, ResponseReader};
pub use shared::SharedUpstreams;
use shared::{Transport, Upstream};
pub use websocket::{
    ClientHandshake, FromUpstream, PassRefusal, PassedUpstream, SocketEnd, UpstreamSocket,
    is_of_handshake,
};

/// The upstreams as one worker thread uses them: connection pools are the thread's own, limits and circuit
/// breakers are shared by all threads.
#[derive(Clone)]
pub struct Upstreams {
    shared: SharedUpstreams,
    /// The clients of the HTTP upstreams, by the names of `shared`.
    clients: Rc<BTreeMap<String, ExchangeClient>>,
    /// The clients by which sockets are opened at the WebSocket upstreams, in the same way.
    opening: Rc<BTreeMap<String, HttpClient>>,
    /// The clients by which ended replies are posted, in the same way.
    posting: Rc<BTreeMap<String, HttpClient>>,
    /// The messages that go to the queues, in the same way.
    outgoing: Rc<BTreeMap<String, Rc<Outgoing>>>,
}

impl Upstreams {
    /// Called once on each worker thread, inside its runtime.
    pub fn new(shared: &SharedUpstreams) -> Self {
        Self::build(shared, None)
    }

    /// Applies new settings on the same thread. Upstreams that did not change keep their connections.
    pub fn reconfigured(&self, shared: &SharedUpstreams) -> Self {
        Self::build(shared, Some(self))
    }

    fn build(shared: &SharedUpstreams, previous: Option<&Self>) -> Self {
        let client = |upstream: &Upstream| match (&upstream.config.kind, &upstream.transport) {
            (UpstreamKind::Http(_), Transport::Http(tls)) => {
                Some(ExchangeClient::new(tls, connect_timeout(upstream)))
            }
            _ => None,
        };
        let opening = |upstream: &Upstream| match (&upstream.config.kind, &upstream.transport) {
            // The connection of a WebSocket is never reused.
            (UpstreamKind::WebSocket(_), Transport::Http(tls)) => {
                Some(http_client::new(tls, connect_timeout(upstream), 0))
            }
            _ => None,
        };
        let posting = |upstream: &Upstream| Some(upstream.on_complete.as_ref()?.client());
        let outgoing = |upstream: &Upstream| match &upstream.transport {
            Transport::Queue(queue) => Some(Rc::new(Outgoing::new(queue.writer()))),
            Transport::Celery(celery) => Some(Rc::new(Outgoing::new(celery.writer()))),
            Transport::Http(_) => None,
        };
        Self {
            shared: shared.clone(),
            clients: each(shared, previous.map(|it| (&it.shared, &*it.clients)), client),
            opening: each(shared, previous.map(|it| (&it.shared, &*it.opening)), opening),
            posting: each(shared, previous.map(|it| (&it.shared, &*it.posting)), posting),
            outgoing: each(shared, previous.map(|it| (&it.shared, &*it.outgoing)), outgoing),
        }
    }

    /// The part that all threads share.
    pub fn shared(&self) -> &SharedUpstreams {
        &self.shared
    }

    /// `None` = no upstream has this name.
    pub fn kind(&self, name: &str) -> Option<&UpstreamKind> {
        self.shared.get(name).map(|upstream| &upstream.config.kind)
    }

    /// Returns the longest time that [`Upstreams::relay`] takes, retries included.
    pub fn relay_timeout(&self, name: &str) -> Duration {
        self.shared.get(name).map_or(Duration::ZERO, |upstream| upstream.config.timeout)
    }

    /// Starts the span of a request to the upstream called `name`, as a child of `parent`.
    pub fn span(&self, name: &str, parent: &TraceContext) -> Span {
        let Some(upstream) = self.shared.get(name) else { return Span::default() };
        let (kind, label) = match upstream.config.kind {
            UpstreamKind::Http(_) => (Kind::Client, "http"),
            UpstreamKind::WebSocket(_) => (Kind::Client, "websocket"),
            UpstreamKind::Celery(_) => (Kind::Producer, "celery"),
            UpstreamKind::RedisStream(_) => (Kind::Producer, "redis-stream"),
            UpstreamKind::RedisList(_) => (Kind::Producer, "redis-list"),
        };
        let mut span = Span::start(parent, kind, || format!("upstream {name}").into());
        if span.is_recording() {
            span.set("tidegate.upstream", name.to_owned());
            span.set("tidegate.upstream.kind", label);
        }
        span
    }

    /// Returns by what ended replies of the upstream called `name` are posted; `None` = they are not.
    pub fn reply_poster(&self, name: &str) -> Option<ReplyPoster> {
        let shared = Arc::clone(self.shared.get(name)?.on_complete.as_ref()?);
        Some(ReplyPoster { shared, client: self.posting.get(name)?.clone() })
    }

    /// Whether a streamed reply is aborted when the connection that requested it closes.
    pub fn cancels_on_disconnect(&self, name: &str) -> bool {
        self.shared.get(name).is_some_and(|upstream| {
            matches!(&upstream.config.kind, UpstreamKind::Http(http) if http.on_disconnect == OnDisconnect::Cancel)
        })
    }

    /// Relays `message` to the upstream called `name`. Config has checked that it exists and is not a
    /// `websocket`.
    pub async fn relay(&self, name: &str, message: &Message) -> Result<Accepted, RelayError> {
        let Some(upstream) = self.shared.get(name) else {
            return Err(RelayError::Unavailable);
        };
        // Requests and tasks are in boxes, so that a message to another queue has no room for them.
        let outgoing = || self.outgoing.get(name).ok_or(RelayError::Unavailable);
        match (&upstream.config.kind, &upstream.transport) {
            (UpstreamKind::Http(config), _) => {
                let client = self.clients.get(name).ok_or(RelayError::Unavailable)?;
                Box::pin(relay_http(upstream, config, client, message)).await
            }
            (UpstreamKind::Celery(config), Transport::Celery(celery)) => {
                Box::pin(relay_task(upstream, config, celery, outgoing()?, message)).await
            }
            (
                UpstreamKind::RedisStream(config) | UpstreamKind::RedisList(config),
                Transport::Queue(queue),
            ) => {
                let outgoing = outgoing()?;
                let deadline = deadline_after(upstream.config.timeout);
                let add = || queue.add(outgoing, config, message, deadline).finish();
                enqueue(upstream, message, add).await
            }
            _ => Err(RelayError::Unavailable),
        }
    }

    /// Tells the worker of a task to stop, if its queue is not in the engine's own Redis (the engine
    /// publishes cancellations there itself). The request to stop expires after `ttl`. False = it could not
    /// be sent.
    pub async fn publish_cancellation(&self, name: &str, task_id: &str, ttl: Duration) -> bool {
        let Some(upstream) = self.shared.get(name) else { return true };
        match (&upstream.transport, &upstream.config.kind) {
            (Transport::Queue(queue), _) => queue.publish_cancellation(task_id, ttl).await,
            (Transport::Celery(celery), UpstreamKind::Celery(config)) => {
                celery.revoke(config, task_id).await
            }
            _ => true,
        }
    }

    /// Completes when a worker's task has ended; `None` = the upstream does not report it.
    pub fn task_end(&self, name: &str, task_id: &str) -> Option<impl Future<Output = TaskEnd>> {
        match &self.shared.get(name)?.transport {
            Transport::Celery(celery) => Some(celery.results()?.wait_for_end(task_id)),
            Transport::Http(_) | Transport::Queue(_) => None,
        }
    }

    /// Asks the Redis of a queue for the state of the queue that messages of this channel, path and user go to. `None`
    /// = there is no queue, or no answer. The caller sets the deadline.
    pub async fn queue_state(
        &self,
        name: &str,
        channel: &ChannelName,
        params: &Params,
        user_id: Option<&UserId>,
    ) -> Option<QueueState> {
        let upstream = self.shared.get(name)?;
        let user_id = user_in_template(user_id);
        let context = TemplateContext { params, user_id, channel: Some(channel.as_str()) };
        match (&upstream.config.kind, &upstream.transport) {
            (UpstreamKind::RedisStream(config), Transport::Queue(queue)) => {
                queue.state(config, true, context).await
            }
            (UpstreamKind::RedisList(config), Transport::Queue(queue)) => {
                queue.state(config, false, context).await
            }
            (UpstreamKind::Celery(config), Transport::Celery(celery)) => {
                celery.queue_state(config, channel).await
            }
            _ => None,
        }
    }

    /// Returns the name of the event by which clients of this channel learn that their message was accepted.
    pub fn queued_event(&self, name: &str, channel: &ChannelName) -> &str {
        match self.shared.get(name).map(|upstream| &upstream.config.kind) {
            Some(UpstreamKind::Celery(config)) => &config.task(channel.as_str()).queued_event,
            _ => EventName::TaskQueued.label(),
        }
    }
}

/// Makes something for each upstream, or takes what was made before for one that has not changed.
fn each<T: Clone>(
    shared: &SharedUpstreams,
    previous: Option<(&SharedUpstreams, &BTreeMap<String, T>)>,
    make: impl Fn(&Upstream) -> Option<T>,
) -> Rc<BTreeMap<String, T>> {
    let made = |(name, upstream): (&String, &Arc<Upstream>)| {
        let unchanged = previous.and_then(|(shared, made)| {
            let is_same = Arc::ptr_eq(shared.get(name)?, upstream);
            made.get(name).filter(|_| is_same).cloned()
        });
        Some((name.clone(), unchanged.or_else(|| make(upstream))?))
    };
    Rc::new(shared.iter().filter_map(made).collect())
}

/// The time to connect to one replica, so that all can be tried within the upstream's timeout.
fn connect_timeout(upstream: &Upstream) -> Duration {
    http_client::share_of_timeout(upstream.config.timeout, upstream.config.urls().len())
}

const NO_RESPONSE: &str = "no answer in time";
const UNFIT_FOR_URL: &str = "messages cannot be sent under this name or on this channel";

async fn relay_http(
    upstream: &Upstream,
    config: &config::HttpUpstream,
    client: &ExchangeClient,
    message: &Message,
) -> Result<Accepted, RelayError> {
    let Upstream { gate, .. } = upstream;
    // A message whose values have no place in the URL or in the body is not a failure of the upstream.
    let not_sent = |text: String| {
        gate.metrics.request_not_sent(message.log_fields(), RequestOutcome::Rejected);
        RelayError::rejected(text)
    };
    let urls = config.urls.iter().zip(&upstream.fixed_urls);
    let urls = urls.map(|(template, fixed)| match fixed {
        Some(url) => Ok(url.clone()),
        None => http::url(template, message),
    });
    let urls: Result<Vec<Uri>, _> = urls.collect();
    let urls = urls.map_err(|text| not_sent(text.to_owned()))?;
    let body = http::body(&config.request, message).map_err(not_sent)?;
    let mut pending = gate.enter(message.log_fields(), &message.sender)?;
    let deadline = deadline_after(upstream.config.timeout);
    let metrics = &gate.metrics;
    let relay = http::Relay { client, config, metrics, message, urls, body, deadline };
    let response = relay.run(&mut pending).await;
    finish_http(pending, response, message, config)
}

async fn relay_task(
    upstream: &Upstream,
    config: &config::CeleryUpstream,
    celery: &Celery,
    outgoing: &Outgoing,
    message: &Message,
) -> Result<Accepted, RelayError> {
    // A message that cannot become a task is not a failure of the broker, so that it does not reach the
    // circuit breaker.
    let element = Celery::compose(config, message).inspect_err(|_| {
        let metrics = &upstream.gate.metrics;
        metrics.request_not_sent(message.log_fields(), RequestOutcome::Rejected);
    })?;
    let deadline = deadline_after(upstream.config.timeout);
    enqueue(upstream, message, || celery.push(outgoing, element, deadline)).await
}

fn finish_http(
    pending: PendingRequest<'_>,
    response: RelayResponse,
    message: &Message,
    config: &config::HttpUpstream,
) -> Result<Accepted, RelayError> {
    match response {
        RelayResponse::Accepted { task_id, is_queued } => {
            pending.accept(RequestOutcome::Taken);
            let task_id = task_id.unwrap_or_else(|| message.task_id.clone());
            let reply = if is_queued { ReplySource::Worker } else { ReplySource::None };
            Ok(Accepted { task_id, reply, task: None })
        }
        RelayResponse::Streaming(format, dialect, body, input) => {
            let in_flight = pending.accept(RequestOutcome::Streaming);
            let reply = Reply::new(body, input, format, dialect, config, in_flight, message);
            let reply = ReplySource::Stream(Box::new(reply));
            Ok(Accepted { task_id: message.task_id.clone(), reply, task: None })
        }
        RelayResponse::Refused(error, reason) => Err(pending.refuse(error, &reason)),
    }
}

async fn enqueue<F: Future<Output = Written>>(
    upstream: &Upstream,
    message: &Message,
    add: impl FnOnce() -> F,
) -> Result<Accepted, RelayError> {
    let Upstream { gate, .. } = upstream;
    let task = gate.enter_queue(message.log_fields(), &message.sender)?;
    let pending = gate.enter(message.log_fields(), &message.sender)?;
    match add().await {
        Ok(()) => {
            pending.accept(RequestOutcome::Taken);
            Ok(Accepted { task_id: message.task_id.clone(), reply: ReplySource::Worker, task })
        }
        Err((error, reason)) => Err(pending.refuse(error, &reason)),
    }
}

/// Returns the instant `time` from now, at most a year ahead: the clock cannot represent every duration
/// that a setting can name.
fn deadline_after(time: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    Instant::now() + time.min(YEAR)
}
