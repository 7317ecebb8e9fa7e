//! The configuration that one worker thread works by.

use std::sync::Arc;

use crate::config::Config;
use crate::tokens::Authenticator;
use crate::upstream::Upstreams;

/// Replaced as a whole by a reload.
pub struct ThreadConfig {
    pub config: Arc<Config>,
    pub upstreams: Upstreams,
    pub authenticator: Authenticator,
}
