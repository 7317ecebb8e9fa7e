//! The names in Redis that clients' channels must not have, because other systems use them.

use super::{ChannelsLayer, Config, Engine, EngineKind, Tokens, Upstream, UpstreamKind};
use crate::protocol::ReservedChannels;

/// What the gateway's own names begin with, behind `key_prefix`.
const OWN_NAMES: [&str; 4] = ["control", "cancel", "generations", "layer:"];

/// The channels that are reserved by the gateway, the channel layer, the token store and Celery.
pub(super) fn channels<'a>(
    engine: &Engine,
    tokens: &Tokens,
    upstreams: impl Iterator<Item = &'a Upstream>,
) -> ReservedChannels {
    let mut prefixes = match (&engine.kind, engine.key_prefix()) {
        // Its channels are no names in Redis.
        (EngineKind::Memory, _) => Vec::new(),
        (EngineKind::Redis(_), "") => OWN_NAMES.map(str::to_owned).to_vec(),
        (EngineKind::Redis(_), prefix) => vec![prefix.to_owned()],
    };
    prefixes.push(tokens.key_prefix.clone());
    if let EngineKind::Redis(redis) = &engine.kind
        && let Some(ChannelsLayer { prefix, .. }) = &redis.channels
    {
        prefixes.extend([":", "__group__", "specific."].map(|part| format!("{prefix}{part}")));
    }
    for upstream in upstreams {
        let UpstreamKind::Celery(celery) = &upstream.kind else { continue };
        let of_results = celery.results.as_ref().map(|results| &*results.keyprefix);
        for prefix in [Some(&*celery.global_keyprefix), of_results].into_iter().flatten() {
            let parts = ["celery-task-meta-", "celery-taskset-meta-", "_kombu."];
            prefixes.extend(parts.map(|part| format!("{prefix}{part}")));
            // Broadcasts of kombu are behind the number of a database, such as `/0.celery.pidbox`.
            prefixes.extend((0..=9).map(|digit| format!("{prefix}/{digit}")));
        }
    }
    ReservedChannels::new(prefixes)
}

impl Config {
    /// Derives the reserved names from the other settings again, after these have changed.
    pub fn update_reserved(&mut self) {
        let upstreams = self.upstreams.values().map(|upstream| &**upstream);
        self.reserved = channels(&self.engine, &self.tokens, upstreams);
    }
}
