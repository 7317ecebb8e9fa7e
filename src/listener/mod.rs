//! One worker thread: its listening socket, the HTTP phase of its connections, and the step from an
//! admission to a session.
//!
//! The HTTP phase ends before a session begins: hyper gives the stream back, the session is a fresh
//! task, and nothing of the request stays in memory.

mod accept;
mod fixed;
mod http;
mod runtime_config;

pub use accept::Worker;
pub use runtime_config::RuntimeConfig;
