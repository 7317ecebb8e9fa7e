//! The gateway as its users meet it: the real binary on port 0, real sockets, a real redis-server.

#[macro_use]
mod engine;

mod chat;
mod conformance;
mod handshake;
mod http_input;
mod jwt;
mod limits;
mod outcome;
mod rig;
mod session;
mod tokens;
