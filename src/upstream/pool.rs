//! The replicas of an upstream: which one gets a request, and which are left out because they failed.
//!
//! Each replica has a circuit of its own. One that cannot be reached is avoided for as long as a circuit is open: it gets
//! requests only if no other takes them, so that a restart of all replicas at once leaves nobody out.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::circuit::{Circuit, CircuitPermit};
use crate::config::{self, Balance};
use crate::protocol::{ChannelName, SenderKey};
use crate::telemetry::replicas::ReplicaMetrics;

/// The replicas of one upstream or of the proxy, shared by all threads. An upstream without a URL has one.
pub struct Pool {
    replicas: Box<[Replica]>,
    balance: Balance,
    /// How long a replica is avoided.
    avoid: Duration,
    /// Rotates the replicas that have equally much in flight.
    rotation: AtomicUsize,
    pub(super) metrics: Arc<ReplicaMetrics>,
}

struct Replica {
    /// What a channel or user is mapped by; empty for the only one.
    url: Box<str>,
    circuit: Circuit,
    in_flight: Arc<AtomicUsize>,
    /// The end of the time in which it is avoided.
    avoided_until: Mutex<Option<Instant>>,
}

/// Whom a request is for, which decides about its replica.
#[derive(Clone, Copy)]
pub struct BalanceKey<'a> {
    pub channel: Option<&'a ChannelName>,
    pub sender: &'a SenderKey,
}

/// A replica for one request.
pub(super) struct Chosen<'a> {
    pub replica: usize,
    pub circuit: CircuitPermit<'a>,
    pub load: ReplicaLoad,
}

/// Counts a request, reply or socket as in flight at its replica, until it is dropped.
pub struct ReplicaLoad {
    in_flight: Arc<AtomicUsize>,
    metrics: Arc<ReplicaMetrics>,
    replica: usize,
}

/// The replicas that a request was sent to.
#[derive(Default, Clone, Copy)]
pub(super) struct Tried(u64);

impl Tried {
    pub fn with(self, replica: usize) -> Self {
        Self(self.0 | 1 << (replica % 64))
    }

    fn has(self, replica: usize) -> bool {
        self.0 & 1 << (replica % 64) != 0
    }
}

impl Pool {
    /// `urls` are those of the replicas; none = one replica that has none.
    pub fn new<'u>(
        urls: impl Iterator<Item = &'u str>,
        balance: Balance,
        circuit: config::Circuit,
        metrics: ReplicaMetrics,
    ) -> Self {
        let mut urls: Vec<Box<str>> = urls.map(Into::into).collect();
        if urls.is_empty() {
            urls.push("".into());
        }
        let metrics = Arc::new(metrics);
        let replica = |(number, url)| Replica {
            url,
            circuit: Circuit::new(circuit, Arc::clone(&metrics), number),
            in_flight: Arc::default(),
            avoided_until: Mutex::default(),
        };
        Self {
            replicas: urls.into_iter().enumerate().map(replica).collect(),
            balance,
            avoid: circuit.open,
            rotation: AtomicUsize::default(),
            metrics,
        }
    }

    /// Chooses a replica that was not tried yet. `None` = the circuits of all others are open.
    pub(super) fn choose(
        &self,
        by: BalanceKey<'_>,
        tried: Tried,
        now: Instant,
    ) -> Option<Chosen<'_>> {
        if let [only] = &*self.replicas {
            let circuit = only.circuit.try_acquire(by.sender, now).filter(|_| !tried.has(0))?;
            return Some(Chosen { replica: 0, circuit, load: self.load(0) });
        }
        let in_order = self.in_order(by, now);
        in_order.into_iter().filter(|replica| !tried.has(*replica)).find_map(|replica| {
            let circuit = self.replicas[replica].circuit.try_acquire(by.sender, now)?;
            Some(Chosen { replica, circuit, load: self.load(replica) })
        })
    }

    /// Returns the number of the best replica that was not tried yet, whether its circuit is open or not.
    pub(super) fn best(&self, by: BalanceKey<'_>, tried: Tried, now: Instant) -> Option<usize> {
        self.in_order(by, now).into_iter().find(|replica| !tried.has(*replica))
    }

    /// Whether there is more than one.
    pub(super) fn has_several(&self) -> bool {
        self.replicas.len() > 1
    }

    /// Returns the numbers of all replicas, the best first.
    fn in_order(&self, by: BalanceKey<'_>, now: Instant) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..self.replicas.len()).collect();
        let is_avoided = |number: &usize| self.replicas[*number].is_avoided(now);
        let key = match (self.balance, by.channel) {
            (Balance::Least, _) => {
                let first = self.rotation.fetch_add(1, Ordering::Relaxed) % numbers.len();
                numbers.rotate_left(first);
                let in_flight =
                    |number: &usize| self.replicas[*number].in_flight.load(Ordering::Relaxed);
                numbers.sort_by_cached_key(|number| (is_avoided(number), in_flight(number)));
                return numbers;
            }
            (Balance::Channel, Some(channel)) => channel.as_str().to_owned(),
            (Balance::Channel, None) | (Balance::User, _) => by.sender.to_string(),
        };
        // Each replica has a rank of its own for each key, so that the keys of one that is left out spread over all
        // others, and no other key moves.
        let rank = |number: &usize| Reverse(rank(&self.replicas[*number].url, &key));
        numbers.sort_by_cached_key(|number| (is_avoided(number), rank(number)));
        numbers
    }

    pub(super) fn load(&self, replica: usize) -> ReplicaLoad {
        let in_flight = Arc::clone(&self.replicas[replica].in_flight);
        in_flight.fetch_add(1, Ordering::Relaxed);
        self.metrics.load_changed(replica, 1.0);
        ReplicaLoad { in_flight, metrics: Arc::clone(&self.metrics), replica }
    }

    /// Avoids a replica that could not be reached.
    pub(super) fn avoid(&self, replica: usize, now: Instant) {
        if self.has_several() {
            let mut until = self.replicas[replica].avoided_until();
            *until = now.checked_add(self.avoid);
        }
    }
}

impl Replica {
    fn is_avoided(&self, now: Instant) -> bool {
        self.avoided_until().is_some_and(|until| until > now)
    }

    /// The lock is held for a comparison only.
    fn avoided_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.avoided_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ReplicaLoad {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.metrics.load_changed(self.replica, -1.0);
    }
}

/// The rank of a replica for a key, which is the same on all nodes.
fn rank(url: &str, key: &str) -> [u8; 8] {
    let digest = Sha256::new().chain_update(url).chain_update([0]).chain_update(key).finalize();
    std::array::from_fn(|index| digest[index])
}

#[cfg(test)]
mod tests;
