//! Tidegate: a gateway that gives an existing HTTP API or queue worker WebSockets.
//!
//! ```text
//!             ┌─────────────────────────── public port ───────────────────────────┐
//! client ──►  listener ──► handshake ──► session ──► replies ──► upstream ──► your API / queue worker
//!               │                                                                 │ publishes replies
//!               └──► proxy (everything that is not a route) ──► your API             ▼
//! client ◄── socket ◄── outbox (bounded) ◄── hub: channel → sockets ◄── broker ◄── engine
//!             └─────────────── admin port: metrics, health, server API ───────────┘
//! ```
//!
//! A module per stage. A module uses only modules of lower ranks; the list below goes from the top
//! rank down, in the order that data flows.

pub mod cli;

pub mod gateway;

mod admin;
mod listener;

mod handshake;
mod proxy;
mod session;

mod replies;

mod broker;
mod control;
mod generations;
mod limits;
mod presence;
mod tokens;
mod upstream;

pub mod channel_layer;
mod hub;
mod leases;

mod http_client;
mod redis_link;
mod socket;

pub mod config;
mod service_manager;
mod shutdown;
mod telemetry;

mod clock;
mod expiring_map;
pub mod msgpack;
pub mod pickle;
pub mod protocol;
mod retry;
mod sse;
