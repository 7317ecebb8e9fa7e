//! The gateway as its users meet it: the real binary on port 0, real sockets, a real redis-server.

mod admin;
mod broker;
mod conformance;
mod proxy;
mod relay_http;
mod relay_queue;
mod relay_websocket;
mod rig;
mod start;
mod stopping;
