//! Checked settings: what the TOML file, the environment and the defaults came to.
//!
//! This module owns every setting's key, default, bounds and meaning. Nothing outside of it sees a
//! raw string that should be a URL, a duration or a size. Each part of the gateway is handed its own
//! section, never the whole [`Config`].
//!
//! Bounds hold for every value that gets here: durations are at most a year, sizes at most 1 GiB,
//! counts at most 10^9, so they can be added to clocks and multiplied by small numbers. Every
//! placeholder of a template has a value where the template is filled, and every route's upstream
//! exists.
//!
//! [`Config::load`] reads a file; the sections' keys are defined one by one in the files named after
//! them, and `reader` and `section` collect what is wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::protocol::{ChannelPattern, OriginPattern, PathPattern, Template};

mod celery;
mod channels;
mod checks;
mod engine;
mod environment;
mod given;
mod identity;
mod kinds;
mod limits;
mod load;
mod mistakes;
mod reader;
mod redis_url;
mod reference;
mod route;
mod secret;
mod section;
mod server;
#[cfg(test)]
mod tests;
mod upstream;
mod values;

pub use environment::Environment;
pub use mistakes::{Mistake, Mistakes};
pub use redis_url::{CertificateCheck, RedisUrl};
pub use reference::reference;
pub use secret::Secret;

/// Every setting of one gateway process.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: Server,
    pub admin: Admin,
    pub shutdown: Shutdown,
    pub engine: Engine,
    pub tokens: Tokens,
    pub jwt: Jwt,
    pub origins: Origins,
    pub proxy: Proxy,
    /// In the order of the file; the first whose path matches takes the request.
    pub routes: Vec<Arc<Route>>,
    pub replies: Vec<Arc<FixedReply>>,
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    pub log: Log,
    /// Keys of Redis URLs that say `ssl_cert_reqs=none`: encrypted, to whoever answers.
    pub unchecked_redis: Vec<String>,
}

/// `[server]`: the public port.
#[derive(Debug, Clone)]
pub struct Server {
    pub listen: SocketAddr,
    /// Worker threads, each with its own runtime and listener socket. Already resolved: never 0.
    pub threads: usize,
    /// Open public connections of the whole process, whatever they are doing.
    pub max_connections: usize,
    /// Open public connections of one client address; 0 = no limit.
    pub max_connections_per_ip: usize,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// From accept, or from the end of the last response, to the end of a request's head.
    pub header_timeout: Duration,
    /// A request head larger than this is refused with 431.
    pub max_header_bytes: usize,
}

/// `[admin]`: metrics, health and the server API.
#[derive(Debug, Clone)]
pub struct Admin {
    pub listen: SocketAddr,
    /// Keys that open the server API; none = the API answers 403.
    pub api_keys: Vec<Secret>,
}

/// `[shutdown]`: what SIGTERM does.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// Open sockets are closed with 1012 spread evenly over this time.
    pub drain: Duration,
    /// What is left after `drain` has this long to end before it is cut.
    pub grace: Duration,
}

impl Engine {
    /// Begins the gateway's own keys in a Redis that is not the engine's.
    const OWN_PREFIX: &str = "tg:";

    pub fn key_prefix(&self) -> &str {
        match &self.kind {
            EngineKind::Memory => Self::OWN_PREFIX,
            EngineKind::Redis(redis) => &redis.key_prefix,
        }
    }
}

impl Shutdown {
    /// After the beginning of a drain, whatever still runs says that it is cut, while that can still
    /// be published.
    pub fn last_words_after(&self) -> Duration {
        const WORDS: Duration = Duration::from_millis(250);
        let end = self.drain + self.grace;
        (self.drain + self.grace / 2).min(end.saturating_sub(WORDS))
    }
}

/// `[engine]`: where tokens, limits and publications live.
#[derive(Debug, Clone)]
pub struct Engine {
    pub kind: EngineKind,
    /// Larger publications are refused by the API, and counted and dropped when they come from Redis.
    pub max_publication_bytes: usize,
    /// All histories of the memory engine together; beyond it the oldest channels lose theirs.
    pub max_history_bytes: usize,
}

#[derive(Debug, Clone)]
pub enum EngineKind {
    Memory,
    Redis(Box<RedisEngine>),
}

/// `[engine.redis]`; the URLs of the parts are already resolved to `url` where they are empty.
#[derive(Debug, Clone)]
pub struct RedisEngine {
    /// Commands of the gateway itself; what an upstream without its own `redis_url` uses.
    pub url: RedisUrl,
    pub tokens_url: RedisUrl,
    pub limits_url: RedisUrl,
    pub pubsub_url: RedisUrl,
    /// Prefix of the gateway's own keys and channels, at most 128 bytes without spaces. Clients' channels
    /// are published under their bare name.
    pub key_prefix: String,
    /// `None` = `wire = "plain"`.
    pub channels: Option<ChannelsLayer>,
}

