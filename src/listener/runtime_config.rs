//! The runtime configuration: the value that a reload replaces.

use std::sync::Arc;

use crate::config::Config;
use crate::handshake::Handshake;
use crate::proxy::SharedProxy;
use crate::replies::ThreadConfig;
use crate::socket::TlsAcceptor;
use crate::tokens::Authenticator;
use crate::upstream::{SharedUpstreams, Upstreams};

/// The configuration in force and what is built from it, shared by all threads.
pub struct RuntimeConfig {
    pub config: Arc<Config>,
    pub handshake: Arc<Handshake>,
    pub authenticator: Authenticator,
    pub upstreams: SharedUpstreams,
    pub proxied: SharedProxy,
    /// `None` = the public port speaks plain HTTP.
    pub tls: Option<Arc<TlsAcceptor>>,
    /// `None` = the admin port speaks plain HTTP.
    pub admin_tls: Option<Arc<TlsAcceptor>>,
}

impl RuntimeConfig {
    /// The part that the sessions of the calling thread use. Connections of `previous` to upstreams
    /// whose settings have not changed are kept.
    pub(super) fn for_thread(&self, previous: Option<&ThreadConfig>) -> ThreadConfig {
        ThreadConfig {
            config: Arc::clone(&self.config),
            upstreams: match previous {
                Some(previous) => previous.upstreams.reconfigured(&self.upstreams),
                None => Upstreams::new(&self.upstreams),
            },
            authenticator: self.authenticator.clone(),
        }
    }
}
