//! `[upstream.NAME]`.

use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use url::Url;

use super::{CeleryUpstream, HttpRequest, RedisUrl, Secret};
use crate::protocol::{Dialect, Template};

/// `[upstream.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    pub name: String,
    pub kind: UpstreamKind,
    /// The time limit for the response head, the queue's answer, or the handshake of the upstream socket.
    pub timeout: Duration,
    /// The maximum number of concurrent relays, streamed replies and upstream sockets. Beyond it the client
    /// gets `busy`.
    pub max_in_flight: usize,
    /// The same for one user, or for the anonymous clients of one address; 0 = a quarter.
    pub max_in_flight_per_user: usize,
    /// Each replica has one with these settings.
    pub circuit: Circuit,
    pub balance: Balance,
}

impl Upstream {
    /// The URLs of its replicas, in the order of the config; empty for queues.
    pub fn urls(&self) -> &[Template] {
        match &self.kind {
            UpstreamKind::Http(http) => &http.urls,
            UpstreamKind::WebSocket(socket) => &socket.urls,
            UpstreamKind::Celery(_) | UpstreamKind::RedisStream(_) | UpstreamKind::RedisList(_) => {
                &[]
            }
        }
    }
}

/// Which replica gets a request or a socket. One that fails is left out for a while in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The one with the fewest in flight on this node.
    Least,
    /// The same one for everything of a channel; without a channel as for [`Balance::User`].
    Channel,
    /// The same one for everything of a user, or of the anonymous clients of one address. For the proxy, to which
    /// everybody is anonymous, it is called `"address"`.
    User,
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
    /// `http` or `https`, at least one; placeholders are filled percent-encoded.
    pub urls: Vec<Template>,
    pub request: HttpRequest,
    /// The longest time that a streamed reply may last.
    pub max_reply: Duration,
    /// How long nothing may come of a streamed reply; `None` = as long as it lasts. Anything is a sign of life, such as a
    /// comment.
    pub stream_idle_timeout: Option<Duration>,
    /// What completes a streamed reply of the upstream's own events.
    pub end: StreamEnd,
    /// What happens to a streamed reply when its client disconnects.
    pub on_disconnect: OnDisconnect,
    /// The format of streamed replies.
    pub dialect: Dialect,
    /// What is published of a dialect's stream.
    pub publish: Publish,
    /// The number of attempts after the first. Only requests that cannot have been received, and responses
    /// 502, 503 and 504, are retried.
    pub retries: u32,
    /// The secret that bodies are signed with; `None` = not signed.
    pub signing_secret: Option<Secret>,
    /// Where replies are posted that have ended.
    pub on_complete: Option<Box<OnComplete>>,
}

/// What can be posted of a reply besides the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// The client's object.
    Message,
    /// The model's thoughts.
    Reasoning,
}

/// Where and how replies are posted that have ended.
#[derive(Debug, Clone, PartialEq)]
pub struct OnComplete {
    pub url: Url,
    /// The time limit of each attempt.
    pub timeout: Duration,
    /// They take the place of the gateway's own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The secret that bodies are signed with; `None` = not signed.
    pub signing_secret: Option<Secret>,
    /// What is posted besides the usual.
    pub include: Vec<Include>,
}

/// What completes a streamed reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// The regular end of the body, if no terminal event came before.
    Body,
    /// A terminal event of the route, or `[DONE]`; a body that ends without it is lost. Some proxies end a body regularly
    /// whose server has died.
    Event,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    /// The gateway's events, the same for every dialect.
    Events,
    /// The objects of the upstream as they are.
    Native,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisconnect {
    /// The reply continues, for other connections and for clients that come back.
    Continue,
    Cancel,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RedisQueue {
    pub redis_url: RedisUrl,
    /// The key of the stream or list. Placeholders are filled without escaping.
    pub key: Template,
    /// A stream is trimmed to about this many entries (`MAXLEN ~`); a list of this length refuses messages.
    /// 0 = no limit.
    pub max_len: u64,
    /// The most tasks of one user, or of the anonymous clients of one address, that wait or are in progress; 0 = a
    /// quarter of `max_len`, at least 64.
    pub max_len_per_user: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct WebSocketUpstream {
    /// `ws` or `wss`, at least one; placeholders are filled percent-encoded.
    pub urls: Vec<Template>,
}

/// The circuit breaker: after `failures` within `window`, nothing is sent to the upstream for `open`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Circuit {
    pub failures: u32,
    pub window: Duration,
    pub open: Duration,
}
