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

use super::super::definitions::labels;
use super::SPANS;

labels! {
    /// What became of a span; the value of the `outcome` label.
    pub(super) enum Outcome {
        Exported = "exported",
        /// The collector did not take it.
        Failed = "failed",
        /// As many as may wait for the collector do.
        Dropped = "dropped",
    }
}

/// Spans that wait for the collector. More are dropped.
const MAX_QUEUED: usize = 8192;
const MAX_BATCH: usize = 512;
const DELAY: Duration = Duration::from_secs(1);

pub(super) static TRACING: OnceLock<Arc<Exporting>> = OnceLock::new();

/// Where spans go.
pub struct Collector {
    /// Whole, with its path.
    pub endpoint: String,
    pub timeout: Duration,
    /// Must keep `timeout` by itself, and may block.
    pub client: Arc<dyn HttpClient>,
}

/// How spans are made.
pub struct Settings {
    pub collector: Collector,
    /// Of the traces that begin here: 0 to 1.
    pub sample_ratio: f64,
    pub service_name: String,
    /// Names this process.
    pub instance: String,
}

/// Spans are exported until it is told to finish.
pub struct Tracing(Arc<Exporting>);

impl Tracing {
    /// Exports what is left, for as long as that, and ends it.
    pub fn finish(self, time: Duration) {
        // What could not be exported in time has been told, or is lost with the process.
        let _or_it_is_lost = self.0.processor.shutdown_with_timeout(time);
    }
}

/// Begins to export; once a process.
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
    let waiting = Arc::new(AtomicUsize::new(0));
    let watched = Watched { exporter, waiting: Arc::clone(&waiting) };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(MAX_QUEUED)
        .with_max_export_batch_size(MAX_BATCH)
        .with_scheduled_delay(DELAY)
        .build();
    let mut processor = BatchSpanProcessor::builder(watched).with_batch_config(batches).build();
    let resource = Resource::builder_empty()
        .with_service_name(service_name)
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ])
        .build();
    processor.set_resource(&resource);
    let threshold = (sample_ratio.clamp(0.0, 1.0) * RANDOM as f64) as u64;
    let exporting = Arc::new(Exporting { processor, waiting, threshold });
    TRACING.set(Arc::clone(&exporting)).map_err(|_| "spans are exported already".to_owned())?;
    Ok(Tracing(exporting))
}

/// The part of a trace id that is random in any generator (W3C Trace Context level 2): 7 bytes.
const RANDOM: u64 = 1 << 56;

pub(super) struct Exporting {
    processor: BatchSpanProcessor,
    /// At most [`MAX_QUEUED`].
    waiting: Arc<AtomicUsize>,
    threshold: u64,
}

impl Exporting {
    pub fn samples(&self, trace_id: u128) -> bool {
        (trace_id as u64) % RANDOM < self.threshold
    }

    pub fn export(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_QUEUED {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            SPANS.at([Outcome::Dropped.label()]).increment(1);
            warn!(event = "spans_dropped", "spans wait for the collector; new ones are dropped");
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

/// The exporter, with its failures told.
struct Watched {
    exporter: opentelemetry_otlp::SpanExporter,
    waiting: Arc<AtomicUsize>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let exported = self.exporter.export(batch).await;
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        let outcome = match &exported {
            Ok(()) => Outcome::Exported,
            Err(error) => {
                let reason = reason(error);
                warn!(event = "spans_not_exported", count, reason, "the collector takes no spans");
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

/// Short, and the same for what is the same.
fn reason(error: &OTelSdkError) -> String {
    error.to_string().chars().take(200).collect()
}
