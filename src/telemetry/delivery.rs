//! Facts about publications on their way to connections.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tracing::warn;

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
    received: counter!("tidegate_publications_total", "outcome" => "received"),
    too_large: counter!("tidegate_publications_total", "outcome" => "too_large"),
    deliveries: counter!("tidegate_deliveries_total"),
    drops: counter!("tidegate_delivery_drops_total"),
    latency: histogram!("tidegate_delivery_latency_seconds"),
    intake: gauge!("tidegate_queue_depth", "queue" => "intake"),
    workers: gauge!("tidegate_queue_depth", "queue" => "workers"),
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