/// `[engine.redis.channels]`: the Django Channels layer whose groups are the channels.
#[derive(Debug, Clone)]
pub struct ChannelsLayer {
    pub wire: ChannelsWire,
    /// In the backend's order, by which groups and mailboxes are spread; never empty.
    pub hosts: Vec<RedisUrl>,
    pub prefix: String,
    /// Whole seconds, as the other times here.
    pub group_expiry: Duration,
    pub expiry: Duration,
    /// What a mailbox holds, by the backend's word.
    pub capacity: usize,
    /// Each is tried; none = not encrypted.
    pub symmetric_encryption_keys: Vec<Secret>,
    pub serializer: LayerSerializer,
    /// Bytes, at most 255; core wire only.
    pub random_prefix_length: usize,
    /// Message types that are forwarded; none = all.
    pub types: Vec<String>,
    /// Clients see the message's `type`.
    pub keep_type: bool,
    /// Between two renewals of a membership; at most half of `group_expiry`.
    pub refresh: Duration,
}

/// Which of the two layers of channels_redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelsWire {
    /// `channels_redis.core.RedisChannelLayer`: sorted sets.
    Core,
    /// `channels_redis.pubsub.RedisPubSubChannelLayer`.
    PubSub,
}

/// What a layer's messages are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerSerializer {
    MsgPack,
    Json,
}

/// `[tokens]`: single-use connection tokens.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub ttl: Duration,
    pub key_prefix: String,
    /// How records are kept in Redis.
    pub format: TokenFormat,
    /// `None` = this gateway issues none to browsers.
    pub issue_path: Option<String>,
    pub csrf: Csrf,
    /// The record's `connection_id` must match this glob over the route's parameters; `None` = unbound.
    pub binding: Option<Template>,
}

/// How a token's record is kept in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFormat {
    Json,
    /// As Django's cache keeps a dict: pickled. JSON is read as well.
    Django,
}

/// Double-submit names: the cookie's value must be repeated in the header where a cookie authenticates.
#[derive(Debug, Clone)]
pub struct Csrf {
    pub cookie: String,
    pub header: String,
}

/// `[jwt]`: who the caller is.
#[derive(Debug, Clone)]
pub struct Jwt {
    pub keys: Vec<JwtKey>,
    pub jwks_url: Option<Url>,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    pub leeway: Duration,
    pub cookie: String,
    pub user_claim: String,
    pub name_claim: String,
    pub channels_claim: String,
    pub session_version: Option<SessionVersion>,
}

/// Where a number is kept of each user that the JWTs of its sessions must name.
#[derive(Debug, Clone)]
pub struct SessionVersion {
    pub claim: String,
    /// Of the number in Redis; has a `{user_id}`.
    pub key: Template,
    /// Already resolved to the engine's `tokens_url` where it is empty.
    pub redis_url: RedisUrl,
}

impl Jwt {
    /// Whether any JWT could be accepted at all.
    pub fn is_enabled(&self) -> bool {
        !self.keys.is_empty() || self.jwks_url.is_some()
    }
}

#[derive(Debug, Clone)]
pub struct JwtKey {
    pub alg: jsonwebtoken::Algorithm,
    /// Only tokens with this `kid` are tried with it; `None` = every token.
    pub kid: Option<String>,
    pub material: JwtKeyMaterial,
}

#[derive(Debug, Clone)]
pub enum JwtKeyMaterial {
    /// HS256, HS384, HS512.
    Secret(Secret),
    /// PEM text of a public key: RS256, PS256, ES256, EdDSA. Already read from its file.
    PublicPem(String),
}

/// `[origins]`: the allowlist of RFC 6454 origins.
#[derive(Debug, Clone)]
pub struct Origins {
    pub allow: Vec<OriginPattern>,
    pub missing: MissingOrigin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingOrigin {
    Allow,
    Reject,
}

/// `[proxy]`: where requests go that are no route.
#[derive(Debug, Clone)]
pub struct Proxy {
    pub upstream: Option<Url>,
    /// To the response's head; the body may last as long as it flows.
    pub timeout: Duration,
}

/// `[[route]]`: a path with its channel, its rules and its upstream.
#[derive(Debug, Clone)]
pub struct Route {
    pub path: PathPattern,
    pub channel: Template,
    /// A key of [`Config::upstreams`]; `None` = receive-only sockets.
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
#[derive(Debug, Clone)]
pub struct FixedReply {
    /// Without parameters.
    pub path: PathPattern,
    /// JSON of at most [`FixedReply::MAX_BYTES`].
    pub reply: Box<str>,
    /// How many of [`Config::routes`] stand before it in the file.
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

#[derive(Debug, Clone)]
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
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone)]
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

/// `[upstream.NAME]`.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub name: String,
    pub kind: UpstreamKind,
    /// To the response's head, the queue's answer, or the upstream socket's handshake.
    pub timeout: Duration,
    /// Relays, streaming replies and upstream sockets open at once; beyond it the client gets `busy`.
    pub max_in_flight: usize,
    pub circuit: Circuit,
}

