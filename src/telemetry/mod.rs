//! One function a fact: it logs and counts. Names follow Prometheus conventions, labels come from
//! enums and from config, never from what a client sent. One file a stage.
//!
//! A new metric is one entry in the `metrics!` of its stage, and the function that counts it:
//!
//! ```text
//! metrics! {
//!     /// Times at which something was done, by how it went.
//!     THINGS = counter "tidegate_things_total" [outcome: words(&[&["done", "failed"]])];
//! }
//!
//! pub fn thing_done() {
//!     THINGS.at(["done"]).increment(1);
//! }
//! ```
//!
//! Its comment is its help text, its words are all that its label may say (a debug build panics on
//! another), and its series are in each scrape from the start. `UPDATE_DOCS=1 cargo test --lib telemetry`
//! then writes it into docs/metrics.md. A new stage is listed in [`definitions`]. `at` looks a series up;
//! whatever is counted for each publication or message keeps its handle, as [`route::RouteFacts`] does.

pub mod about;
pub mod admin;
pub mod canary;
pub mod channel_layer;
pub mod connections;
pub mod control;
pub mod credentials;
mod definitions;
pub mod delivery;
pub mod engine;
pub mod generations;
pub mod handshake;
pub mod history;
pub mod lifecycle;
pub mod limits;
pub mod listener;
pub mod log;
pub mod pace;
pub mod presence;
mod process;
pub mod proxy;
pub mod recorder;
#[cfg(test)]
mod reference;
pub mod reload;
pub mod route;
pub mod spans;
pub mod subscription;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod upstream;
