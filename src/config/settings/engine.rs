//! `[engine]`.

use std::time::Duration;

use super::{RedisUrl, Secret};

/// `[engine]`: where tokens, limits, publications and histories are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Engine {
    pub kind: EngineKind,
    /// Every channel's name begins with it. It is already part of the templates of the routes.
    pub channel_prefix: String,
    /// Larger publications are refused by the server API. Those from Redis are dropped and counted.
    pub max_publication_bytes: usize,
    /// The total size of all histories of the memory engine. Beyond it, the least recently used channels
    /// lose theirs.
    pub max_history_bytes: usize,
}

impl Engine {
    /// The prefix of the gateway's own keys in a Redis that is not the engine's.
    pub(in crate::config) const OWN_PREFIX: &str = "tg:";

    pub fn key_prefix(&self) -> &str {
        match &self.kind {
            EngineKind::Memory => Self::OWN_PREFIX,
            EngineKind::Redis(redis) => &redis.key_prefix,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum EngineKind {
    Memory,
    Redis(Box<RedisEngine>),
}

/// `[engine.redis]`, in which empty URLs are already resolved to `url`.
#[derive(Debug, Clone, PartialEq)]
pub struct RedisEngine {
    /// For the gateway's own commands, and for upstreams without a `redis_url`.
    pub url: RedisUrl,
    pub tokens_url: RedisUrl,
    pub limits_url: RedisUrl,
    pub pubsub_url: RedisUrl,
    /// The prefix of the gateway's own keys and channels, at most 128 bytes without spaces. Clients'
    /// channels have no prefix.
    pub key_prefix: String,
    /// `None` means `wire = "plain"`.
    pub channels: Option<ChannelsLayer>,
}

/// `[engine.redis.channels]`: the Django Channels layer whose groups are the channels.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelsLayer {
    pub wire: ChannelsWire,
    /// In the order of the backend, because groups and mailboxes are assigned by index. Never empty.
    pub hosts: Vec<RedisUrl>,
    pub prefix: String,
    /// Whole seconds, as all durations here.
    pub group_expiry: Duration,
    pub expiry: Duration,
    /// How many messages a mailbox of the backend holds.
    pub capacity: usize,
    /// Every key is tried. Empty = not encrypted.
    pub symmetric_encryption_keys: Vec<Secret>,
    pub serializer: LayerSerializer,
    /// In bytes, at most 255; for the core wire only.
    pub random_prefix_length: usize,
    /// The message types that are forwarded. Empty = all.
    pub types: Vec<String>,
    /// Whether clients see the `type` of a message.
    pub keep_type: bool,
    /// The interval at which memberships are renewed, at most half of `group_expiry`.
    pub refresh: Duration,
}

/// The two layers of channels_redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelsWire {
    /// `channels_redis.core.RedisChannelLayer`, which uses sorted sets.
    Core,
    /// `channels_redis.pubsub.RedisPubSubChannelLayer`.
    PubSub,
}

/// The serialization format of a layer's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerSerializer {
    MsgPack,
    Json,
}
