//! Facts about upstreams: what became of requests and replies, circuits, retries. The label
//! `upstream` is a name from the config.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, SharedString};
use tracing::{debug, info, warn};

use super::about::{AboutMessage, message_line};
use super::definitions::{self, Configured, UPSTREAM, buckets, labels, metrics, words};
use crate::protocol::ChannelName;

metrics! {
    /// Requests to upstreams, by what became of them.
    REQUESTS = counter "tidegate_upstream_requests_total" [upstream: UPSTREAM, outcome: words(&[Outcome::LABELS])];
    /// Replies that upstreams streamed, by how they ended.
    REPLIES = counter "tidegate_upstream_replies_total" [upstream: UPSTREAM, outcome: words(&[ReplyEnd::LABELS])];
    /// Requests that were tried again.
    RETRIES = counter "tidegate_upstream_retries_total" [upstream: UPSTREAM];
    /// From a relayed message to the upstream's answer.
    SECONDS = histogram "tidegate_upstream_request_seconds" [upstream: UPSTREAM] in buckets::REQUEST;
    /// Messages, replies and sockets in flight.
    IN_FLIGHT = gauge "tidegate_upstream_in_flight" [upstream: UPSTREAM];
    /// 1 while an upstream is not asked.
    CIRCUIT_OPEN = gauge "tidegate_upstream_circuit_open" [upstream: UPSTREAM];
    /// Tasks whose result was seen, by how they ended.
    CELERY_TASKS = counter "tidegate_celery_tasks_total" [
        outcome: words(&[&["succeeded", "failed", "revoked", "expired", "unreadable"]]),
    ];
    /// Tasks whose id was not added to the backend's key.
    CELERY_UNTRACKED = counter "tidegate_celery_untracked_tasks_total";
}

labels! {
    /// What became of one request to an upstream.
    pub enum Outcome {
        /// Taken, or the upstream's socket is open.
        Taken = "taken",
        /// Taken, and the reply streams in the answer.
        Streaming = "streaming",
        /// The upstream itself said that it has too much to do.
        Busy = "busy",
        Rejected = "rejected",
        Unavailable = "unavailable",
        /// Not asked: `max_in_flight` reached.
        Full = "full",
        /// Not asked: its circuit is open.
        CircuitOpen = "circuit_open",
    }
}

labels! {
    /// How a streamed reply ended.
    pub enum ReplyEnd {
        Complete = "complete",
        Lost = "lost",
        TooLarge = "too_large",
        TooLong = "too_long",
        /// The gateway gave it up.
        GivenUp = "given_up",
    }
}

/// What a result backend says became of a task that this node looks after.
pub fn task_ended(outcome: &'static str, task_id: &str, exception: Option<&str>) {
    CELERY_TASKS.at([outcome]).increment(1);
    debug!(event = "celery_task_ended", outcome, task_id, exception, "a task has ended");
}

/// A result that is no Celery result in JSON; the task is no longer asked for.
pub fn result_unreadable(task_id: &str) {
    CELERY_TASKS.at(["unreadable"]).increment(1);
    warn!(event = "celery_result_unreadable", task_id, "the result of a task cannot be read");
}

/// A task is queued, and its id could not be put where the backend looks for it.
pub fn task_not_tracked(reason: &str) {
    CELERY_UNTRACKED.get().increment(1);
    warn!(event = "celery_task_not_tracked", reason, "the id of a task was not added to its key");
}

/// The handles of one upstream, made once.
pub struct UpstreamFacts {
    name: Box<str>,
    /// In the order of [`Outcome`].
    requests: Box<[Counter]>,
    /// In the order of [`ReplyEnd`].
    replies: Box<[Counter]>,
    retries: Counter,
    seconds: Histogram,
    in_flight: Gauge,
    circuit: Gauge,
}

impl UpstreamFacts {
    pub fn new(name: &str) -> Self {
        definitions::begin_configured(Configured::Upstream, name);
        let upstream = SharedString::from(name.to_owned());
        let request = |outcome: &&'static str| REQUESTS.at([upstream.clone(), (*outcome).into()]);
        let reply = |end: &&'static str| REPLIES.at([upstream.clone(), (*end).into()]);
        let facts = Self {
            name: name.into(),
            requests: Outcome::LABELS.iter().map(request).collect(),
            replies: ReplyEnd::LABELS.iter().map(reply).collect(),
            retries: RETRIES.at([upstream.clone()]),
            seconds: SECONDS.at([upstream.clone()]),
            in_flight: IN_FLIGHT.at([upstream.clone()]),
            circuit: CIRCUIT_OPEN.at([upstream.clone()]),
        };
        facts.circuit.set(0.0);
        facts
    }

    /// The upstream was asked; `took` is the time to its answer, retries included.
    pub fn asked(&self, about: AboutMessage<'_>, outcome: Outcome, took: Duration) {
        self.requests[outcome as usize].increment(1);
        self.seconds.record(took.as_secs_f64());
        let (upstream, outcome) = (&*self.name, outcome.label());
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        message_line!(
            debug,
            about,
            event = "upstream_asked",
            upstream,
            outcome,
            took_ms,
            "an upstream answered"
        );
    }

    /// The upstream was not asked.
    pub fn not_asked(&self, about: AboutMessage<'_>, outcome: Outcome) {
        self.requests[outcome as usize].increment(1);
        let (upstream, outcome) = (&*self.name, outcome.label());
        message_line!(
            debug,
            about,
            event = "upstream_not_asked",
            upstream,
            outcome,
            "an upstream was not asked"
        );
    }

    /// Why it counts as unavailable. At most a few lines a window: then the circuit opens.
    pub fn failed(&self, about: AboutMessage<'_>, reason: &str) {
        let upstream = &*self.name;
        message_line!(
            warn,
            about,
            event = "upstream_failed",
            upstream,
            reason,
            "an upstream is not available"
        );
    }

    /// It is asked again with the same key.
    pub fn retried(&self, about: AboutMessage<'_>, reason: &str) {
        self.retries.increment(1);
        let upstream = &*self.name;
        message_line!(
            info,
            about,
            event = "upstream_retried",
            upstream,
            reason,
            "an upstream is asked again"
        );
    }

    /// A streamed reply to the task of this channel has ended.
    pub fn reply_ended(&self, channel: &ChannelName, task_id: &str, end: ReplyEnd) {
        self.replies[end as usize].increment(1);
        let (upstream, outcome) = (&*self.name, end.label());
        let channel = channel.as_str();
        debug!(
            event = "upstream_reply_ended",
            channel, task_id, upstream, outcome, "a streamed reply has ended"
        );
    }

    /// A request, a streaming reply or a socket takes its place.
    pub fn place_taken(&self) {
        self.in_flight.increment(1.0);
    }

    pub fn place_left(&self) {
        self.in_flight.decrement(1.0);
    }

    pub fn circuit_opened(&self) {
        self.circuit.set(1.0);
        warn!(
            event = "upstream_circuit_opened",
            upstream = &*self.name,
            "an upstream is left alone for a while"
        );
    }

    pub fn circuit_closed(&self) {
        self.circuit.set(0.0);
        info!(
            event = "upstream_circuit_closed",
            upstream = &*self.name,
            "an upstream answers again"
        );
    }
}
