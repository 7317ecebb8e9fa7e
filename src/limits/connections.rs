//! Counts the open connections of this process, in total and by client address.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::protocol::ClientNetwork;
use crate::telemetry;

/// The counts of open connections, shared by all threads. A connection is counted until its permit is dropped.
#[derive(Debug, Clone, Default)]
pub struct ConnectionCounts(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    /// The networks that have connections, so that there are no more entries than connections. The lock is held for one
    /// lookup only.
    by_network: Mutex<HashMap<ClientNetwork, Arc<NetworkCount>>>,
}

/// The open connections of one network, which its permits share.
#[derive(Debug)]
struct NetworkCount {
    counts: Arc<Counts>,
    network: ClientNetwork,
    /// Never 0 while it is in the map. Written under the lock of the map.
    open: AtomicUsize,
}

/// A permit for one connection of the process.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<Counts>);

/// A permit for one connection of a client address.
#[derive(Debug)]
pub struct IpPermit(Arc<NetworkCount>);

impl ConnectionCounts {
    /// Acquires one of `max` permits of the process; `None` if all are in use.
    pub fn acquire(&self, max: usize) -> Option<ConnectionPermit> {
        let counts = &self.0;
        counts
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < max).then_some(open + 1)
            })
            .ok()?;
        telemetry::connections::client_socket_opened();
        Some(ConnectionPermit(Arc::clone(counts)))
    }

    /// Acquires one of `max` permits of `network`; `None` if all are in use. 0 means that there is no limit.
    pub fn acquire_ip(&self, network: ClientNetwork, max: usize) -> Option<IpPermit> {
        let counts = &self.0;
        let mut by_network = counts.lock();
        let count = by_network.entry(network).or_insert_with(|| {
            let counts = Arc::clone(counts);
            Arc::new(NetworkCount { counts, network, open: AtomicUsize::new(0) })
        });
        // A new count is 0, and no limit is smaller than 1.
        if max > 0 && count.open.load(Ordering::Relaxed) >= max {
            return None;
        }
        count.open.fetch_add(1, Ordering::Relaxed);
        Some(IpPermit(Arc::clone(count)))
    }

    /// The number of open connections of `network`.
    pub fn of_network(&self, network: ClientNetwork) -> usize {
        let by_network = self.0.lock();
        by_network.get(&network).map_or(0, |count| count.open.load(Ordering::Relaxed))
    }
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, HashMap<ClientNetwork, Arc<NetworkCount>>> {
        self.by_network.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        telemetry::connections::client_socket_closed();
    }
}

impl Drop for IpPermit {
    fn drop(&mut self) {
        let NetworkCount { counts, network, open } = &*self.0;
        let mut by_network = counts.lock();
        if open.fetch_sub(1, Ordering::Relaxed) == 1 {
            by_network.remove(network);
        }
    }
}

#[cfg(test)]
mod tests;
