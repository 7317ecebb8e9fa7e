//! One function a fact: it logs and counts. Names follow Prometheus conventions, labels come from
//! enums and from config, never from what a client sent.
//!
//! One file a stage: `tokens`, `limits`, `handshake`, `upstream`, `delivery`, `connections`, `engine`,
//! `proxy`, `admin`.

pub mod connections;
pub mod delivery;
pub mod engine;
pub mod handshake;
pub mod limits;
pub mod proxy;
pub mod tokens;
pub mod upstream;
