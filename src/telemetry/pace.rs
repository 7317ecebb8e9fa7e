//! How a reply comes: when its first chunk does, and how long one chunk is waited for after another.

use std::sync::Arc;
use std::time::Instant;

use super::route::RouteFacts;
use super::spans::ReplySpans;

/// The pace of one generation, told of each of its events by whoever hears them. Costs no allocation and
/// no look-up.
pub struct Pace {
    route: Arc<RouteFacts>,
    /// When its message came; `None` = its first chunk has been counted, or is not known to be the first.
    asked: Option<Instant>,
    last: Option<Instant>,
    spans: ReplySpans,
}

impl Pace {
    /// Of a reply to a message that came then.
    pub fn new(route: Arc<RouteFacts>, asked: Instant) -> Self {
        Self { route, asked: Some(asked), last: None, spans: ReplySpans::default() }
    }

    /// Of a reply that another node has heard a part of.
    pub fn midway(route: Arc<RouteFacts>) -> Self {
        Self { route, asked: None, last: None, spans: ReplySpans::default() }
    }

    /// Its chunks are told to these as well.
    pub fn traced(self, spans: ReplySpans) -> Self {
        Self { spans, ..self }
    }

    /// An event of its content: not the one that says that it begins, nor one that ends it.
    pub fn chunk(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            self.route.chunk_followed(now.saturating_duration_since(last));
        } else if let Some(asked) = self.asked.take() {
            self.spans.chunk();
            self.route.first_chunk_came(now.saturating_duration_since(asked));
        }
    }

    /// It ended well, by an event that may be all there was of it: then that was its first chunk.
    pub fn ended_well(&mut self, now: Instant) {
        if self.asked.is_some() {
            self.chunk(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    /// Counts and sums of first chunks and gaps.
    fn counted(with: impl FnOnce(&Arc<RouteFacts>, Instant)) -> [String; 4] {
        let recorder =
            PrometheusBuilder::new().set_buckets(&[1.0]).expect("a bucket").build_recorder();
        let facts = metrics::with_local_recorder(&recorder, || Arc::new(RouteFacts::new("/r")));
        with(&facts, Instant::now());
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
        let chunks = counted(|facts, asked| {
            let mut pace = Pace::new(Arc::clone(facts), asked);
            [3, 4, 6].into_iter().for_each(|at| pace.chunk(asked + at * second));
            pace.ended_well(asked + 9 * second);
        });
        assert_eq!(chunks, ["1", "3", "2", "3"]);
        let whole = counted(|facts, asked| {
            Pace::new(Arc::clone(facts), asked).ended_well(asked + 2 * second);
        });
        assert_eq!(whole, ["1", "2", "0", "0"], "a reply in one piece");
        let midway = counted(|facts, asked| {
            let mut pace = Pace::midway(Arc::clone(facts));
            [3, 4].into_iter().for_each(|at| pace.chunk(asked + at * second));
            pace.ended_well(asked + 5 * second);
        });
        assert_eq!(midway, ["0", "0", "1", "1"], "its first chunk was another node's");
        let backwards = counted(|facts, asked| {
            Pace::new(Arc::clone(facts), asked + second).chunk(asked);
        });
        assert_eq!(backwards, ["1", "0", "0", "0"]);
    }
}
