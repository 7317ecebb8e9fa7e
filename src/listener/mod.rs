//! One worker thread: its listening socket, the HTTP phase of its connections, and the step from an
//! admission to a session.
//!
//! The HTTP phase ends before a session starts: hyper returns the stream, the session runs as a new task, and the
//! request is freed.

mod accept;
mod client_limits;
mod client_stream;
mod exchange;
mod fixed;
mod head_end;
mod http;
mod http2;
mod http_phase;
mod malformed;
mod plain_request;
mod proxied;
mod redirect;
mod runtime_config;
mod upgraded;
mod upstream_socket;
mod websocket;

pub use accept::Worker;
pub use client_limits::ClientLimits;
pub use redirect::redirect_all;
pub use runtime_config::RuntimeConfig;
