//! All metrics of the gateway, and the recorder that collects them and answers scrapes.

use std::time::Instant;

use bytes::Bytes;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::sync::Mutex;

use super::definitions::{self, Definition, Kind};
use super::{
    acme, admin, celery, channel_layer, compression, connections, credentials, delivery, dialects,
    engine, jwts, log, messages, on_complete, presence, process, proxy, replicas, replies, spans,
    tls, upstreams,
};

/// The areas, each with its headline on the reference page.
pub(super) const AREAS: &[(&str, &[&Definition])] = &[
    ("Connections", connections::METRICS),
    ("TLS", tls::METRICS),
    ("ACME", acme::METRICS),
    ("Presence", presence::METRICS),
    ("Credentials", credentials::METRICS),
    ("JWTs", jwts::METRICS),
    ("Messages and limits", messages::METRICS),
    ("Replies", replies::METRICS),
    ("Upstreams", upstreams::METRICS),
    ("Replicas of upstreams and the proxy", replicas::METRICS),
    ("Streams of AI APIs", dialects::METRICS),
    ("Replies posted by on_complete", on_complete::METRICS),
    ("Celery", celery::METRICS),
    ("Proxy", proxy::METRICS),
    ("Delivery and history", delivery::METRICS),
    ("Compression", compression::METRICS),
    ("Engine", engine::METRICS),
    ("Channel layer", channel_layer::METRICS),
    ("Server API and commands", admin::METRICS),
    ("Process", process::METRICS),
    ("Log", log::METRICS),
    ("Tracing", spans::METRICS),
];

/// Every metric.
pub(super) fn all() -> impl Iterator<Item = &'static Definition> {
    AREAS.iter().flat_map(|(_, metrics)| *metrics).copied()
}

/// Installs the recorder, once for each process. From then on, each scrape has all series that do not depend on
/// the configuration.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in all() {
        if let Kind::Histogram(buckets) = metric.kind {
            let name = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(name, buckets)?;
        }
    }
    let handle = builder.install_recorder()?;
    metrics::with_recorder(|recorder| {
        for metric in all() {
            let (name, help) = (metric.name.into(), metric.help().into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
            }
        }
    });
    register();
    process::started();
    Ok(handle)
}

/// Registers the series that do not depend on the configuration.
pub(super) fn register() {
    AREAS.iter().for_each(|(_, metrics)| definitions::register(metrics));
}

/// The content type of [`page`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The latest page, and when its rendering began.
static LATEST: Mutex<Option<(Instant, Bytes)>> = Mutex::const_new(None);

/// All metrics with their current values; empty while the process is ending. Pages are rendered one at a time and
/// on a blocking thread, because that takes longer than a publication may wait. Whoever asked before a rendering began
/// shares its page, so that many askers wait no longer than one, and take no more memory.
pub async fn page(metrics: &PrometheusHandle) -> Bytes {
    let asked = Instant::now();
    let mut latest = LATEST.lock().await;
    if let Some((began, page)) = &*latest
        && asked <= *began
    {
        return page.clone();
    }
    let (began, metrics) = (Instant::now(), metrics.clone());
    let render = move || {
        let mut page = metrics.render();
        process::write(&mut page);
        Bytes::from(page)
    };
    let page = tokio::task::spawn_blocking(render).await.unwrap_or_default();
    *latest = Some((began, page.clone()));
    page
}
