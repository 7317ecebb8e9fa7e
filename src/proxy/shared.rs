//! The part of the proxy that all threads share: the bound of its requests, and the replicas of its upstream.

use std::net::IpAddr;
use std::sync::Arc;

use super::in_flight::{InFlight, InFlightPermit};
use crate::config::{self, Config};
use crate::telemetry::proxy::ProxyFailure;
use crate::telemetry::replicas::ReplicaMetrics;
use crate::upstream::Pool;

/// Cheap to clone.
#[derive(Clone)]
pub struct SharedProxy {
    in_flight: InFlight,
    pub(super) pool: Arc<Pool>,
}

impl SharedProxy {
    /// Keeps the parts of `previous` whose settings have not changed, with their circuits and counts.
    pub fn new(config: &Config, previous: Option<(&config::Proxy, &Self)>) -> Self {
        let proxy = &config.proxy;
        let same = previous.filter(|(before, _)| {
            (&before.urls, before.balance, before.circuit)
                == (&proxy.urls, proxy.balance, proxy.circuit)
        });
        let pool = match same {
            Some((_, previous)) => Arc::clone(&previous.pool),
            None => {
                let metrics = ReplicaMetrics::of_proxy(proxy.urls.len());
                let urls = proxy.urls.iter().map(|url| url.as_str());
                Arc::new(Pool::new(urls, proxy.balance, proxy.circuit, metrics))
            }
        };
        Self { in_flight: InFlight::new(config, previous.map(|(_, it)| &it.in_flight)), pool }
    }

    /// Acquires a permit for a request of `client`.
    pub fn acquire(&self, client: IpAddr) -> Result<InFlightPermit, ProxyFailure> {
        self.in_flight.acquire(client)
    }
}
