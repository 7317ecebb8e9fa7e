//! `[server]`, `[admin]`, `[shutdown]`, `[origins]`, `[proxy]`, `[tracing]` and `[log]`.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use ipnet::IpNet;
use url::Url;

use super::{Rate, Secret};
use crate::protocol::OriginPattern;

/// `[server]`: the public port.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    pub listen: SocketAddr,
    /// Another gateway may listen on the same addresses (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Worker threads, each with its own runtime and listener socket. Already resolved: never 0.
    pub threads: usize,
    /// Open public connections of the whole process, whatever they are doing.
    pub max_connections: usize,
    /// Open public connections of one client address; 0 = no limit.
    pub max_connections_per_ip: usize,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// From accept, or from the end of the last response, to the end of a request's head.
    pub header_timeout: Duration,
    /// A request head larger than this is refused with 431.
    pub max_header_bytes: usize,
}

/// `[admin]`: metrics, health and the server API.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    pub listen: SocketAddr,
    /// Keys that open the server API; none = the API answers 403.
    pub api_keys: Vec<Secret>,
}

/// `[shutdown]`: what SIGTERM does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shutdown {
    /// Open sockets are closed with 1012 spread evenly over this time.
    pub drain: Duration,
    /// What is left after `drain` has this long to end before it is cut.
    pub grace: Duration,
}

impl Shutdown {
    /// After the beginning of a drain, whatever still runs says that it is cut, while that can still
    /// be published.
    pub fn last_words_after(&self) -> Duration {
        const WORDS: Duration = Duration::from_millis(250);
        let end = self.drain + self.grace;
        (self.drain + self.grace / 2).min(end.saturating_sub(WORDS))
    }
}

/// `[origins]`: the allowlist of RFC 6454 origins.
#[derive(Debug, Clone, PartialEq)]
pub struct Origins {
    pub allow: Vec<OriginPattern>,
    pub missing: MissingOrigin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingOrigin {
    Allow,
    Reject,
}

/// `[proxy]`: where requests go that are no route.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    pub upstream: Option<Url>,
    /// To the response's head; the body may last as long as it flows.
    pub timeout: Duration,
}

/// `[reload]`: when the config is read again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reload {
    /// How often the file is looked at; `None` = only when SIGHUP comes.
    pub watch: Option<Duration>,
}

/// `[tracing]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// `None` = no spans.
    pub otlp_endpoint: Option<Url>,
    /// Their values are secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// 0 to 1.
    pub sample_ratio: f64,
    pub service_name: String,
    pub timeout: Duration,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    pub format: LogFormat,
    /// A `tracing-subscriber` filter: `info`, `tidegate=debug,warn`.
    pub level: String,
    /// Lines of a kind that are written within an interval; `None` = all.
    pub repeats: Option<Rate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
