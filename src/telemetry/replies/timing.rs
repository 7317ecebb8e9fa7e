//! How long clients wait for the first chunk of a reply, and for each further chunk.

use std::sync::Arc;
use std::time::Instant;

use super::{ReplyMetrics, ReplySpans};

/// Measures the time to the first chunk and between chunks of one generation. Whoever receives the events
/// records them here, without an allocation or a look-up.
pub struct ReplyTiming {
    metrics: Arc<ReplyMetrics>,
    /// When the message was received; `None` once the first chunk is recorded, or if it is not known which is the
    /// first.
    received_at: Option<Instant>,
    last_chunk: Option<Instant>,
    spans: ReplySpans,
}

impl ReplyTiming {
    /// The timing of a reply to a message that was received at `received_at`.
    pub fn new(metrics: Arc<ReplyMetrics>, received_at: Instant) -> Self {
        let received_at = Some(received_at);
        Self { metrics, received_at, last_chunk: None, spans: ReplySpans::default() }
    }

    /// The timing of a reply of which another node may have received the first chunks.
    pub fn taken_over(metrics: Arc<ReplyMetrics>) -> Self {
        Self { metrics, received_at: None, last_chunk: None, spans: ReplySpans::default() }
    }

    /// Records the chunks in these spans as well.
    pub fn with_spans(self, spans: ReplySpans) -> Self {
        Self { spans, ..self }
    }

    /// Records an event of the reply's content: neither `processing_started` nor a terminal event.
    pub fn record_chunk(&mut self, now: Instant) {
        if let Some(last) = self.last_chunk.replace(now) {
            self.metrics.chunk_gap.record(now.saturating_duration_since(last));
        } else if let Some(received_at) = self.received_at.take() {
            self.spans.record_chunk();
            self.metrics.first_chunk.record(now.saturating_duration_since(received_at));
        }
    }

    /// Records a successful end. In a reply of one piece, the terminal event is the first chunk.
    pub fn record_completion(&mut self, now: Instant) {
        if self.received_at.is_some() {
            self.record_chunk(now);
        }
    }
}

#[cfg(test)]
mod tests;
