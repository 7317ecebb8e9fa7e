//! Publications on their way to connections, and the histories of channels.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use tracing::{debug, warn};

use super::definitions::{buckets, metrics, words};
use super::log::{ConnectionFields, connection_event};
use crate::protocol::{ChannelName, NotJson, label_enum};

metrics! {
    /// Publications that this node received, and those of them that it dropped.
    PUBLICATIONS = counter "tidegate_publications_total" [outcome: words(&[PublicationOutcome::LABELS])];
    /// Publications that looked like JSON objects but were none, or that were not text.
    NOT_JSON = counter "tidegate_publications_not_json_total" [fault: words(&[NotJson::LABELS])];
    /// Publications handed to connections, counted once for each connection.
    DELIVERIES = counter "tidegate_deliveries_total";
    /// Publications that a connection could not take.
    DELIVERY_DROPS = counter "tidegate_delivery_drops_total";
    /// Time from the arrival of a publication to its last write.
    DELIVERY_LATENCY = histogram "tidegate_delivery_latency_seconds" in buckets::DELIVERY;
    /// Publications in the intake queue, and batches queued for the busiest worker thread.
    QUEUE_DEPTH = gauge "tidegate_queue_depth" [queue: words(&[Queue::LABELS])];
    /// Requests of clients to resume, by outcome.
    RESUMES = counter "tidegate_resumes_total" [outcome: words(&[ResumeOutcome::LABELS])];
    /// Publications sent to clients from a history.
    REPLAYED = counter "tidegate_replayed_publications_total";
    /// Channels of which this node missed publications, by whether their history still had all of them.
    CATCH_UPS = counter "tidegate_catch_ups_total" [outcome: words(&[CatchUp::LABELS])];
}

label_enum! {
    /// What became of a publication.
    pub enum PublicationOutcome {
        Received => "received",
        /// It was larger than `max_publication_bytes`.
        TooLarge => "too_large",
        /// It was a second terminal event of a generation.
        DuplicateTerminal => "duplicate_terminal",
        /// It belonged to a task that was cancelled.
        Cancelled => "cancelled",
    }
}

label_enum! {
    enum Queue {
        /// Publications that the engine thread has not read yet.
        Intake => "intake",
        /// Batches that a worker thread has not delivered yet.
        Workers => "workers",
    }
}

struct Handles {
    received: Counter,
    too_large: Counter,
    deliveries: Counter,
    drops: Counter,
    latency: Histogram,
    intake: Gauge,
    workers: Gauge,
}

static HANDLES: LazyLock<Handles> = LazyLock::new(|| Handles {
    received: PUBLICATIONS.at([PublicationOutcome::Received.label()]),
    too_large: PUBLICATIONS.at([PublicationOutcome::TooLarge.label()]),
    deliveries: DELIVERIES.get(),
    drops: DELIVERY_DROPS.get(),
    latency: DELIVERY_LATENCY.get(),
    intake: QUEUE_DEPTH.at([Queue::Intake.label()]),
    workers: QUEUE_DEPTH.at([Queue::Workers.label()]),
});

/// This node received publications.
pub fn publications_received(count: usize) {
    HANDLES.received.increment(count as u64);
}

/// The current length of the queues: publications in the intake, and batches for the busiest worker thread.
pub fn queues_measured(intake: usize, workers: usize) {
    HANDLES.intake.set(intake as f64);
    HANDLES.workers.set(workers as f64);
}

/// A publication from Redis was larger than `max_publication_bytes` and was dropped.
pub fn publication_too_large(bytes: usize) {
    HANDLES.too_large.increment(1);
    warn!(
        event = "publication_too_large",
        bytes, "dropped a publication larger than max_publication_bytes"
    );
}

/// A publication is not the JSON that it looks like. Clients get it in another form.
pub fn publication_not_json(channel: &ChannelName, fault: NotJson) {
    let fault = fault.label();
    NOT_JSON.at([fault]).increment(1);
    warn!(
        event = "publication_not_json",
        channel = channel.as_str(),
        fault,
        "a publication is not valid JSON; clients get it as docs/protocol.md describes under Publishing"
    );
}

/// Publications were handed to connections; `latency` counts from the arrival of the oldest of those that have reached
/// their last one.
pub fn delivered(deliveries: u64, drops: u64, latency: Option<Duration>) {
    HANDLES.deliveries.increment(deliveries);
    if drops > 0 {
        HANDLES.drops.increment(drops);
    }
    if let Some(latency) = latency {
        HANDLES.latency.record(latency);
    }
}

/// Publications of one channel were handed to all of its connections on one thread.
pub fn channel_delivered(
    channel: &ChannelName,
    publications: usize,
    bytes: usize,
    deliveries: u64,
    drops: u64,
) {
    debug!(
        event = "channel_delivered",
        channel = channel.as_str(),
        publications,
        bytes,
        deliveries,
        drops,
        "delivered publications to the connections of a channel"
    );
}

label_enum! {
    /// What came of a client's request to resume.
    pub enum ResumeOutcome {
        /// No publication is missing.
        Recovered => "recovered",
        /// The history does not reach back far enough, or there is none. The client is informed.
        NotRecovered => "not_recovered",
        /// The history could not be read. The client is closed and has to reconnect.
        EngineDown => "engine_down",
    }
}

/// A client asked to resume.
pub fn resumed(fields: ConnectionFields<'_>, outcome: ResumeOutcome) {
    let outcome = outcome.label();
    RESUMES.at([outcome]).increment(1);
    connection_event!(debug, fields, event = "resumed", outcome, "a client asked to resume");
}

/// Publications of a channel's history were sent to a client.
pub fn replayed(fields: ConnectionFields<'_>, publications: usize) {
    REPLAYED.get().increment(publications as u64);
    if publications > 0 {
        connection_event!(
            debug,
            fields,
            event = "replayed",
            publications,
            "sent publications from the channel's history"
        );
    }
}

label_enum! {
    /// Whether a history had all the publications that this node missed.
    enum CatchUp {
        Complete => "complete",
        Lost => "lost",
    }
}

/// This node missed publications of a channel and has read its history; `complete` = nothing is missing now.
pub fn caught_up(channel: &ChannelName, complete: bool) {
    let outcome = if complete { CatchUp::Complete } else { CatchUp::Lost };
    CATCH_UPS.at([outcome.label()]).increment(1);
    if !complete {
        warn!(
            event = "history_lost",
            channel = channel.as_str(),
            "the history of a channel no longer has what this node missed; its clients are informed"
        );
    }
}
