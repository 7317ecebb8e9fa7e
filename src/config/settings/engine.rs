//! `[engine]`: memory, or Redis with its wires.

use std::time::Duration;

use super::{RedisUrl, Secret};

/// `[engine]`: where tokens, limits and publications live.
#[derive(Debug, Clone, PartialEq)]
pub struct Engine {
    pub kind: EngineKind,
    /// Larger publications are refused by the API, and counted and dropped when they come from Redis.
    pub max_publication_bytes: usize,
    /// All histories of the memory engine together; beyond it the oldest channels lose theirs.
    pub max_history_bytes: usize,
}

impl Engine {
    /// Begins the gateway's own keys in a Redis that is not the engine's.
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

/// `[engine.redis]`; the URLs of the parts are already resolved to `url` where they are empty.
#[derive(Debug, Clone, PartialEq)]
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
#[derive(Debug, Clone, PartialEq)]
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
