//! The limits of client addresses on this node, to be looked at.

use std::time::Duration;

use super::{ConnectionCounts, LimitStatus, LocalLimit, NetworkRates};
use crate::config::Config;
use crate::protocol::ClientNetwork;

/// What is counted by client address, shared by all threads. Cheap to clone.
#[derive(Clone, Default)]
pub struct AddressLimits {
    pub counts: ConnectionCounts,
    pub connects: NetworkRates,
    /// The most connections of one address where descriptors are few.
    pub share_of_descriptors: usize,
}

impl AddressLimits {
    /// The most open connections of one address; 0 = no limit.
    pub fn max_connections(&self, config: &Config) -> usize {
        config.server.max_connections_per_ip.min(self.share_of_descriptors)
    }

    /// The status of each limit of `network` that is set.
    pub fn statuses(
        &self,
        network: ClientNetwork,
        config: &Config,
    ) -> Vec<(LocalLimit, LimitStatus)> {
        let open = match self.max_connections(config) {
            0 => None,
            max => {
                let used = self.counts.of_network(network);
                // Nobody knows when one of them ends.
                let (retry_after, reset_after) = (Duration::from_secs(1), Duration::ZERO);
                Some(LimitStatus::of_count(max as u64, used as u64, retry_after, reset_after))
            }
        };
        let rate = config.limits.connects_per_ip;
        let connects = rate.map(|rate| self.connects.status(network, rate));
        [(LocalLimit::ConnectionsPerIp, open), (LocalLimit::ConnectsPerIp, connects)]
            .into_iter()
            .filter_map(|(limit, status)| Some((limit, status?)))
            .collect()
    }
}
