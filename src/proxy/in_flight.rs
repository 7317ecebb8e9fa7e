//! The bound of requests to the proxy's upstream, of which each client address has a share.

use std::net::IpAddr;

use crate::config::Config;
use crate::protocol::ClientNetwork;
use crate::shares::{NoPermit, SharePermit, Shares, share_of};
use crate::telemetry::proxy::ProxyFailure;

/// A permit for one request, held until the last byte of its answer was sent.
pub type InFlightPermit = SharePermit<ClientNetwork>;

/// The requests in flight of all threads. Cheap to clone.
#[derive(Clone)]
pub struct InFlight {
    requests: Shares<ClientNetwork>,
    /// The settings that it was made from.
    bounds: Bounds,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Bounds {
    max: usize,
    share: usize,
    ipv6_prefix: u8,
}

impl Bounds {
    fn of(config: &Config) -> Self {
        let max = config.proxy.max_in_flight;
        let share = match config.server.tells_addresses_apart() {
            true => share_of(max, config.proxy.max_in_flight_per_ip),
            // Everybody may be behind one address.
            false => max,
        };
        Self { max, share, ipv6_prefix: config.limits.ipv6_prefix }
    }
}

impl InFlight {
    /// Counts on with `previous` if its bounds are the same.
    pub fn new(config: &Config, previous: Option<&Self>) -> Self {
        let bounds = Bounds::of(config);
        match previous {
            Some(previous) if previous.bounds == bounds => previous.clone(),
            _ => Self { requests: Shares::new(bounds.max, bounds.share), bounds },
        }
    }

    /// Acquires a permit for a request of `client`.
    pub fn acquire(&self, client: IpAddr) -> Result<InFlightPermit, ProxyFailure> {
        let network = ClientNetwork::of(client, self.bounds.ipv6_prefix);
        self.requests.try_acquire(&network).map_err(|refused| match refused {
            NoPermit::Full => ProxyFailure::Full,
            NoPermit::ShareFull => ProxyFailure::ShareFull,
        })
    }
}
