//! Replies to clients' messages: how they begin, continue and end; duplicates; failover to other nodes.

mod spans;
mod timing;

pub use spans::ReplySpans;
pub use timing::ReplyTiming;

use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Histogram, SharedString};
use tracing::{debug, info, warn};

use super::definitions::{ROUTE, buckets, metrics, words};
use super::delivery::{PUBLICATIONS, PublicationOutcome};
use super::recent_errors::{self, ErrorScope, Occurrence};
use crate::protocol::{ChannelName, label_enum};

metrics! {
    /// Replies to messages, by how they ended.
    GENERATIONS = counter "tidegate_generations_total" [route: ROUTE, outcome: words(&[GenerationOutcome::LABELS])];
    /// Time from a client's message to the first event of its reply other than `processing_started`, as published.
    FIRST_CHUNK = histogram "tidegate_generation_first_chunk_seconds" [route: ROUTE] in buckets::FIRST_CHUNK;
    /// Time from one event of a reply to the next, without the event that ends it.
    CHUNK_GAP = histogram "tidegate_generation_chunk_gap_seconds" [route: ROUTE] in buckets::CHUNK_GAP;
    /// Time from a client's message to the end of its reply.
    DURATION = histogram "tidegate_generation_duration_seconds" [
        route: ROUTE,
        outcome: words(&[GenerationEnd::LABELS]),
    ] in buckets::GENERATION;
    /// Tokens of AI models that replies took, as their upstreams say. `input` and `output` are all of them: `cached_input`
    /// and `cache_write` are parts of `input`, and `reasoning` is a part of `output`.
    USAGE = counter "tidegate_generation_usage_tokens_total" [route: ROUTE, kind: words(&[UsageKind::LABELS])];
    /// Duplicates that were dropped: a message that its client sent again; a second terminal event of a task; a
    /// publication that was sent again; a live publication that had already been read from the history; a
    /// message of the channel layer that another node had appended.
    DUPLICATES = counter "tidegate_duplicates_total" [kind: words(&[Duplicate::LABELS])];
    /// Replies that this node took over from a node that had died or stopped.
    TAKEN_OVER = counter "tidegate_generations_taken_over_total";
    /// Replies of workers of which no event was heard: until a first warning, or until they ended.
    UNHEARD = counter "tidegate_generations_unheard_total" [route: ROUTE, when: words(&[Unheard::LABELS])];
    /// Relayed messages whose answer could not be stored in the engine.
    ANSWERS_NOT_KEPT = counter "tidegate_message_answers_not_kept_total";
}

label_enum! {
    /// How a generation ended.
    pub enum GenerationEnd {
        /// The upstream or its worker sent a terminal event, which can be an error of a worker's, or the stream ended
        /// regularly.
        Completed => "completed",
        /// The upstream died, or sent something that could not be published.
        WorkerLost => "worker_lost",
        /// The result of its task is a failure, or its stream ended with an error.
        TaskFailed => "task_failed",
        /// A client cancelled it, or the upstream was stopped by other means.
        Cancelled => "cancelled",
        /// Its end was not seen within `max_duration`.
        Overdue => "overdue",
        /// Another node took it over, because this one seemed dead.
        Taken => "taken",
        /// The engine was unavailable for too long.
        EngineDown => "engine_down",
    }
}

label_enum! {
    /// What became of a generation.
    enum GenerationOutcome {
        /// The message was relayed, but the limit of monitored replies was reached.
        NotTracked => "not_tracked";
        Ended(GenerationEnd),
    }
}

label_enum! {
    /// What tokens were taken for. A part is counted in its whole as well.
    pub enum UsageKind {
        Input => "input",
        Output => "output",
        /// A part of the input.
        CachedInput => "cached_input",
        /// A part of the input.
        CacheWrite => "cache_write",
        /// A part of the output.
        Reasoning => "reasoning",
    }
}

label_enum! {
    /// What was recognized as a duplicate and dropped.
    pub enum Duplicate {
        Message => "message",
        TerminalEvent => "terminal_event",
        Publication => "publication",
        Replayed => "replayed",
        ChannelLayer => "channel_layer",
    }
}

label_enum! {
    /// When a reply was found of which no event had been heard.
    pub enum Unheard {
        /// It has been running for `first_event_warning`.
        Running => "running",
        /// Its task succeeded.
        Succeeded => "succeeded",
        /// Its task expired before a worker took it.
        Expired => "expired",
        /// The gateway stopped waiting for it.
        GivenUp => "given_up",
    }
}

/// A reply of which no event was heard.
pub struct UnheardReply<'a> {
    pub channel: &'a ChannelName,
    pub task_id: &'a str,
    pub upstream: &'a str,
    /// The queue, the number of messages in it, and how many consumer groups it has or how often it is declared. `None` if
    /// this is not known.
    pub queue: Option<&'a str>,
    pub waiting: Option<u64>,
    pub consumers: Option<u64>,
    /// The settings to check.
    pub check: &'static str,
}

/// The replies of one route.
pub struct ReplyMetrics {
    route: Arc<str>,
    /// In the order of [`GenerationEnd::ALL`].
    ended: Box<[(Counter, Histogram)]>,
    not_tracked: Counter,
    /// In the order of [`Unheard::ALL`].
    unheard: Box<[Counter]>,
    /// In the order of [`UsageKind::ALL`].
    usage: Box<[Counter]>,
    first_chunk: Histogram,
    chunk_gap: Histogram,
}

