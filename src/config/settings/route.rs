//! `[[route]]`.

use std::time::Duration;

use url::Url;

use crate::protocol::{ChannelPattern, PathPattern, Template};

/// `[[route]]`: a path with its channel, its rules and its upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub path: PathPattern,
    pub channel: Template,
    /// Matches every name that `channel` can give.
    pub channel_pattern: ChannelPattern,
    /// A key of [`Config::upstreams`](crate::config::Config::upstreams); `None` = receive-only sockets.
    pub upstream: Option<String>,
    /// Tried in this order.
    pub auth: Vec<AuthSource>,
    pub authorize: Authorize,
    pub reject: Reject,
    pub protocol: Protocol,
    pub binary: Binary,
    pub max_message_bytes: usize,
    pub max_message_chars: usize,
    pub idle_ping: Duration,
    pub pong_timeout: Duration,
    /// From the connect or the last refresh; `None` = as long as its credentials hold.
    pub max_session: Option<Duration>,
    /// Before credentials or `max_session` end a connection; `None` = no notice.
    pub expiry_notice: Option<Duration>,
    pub send_queue: SendQueue,
    pub presence: Presence,
    /// The gateway's own frames carry the time.
    pub timestamps: bool,
    pub limits: RouteLimits,
    pub history: History,
    pub generations: Generations,
}

/// `[[route]]` with `reply`: a path that answers by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct FixedReply {
    /// Without parameters.
    pub path: PathPattern,
    /// JSON of at most [`FixedReply::MAX_BYTES`].
    pub reply: Box<str>,
    /// How many of [`Config::routes`](crate::config::Config::routes) stand before it in the file.
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
    /// The patterns of the token record or of the JWT, where it has any.
    Claims,
    /// Claims first, then `POST` to this URL; only a 2xx answer lets the client in.
    Url { url: Url, timeout: Duration },
}

/// How a refused handshake is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// Accept, then close with a code that a browser's script can read.
    Close,
    /// An HTTP status with a JSON body.
    Http,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The envelope of docs/protocol.md.
    Json,
    /// Messages pass unread.
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    Reject,
    Relay,
}

/// Whether the members of a route's channels are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Off,
    /// To whoever asks.
    On,
    /// Also published to the channel, as they come and go.
    Events,
}

/// Bounds of what waits for one slow client; at either, the client is closed with 4008.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendQueue {
    pub messages: usize,
    pub bytes: usize,
}

/// `[route.limits]`; `None` = not limited.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteLimits {
    pub messages_per_user: Option<UserRate>,
    pub messages_per_connection: Option<Rate>,
    pub connects_per_user: Option<UserRate>,
    /// Open at once.
    pub connections_per_user: Option<u32>,
    /// Running at once.
    pub generations_per_user: Option<u32>,
}

/// What a user may do how often, over all connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRate {
    Bucket(Rate),
    Window(FixedWindow),
}

/// At most `count` from the first hit until `per` later. The count stands as plain digits in one key of the
/// engine, so that others can share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedWindow {
    pub count: u32,
    pub per: Duration,
    /// The whole key; has `{user_id}`. `None` = one of the gateway's own.
    pub key: Option<Template>,
}

/// A token bucket: `"50/1h"` refills 50 tokens an hour and holds 50; `"10/1s burst 20"` holds 20.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub count: u32,
    pub per: Duration,
    pub burst: u32,
}

/// `[route.history]`: what a channel keeps for clients that were away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// Publications kept; 0 = none.
    pub size: usize,
    /// They are kept this long after the channel's last one.
    pub ttl: Duration,
    pub compact: Compact,
}

/// What a late client gets of the publications that it missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compact {
    /// Each as it was.
    Off,
    /// Consecutive `chunk` events of one task as one.
    Chunks,
}

/// `[route.generations]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Generations {
    /// A client's message id is relayed once within this time; zero = as often as it is sent.
    pub dedup_ttl: Duration,
    /// Names of events that end a generation.
    pub terminal_events: Vec<String>,
    /// A worker that is silent this long is lost; zero = never.
    pub reply_idle_timeout: Duration,
    /// A generation that a worker publishes by itself counts as running for at most this long.
    pub max_duration: Duration,
    pub duplicate_terminal: DuplicateTerminal,
}

/// What becomes of a second terminal event of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuplicateTerminal {
    Drop,
    Pass,
}

#[cfg(test)]
impl Generations {
    /// The defaults, for tests that change some of them.
    pub fn example() -> Self {
        let terminal_events = ["complete", "completed", "error", "cancelled"];
        Self {
            dedup_ttl: Duration::from_secs(600),
            terminal_events: terminal_events.map(str::to_owned).into(),
            reply_idle_timeout: Duration::ZERO,
            max_duration: Duration::from_secs(1800),
            duplicate_terminal: DuplicateTerminal::Drop,
        }
    }
}
