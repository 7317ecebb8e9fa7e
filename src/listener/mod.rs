//! One worker thread: its listener socket, its connections' HTTP phase, and the joining of an admission
//! with a session.
//!
//! The HTTP phase ends before a session begins: hyper gives the stream back, the session is a fresh
//! task, and nothing of the request stays in memory.

mod accept;
mod fixed;
mod http;
mod runtime_config;

pub use accept::Worker;
pub use runtime_config::RuntimeConfig;
