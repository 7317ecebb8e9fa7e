//! Open connections of this process: in all, and of each client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::telemetry;

/// Shared by all threads; permits give back what they took.
#[derive(Debug, Clone)]
pub struct ConnectionCounts(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    max: AtomicUsize,
    open: AtomicUsize,
    /// 0 = not limited.
    max_per_ip: AtomicUsize,
    /// Never holds a 0. Locked for one lookup at a time.
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
    pub fn new(max: usize, max_per_ip: usize) -> Self {
        telemetry::connections::client_sockets_limited(max);
        Self(Arc::new(Counts {
            max: AtomicUsize::new(max),
            open: AtomicUsize::new(0),
            max_per_ip: AtomicUsize::new(max_per_ip),
            by_ip: Mutex::default(),
        }))
    }

    /// Other limits from now on; who is in stays.
    pub fn set_limits(&self, max: usize, max_per_ip: usize) {
        telemetry::connections::client_sockets_limited(max);
        self.0.max.store(max, Ordering::Relaxed);
        self.0.max_per_ip.store(max_per_ip, Ordering::Relaxed);
    }

    /// `None` = the process is full.
    pub fn enter(&self) -> Option<ConnectionPermit> {
        let counts = &self.0;
        let max = counts.max.load(Ordering::Relaxed);
        counts
            .open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < max).then_some(open + 1)
            })
            .ok()?;
        telemetry::connections::client_socket_opened();
        Some(ConnectionPermit(Arc::clone(counts)))
    }

    /// `None` = `ip` has as many as it may.
    pub fn enter_ip(&self, ip: IpAddr) -> Option<IpPermit> {
        let counts = &self.0;
        let max = counts.max_per_ip.load(Ordering::Relaxed);
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
        let counts = ConnectionCounts::new(2, 1);
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
        let first = counts.enter().unwrap();
        let _second = counts.enter().unwrap();
        assert!(counts.enter().is_none());
        drop(first);
        assert!(counts.enter().is_some());
        let of_a = counts.enter_ip(a).unwrap();
        assert!(counts.enter_ip(a).is_none());
        assert!(counts.enter_ip(b).is_some());
        drop(of_a);
        assert!(counts.enter_ip(a).is_some());
        assert!(counts.0.lock().is_empty());
    }

    #[test]
    fn other_limits_leave_in_who_is_in() {
        let counts = ConnectionCounts::new(1, 1);
        let ip = "10.0.0.1".parse().unwrap();
        let held = (counts.enter().unwrap(), counts.enter_ip(ip).unwrap());
        counts.set_limits(2, 0);
        let more = (counts.enter().unwrap(), counts.enter_ip(ip).unwrap());
        counts.set_limits(1, 1);
        drop(more);
        assert!(counts.enter().is_none() && counts.enter_ip(ip).is_none());
        drop(held);
        assert!(counts.enter().is_some() && counts.enter_ip(ip).is_some());
    }
}
