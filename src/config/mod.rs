//! Checked settings, from the TOML file, the environment and the defaults.
//!
//! This module owns every setting's key, default, bounds and meaning. No other module sees a raw string
//! that should be a URL, a duration or a size. Each part of the gateway gets its own section, never the
//! whole [`Config`].
//!
//! The bounds hold for every value: durations are at most a year, sizes at most 1 GiB (`max_memory` 1 TiB), counts at most
//! 10^9, so that they can be added to clocks and multiplied by small numbers. Every placeholder of a
//! template has a value where the template is filled, and the upstream of every route exists.
//!
//! [`Config::load`] reads a file into the types of `settings`. The keys of a section are defined in the
//! file named after it; `section` and `context` read them and collect mistakes.

use std::collections::BTreeMap;
use std::sync::Arc;

mod celery;
mod channels;
mod checks;
mod context;
mod effective;
mod engine;
mod environment;
mod identity;
mod kinds;
mod kwargs;
mod limits;
mod load;
mod mistakes;
mod notices;
mod proxy;
mod raw_value;
mod redis_url;
#[cfg(test)]
mod reference;
mod request;
mod reserved;
mod route;
mod secret;
mod section;
mod server;
mod settings;
mod shared;
#[cfg(test)]
mod tests;
mod tls;
mod unused;
mod upstream;
mod value_template;
mod values;

pub use effective::{REDACTED, Setting, Source};
pub use environment::Environment;
pub use mistakes::Mistakes;
pub use redis_url::{CertificateCheck, RedisUrl};
pub use secret::Secret;
pub use settings::*;
pub use shared::SharedConfig;
pub use values::parse_duration;

use crate::protocol::ReservedChannels;

/// Every setting of one gateway process.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub server: Server,
    pub limits: ClientLimits,
    pub admin: Admin,
    pub shutdown: Shutdown,
    pub reload: Reload,
    pub engine: Engine,
    pub tokens: Tokens,
    pub jwt: Jwt,
    pub origins: Origins,
    pub proxy: Proxy,
    /// The routes in the order of the file; the first one that matches a request is used.
    pub routes: Vec<Arc<Route>>,
    pub replies: Vec<Arc<FixedReply>>,
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    pub tracing: Tracing,
    pub log: Log,
    /// The keys of Redis URLs with `ssl_cert_reqs=none`: their connections are encrypted, but the server is
    /// not authenticated.
    pub unchecked_redis: Vec<String>,
    /// Names in Redis that no channel may have.
    pub reserved: ReservedChannels,
    /// What was found while reading that is valid and probably not meant; see [`Config::notices`].
    pub load_notices: Vec<String>,
}
