//! Keys of `[engine]` and `[engine.redis]`.

use super::channels::{self, channels};
use super::kinds::{self, Kind, choice, words};
use super::section::Section;
use super::{ChannelsLayer, Engine, EngineKind, RedisEngine, RedisUrl};

#[derive(Clone, Copy)]
enum KindName {
    Memory,
    Redis,
}

const KIND: Kind<KindName> = words(r#""memory" or "redis""#, |value| {
    choice(value, &[("memory", KindName::Memory), ("redis", KindName::Redis)])
});

pub(super) fn engine(s: &mut Section<'_>) -> Option<Engine> {
    let kind = s.key(
        "kind",
        KIND,
        "memory",
        "\"memory\": one node, no other service. \"redis\": shared by many nodes.",
    );
    let channel_prefix = s.key(
        "channel_prefix",
        kinds::KEY_PREFIX,
        "",
        "Put in front of the channel of every route: in Redis, in the server API and in the channel patterns of \
         credentials. A channel that begins with a placeholder needs it, or a client could choose any name.",
    );
    let max_publication_bytes = s.key(
        "max_publication_bytes",
        kinds::SIZE,
        "1MiB",
        "The server API refuses larger publications; those from Redis are dropped and counted.",
    );
    let max_history_bytes = s.key(
        "max_history_bytes",
        kinds::SIZE,
        "256MiB",
        "Memory engine: total size of all histories. Beyond it, the least recently used channels lose theirs. Channels without publications have a quarter of it in addition.",
    );
    let is_redis_written = s.is_written("redis");
    let redis = s.section("redis", "[engine.redis]", "Used with `kind = \"redis\"`.", redis);
    if let (Some(KindName::Memory), Some(RedisEngine { channels: Some(_), .. })) = (kind, &redis) {
        s.mistake(
            "redis.wire",
            None,
            "write kind = \"redis\" in [engine]: a channel layer needs Redis",
        );
    }
    if is_redis_written && matches!(kind, Some(KindName::Memory)) {
        s.warn(
            "redis",
            "not used, because engine.kind is \"memory\"; write kind = \"redis\" in [engine]",
        );
    }
    Some(Engine {
        kind: match kind? {
            KindName::Memory => EngineKind::Memory,
            KindName::Redis => EngineKind::Redis(Box::new(redis?)),
        },
        channel_prefix: channel_prefix?,
        max_publication_bytes: max_publication_bytes?,
        max_history_bytes: max_history_bytes?,
    })
}

fn redis(s: &mut Section<'_>) -> Option<RedisEngine> {
    let url = s.redis_url(
        "url",
        kinds::REDIS_URL,
        "redis://127.0.0.1:6379",
        "The Redis server: redis://, rediss:// (TLS), unix:// or redis+socket://; nodes of a cluster, redis-cluster://a,b,c; or sentinels, redis-sentinel://a,b,c/mymaster (rediss-cluster://, rediss-sentinel:// for TLS; see the deployment page).",
    );
    let tokens_url = s.redis_url(
        "tokens_url",
        kinds::OPTIONAL_REDIS_URL,
        "",
        "Redis for connection tokens; \"\" = url.",
    );
    let limits_url = s.redis_url(
        "limits_url",
        kinds::OPTIONAL_REDIS_URL,
        "",
        "Redis for rates and counts; \"\" = url.",
    );
    let pubsub_url = s.redis_url(
        "pubsub_url",
        kinds::OPTIONAL_REDIS_URL,
        "",
        "Redis for publications, histories and presence; \"\" = url.",
    );
    let key_prefix = s.key(
        "key_prefix",
        kinds::KEY_PREFIX,
        Engine::OWN_PREFIX,
        "Prefix of the gateway's own keys and channels. Clients' channels have no prefix.",
    );
    let wire = s.key(
        "wire",
        channels::WIRE,
        "plain",
        "How workers publish. \"plain\": with PUBLISH to the channel. \"channels-core\", \"channels-pubsub\": also to the group of that name in a Django Channels layer.",
    );
    let is_layer_written = s.is_written("channels");
    let channels = s.section(
        "channels",
        "[engine.redis.channels]",
        "The Django Channels layer, used with a `channels-…` wire. Copy the values of the backend's `CHANNEL_LAYERS`.",
        channels,
    );
    if is_layer_written && matches!(wire, Some(None)) {
        s.warn("channels", "not used, because engine.redis.wire is \"plain\"");
    }
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

/// The Redis URL of the engine that `select` chooses, which stands in for the key `name` if that is empty.
/// With the memory engine the missing key is a mistake; `engine` is `None` if it has mistakes of its own.
pub(super) fn engine_url(
    s: &mut Section<'_>,
    name: &str,
    engine: Option<&Engine>,
    select: impl Fn(&RedisEngine) -> &RedisUrl,
) -> Option<RedisUrl> {
    match &engine?.kind {
        EngineKind::Redis(redis) => Some(select(redis).clone()),
        EngineKind::Memory => {
            let fix = format!(
                "missing, and the engine is \"memory\"; write {}",
                kinds::REDIS_URL.expected
            );
            s.mistake(name, None, fix);
            None
        }
    }
}
