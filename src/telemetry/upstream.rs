//! Facts about upstreams: what became of requests and replies, circuits, retries. The label
//! `upstream` is a name from the config.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tracing::{debug, info, warn};

/// What became of one request to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Taken, or the upstream's socket is open.
    Taken,
    /// Taken, and the reply streams in the answer.
    Streaming,
    /// The upstream itself said that it has too much to do.
    Busy,
    Rejected,
    Unavailable,
    /// Not asked: `max_in_flight` reached.
    Full,
    /// Not asked: its circuit is open.
    CircuitOpen,
}

/// How a streamed reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyEnd {
    Complete,
    Lost,
    TooLarge,
    TooLong,
    /// The gateway gave it up.
    GivenUp,
}

/// What a result backend says became of a task that this node looks after.
pub fn task_ended(outcome: &'static str, task_id: &str, exception: Option<&str>) {
    counter!("tidegate_celery_tasks_total", "outcome" => outcome).increment(1);
    debug!(event = "celery_task_ended", outcome, task_id, exception);
}

/// A result that is no Celery result in JSON; the task is no longer asked for.
pub fn result_unreadable(task_id: &str) {
    counter!("tidegate_celery_tasks_total", "outcome" => "unreadable").increment(1);
    warn!(event = "celery_result_unreadable", task_id, "the result of a task cannot be read");
}

/// A task is queued, and its id could not be put where the backend looks for it.
pub fn task_not_tracked(reason: &str) {
    counter!("tidegate_celery_untracked_tasks_total").increment(1);
    warn!(event = "celery_task_not_tracked", reason, "the id of a task was not added to its key");
}

/// The handles of one upstream, made once.
pub struct UpstreamFacts {
    name: Box<str>,
    requests: [Counter; 7],
    replies: [Counter; 5],
    retries: Counter,
    seconds: Histogram,
    in_flight: Gauge,
    circuit: Gauge,
}

impl UpstreamFacts {
    pub fn new(name: &str) -> Self {
        let request = |outcome: &'static str| counter!("tidegate_upstream_requests_total", "upstream" => name.to_owned(), "outcome" => outcome);
        let reply = |outcome: &'static str| counter!("tidegate_upstream_replies_total", "upstream" => name.to_owned(), "outcome" => outcome);
        let facts = Self {
            name: name.into(),
            // In the order of the enums.
            requests: [
                request("taken"),
                request("streaming"),
                request("busy"),
                request("rejected"),
                request("unavailable"),
                request("full"),
                request("circuit_open"),
            ],
            replies: [
                reply("complete"),
                reply("lost"),
                reply("too_large"),
                reply("too_long"),
                reply("given_up"),
            ],
            retries: counter!("tidegate_upstream_retries_total", "upstream" => name.to_owned()),
            seconds: histogram!("tidegate_upstream_request_seconds", "upstream" => name.to_owned()),
            in_flight: gauge!("tidegate_upstream_in_flight", "upstream" => name.to_owned()),
            circuit: gauge!("tidegate_upstream_circuit_open", "upstream" => name.to_owned()),
        };
        facts.circuit.set(0.0);
        facts
    }

    /// The upstream was asked; `took` is the time to its answer, retries included.
    pub fn asked(&self, outcome: Outcome, took: Duration) {
        self.requests[outcome as usize].increment(1);
        self.seconds.record(took.as_secs_f64());
        debug!(event = "upstream_asked", upstream = &*self.name, ?outcome, ?took);
    }

    /// The upstream was not asked.
    pub fn not_asked(&self, outcome: Outcome) {
        self.requests[outcome as usize].increment(1);
        debug!(event = "upstream_not_asked", upstream = &*self.name, ?outcome);
    }

    /// Why it counts as unavailable. At most a few lines a window: then the circuit opens.
    pub fn failed(&self, reason: &str) {
        warn!(event = "upstream_failed", upstream = &*self.name, reason);
    }

    /// It is asked again with the same key.
    pub fn retried(&self, reason: &str) {
        self.retries.increment(1);
        info!(event = "upstream_retried", upstream = &*self.name, reason);
    }

    pub fn reply_ended(&self, end: ReplyEnd) {
        self.replies[end as usize].increment(1);
        debug!(event = "upstream_reply_ended", upstream = &*self.name, ?end);
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
        warn!(event = "upstream_circuit_opened", upstream = &*self.name);
    }

    pub fn circuit_closed(&self) {
        self.circuit.set(0.0);
        info!(event = "upstream_circuit_closed", upstream = &*self.name);
    }
}
