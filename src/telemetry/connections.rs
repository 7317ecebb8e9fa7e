//! Facts about open connections and their messages. Those of one route count by [`super::route`].

use std::sync::LazyLock;

use metrics::Gauge;

use super::about::{About, line};
use super::definitions::{ROUTE, metrics, words};
use crate::protocol::{CloseReason, ErrorCode};

metrics! {
    /// Open sessions.
    CONNECTIONS = gauge "tidegate_connections" [route: ROUTE];
    /// Sessions that ended, by who ended them and why.
    CLOSES = counter "tidegate_closes_total" [
        route: ROUTE,
        by: words(&[&["gateway", "server", "client"]]),
        reason: words(&[&CloseReason::LABELS, LEAVES]),
    ], late;
    /// Clients' messages: taken by the upstream, caught as repeats, or answered with an error.
    MESSAGES = counter "tidegate_messages_total" [
        route: ROUTE,
        outcome: words(&[&[QUEUED, DUPLICATE], &ErrorCode::LABELS]),
    ];
    /// What waits for slow clients, seen once a second.
    SEND_QUEUE = gauge "tidegate_send_queue_bytes";
}

/// How clients leave.
pub(super) const LEAVES: &[&str] = &["closed", "lost"];

pub(super) const QUEUED: &str = "queued";
pub(super) const DUPLICATE: &str = "duplicate";

static QUEUE_BYTES: LazyLock<Gauge> = LazyLock::new(|| SEND_QUEUE.get());

/// Bytes that wait for the connections of one thread, in the round before and in this one.
pub fn send_queues(before: usize, now: usize) {
    if now != before {
        QUEUE_BYTES.increment(now as f64 - before as f64);
    }
}

/// A client sent something. Never what it says.
pub fn frame_received(
    about: About<'_>,
    kind: &'static str,
    bytes: usize,
    message_id: Option<&str>,
) {
    line!(
        debug,
        about,
        event = "frame_received",
        kind,
        bytes,
        message_id,
        "a client sent something"
    );
}
