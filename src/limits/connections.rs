//! Counts open connections of this process: in all, and of each client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::telemetry;

/// Shared by all threads. Dropped permits are given back.
#[derive(Debug, Clone, Default)]
pub struct ConnectionCounts(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    /// Contains no 0. It is locked for one lookup at a time.
    by_ip: Mutex<HashMap<IpAddr, usize>>,
}

/// One of the process's connections.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<Counts>);

/// One of an address's connections.
#[derive(Debug)]
pub struct IpPermit {
    counts: Arc<Counts>,
    ip: IpAddr,
}

impl ConnectionCounts {
    /// Takes one of `max` connections of the process; `None` if all are taken.
    pub fn enter(&self, max: usize) -> Option<ConnectionPermit> {
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

    /// Takes one of `max` connections of `ip`; `None` if all are taken. `max` = 0 means no limit.
    pub fn enter_ip(&self, ip: IpAddr, max: usize) -> Option<IpPermit> {
        let counts = &self.0;
        let mut by_ip = counts.lock();
        let open = by_ip.entry(ip).or_default();
        if max > 0 && *open >= max {
            return None;
        }
        *open += 1;
        Some(IpPermit { counts: Arc::clone(counts), ip })
    }
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_ip.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut by_ip = self.counts.lock();
        if let Some(open) = by_ip.get_mut(&self.ip) {
            *open -= 1;
            if *open == 0 {
                by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_give_back_what_they_took() {
        let counts = ConnectionCounts::default();
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
        let first = counts.enter(2).unwrap();
        let _second = counts.enter(2).unwrap();
        assert!(counts.enter(2).is_none());
        drop(first);
        assert!(counts.enter(2).is_some());
        let of_a = counts.enter_ip(a, 1).unwrap();
        assert!(counts.enter_ip(a, 1).is_none());
        assert!(counts.enter_ip(b, 1).is_some());
        drop(of_a);
        assert!(counts.enter_ip(a, 1).is_some());
        assert!(counts.0.lock().is_empty());
    }

    #[test]
    fn a_lower_limit_keeps_those_who_are_connected() {
        let counts = ConnectionCounts::default();
        let ip = "10.0.0.1".parse().unwrap();
        let held = (counts.enter(1).unwrap(), counts.enter_ip(ip, 1).unwrap());
        let more = (counts.enter(2).unwrap(), counts.enter_ip(ip, 0).unwrap());
        drop(more);
        assert!(counts.enter(1).is_none() && counts.enter_ip(ip, 1).is_none());
        drop(held);
        assert!(counts.enter(1).is_some() && counts.enter_ip(ip, 1).is_some());
    }
}
