//! The process's metrics recorder, made from the definitions, and what it answers to a scrape.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use tokio::sync::Semaphore;

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

/// How [`page`] is written.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics as they are now; nothing where the process is ending, and nobody is answered any more. Made
/// one at a time and on a thread of its own, since it takes longer than a publication may wait.
pub async fn page(metrics: &PrometheusHandle) -> String {
    static ONE: Semaphore = Semaphore::const_new(1);
    let _one_at_a_time = ONE.acquire().await;
    let metrics = metrics.clone();
    let page = move || {
        let mut page = metrics.render();
        process::write(&mut page);
        page
    };
    tokio::task::spawn_blocking(page).await.unwrap_or_default()
}
