//! The configuration that one worker thread works by.

use std::sync::Arc;

use crate::config::{self, Route};
use crate::tokens::Authenticator;
use crate::upstream::Upstreams;

/// Replaced as a whole by a reload.
pub struct ThreadConfig {
    /// A client is admitted on the first route whose path matches.
    pub routes: Vec<Arc<Route>>,
    pub upstreams: Upstreams,
    pub authenticator: Authenticator,
    pub stop: config::Shutdown,
}
