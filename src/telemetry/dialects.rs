//! The streams of AI APIs.

use metrics::SharedString;

use super::definitions::{UPSTREAM, metrics, words};
use crate::protocol::Dialect;

metrics! {
    /// Replies that were read as the stream of an AI API, by its dialect. With `dialect = "auto"` also those in which
    /// none was found, as `events`.
    REPLIES = counter "tidegate_upstream_dialect_replies_total" [
        upstream: UPSTREAM,
        dialect: words(&[Dialect::LABELS]),
    ], late;
    /// Events that are not known in the dialect of their stream. They are published as `native` objects.
    UNKNOWN_EVENTS = counter "tidegate_upstream_unknown_events_total" [
        upstream: UPSTREAM,
        dialect: words(&[Dialect::LABELS]),
    ], late;
}

fn labels(upstream: &str, dialect: Dialect) -> [SharedString; 2] {
    [SharedString::from(upstream.to_owned()), dialect.label().into()]
}

/// A reply is read in this dialect.
pub fn reply_begun(upstream: &str, dialect: Dialect) {
    REPLIES.at(labels(upstream, dialect)).increment(1);
}

/// A stream has an event that its reader does not know.
pub fn unknown_event(upstream: &str, dialect: Dialect) {
    UNKNOWN_EVENTS.at(labels(upstream, dialect)).increment(1);
}
