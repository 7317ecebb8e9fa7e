//! The gateway as its users meet it: the real binary on port 0, real sockets, a real redis-server.

mod conformance;
mod relay_http;
mod rig;
