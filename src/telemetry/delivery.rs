//! Facts about publications on their way to connections.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use tracing::{debug, warn};

use super::definitions::{buckets, labels, metrics, words};
use crate::protocol::ChannelName;

metrics! {
    /// Publications that reached this node, and of them those that went no further.
    PUBLICATIONS = counter "tidegate_publications_total" [outcome: words(&[PublicationOutcome::LABELS])];
    /// Publications handed to connections: one for each connection.
    DELIVERIES = counter "tidegate_deliveries_total";
    /// Publications that a connection could not take.
    DELIVERY_DROPS = counter "tidegate_delivery_drops_total";
    /// From a publication's arrival to its last write.
    DELIVERY_LATENCY = histogram "tidegate_delivery_latency_seconds" in buckets::DELIVERY;
    /// Publications in the intake, and batches before the busiest worker thread.
    QUEUE_DEPTH = gauge "tidegate_queue_depth" [queue: words(&[&["intake", "workers"]])];
}

labels! {
    /// What became of a publication.
    pub enum PublicationOutcome {
        Received = "received",
        /// Over `max_publication_bytes`.
        TooLarge = "too_large",
        /// A second end of a generation.
        DuplicateTerminal = "duplicate_terminal",
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
    intake: QUEUE_DEPTH.at(["intake"]),
    workers: QUEUE_DEPTH.at(["workers"]),
});

/// Publications reached this node.
pub fn publications_received(count: usize) {
    HANDLES.received.increment(count as u64);
}

/// What waits: publications in the intake, and batches before the busiest worker thread.
pub fn queues(intake: usize, workers: usize) {
    HANDLES.intake.set(intake as f64);
    HANDLES.workers.set(workers as f64);
}

/// A publication from Redis was over `max_publication_bytes` and dropped.
pub fn publication_too_large(bytes: usize) {
    HANDLES.too_large.increment(1);
    warn!(
        event = "publication_too_large",
        bytes, "a publication over max_publication_bytes was dropped"
    );
}

/// A batch was handed to its connections; `latency` is from the arrival of its oldest publication.
pub fn delivered(deliveries: u64, drops: u64, latency: Duration) {
    HANDLES.deliveries.increment(deliveries);
    if drops > 0 {
        HANDLES.drops.increment(drops);
    }
    HANDLES.latency.record(latency);
}

/// Publications of one channel were handed to its connections on one thread.
pub fn channel_delivered(channel: &ChannelName, frames: &[impl AsRef<[u8]>], to: u64, drops: u64) {
    debug!(
        event = "channel_delivered",
        channel = channel.as_str(),
        publications = frames.len(),
        bytes = frames.iter().map(|frame| frame.as_ref().len()).sum::<usize>(),
        deliveries = to,
        drops,
        "publications were handed to their channel's connections"
    );
}
