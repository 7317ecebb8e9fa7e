//! Checked settings: what the TOML file, the environment and the defaults came to.
//!
//! This module owns every setting's key, default, bounds and meaning. Nothing outside of it sees a
//! raw string that should be a URL, a duration or a size. Each part of the gateway is handed its own
//! section, never the whole [`Config`].
//!
//! Bounds hold for every value that gets here: durations are at most a year, sizes at most 1 GiB,
//! counts at most 10^9, so they can be added to clocks and multiplied by small numbers. Every
//! placeholder of a template has a value where the template is filled, and every route's upstream
//! exists.
//!
//! [`Config::load`] reads a file into the types of `settings`; the sections' keys are defined one by one
//! in the files named after them, and `reader` and `section` collect what is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

mod celery;
mod channels;
mod checks;
mod effective;
mod engine;
mod environment;
mod given;
mod identity;
mod kinds;
mod limits;
mod load;
mod mistakes;
mod reader;
mod redis_url;
mod reference;
mod route;
mod secret;
mod section;
mod server;
mod settings;
mod shared;
#[cfg(test)]
mod tests;
mod upstream;
mod values;

pub use effective::{REDACTED, Setting, Source};
pub use environment::Environment;
pub use mistakes::{Mistake, Mistakes};
pub use redis_url::{CertificateCheck, RedisUrl};
pub use reference::reference;
pub use secret::Secret;
pub use settings::*;
pub use shared::SharedConfig;
pub use values::duration as parse_duration;

/// Every setting of one gateway process.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub server: Server,
    pub admin: Admin,
    pub shutdown: Shutdown,
    pub reload: Reload,
    pub engine: Engine,
    pub tokens: Tokens,
    pub jwt: Jwt,
    pub origins: Origins,
    pub proxy: Proxy,
    /// In the order of the file; the first whose path matches takes the request.
    pub routes: Vec<Arc<Route>>,
    pub replies: Vec<Arc<FixedReply>>,
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    pub tracing: Tracing,
    pub log: Log,
    /// Keys of Redis URLs that say `ssl_cert_reqs=none`: encrypted, to whoever answers.
    pub unchecked_redis: Vec<String>,
}
