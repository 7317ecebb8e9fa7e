//! The part of the upstreams that all threads share.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::Uri;
use rustls::ClientConfig;

use super::celery::Celery;
use super::gate::Gate;
use super::on_complete::OnComplete;
use super::queue::{Queue, QueueKind};
use crate::config::{self, UpstreamKind};
use crate::http_client;
use crate::protocol::Template;
use crate::shutdown::Shutdown;

/// The upstreams by name, with their limits, circuit breakers, metrics and queue connections.
#[derive(Clone)]
pub struct SharedUpstreams(Arc<BTreeMap<String, Arc<Upstream>>>);

pub(super) struct Upstream {
    pub config: Arc<config::Upstream>,
    pub gate: Gate,
    pub transport: Transport,
    /// The URL of each replica of an HTTP upstream, if it is the same for all messages.
    pub fixed_urls: Box<[Option<Uri>]>,
    /// It posts the replies of this upstream that have ended; `None` = they are not posted.
    pub on_complete: Option<Arc<OnComplete>>,
}

/// How all threads reach an upstream.
pub(super) enum Transport {
    /// Each thread has its own client, with these TLS settings.
    Http(Arc<ClientConfig>),
    Queue(Queue),
    Celery(Celery),
}

impl SharedUpstreams {
    /// Starts queue connections on the current runtime. `Err` names the upstream and what is wrong with it.
    pub fn new(
        upstreams: &BTreeMap<String, Arc<config::Upstream>>,
        engine: &config::Engine,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        Self::build(upstreams, engine, shutdown, None)
    }

    /// Applies new settings. Upstreams that did not change keep their limits, circuit breakers and
    /// connections. The others are built again; their requests in flight finish on the previous ones.
    pub fn reconfigured(
        &self,
        upstreams: &BTreeMap<String, Arc<config::Upstream>>,
        engine: &config::Engine,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        Self::build(upstreams, engine, shutdown, Some(self))
    }

    fn build(
        upstreams: &BTreeMap<String, Arc<config::Upstream>>,
        engine: &config::Engine,
        shutdown: &Shutdown,
        previous: Option<&Self>,
    ) -> Result<Self, String> {
        let mut shared = BTreeMap::new();
        for (name, config) in upstreams {
            let same = previous.and_then(|previous| previous.get(name));
            if let Some(same) = same.filter(|same| same.config == *config) {
                shared.insert(name.clone(), Arc::clone(same));
                continue;
            }
            let failed = |error| format!("upstream.{name}: {error}");
            let transport = Transport::start(config, engine, shutdown).map_err(failed)?;
            let on_complete = match &config.kind {
                UpstreamKind::Http(http) => http.on_complete.as_deref(),
                _ => None,
            };
            let on_complete = on_complete.map(|it| OnComplete::new(name, it)).transpose();
            let on_complete = on_complete.map_err(failed)?;
            let config = Arc::clone(config);
            let fixed_urls = match &config.kind {
                UpstreamKind::Http(http) => http.urls.iter().map(fixed_url).collect(),
                _ => Box::default(),
            };
            let gate = Gate::new(&config);
            let upstream = Upstream { gate, config, transport, fixed_urls, on_complete };
            shared.insert(name.clone(), Arc::new(upstream));
        }
        Ok(Self(Arc::new(shared)))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.0.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Arc<Upstream>)> {
        self.0.iter()
    }

    /// Whether the Redis of every queue can be reached and accepts messages.
    pub fn queues_are_up(&self) -> bool {
        self.check_queues().all(|(_, checked)| checked.is_ok())
    }

    /// The names of the upstreams with a queue, and why messages cannot be added to it.
    pub fn check_queues(&self) -> impl Iterator<Item = (&str, Result<(), String>)> {
        self.0.iter().filter_map(|(name, upstream)| Some((&**name, upstream.transport.check()?)))
    }
}

/// The URL that a template without placeholders is.
fn fixed_url(template: &Template) -> Option<Uri> {
    let is_fixed = template.names().next().is_none();
    is_fixed.then(|| template.as_str().parse().ok()).flatten()
}

impl Transport {
    fn start(
        config: &config::Upstream,
        engine: &config::Engine,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        match &config.kind {
            UpstreamKind::RedisStream(queue) => {
                let kind = QueueKind::Stream;
                Queue::start(queue, kind, &config.name, engine, shutdown).map(Self::Queue)
            }
            UpstreamKind::RedisList(queue) => {
                let kind = QueueKind::List;
                Queue::start(queue, kind, &config.name, engine, shutdown).map(Self::Queue)
            }
            UpstreamKind::Celery(celery) => {
                Celery::start(celery, &config.name, shutdown).map(Self::Celery)
            }
            UpstreamKind::Http(http) => {
                let is_secure = http.urls.iter().any(|url| url.as_str().starts_with("https://"));
                http_client::tls_config(is_secure).map(Self::Http)
            }
            UpstreamKind::WebSocket(socket) => {
                let is_secure = socket.urls.iter().any(|url| url.as_str().starts_with("wss://"));
                http_client::tls_config(is_secure).map(Self::Http)
            }
        }
    }

    /// `None` for an upstream that has no Redis.
    fn check(&self) -> Option<Result<(), String>> {
        match self {
            Self::Http(_) => None,
            Self::Queue(queue) => Some(queue.check()),
            Self::Celery(celery) => Some(celery.check()),
        }
    }
}
