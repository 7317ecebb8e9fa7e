//! `[upstream.NAME]`.

use std::time::Duration;

use super::{CeleryUpstream, RedisUrl, Secret};
use crate::protocol::Template;

/// `[upstream.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    pub name: String,
    pub kind: UpstreamKind,
    /// To the response's head, the queue's answer, or the upstream socket's handshake.
    pub timeout: Duration,
    /// Relays, streaming replies and upstream sockets open at once; beyond it the client gets `busy`.
    pub max_in_flight: usize,
    pub circuit: Circuit,
}

#[derive(Debug, Clone, PartialEq)]
pub enum UpstreamKind {
    Http(HttpUpstream),
    Celery(Box<CeleryUpstream>),
    RedisStream(RedisQueue),
    RedisList(RedisQueue),
    WebSocket(WebSocketUpstream),
}

#[derive(Debug, Clone, PartialEq)]
pub struct HttpUpstream {
    /// `http` or `https`; placeholders are filled percent-encoded.
    pub url: Template,
    /// The longest a streamed reply may last.
    pub max_reply: Duration,
    /// What the end of the connection that asked does to a streaming reply.
    pub on_disconnect: OnDisconnect,
    /// Beyond the first attempt; only where the request cannot have been taken, or 502, 503, 504.
    pub retries: u32,
    /// Bodies are signed with it; `None` = not signed.
    pub signing_secret: Option<Secret>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisconnect {
    /// The reply goes on, for other connections and those who come back.
    Continue,
    Cancel,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RedisQueue {
    pub redis_url: RedisUrl,
    /// The stream or list; placeholders are filled as they are.
    pub key: Template,
    /// A stream is trimmed to about this many entries (`MAXLEN ~`), and a list that is this long refuses; 0 = no bound.
    pub max_len: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct WebSocketUpstream {
    /// `ws` or `wss`; placeholders are filled percent-encoded.
    pub url: Template,
}

/// After `failures` within `window` the upstream is not asked for `open`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Circuit {
    pub failures: u32,
    pub window: Duration,
    pub open: Duration,
}
