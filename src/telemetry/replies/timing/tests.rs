use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;

/// The counts and sums of first chunks and gaps after `record`.
fn measured(record: impl FnOnce(&Arc<ReplyMetrics>, Instant)) -> [String; 4] {
    let recorder = PrometheusBuilder::new().set_buckets(&[1.0]).expect("a bucket").build_recorder();
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
