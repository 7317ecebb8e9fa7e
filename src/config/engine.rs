//! Keys of `[engine]` and `[engine.redis]`.

use super::channels::{self, channels};
use super::kinds::{self, Kind, choice, words};
use super::section::Section;
use super::{ChannelsLayer, Engine, EngineKind, RedisEngine};

#[derive(Clone, Copy)]
enum Word {
    Memory,
    Redis,
}

const KIND: Kind<Word> = words(r#""memory" or "redis""#, |value| {
    choice(value, &[("memory", Word::Memory), ("redis", Word::Redis)])
});

pub(super) fn engine(s: &mut Section<'_>) -> Option<Engine> {
    let kind = s.key(
        "kind",
        KIND,
        "memory",
        "\"memory\": one node and nothing else to run. \"redis\": many nodes share it.",
    );
    let max_publication_bytes = s.key(
        "max_publication_bytes",
        kinds::SIZE,
        "1MiB",
        "Larger publications are refused by the API, and counted and dropped when they come from Redis.",
    );
    let max_history_bytes = s.key(
        "max_history_bytes",
        kinds::SIZE,
        "256MiB",
        "Of all channels' histories in memory; beyond it the channels that were silent longest lose theirs.",
    );
    let redis = s.section("redis", "[engine.redis]", "Read with `kind = \"redis\"`.", redis);
    if let (Some(Word::Memory), Some(RedisEngine { channels: Some(_), .. })) = (kind, &redis) {
        s.mistake(
            "redis.wire",
            None,
            "write kind = \"redis\" in [engine]: a channel layer is in Redis",
        );
    }
    Some(Engine {
        kind: match kind? {
            Word::Memory => EngineKind::Memory,
            Word::Redis => EngineKind::Redis(Box::new(redis?)),
        },
        max_publication_bytes: max_publication_bytes?,
        max_history_bytes: max_history_bytes?,
    })
}

fn redis(s: &mut Section<'_>) -> Option<RedisEngine> {
    let url = s.redis_url(
        "url",
        kinds::REDIS_URL,
        "redis://127.0.0.1:6379",
        "The Redis server: redis://, rediss:// (TLS, see the deployment page) or unix://. One server, no Sentinel, no Cluster.",
    );
    let tokens_url = s.redis_url(
        "tokens_url",
        kinds::OPTIONAL_REDIS_URL,
        "",
        "Where connection tokens live; \"\" = url.",
    );
    let limits_url = s.redis_url(
        "limits_url",
        kinds::OPTIONAL_REDIS_URL,
        "",
        "Where rates and counts live; \"\" = url.",
    );
    let pubsub_url = s.redis_url(
        "pubsub_url",
        kinds::OPTIONAL_REDIS_URL,
        "",
        "Where channels are published and subscribed, with their histories and their presence; \"\" = url.",
    );
    let key_prefix = s.key(
        "key_prefix",
        kinds::KEY_PREFIX,
        Engine::OWN_PREFIX,
        "Begins the gateway's own keys and channels. Clients' channels are published under their bare name.",
    );
    let wire = s.key(
        "wire",
        channels::WIRE,
        "plain",
        "How workers publish. \"plain\": to the channel's name. \"channels-core\", \"channels-pubsub\": to the group of that name in a Django Channels layer (channels_redis), as well.",
    );
    let channels = s.section(
        "channels",
        "[engine.redis.channels]",
        "The Django Channels layer; read with a `channels-…` wire. What the backend's `CHANNEL_LAYERS` says.",
        channels,
    );
    let url = url??;
    let pubsub_url = pubsub_url?.unwrap_or_else(|| url.clone());
    let channels = match wire? {
        None => None,
        Some(wire) => {
            let mut layer = ChannelsLayer { wire, ..channels? };
            if layer.hosts.is_empty() {
                layer.hosts.push(pubsub_url.clone());
            }
            Some(layer)
        }
    };
    Some(RedisEngine {
        channels,
        tokens_url: tokens_url?.unwrap_or_else(|| url.clone()),
        limits_url: limits_url?.unwrap_or_else(|| url.clone()),
        pubsub_url,
        key_prefix: key_prefix?,
        url,
    })
}
