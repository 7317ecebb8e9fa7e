//! Spans on their way to the collector: a bounded queue, a thread of its own, OTLP over HTTP.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor as _,
};
use tracing::warn;

use super::SPANS;
use crate::protocol::label_enum;

label_enum! {
    /// What became of a span.
    pub(super) enum Outcome {
        Exported => "exported",
        /// The collector did not accept it.
        Failed => "failed",
        /// The queue was full.
        Dropped => "dropped",
    }
}

/// Spans in the queue for the collector. Further ones are dropped.
const MAX_QUEUED: usize = 8192;
const MAX_BATCH: usize = 512;
const DELAY: Duration = Duration::from_secs(1);

pub(super) static TRACING: OnceLock<Arc<Exporting>> = OnceLock::new();

/// The collector that spans are sent to.
pub struct Collector {
    /// The complete URL with its path.
    pub endpoint: String,
    pub timeout: Duration,
    /// Has to enforce `timeout` itself, and may block.
    pub client: Arc<dyn HttpClient>,
}

/// The settings of tracing.
pub struct Settings {
    pub collector: Collector,
    /// The share of the traces started here that are sampled: 0 to 1.
    pub sample_ratio: f64,
    pub service_name: String,
    /// The id of this process.
    pub instance: String,
}

/// Exports spans until [`Tracing::finish`].
pub struct Tracing(Arc<Exporting>);

impl Tracing {
    /// Exports the remaining spans, for at most `time`, and stops exporting.
    pub fn finish(self, time: Duration) {
        // Failed exports are logged; what is not exported in time is lost.
        let _ = self.0.processor.shutdown_with_timeout(time);
    }
}

/// Starts to export spans, once for each process.
pub fn start(settings: Settings) -> Result<Tracing, String> {
    let Settings { collector, sample_ratio, service_name, instance } = settings;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_shared_http_client(collector.client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(collector.endpoint)
        .with_timeout(collector.timeout)
        .build()
        .map_err(|error| error.to_string())?;
    let queued = Arc::new(AtomicUsize::new(0));
    let exporter = CountingExporter { exporter, queued: Arc::clone(&queued) };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(MAX_QUEUED)
        .with_max_export_batch_size(MAX_BATCH)
        .with_scheduled_delay(DELAY)
        .build();
    let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let resource = Resource::builder_empty()
        .with_service_name(service_name)
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ])
        .build();
    processor.set_resource(&resource);
    let threshold = (sample_ratio.clamp(0.0, 1.0) * RANDOM as f64) as u64;
    let exporting = Arc::new(Exporting { processor, queued, threshold });
    TRACING
        .set(Arc::clone(&exporting))
        .map_err(|_| "spans are already being exported".to_owned())?;
    Ok(Tracing(exporting))
}

/// The part of a trace id that is random in any generator (W3C Trace Context level 2): 7 bytes.
const RANDOM: u64 = 1 << 56;

pub(super) struct Exporting {
    processor: BatchSpanProcessor,
    /// At most [`MAX_QUEUED`].
    queued: Arc<AtomicUsize>,
    threshold: u64,
}

impl Exporting {
    pub fn samples(&self, trace_id: u128) -> bool {
        (trace_id as u64) % RANDOM < self.threshold
    }

    pub fn export(&self, span: SpanData) {
        if self.queued.fetch_add(1, Ordering::Relaxed) >= MAX_QUEUED {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            SPANS.at([Outcome::Dropped.label()]).increment(1);
            warn!(
                event = "spans_dropped",
                "the queue of spans for the collector is full; dropping spans"
            );
            return;
        }
        self.processor.on_end(span);
    }
}

pub(super) fn scope() -> InstrumentationScope {
    static SCOPE: OnceLock<InstrumentationScope> = OnceLock::new();
    let new = || {
        InstrumentationScope::builder("tidegate").with_version(env!("CARGO_PKG_VERSION")).build()
    };
    SCOPE.get_or_init(new).clone()
}

/// An exporter that counts and logs what becomes of spans.
struct CountingExporter {
    exporter: opentelemetry_otlp::SpanExporter,
    queued: Arc<AtomicUsize>,
}

impl fmt::Debug for CountingExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountingExporter")
    }
}

impl SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let exported = self.exporter.export(batch).await;
        self.queued.fetch_sub(count, Ordering::Relaxed);
        let outcome = match &exported {
            Ok(()) => Outcome::Exported,
            Err(error) => {
                let reason = reason(error);
                warn!(
                    event = "spans_not_exported",
                    count, reason, "failed to export spans to the collector"
                );
                Outcome::Failed
            }
        };
        SPANS.at([outcome.label()]).increment(count as u64);
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// A short text, which is the same for the same failure.
fn reason(error: &OTelSdkError) -> String {
    error.to_string().chars().take(200).collect()
}
