//! What clients are served by; a reload replaces it as a whole.

use std::sync::Arc;

use crate::config;
use crate::handshake::Handshake;
use crate::session;
use crate::tokens::Authenticator;
use crate::upstream::{Upstreams, UpstreamsShared};

/// Shared by all threads.
pub struct RuntimeConfig {
    pub server: config::Server,
    pub proxy: config::Proxy,
    pub routes: Vec<Arc<config::Route>>,
    pub handshake: Arc<Handshake>,
    pub authenticator: Authenticator,
    pub upstreams: UpstreamsShared,
    pub stop: config::Shutdown,
}

impl RuntimeConfig {
    /// What sessions need of it, with connections of the calling thread's own; those of `before` are kept
    /// where they lead to what is as it was.
    pub(super) fn of_thread(
        &self,
        before: Option<&session::ThreadConfig>,
    ) -> session::ThreadConfig {
        session::ThreadConfig {
            routes: self.routes.clone(),
            upstreams: match before {
                Some(before) => before.upstreams.renewed(&self.upstreams),
                None => Upstreams::new(&self.upstreams),
            },
            authenticator: self.authenticator.clone(),
            stop: self.stop,
        }
    }
}
