//! Metrics of upstreams.

use metrics_exporter_prometheus::PrometheusBuilder;

use super::server::{Script, Server};
use super::*;

#[tokio::test]
async fn outcomes_permits_retries_and_circuits_are_counted() {
    let sse = "text/event-stream";
    let server = Server::start([
        Script::answer("204 No Content", sse, ""),
        Script::answer("503 No", sse, ""),
        Script::stream(sse, &[b"data: 1\n\n"]),
        Script::cut_stream(sse, &[b"data: 1\n\n"]),
        Script::answer("400 No", sse, ""),
        Script::answer("429 No", sse, ""),
        Script::answer("500 No", sse, ""),
        Script::answer("503 No", sse, ""),
        Script::answer("503 No", sse, ""),
    ])
    .await;
    let http = config::HttpUpstream { retries: 1, ..http_to(&server.url()) };
    let mut config = upstream(UpstreamKind::Http(http));
    (config.max_in_flight, config.max_in_flight_per_user) = (2, 2);
    config.circuit.failures = 1;
    let recorder = PrometheusBuilder::new().build_recorder();
    let upstreams = Upstreams::new(&metrics::with_local_recorder(&recorder, || shared(config)));

    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.extend(upstreams.relay(UPSTREAM, &message()).await.unwrap().reply.into_stream());
    }
    assert_eq!(upstreams.relay(UPSTREAM, &message()).await.err(), Some(RelayError::Busy));
    let in_flight =
        |count: usize| format!("tidegate_upstream_in_flight{{upstream=\"worker\"}} {count}\n");
    assert!(recorder.handle().render().contains(&in_flight(2)));
    for mut reply in streams {
        while let Some(Ok(_)) = reply.next().await {}
    }
    for _ in 0..5 {
        assert!(upstreams.relay(UPSTREAM, &message()).await.is_err());
    }

    let page = recorder.handle().render();
    for (outcome, count) in [
        ("taken", 1),
        ("streaming", 2),
        ("busy", 1),
        ("rejected", 1),
        ("failed", 1),
        ("unavailable", 1),
        ("full", 1),
        ("circuit_open", 1),
    ] {
        let line = format!(
            "tidegate_upstream_requests_total{{upstream=\"worker\",outcome=\"{outcome}\"}} {count}\n"
        );
        assert!(page.contains(&line), "{line}{page}");
    }
    for line in [
        "tidegate_upstream_replies_total{upstream=\"worker\",outcome=\"complete\"} 1\n",
        "tidegate_upstream_replies_total{upstream=\"worker\",outcome=\"lost\"} 1\n",
        "tidegate_upstream_retries_total{upstream=\"worker\"} 2\n",
        "tidegate_upstream_circuit_open{upstream=\"worker\"} 1\n",
        "tidegate_upstream_request_seconds_count{upstream=\"worker\"} 7\n",
        &in_flight(0),
    ] {
        assert!(page.contains(line), "{line}{page}");
    }
}
