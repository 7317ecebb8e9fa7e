//! One function a fact: it logs and counts. Names follow Prometheus conventions, labels come from
//! enums and from config, never from what a client sent. One file a stage.

pub mod admin;
pub mod canary;
pub mod channel_layer;
pub mod connections;
pub mod control;
pub mod credentials;
pub mod delivery;
pub mod engine;
pub mod generations;
pub mod handshake;
pub mod history;
pub mod lifecycle;
pub mod limits;
pub mod listener;
pub mod log;
pub mod presence;
pub mod proxy;
pub mod recorder;
pub mod subscription;
pub mod tokens;
pub mod upstream;
