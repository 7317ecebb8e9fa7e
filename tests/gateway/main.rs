//! The gateway as its users see it: the real binary on port 0, real sockets, a real redis-server.

#[macro_use]
mod engine;

mod admin;
mod broker;
mod canary;
mod cancelled;
mod celery;
mod channel_layer;
mod chaos;
mod chaos_replies;
mod chat;
mod commands;
mod concurrent;
mod conformance;
mod credentials;
mod disconnect;
mod django_tokens;
mod fixed_reply;
mod generations;
mod handover;
mod handshake;
mod http_input;
mod jwt;
mod limits;
mod logs;
mod metrics;
mod not_json;
mod outcome;
mod presence;
mod proxy;
mod redis_tls;
mod relay_http;
mod relay_queue;
mod relay_websocket;
mod reload;
mod resume;
mod rig;
mod server_api;
mod session;
mod side_by_side;
mod simplejwt;
mod start;
mod stopping;
mod tokens;
mod tracing;
