//! Facts about messages that are relayed once, and about the replies to them.

use tracing::warn;

use super::definitions::{ROUTE, buckets, labels, metrics, words};
use super::delivery::{PUBLICATIONS, PublicationOutcome};
use crate::protocol::ChannelName;

metrics! {
    /// Replies to messages, by how they ended.
    GENERATIONS = counter "tidegate_generations_total" [
        route: ROUTE,
        outcome: words(&[GenerationEnd::LABELS, &[NOT_TRACKED]]),
    ];
    /// From a client's message to the first event of its reply other than `processing_started`, as published.
    FIRST_CHUNK = histogram "tidegate_generation_first_chunk_seconds" [route: ROUTE] in buckets::FIRST_CHUNK;
    /// From one event of a reply to the next; the one that ends it does not count.
    CHUNK_GAP = histogram "tidegate_generation_chunk_gap_seconds" [route: ROUTE] in buckets::CHUNK_GAP;
    /// From a client's message to the end of its reply.
    DURATION = histogram "tidegate_generation_duration_seconds" [
        route: ROUTE,
        outcome: words(&[GenerationEnd::LABELS]),
    ] in buckets::GENERATION;
    /// What would have come twice: a message that its client sent again; a second terminal event of a task; a
    /// publication that was tried again; one that came live after it had been read from the history; a message
    /// of the channel layer that another node had appended.
    DUPLICATES = counter "tidegate_duplicates_total" [kind: words(&[Duplicate::LABELS])];
    /// Generations whose node was gone, and which this node took over.
    TAKEN_OVER = counter "tidegate_generations_taken_over_total";
    /// Relayed messages that the engine could not be told of.
    ANSWERS_NOT_KEPT = counter "tidegate_message_answers_not_kept_total";
}

/// Relayed, and as many as can be looked after are already.
pub(super) const NOT_TRACKED: &str = "not_tracked";

labels! {
    /// What was caught before it came twice.
    pub enum Duplicate {
        Message = "message",
        TerminalEvent = "terminal_event",
        Publication = "publication",
        Replayed = "replayed",
        ChannelLayer = "channel_layer",
    }
}

/// So many of them.
pub fn duplicates_caught(what: Duplicate, count: usize) {
    if count > 0 {
        DUPLICATES.at([what.label()]).increment(count as u64);
    }
}

labels! {
    /// How a generation ended.
    pub enum GenerationEnd {
        /// By a terminal event of the upstream or its worker, or its regular end.
        Completed = "completed",
        /// The upstream died, or sent what could not be published.
        WorkerLost = "worker_lost",
        /// The result of its task says so.
        TaskFailed = "task_failed",
        /// A client wanted no more of it.
        Cancelled = "cancelled",
        /// Nobody has heard of its end within `max_duration`.
        Overdue = "overdue",
        /// Another node has ended it, believing this one dead.
        Taken = "taken",
        /// The engine was away for too long.
        EngineDown = "engine_down",
    }
}

/// Generations whose node is gone, and which this node looks after now.
pub fn taken_over(count: usize) {
    if count > 0 {
        TAKEN_OVER.get().increment(count as u64);
        warn!(event = "generations_taken_over", count, "a node is gone; this one has taken over");
    }
}

/// Another node believed this one dead and took a generation over.
pub fn lost_to_another_node(channel: &ChannelName, task_id: &str) {
    warn!(
        event = "generation_lost_to_another_node",
        channel = channel.as_str(),
        task_id,
        "another node believed this one dead"
    );
}

/// A cancelled generation's worker could not be told.
pub fn worker_not_told(channel: &ChannelName, task_id: &str) {
    warn!(
        event = "worker_not_told",
        channel = channel.as_str(),
        task_id,
        "the worker of a cancelled generation could not be told"
    );
}

/// A second terminal event of a task that had ended was delivered to nobody.
pub fn second_end_dropped() {
    PUBLICATIONS.at([PublicationOutcome::DuplicateTerminal.label()]).increment(1);
    duplicates_caught(Duplicate::TerminalEvent, 1);
}

/// An upstream took a message, and the engine could not be told: a repeat will be relayed again.
pub fn answer_not_kept(task_id: &str) {
    ANSWERS_NOT_KEPT.get().increment(1);
    warn!(
        event = "message_answer_not_kept",
        task_id,
        "the engine could not be told of a relayed message; a repeat would be relayed again"
    );
}
