//! Builds the runtime configuration from the config, at the start and at each reload.

use std::sync::Arc;

use super::engine::Engine;
use crate::config::{self, ChannelsWire, Config, EngineKind};
use crate::handshake::{Handshake, HandshakeLimits, Routes};
use crate::limits::{NewChannels, SharedLimits};
use crate::listener::RuntimeConfig;
use crate::proxy::SharedProxy;
use crate::shutdown::Shutdown;
use crate::tokens::{Authenticator, SessionVersions, TokenStore};
use crate::upstream::SharedUpstreams;

/// Builds runtime configurations. Its fields are the parts that exist for the life of the process.
pub(super) struct RuntimeConfigBuilder {
    tokens: TokenStore,
    versions: Option<SessionVersions>,
    limits: SharedLimits,
    new_channels: NewChannels,
    /// Whether every channel is a group of a Channels layer.
    has_groups: bool,
    shutdown: Shutdown,
}

impl RuntimeConfigBuilder {
    pub fn new(engine: &Engine, settings: &config::Engine, shutdown: &Shutdown) -> Self {
        let has_groups = has_groups(settings);
        Self {
            tokens: engine.tokens.clone(),
            versions: engine.versions.clone(),
            limits: engine.limits.clone(),
            new_channels: NewChannels::default(),
            has_groups,
            shutdown: shutdown.clone(),
        }
    }

    /// Builds the runtime configuration of `config`. Parts of `previous` whose settings have not changed are kept.
    /// Must run on the engine thread, which owns the connections to queues.
    ///
    /// # Errors
    /// A text that names the key that cannot be used.
    pub fn build(
        &self,
        config: Arc<Config>,
        previous: Option<&RuntimeConfig>,
    ) -> Result<RuntimeConfig, String> {
        let authenticator = match previous {
            Some(previous)
                if previous.config.tokens == config.tokens && previous.config.jwt == config.jwt =>
            {
                previous.authenticator.clone()
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
            HandshakeLimits {
                shared: self.limits.clone(),
                new_channels: self.new_channels.clone(),
                client: config.limits,
                tells_addresses_apart: config.server.tells_addresses_apart(),
            },
            config.reserved.clone().and_non_groups(self.has_groups),
        )?;
        let (upstreams, engine) = (&config.upstreams, &config.engine);
        let upstreams = match previous {
            Some(previous) => previous.upstreams.reconfigured(upstreams, engine, &self.shutdown)?,
            None => SharedUpstreams::new(upstreams, engine, &self.shutdown)?,
        };
        let proxied = previous.map(|previous| (&previous.config.proxy, &previous.proxied));
        let proxied = SharedProxy::new(&config, proxied);
        let handshake = Arc::new(handshake);
        Ok(RuntimeConfig { config, handshake, authenticator, upstreams, proxied })
    }
}

/// Whether every channel is a group of a Channels layer, which does not accept all channel names.
fn has_groups(engine: &config::Engine) -> bool {
    let EngineKind::Redis(redis) = &engine.kind else { return false };
    redis.channels.as_ref().is_some_and(|layer| layer.wire == ChannelsWire::Core)
}
