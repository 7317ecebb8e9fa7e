//! How long the close of a refused client waits.
//!
//! A page whose script takes an open socket for a success reconnects at once, however often it is refused. The wait
//! makes such a page slower. It doubles with each refusal of the same address, and nothing of an address is kept
//! for longer than [`MEMORY`]. Both the addresses and the waiting clients are bounded: beyond the bounds a close
//! waits for the shortest time, or not at all.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::expiring_map::{Expiring, ExpiringMap};
use crate::protocol::ClientNetwork;
use crate::telemetry;

/// How long a refusal of an address counts.
const MEMORY: Duration = Duration::from_secs(60);

/// The most addresses that are remembered, about 4 MB.
const MAX_ADDRESSES: usize = 64 * 1024;

/// The most refused clients of the process that wait for their close.
const MAX_WAITING: usize = 1024;

/// After this many doublings a close waits for the longest time.
const DOUBLINGS: u32 = 4;

/// The recent refusals of all addresses, shared by all threads. Cheap to clone.
#[derive(Clone)]
pub struct RefusalDelays {
    recent: Arc<ExpiringMap<ClientNetwork, Recent>>,
    places: Arc<Semaphore>,
}

/// The refusals of one address.
struct Recent {
    count: u32,
    last: Duration,
}

impl Expiring for Recent {
    fn is_expired(&self, now: Duration) -> bool {
        now.saturating_sub(self.last) >= MEMORY
    }
}

/// How long one close waits, and its place among those that wait.
pub struct RefusalDelay {
    pub duration: Duration,
    _place: OwnedSemaphorePermit,
}

impl Default for RefusalDelays {
    fn default() -> Self {
        Self {
            recent: Arc::new(ExpiringMap::new(MAX_ADDRESSES)),
            places: Arc::new(Semaphore::new(MAX_WAITING)),
        }
    }
}

impl RefusalDelays {
    /// Counts a refusal of `network`, and returns how long its close waits, at most `longest`. `None` if it does not
    /// wait: `longest` is 0, or too many clients wait already.
    pub fn refuse(&self, network: ClientNetwork, longest: Duration) -> Option<RefusalDelay> {
        if longest.is_zero() {
            return None;
        }
        let duration = self.count(network, longest, self.recent.now());
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        telemetry::connections::refusal_delayed(network, duration, place.is_some());
        Some(RefusalDelay { duration, _place: place? })
    }

    /// Counts a refusal at `now`. An address that there is no room for counts as new.
    fn count(&self, network: ClientNetwork, longest: Duration, now: Duration) -> Duration {
        let mut recent = self.recent.lock(&network);
        let earlier = recent.get(&network).filter(|recent| !recent.is_expired(now));
        let earlier = earlier.map_or(0, |recent| recent.count);
        let count = earlier.saturating_add(1);
        // A full map forgets this refusal only.
        let _ = recent.insert(network, Recent { count, last: now }, now);
        longest / 2_u32.pow(DOUBLINGS - earlier.min(DOUBLINGS))
    }
}

#[cfg(test)]
mod tests;
