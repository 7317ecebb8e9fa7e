//! The process's metrics recorder, and the buckets of its histograms.

use metrics::{counter, describe_counter, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Seconds. From a delivery on loopback to a slow upstream.
const SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Installs the recorder; once a process.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    describe_counter!("tidegate_publications_total", "Publications that reached this node");
    gauge!("tidegate_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("tidegate_send_queue_bytes").set(0.0);
    for name in ["tidegate_deliveries_total", "tidegate_delivery_drops_total"] {
        counter!(name).absolute(0);
    }
    Ok(handle)
}
