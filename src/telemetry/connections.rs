//! Facts about open connections and their messages.

use std::sync::LazyLock;

use metrics::{Counter, Gauge, counter, gauge};
use tracing::{debug, info};

use crate::protocol::{ConnectionId, ErrorCode, PathPattern};

static QUEUED: LazyLock<Counter> =
    LazyLock::new(|| counter!("tidegate_messages_total", "outcome" => "queued"));

static QUEUE_BYTES: LazyLock<Gauge> = LazyLock::new(|| gauge!("tidegate_send_queue_bytes"));

/// An admitted client's session begins.
pub fn opened(route: &PathPattern, connection: ConnectionId) {
    let route = route.as_str().to_owned();
    gauge!("tidegate_connections", "route" => route.clone()).increment(1);
    debug!(event = "connection_opened", connection = %connection, route, "connection opened");
}

/// It is over.
pub fn closed(
    route: &PathPattern,
    connection: ConnectionId,
    by: &'static str,
    code: u16,
    reason: &'static str,
) {
    let route = route.as_str().to_owned();
    gauge!("tidegate_connections", "route" => route.clone()).decrement(1);
    counter!("tidegate_closes_total", "by" => by, "reason" => reason).increment(1);
    info!(event = "connection_closed", connection = %connection, route, by, code, reason, "connection closed");
}

/// Bytes that wait for the connections of one thread, in the round before and in this one.
pub fn send_queues(before: usize, now: usize) {
    if now != before {
        QUEUE_BYTES.increment(now as f64 - before as f64);
    }
}

/// An upstream took a message.
pub fn message_queued() {
    QUEUED.increment(1);
}

/// A message was answered with an error.
pub fn message_refused(code: ErrorCode) {
    counter!("tidegate_messages_total", "outcome" => code.label()).increment(1);
}

/// A reply that the gateway streams has ended.
pub fn generation_ended(outcome: &'static str, task_id: &str) {
    counter!("tidegate_generations_total", "outcome" => outcome).increment(1);
    debug!(event = "generation_ended", outcome, task_id, "generation ended");
}
