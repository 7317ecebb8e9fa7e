//! From the config to what clients are served by: at the start, and at each reload.

use std::sync::Arc;

use super::engine::Engine;
use crate::config::{self, ChannelsWire, Config, EngineKind};
use crate::handshake::{Handshake, Routes};
use crate::limits::SharedLimits;
use crate::listener::RuntimeConfig;
use crate::protocol::ReservedChannels;
use crate::shutdown::Shutdown;
use crate::tokens::{Authenticator, SessionVersions, TokenStore};
use crate::upstream::UpstreamsShared;

/// What terms are made of besides the config: parts that live as long as the process.
pub(super) struct RuntimeConfigBuilder {
    tokens: TokenStore,
    versions: Option<SessionVersions>,
    limits: SharedLimits,
    reserved: ReservedChannels,
    shutdown: Shutdown,
}

impl RuntimeConfigBuilder {
    pub fn new(engine: &Engine, settings: &config::Engine, shutdown: &Shutdown) -> Self {
        let reserved = engine
            .control
            .reserved_channels()
            .and(engine.generations.ledger.workers_channel())
            .and_no_groups(has_groups(settings));
        Self {
            tokens: engine.tokens.clone(),
            versions: engine.versions.clone(),
            limits: engine.limits.clone(),
            reserved,
            shutdown: shutdown.clone(),
        }
    }

    /// `before` = what `RuntimeConfig` of an earlier config are in force: what is as it was is kept of them. `Err`
    /// names the key that cannot be used. Must run on the engine's thread, where queues are spoken to.
    pub fn make(
        &self,
        config: &Config,
        before: Option<(&Config, &RuntimeConfig)>,
    ) -> Result<RuntimeConfig, String> {
        let authenticator = match before {
            Some((old, terms)) if old.tokens == config.tokens && old.jwt == config.jwt => {
                terms.authenticator.clone()
            }
            _ => Authenticator::new(&config.tokens, &config.jwt, self.tokens.clone())?
                .with_session_versions(self.versions.clone()),
        };
        let handshake = Handshake::new(
            Routes::new(&config.routes, &config.replies),
            &config.origins,
            &config.tokens,
            &config.jwt,
            authenticator.clone(),
            self.limits.clone(),
            self.reserved.clone(),
        )?;
        let (upstreams, engine) = (&config.upstreams, &config.engine);
        Ok(RuntimeConfig {
            server: config.server.clone(),
            proxy: config.proxy.clone(),
            routes: config.routes.clone(),
            handshake: Arc::new(handshake),
            authenticator,
            upstreams: match before {
                Some((_, terms)) => terms.upstreams.renewed(upstreams, engine, &self.shutdown)?,
                None => UpstreamsShared::new(upstreams, engine, &self.shutdown)?,
            },
            stop: config.shutdown,
        })
    }
}

/// Whether every channel is a group of a channel layer that takes some names only.
fn has_groups(engine: &config::Engine) -> bool {
    let EngineKind::Redis(redis) = &engine.kind else { return false };
    redis.channels.as_ref().is_some_and(|layer| layer.wire == ChannelsWire::Core)
}
