//! Which clients' messages fill the memory budget of the node: they are refused and closed before others are refused.
//!
//! It is only measured while the budget is used up. Send queues are not counted: the largest of them are closed anyway,
//! and a publication that many clients have not read yet is nobody's own.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::protocol::ClientNetwork;
use crate::shares::share_of;

/// The bytes of messages by client network.
pub type HeldByClient = HashMap<ClientNetwork, usize>;

pub(super) struct ClientMemory {
    /// The latest measurement of each thread; empty while the budget is not used up.
    threads: Box<[Mutex<HeldByClient>]>,
    /// The networks that hold more than their share. They are fewer than the budget has shares.
    heavy: Mutex<HashSet<ClientNetwork>>,
    /// Whether the budget is used up even without what the heavy ones hold beyond their shares.
    refuses_all: AtomicBool,
}

impl ClientMemory {
    pub fn new(threads: usize) -> Self {
        Self {
            threads: (0..threads).map(|_| Mutex::default()).collect(),
            heavy: Mutex::default(),
            refuses_all: AtomicBool::default(),
        }
    }

    /// Replaces the measurement of a thread.
    pub fn measured(&self, thread: usize, held: HeldByClient) {
        *lock(&self.threads[thread]) = held;
    }

    /// Decides who is refused. `used` bytes of a budget of `max` are in use.
    pub fn decide(&self, used: usize, max: usize) {
        let mut held = HeldByClient::new();
        for thread in &self.threads {
            for (network, bytes) in lock(thread).iter() {
                *held.entry(*network).or_default() += bytes;
            }
        }
        let share = share_of(max, 0);
        held.retain(|_, bytes| *bytes > share);
        let beyond: usize = held.values().map(|bytes| bytes - share).sum();
        self.refuses_all.store(used.saturating_sub(beyond) > max - max / 10, Relaxed);
        *lock(&self.heavy) = held.into_keys().collect();
    }

    /// Whether clients of `network` are refused while the budget is used up.
    pub fn refuses(&self, network: ClientNetwork) -> bool {
        self.refuses_all.load(Relaxed) || self.is_heavy(network)
    }

    pub fn is_heavy(&self, network: ClientNetwork) -> bool {
        lock(&self.heavy).contains(&network)
    }
}

/// The locks are held for a lookup, or while a measurement is summed up.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
