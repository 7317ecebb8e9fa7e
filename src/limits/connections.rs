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
    /// The connections of each address, never 0, so that there are no more entries than connections. The lock is
    /// held for one lookup only.
    by_network: Mutex<HashMap<ClientNetwork, usize>>,
}

/// A permit for one connection of the process.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<Counts>);

/// A permit for one connection of a client address.
#[derive(Debug)]
pub struct IpPermit {
    counts: Arc<Counts>,
    network: ClientNetwork,
}

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
        let open = by_network.entry(network).or_default();
        if max > 0 && *open >= max {
            return None;
        }
        *open += 1;
        Some(IpPermit { counts: Arc::clone(counts), network })
    }

    /// The number of open connections of `network`.
    pub fn of_network(&self, network: ClientNetwork) -> usize {
        self.0.lock().get(&network).copied().unwrap_or_default()
    }
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, HashMap<ClientNetwork, usize>> {
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
        let mut by_network = self.counts.lock();
        if let Some(open) = by_network.get_mut(&self.network) {
            *open -= 1;
            if *open == 0 {
                by_network.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests;
