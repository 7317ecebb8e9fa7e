//! The process's metrics recorder, made from the definitions.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::definitions::{self, Kind};
use super::process;

/// Installs the recorder; once a process. What can be counted from the start is in each scrape.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in definitions::all() {
        if let Kind::Histogram(buckets) = metric.kind {
            let name = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(name, buckets)?;
        }
    }
    let handle = builder.install_recorder()?;
    metrics::with_recorder(|recorder| {
        for metric in definitions::all() {
            let (name, help) = (metric.name.into(), metric.help().into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
            }
        }
    });
    definitions::begin();
    process::started();
    Ok(handle)
}
