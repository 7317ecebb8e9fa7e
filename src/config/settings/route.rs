//! `[[route]]`.

use std::time::Duration;

use hyper::Method;
use url::Url;

use super::Secret;
use crate::protocol::{ChannelPattern, PathPattern, Template};

/// `[[route]]`: a path with its channel, rules and upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub path: PathPattern,
    /// `None` = connections have no channel, which only [`Protocol::Pass`] allows.
    pub channel: Option<Template>,
    /// Matches every name that `channel` can produce.
    pub channel_pattern: Option<ChannelPattern>,
    /// A key of [`Config::upstreams`](crate::config::Config::upstreams); `None` = receive-only
    /// clients.
    pub upstream: Option<String>,
    /// The sources of credentials, tried in this order.
    pub auth: Vec<AuthSource>,
    pub authorize: Authorize,
    pub reject: Reject,
    pub plain_requests: PlainRequests,
    /// The methods of requests that are no WebSocket handshakes and are passed on; empty = all.
    pub methods: Vec<Method>,
    pub protocol: Protocol,
    /// Which `Host` the WebSocket upstream of a raw or pass route gets.
    pub host: HostHeader,
    pub binary: Binary,
    /// The maximum size of a message; `usize::MAX` = not limited, which only [`Protocol::Pass`] allows.
    pub max_message_bytes: usize,
    pub max_message_chars: usize,
    pub compression: Compression,
    pub idle_ping: Duration,
    pub pong_timeout: Duration,
    /// The longest session, counted from the connect or the last refresh; `None` = until the credentials
    /// expire.
    pub max_session: Option<Duration>,
    /// How long before the end by credentials or `max_session` the client is notified; `None` = never.
    pub expiry_notice: Option<Duration>,
    pub send_queue: SendQueue,
    pub presence: Presence,
    /// Whether the gateway's own events have a timestamp.
    pub timestamps: bool,
    pub limits: RouteLimits,
    pub history: History,
    pub generations: Generations,
}

impl Route {
    /// Whether the upstream opens its socket before the client gets its 101, with what the client asks for.
    pub fn asks_upstream_first(&self) -> bool {
        match self.protocol {
            Protocol::Json => false,
            Protocol::Raw | Protocol::Pass => self.upstream.is_some(),
        }
    }
}

/// `[[route]]` with `reply`: a path with a fixed answer.
#[derive(Debug, Clone, PartialEq)]
pub struct FixedReply {
    /// A path without parameters.
    pub path: PathPattern,
    /// JSON text of at most [`FixedReply::MAX_BYTES`].
    pub reply: Box<str>,
    /// The number of [`Config::routes`](crate::config::Config::routes) before it in the file.
    pub after: usize,
}

impl FixedReply {
    pub const MAX_BYTES: usize = 4096;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthSource {
    ConnectionToken,
    Cookie,
    Bearer,
    Query,
    Anonymous,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Authorize {
    /// The channel patterns of the token record or JWT, if it has any.
    Claims,
    /// The same. The config says that credentials without patterns open every channel of the route on purpose.
    None,
    /// The claims, then a `POST` to a URL. Only a 2xx response admits the client.
    Url(Box<AuthorizeUrl>),
}

/// How the backend is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthorizeUrl {
    pub url: Url,
    /// The time limit, with the time that the question waits for its turn.
    pub timeout: Duration,
    /// The most questions in flight of all clients, and of one user or of the anonymous clients of one address; 0 = a
    /// quarter.
    pub max_in_flight: usize,
    pub max_in_flight_per_user: usize,
    /// How long a decision about a user is remembered; zero = not at all.
    pub cache: Duration,
    /// The secret that questions are signed with; `None` = not signed.
    pub signing_secret: Option<Secret>,
}

/// How a client is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// Accept the WebSocket, then close it with a code that scripts in browsers can read.
    Close,
    /// Respond with an HTTP status and a JSON body.
    Http,
}

/// Where requests of a route's path go that are no WebSocket handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainRequests {
    /// They are answered with 426.
    Refused,
    /// To `[proxy]`, like requests without a route; with 426 if it has no upstream.
    Proxy,
    /// To the route's own upstream, if the client passes the checks of the route.
    Upstream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The envelope of docs/protocol.md.
    Json,
    /// Messages are relayed without being parsed.
    Raw,
    /// The handshake and every frame are those of the upstream.
    Pass,
}

