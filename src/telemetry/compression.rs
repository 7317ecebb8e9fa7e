//! Compression of messages (permessage-deflate).

use std::sync::LazyLock;

use metrics::{Counter, Gauge};

use super::definitions::{metrics, words};
use crate::protocol::label_enum;

metrics! {
    /// Open connections that negotiated permessage-deflate.
    CONNECTIONS = gauge "tidegate_compressed_connections";
    /// Frames that were compressed for clients, each counted once for all of its receivers with the same window, and
    /// compressed messages of clients, by outcome.
    FRAMES = counter "tidegate_compression_frames_total" [direction: words(&[Direction::LABELS]), outcome: words(&[Outcome::LABELS])];
    /// Bytes of these before they were compressed, or after they were inflated.
    PLAIN_BYTES = counter "tidegate_compression_plain_bytes_total" [direction: words(&[Direction::LABELS])];
    /// Bytes of these in their compressed form.
    COMPRESSED_BYTES = counter "tidegate_compression_compressed_bytes_total" [direction: words(&[Direction::LABELS])];
}

label_enum! {
    enum Direction {
        /// From clients.
        In => "in",
        /// To clients.
        Out => "out",
    }
}

label_enum! {
    /// What came of compressing a frame, or of inflating a message.
    pub enum Outcome {
        /// It was compressed, or inflated.
        Done => "done",
        /// It would not be smaller, and was sent as it is.
        NotSmaller => "not_smaller",
        /// It inflates to more than `max_message_bytes`.
        TooBig => "too_big",
        /// It is not valid DEFLATE data, or text that is not UTF-8.
        Invalid => "invalid",
    }
}

struct Handles {
    connections: Gauge,
    compressed: Counter,
    not_smaller: Counter,
    inflated: Counter,
    plain_out: Counter,
    compressed_out: Counter,
    plain_in: Counter,
    compressed_in: Counter,
}

static HANDLES: LazyLock<Handles> = LazyLock::new(|| {
    let (inbound, outbound) = (Direction::In.label(), Direction::Out.label());
    Handles {
        connections: CONNECTIONS.get(),
        compressed: FRAMES.at([outbound, Outcome::Done.label()]),
        not_smaller: FRAMES.at([outbound, Outcome::NotSmaller.label()]),
        inflated: FRAMES.at([inbound, Outcome::Done.label()]),
        plain_out: PLAIN_BYTES.at([outbound]),
        compressed_out: COMPRESSED_BYTES.at([outbound]),
        plain_in: PLAIN_BYTES.at([inbound]),
        compressed_in: COMPRESSED_BYTES.at([inbound]),
    }
});

/// A connection negotiated compression.
pub fn negotiated() {
    HANDLES.connections.increment(1.0);
}

/// Such a connection has ended.
pub fn ended() {
    HANDLES.connections.decrement(1.0);
}

/// A payload of `plain` bytes was compressed; `None` = it would not be smaller.
pub fn compressed(plain: usize, compressed: Option<usize>) {
    let Some(compressed) = compressed else { return HANDLES.not_smaller.increment(1) };
    HANDLES.compressed.increment(1);
    HANDLES.plain_out.increment(plain as u64);
    HANDLES.compressed_out.increment(compressed as u64);
}

/// A client's message of `compressed` bytes was inflated.
pub fn inflated(compressed: usize, plain: usize) {
    HANDLES.inflated.increment(1);
    HANDLES.plain_in.increment(plain as u64);
    HANDLES.compressed_in.increment(compressed as u64);
}

/// A client's message could not be inflated.
pub fn not_inflated(outcome: Outcome) {
    FRAMES.at([Direction::In.label(), outcome.label()]).increment(1);
}
