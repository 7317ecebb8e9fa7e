//! Builds the runtime configuration from the config, at the start and at each reload.

use std::sync::Arc;

use super::engine::Engine;
use crate::acme;
use crate::config::{self, ChannelsWire, Config, EngineKind};
use crate::handshake::{Handshake, HandshakeLimits, Routes};
use crate::limits::{NewChannels, SharedLimits};
use crate::listener::RuntimeConfig;
use crate::proxy::SharedProxy;
use crate::shutdown::Shutdown;
use crate::socket::TlsAcceptor;
use crate::tls::Tickets;
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
    /// With which TLS sessions are resumed.
    tickets: Tickets,
    shutdown: Shutdown,
}

impl RuntimeConfigBuilder {
    /// # Errors
    /// The system has no randomness.
    pub fn new(
        engine: &Engine,
        settings: &config::Engine,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        let has_groups = has_groups(settings);
        Ok(Self {
            tokens: engine.tokens.clone(),
            versions: engine.versions.clone(),
            limits: engine.limits.clone(),
            new_channels: NewChannels::default(),
            has_groups,
            tickets: Tickets::new()?,
            shutdown: shutdown.clone(),
        })
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
        let (tls, admin_tls) = self.acceptors(&config, previous)?;
        let handshake = Arc::new(handshake);
        Ok(RuntimeConfig { config, handshake, authenticator, upstreams, proxied, tls, admin_tls })
    }
}

type Acceptor = Option<Arc<TlsAcceptor>>;

impl RuntimeConfigBuilder {
    /// What TLS handshakes of the public port and of the admin port need.
    fn acceptors(
        &self,
        config: &Config,
        previous: Option<&RuntimeConfig>,
    ) -> Result<(Acceptor, Acceptor), String> {
        let of_public = previous.and_then(|previous| previous.tls.as_ref());
        let of_admin = previous.and_then(|previous| previous.admin_tls.as_ref());
        let before = previous.map(|previous| &previous.config);
        let public = match &config.server.tls {
            None => None,
            tls if before.is_some_and(|before| {
                before.server.tls == *tls && before.server.http2 == config.server.http2
            }) =>
            {
                of_public.cloned()
            }
            Some(tls) => {
                let previous = of_public.map(|previous| &**previous);
                let http2 = config.server.http2;
                let challenges = tls.acme.as_ref().map(acme::challenge_digests);
                let tickets = &self.tickets;
                Some(Arc::new(TlsAcceptor::public(tls, http2, tickets, challenges, previous)?))
            }
        };
        let admin = match &config.admin.tls {
            None => None,
            tls if before.is_some_and(|before| before.admin.tls == *tls) => of_admin.cloned(),
            Some(tls) => {
                let previous = of_admin.map(|previous| &**previous);
                Some(Arc::new(TlsAcceptor::admin(tls, previous)?))
            }
        };
        Ok((public, admin))
    }
}

/// Whether every channel is a group of a Channels layer, which does not accept all channel names.
fn has_groups(engine: &config::Engine) -> bool {
    let EngineKind::Redis(redis) = &engine.kind else { return false };
    redis.channels.as_ref().is_some_and(|layer| layer.wire == ChannelsWire::Core)
}