impl ReplyMetrics {
    pub(super) fn new(route: Arc<str>) -> Self {
        let label = SharedString::from(Arc::clone(&route));
        let series = |outcome: &'static str| [label.clone(), outcome.into()];
        let ended = |end: &GenerationEnd| {
            (GENERATIONS.at(series(end.label())), DURATION.at(series(end.label())))
        };
        Self {
            ended: GenerationEnd::ALL.iter().map(ended).collect(),
            not_tracked: GENERATIONS.at(series(GenerationOutcome::NotTracked.label())),
            unheard: Unheard::ALL
                .iter()
                .map(|when| UNHEARD.at([label.clone(), when.label().into()]))
                .collect(),
            usage: UsageKind::ALL
                .iter()
                .map(|kind| USAGE.at([label.clone(), kind.label().into()]))
                .collect(),
            first_chunk: FIRST_CHUNK.at([label.clone()]),
            chunk_gap: CHUNK_GAP.at([label.clone()]),
            route,
        }
    }

    /// A message was relayed whose reply is not monitored, because the limit of monitored replies is reached.
    pub fn not_tracked(&self) {
        self.not_tracked.increment(1);
    }

    /// A reply took this many tokens.
    pub fn usage(&self, kind: UsageKind, tokens: u64) {
        self.usage[kind as usize].increment(tokens);
    }

    /// No event of a worker's reply was heard.
    pub fn unheard(&self, when: Unheard, reply: &UnheardReply<'_>) {
        self.unheard[when as usize].increment(1);
        let UnheardReply { channel, task_id, upstream, queue, waiting, consumers, check } = *reply;
        let (route, channel) = (&*self.route, channel.as_str());
        warn!(
            event = "reply_unheard",
            channel,
            route,
            task_id,
            outcome = when.label(),
            upstream,
            queue,
            waiting,
            consumers,
            check,
            "no event of a worker's reply was heard: no worker takes tasks from this queue, or the worker publishes elsewhere"
        );
    }

    /// The reply to the message that was received at `received_at` has ended. `reason` says more than its outcome.
    pub fn ended(
        &self,
        channel: &ChannelName,
        end: GenerationEnd,
        reason: Option<&str>,
        received_at: Instant,
        task_id: &str,
    ) {
        let (count, duration) = &self.ended[end as usize];
        count.increment(1);
        duration.record(received_at.elapsed());
        let (route, outcome) = (&*self.route, end.label());
        let channel = channel.as_str();
        if let GenerationEnd::WorkerLost
        | GenerationEnd::TaskFailed
        | GenerationEnd::Overdue
        | GenerationEnd::EngineDown = end
        {
            recent_errors::record(Occurrence {
                scope: ErrorScope::Reply,
                code: outcome,
                connection: None,
                user: None,
                channel: Some(channel),
                task: Some(task_id),
            });
        }
        if end == GenerationEnd::Completed {
            debug!(
                event = "generation_ended",
                channel, route, outcome, task_id, "a reply has ended"
            );
        } else {
            info!(
                event = "generation_ended",
                channel, route, outcome, reason, task_id, "a reply has ended"
            );
        }
    }
}

/// Duplicates were dropped.
pub fn duplicates_dropped(kind: Duplicate, count: usize) {
    if count > 0 {
        DUPLICATES.at([kind.label()]).increment(count as u64);
    }
}

/// A second terminal event of a task was dropped.
pub fn second_terminal_event_dropped() {
    PUBLICATIONS.at([PublicationOutcome::DuplicateTerminal.label()]).increment(1);
    duplicates_dropped(Duplicate::TerminalEvent, 1);
}

/// An event of a cancelled task was dropped.
pub fn cancelled_event_dropped() {
    PUBLICATIONS.at([PublicationOutcome::Cancelled.label()]).increment(1);
}

/// This node took over generations of a node that has died or stopped.
pub fn generations_taken_over(count: usize) {
    if count > 0 {
        TAKEN_OVER.get().increment(count as u64);
        warn!(event = "generations_taken_over", count, "took over the replies of another node");
    }
}

/// Another node took over a generation of this node, because this node seemed dead.
pub fn generation_lost_to_another_node(channel: &ChannelName, task_id: &str) {
    warn!(
        event = "generation_lost_to_another_node",
        channel = channel.as_str(),
        task_id,
        "another node took over a reply, because this node seemed dead"
    );
}

/// The worker of a cancelled generation could not be asked to stop.
pub fn worker_not_cancelled(channel: &ChannelName, task_id: &str) {
    warn!(
        event = "worker_not_told",
        channel = channel.as_str(),
        task_id,
        "failed to ask the worker of a cancelled reply to stop"
    );
}

/// An upstream accepted a message, but its answer could not be stored: a duplicate of it would be relayed.
pub fn answer_not_stored(task_id: &str) {
    ANSWERS_NOT_KEPT.get().increment(1);
    warn!(
        event = "message_answer_not_kept",
        task_id, "failed to store the answer to a message; a duplicate of it would be relayed"
    );
}