/// The `Host` header of a handshake with an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostHeader {
    /// The `Host` of the client's request.
    Client,
    /// The host and port of the upstream's URL.
    Upstream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    Reject,
    Relay,
}

/// Whether messages are compressed for clients that offer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Off,
    /// Compressed by permessage-deflate (RFC 7692).
    Deflate,
}

/// Whether the members of a route's channels are tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Off,
    /// The server API lists them.
    On,
    /// Joins and leaves are also published to the channel.
    Events,
}

/// The bounds of a client's send queue. A client that exceeds one is closed with 4008.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendQueue {
    pub messages: usize,
    pub bytes: usize,
}

/// `[route.limits]`; `None` = not limited.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteLimits {
    pub messages_per_user: Option<UserRate>,
    /// Tokens of AI models, of which the usage of replies is counted.
    pub usage_per_user: Option<UserRate>,
    pub messages_per_connection: Option<Rate>,
    /// Control frames and small fragments.
    pub frames_per_connection: Option<Rate>,
    pub connects_per_user: Option<UserRate>,
    /// The maximum number of open connections.
    pub connections_per_user: Option<u32>,
    /// The maximum number of running generations.
    pub generations_per_user: Option<u32>,
}

/// How often a user may do something, over all connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRate {
    Bucket(Rate),
    Window(FixedWindow),
}

/// At most `count` hits in a window of length `per`, which starts with the first hit. The count is stored as
/// plain digits in one key of the engine, so that a backend can share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedWindow {
    pub count: u32,
    pub per: Duration,
    /// The full Redis key, which contains `{user_id}`. `None` = a key of the gateway.
    pub key: Option<Template>,
}

/// A token bucket: `"50/1h"` refills 50 tokens per hour and holds 50; `"10/1s burst 20"` holds 20.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub count: u32,
    pub per: Duration,
    pub burst: u32,
}

/// `[route.history]`: the publications that a channel keeps for clients that reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// The number of publications that are kept; 0 = none.
    pub size: usize,
    /// How long they are kept after the channel's last publication.
    pub ttl: Duration,
    pub compact: Compact,
}

/// How missed publications are delivered to a client that resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compact {
    /// Each one as it was published.
    Off,
    /// Consecutive `chunk` events of a task are merged into one.
    Chunks,
}

/// `[route.generations]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Generations {
    /// A message with the same id is relayed only once within this time; zero = every time.
    pub dedup_ttl: Duration,
    /// The names of the events that end a generation.
    pub terminal_events: Vec<String>,
    /// A worker that publishes nothing for this long is considered lost; zero = never.
    pub reply_idle_timeout: Duration,
    /// After this time without any event of a worker's reply, a warning is logged; `None` = never.
    pub first_event_warning: Option<Duration>,
    /// The longest time that a generation of a queue worker counts as running.
    pub max_duration: Duration,
    pub duplicate_terminal: DuplicateTerminal,
    pub concurrent: Concurrent,
    /// The most messages of one channel that wait with [`Concurrent::Queue`].
    pub max_waiting: usize,
    /// The same for one user, or for the anonymous clients of one address; 0 = half.
    pub max_waiting_per_user: usize,
}

/// What happens to a message while another reply runs on its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrent {
    /// It is relayed at once, and the replies run side by side.
    Parallel,
    /// It waits until the replies to the messages before it have ended.
    Queue,
    /// It is refused.
    Reject,
}

/// What happens to a second terminal event of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuplicateTerminal {
    Drop,
    Pass,
}

#[cfg(test)]
impl Generations {
    /// The defaults, for tests.
    pub fn example() -> Self {
        let terminal_events = ["complete", "completed", "error", "cancelled"];
        Self {
            dedup_ttl: Duration::from_secs(600),
            terminal_events: terminal_events.map(str::to_owned).into(),
            reply_idle_timeout: Duration::ZERO,
            first_event_warning: Some(Duration::from_secs(30)),
            max_duration: Duration::from_secs(1800),
            duplicate_terminal: DuplicateTerminal::Drop,
            concurrent: Concurrent::Parallel,
            max_waiting: 16,
            max_waiting_per_user: 0,
        }
    }
}
