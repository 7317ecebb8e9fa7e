//! Rates of client addresses in this process: a token bucket for each network that was active lately.
//!
//! The buckets are bounded. A network that there is no room for is not limited: that takes more networks at the
//! end of their rates at the same time than one attacker has addresses for.

use std::sync::Arc;
use std::time::Duration;

use super::{LimitStatus, LocalBucket, Verdict};
use crate::config::Rate;
use crate::expiring_map::{Expiring, ExpiringMap};
use crate::protocol::ClientNetwork;

/// The most networks whose buckets are kept, about 4 MB.
const MAX_NETWORKS: usize = 64 * 1024;

/// The buckets of one rate, shared by all threads. Cheap to clone.
#[derive(Clone)]
pub struct NetworkRates(Arc<ExpiringMap<ClientNetwork, LocalBucket>>);

impl Expiring for LocalBucket {
    /// A full bucket is as good as none.
    fn is_expired(&self, now: Duration) -> bool {
        self.is_full(now)
    }
}

impl Default for NetworkRates {
    fn default() -> Self {
        Self(Arc::new(ExpiringMap::new(MAX_NETWORKS)))
    }
}

impl NetworkRates {
    /// Takes one token from the bucket of `network`. Without a rate there is no limit.
    pub fn take(&self, network: ClientNetwork, rate: Option<Rate>) -> Verdict {
        match rate {
            Some(rate) => self.take_at(network, rate, self.0.now()),
            None => Verdict::Allowed,
        }
    }

    /// The status of the bucket of `network`, which does not change it.
    pub fn status(&self, network: ClientNetwork, rate: Rate) -> LimitStatus {
        let now = self.0.now();
        let bucket = self.0.lock(&network).get(&network).copied();
        bucket.unwrap_or_default().status(rate, now)
    }

    fn take_at(&self, network: ClientNetwork, rate: Rate, now: Duration) -> Verdict {
        let mut buckets = self.0.lock(&network);
        if let Some(bucket) = buckets.get_mut(&network) {
            return bucket.take(rate, now);
        }
        let mut bucket = LocalBucket::default();
        let verdict = bucket.take(rate, now);
        // A full map forgets this one only.
        let _ = buckets.insert(network, bucket, now);
        verdict
    }
}

#[cfg(test)]
mod tests;
