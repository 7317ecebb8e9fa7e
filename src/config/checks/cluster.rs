//! Rules for a Redis Cluster: what needs one server, and prefixes that would put all keys into one slot.

use crate::config::section::Section;
use crate::config::{Engine, EngineKind, RedisUrl, Tokens, UpstreamKind};

use super::{Upstreams, quoted};

pub(in crate::config) fn cluster(
    root: &mut Section<'_>,
    engine: Option<&Engine>,
    tokens: Option<&Tokens>,
    upstreams: &Upstreams,
) {
    if let Some(Engine { kind: EngineKind::Redis(redis), .. }) = engine {
        let any = [&redis.url, &redis.pubsub_url, &redis.limits_url, &redis.tokens_url];
        if any.iter().any(|url| url.is_cluster()) {
            prefix(root, "engine.redis.key_prefix", &redis.key_prefix);
        }
        if let Some(tokens) = tokens
            && redis.tokens_url.is_cluster()
        {
            prefix(root, "tokens.key_prefix", &tokens.key_prefix);
        }
        if let Some(layer) = &redis.channels {
            if redis.pubsub_url.is_cluster() {
                let fix = "write \"plain\": Django Channels has no layer for a Redis Cluster";
                root.mistake("engine.redis.wire", None, fix);
            }
            let hosts = layer.hosts.iter().filter(|host| **host != redis.pubsub_url);
            if hosts.clone().any(RedisUrl::is_cluster) {
                root.mistake("engine.redis.channels.hosts", None, ONE_SERVER);
            }
        }
    }
    for upstream in upstreams.values().flatten() {
        let UpstreamKind::Celery(celery) = &upstream.kind else { continue };
        let track = celery.track.as_ref().and_then(|track| track.redis_url.as_ref());
        let urls = [
            ("broker_url", Some(&celery.broker_url)),
            ("result_backend_url", celery.results.as_ref().map(|results| &results.url)),
            ("track.redis_url", track),
        ];
        for (key, _) in urls.into_iter().filter(|(_, url)| url.is_some_and(RedisUrl::is_cluster)) {
            root.mistake(&format!("upstream.{}.{key}", upstream.name), None, ONE_SERVER);
        }
    }
}

/// What is to be written where a cluster cannot be used.
const ONE_SERVER: &str =
    "write the redis:// URL of one Redis server: a cluster cannot be used here";

fn prefix(root: &mut Section<'_>, key: &str, prefix: &str) {
    if prefix.contains(['{', '}']) {
        let fix =
            "write a prefix without braces, which would put all keys into one slot of the cluster";
        root.mistake(key, Some(quoted(prefix)), fix);
    }
}
