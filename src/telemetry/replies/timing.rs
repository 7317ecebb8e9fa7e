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
mod tests {
    use std::time::Duration;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    /// The counts and sums of first chunks and gaps after `record`.
    fn measured(record: impl FnOnce(&Arc<ReplyMetrics>, Instant)) -> [String; 4] {
        let recorder =
            PrometheusBuilder::new().set_buckets(&[1.0]).expect("a bucket").build_recorder();
        let metrics =
            metrics::with_local_recorder(&recorder, || Arc::new(ReplyMetrics::new("/r".into())));
        record(&metrics, Instant::now());
        let page = recorder.handle().render();
        [
            "first_chunk_seconds_count",
            "first_chunk_seconds_sum",
            "chunk_gap_seconds_count",
            "chunk_gap_seconds_sum",
        ]
        .map(|name| {
            let series = format!("tidegate_generation_{name}{{route=\"/r\"}} ");
            let line = page.lines().find_map(|line| line.strip_prefix(&series));
            line.unwrap_or_else(|| panic!("no {series}in\n{page}")).to_owned()
        })
    }

    #[test]
    fn the_first_chunk_counts_from_the_message_and_the_others_from_each_other() {
        let second = Duration::from_secs(1);
        let chunks = measured(|metrics, received_at| {
            let mut timing = ReplyTiming::new(Arc::clone(metrics), received_at);
            [3, 4, 6].into_iter().for_each(|at| timing.record_chunk(received_at + at * second));
            timing.record_completion(received_at + 9 * second);
        });
        assert_eq!(chunks, ["1", "3", "2", "3"]);
        let one_piece = measured(|metrics, received_at| {
            ReplyTiming::new(Arc::clone(metrics), received_at)
                .record_completion(received_at + 2 * second);
        });
        assert_eq!(one_piece, ["1", "2", "0", "0"], "a reply in one piece");
        let taken_over = measured(|metrics, received_at| {
            let mut timing = ReplyTiming::taken_over(Arc::clone(metrics));
            [3, 4].into_iter().for_each(|at| timing.record_chunk(received_at + at * second));
            timing.record_completion(received_at + 5 * second);
        });
        assert_eq!(taken_over, ["0", "0", "1", "1"], "another node received the first chunk");
        let backwards = measured(|metrics, received_at| {
            ReplyTiming::new(Arc::clone(metrics), received_at + second).record_chunk(received_at);
        });
        assert_eq!(backwards, ["1", "0", "0", "0"]);
    }
}