#[derive(Debug, Clone)]
pub enum UpstreamKind {
    Http(HttpUpstream),
    Celery(Box<CeleryUpstream>),
    RedisStream(RedisQueue),
    RedisList(RedisQueue),
    WebSocket(WebSocketUpstream),
}

#[derive(Debug, Clone)]
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

/// A Celery application: tasks on its Redis broker.
#[derive(Debug, Clone)]
pub struct CeleryUpstream {
    pub broker_url: RedisUrl,
    /// Begins every key and channel of the broker.
    pub global_keyprefix: String,
    /// For messages that none of `tasks` is for.
    pub own: CeleryTask,
    /// The first whose pattern fits a message's channel takes it.
    pub tasks: Vec<(ChannelPattern, CeleryTask)>,
    /// A list that is this long refuses; 0 = no bound.
    pub max_len: u64,
    /// `None` = a task that runs is not stopped.
    pub revoke_signal: Option<&'static str>,
    /// `None` = what becomes of a task is not watched.
    pub results: Option<Results>,
    pub track: Option<CeleryTrack>,
}

impl CeleryUpstream {
    /// The task of the messages of `channel`.
    pub fn task(&self, channel: &str) -> &CeleryTask {
        let fits = |(pattern, _): &&(ChannelPattern, CeleryTask)| pattern.matches(channel);
        self.tasks.iter().find(fits).map_or(&self.own, |(_, task)| task)
    }
}

/// The arguments of a task in the order of their names, which Python functions can have.
pub type Kwargs = Vec<(String, Kwarg)>;

/// What a message becomes.
#[derive(Debug, Clone)]
pub struct CeleryTask {
    pub name: String,
    pub queue: String,
    /// 0 to 9; 0 is taken first.
    pub priority: u8,
    pub kwargs: Kwargs,
    /// A task that has waited this long is not run; `None` = it waits for ever.
    pub expires: Option<Duration>,
    /// What the client is told instead of `task_queued`.
    pub queued_event: String,
}

/// Where a keyword argument comes from.
#[derive(Debug, Clone)]
pub enum Kwarg {
    /// A text.
    Text(Template),
    /// A text that must be an integer.
    Integer(Template),
    Constant(serde_json::Value),
    /// A field of the client's own object.
    Field(ClientField),
}

#[derive(Debug, Clone)]
pub struct ClientField {
    pub name: Box<str>,
    pub kind: FieldType,
    pub missing: Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    Any,
    Text,
    Int,
    Number,
    Bool,
    Object,
    List,
}

/// What a field that is not there, or null, comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Missing {
    /// The message is refused.
    Refuse,
    /// The task does not get the argument.
    Omit,
    Default(serde_json::Value),
}

/// Celery's result backend, where it is a Redis.
#[derive(Debug, Clone)]
pub struct Results {
    pub url: RedisUrl,
    pub keyprefix: String,
}

/// The ids of a conversation's tasks, in a key of Django's cache.
#[derive(Debug, Clone)]
pub struct CeleryTrack {
    pub key: Template,
    /// From the last task on.
    pub ttl: Duration,
    /// `None` = the broker's.
    pub redis_url: Option<RedisUrl>,
}

#[derive(Debug, Clone)]
pub struct RedisQueue {
    pub redis_url: RedisUrl,
    /// The stream or list; placeholders are filled as they are.
    pub key: Template,
    /// A stream is trimmed to about this many entries (`MAXLEN ~`), and a list that is this long refuses; 0 = no bound.
    pub max_len: u64,
}

#[derive(Debug, Clone)]
pub struct WebSocketUpstream {
    /// `ws` or `wss`; placeholders are filled percent-encoded.
    pub url: Template,
}

/// After `failures` within `window` the upstream is not asked for `open`.
#[derive(Debug, Clone, Copy)]
pub struct Circuit {
    pub failures: u32,
    pub window: Duration,
    pub open: Duration,
}

/// `[log]`.
#[derive(Debug, Clone)]
pub struct Log {
    pub format: LogFormat,
    /// A `tracing-subscriber` filter: `info`, `tidegate=debug,warn`.
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
