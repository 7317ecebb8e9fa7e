//! Metrics, log lines and spans, by area. For each fact there is one function, which both logs and counts it.
//!
//! Names follow the conventions of Prometheus. Labels come from enums and from the configuration, never from
//! what a client sent. A new metric is one entry in the `metrics!` of its area and the function that counts it:
//!
//! ```text
//! metrics! {
//!     /// Uploads, by outcome.
//!     UPLOADS = counter "tidegate_uploads_total" [outcome: words(&[Outcome::LABELS])];
//! }
//!
//! label_enum! {
//!     pub enum Outcome {
//!         Stored => "stored",
//!         Failed => "failed",
//!     }
//! }
//!
//! pub fn upload_finished(outcome: Outcome) {
//!     UPLOADS.at([outcome.label()]).increment(1);
//! }
//! ```
//!
//! Its comment is its help text, and the words of its enum are the only values of its label: a debug build panics
//! on another one. Its series are in each scrape from the start. `UPDATE_DOCS=1 cargo test --lib telemetry` writes
//! it into docs/metrics.md. A new area is listed in [`recorder`]. `at` looks a series up; whatever is counted for
//! each publication or message keeps its handle, as [`route::RouteMetrics`] does.

mod definitions;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub mod acme;
pub mod log;
pub mod recent_errors;
pub mod recorder;
pub mod route;
pub mod spans;

pub mod admin;
pub mod celery;
pub mod channel_layer;
pub mod compression;
pub mod connections;
pub mod credentials;
pub mod delivery;
pub mod dialects;
pub mod engine;
pub mod jwts;
pub mod messages;
pub mod on_complete;
pub mod presence;
pub mod process;
pub mod proxy;
pub mod replicas;
pub mod replies;
pub mod tls;
pub mod upstreams;
