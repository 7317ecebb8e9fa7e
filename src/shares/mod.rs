//! Permits of a bound, of which each client may hold a share only, so that one client never takes them all.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(test)]
mod tests;

/// Returns the share of `max` that one client may hold: `configured`, or a quarter if that is 0.
pub fn share_of(max: usize, configured: usize) -> usize {
    if configured > 0 { configured.min(max) } else { max.div_ceil(4) }
}

/// The permits of one bound, shared by all threads. Cheap to clone.
#[derive(Debug)]
pub struct Shares<K>(Arc<Bound<K>>);

#[derive(Debug)]
struct Bound<K> {
    max: usize,
    share: usize,
    /// The lock is held for one lookup only.
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    /// At most `max`.
    total: usize,
    /// The permits of each client that holds any, at most `share`, so that there are no more entries than permits.
    by_client: HashMap<K, usize>,
}

/// Why a permit is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPermit {
    /// All permits are held.
    Full,
    /// The client holds its share.
    ShareFull,
}

/// A permit, given back when it is dropped.
pub struct SharePermit<K: Hash + Eq> {
    bound: Arc<Bound<K>>,
    client: K,
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Hash + Eq + Clone> Shares<K> {
    /// At most `max` permits, of which one client holds at most `share`.
    pub fn new(max: usize, share: usize) -> Self {
        let held = Mutex::new(Held { total: 0, by_client: HashMap::new() });
        Self(Arc::new(Bound { max, share, held }))
    }

    pub fn try_acquire(&self, client: &K) -> Result<SharePermit<K>, NoPermit> {
        let mut held = self.0.held();
        if held.total >= self.0.max {
            return Err(NoPermit::Full);
        }
        if held.by_client.get(client).is_some_and(|count| *count >= self.0.share) {
            return Err(NoPermit::ShareFull);
        }
        held.total += 1;
        *held.by_client.entry(client.clone()).or_default() += 1;
        Ok(SharePermit { bound: Arc::clone(&self.0), client: client.clone() })
    }
}

impl<K> Bound<K> {
    /// The lock is held for a few instructions, which cannot leave the counts inconsistent if they panic.
    fn held(&self) -> MutexGuard<'_, Held<K>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Drop for SharePermit<K> {
    fn drop(&mut self) {
        let mut held = self.bound.held();
        held.total -= 1;
        if let Some(count) = held.by_client.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                held.by_client.remove(&self.client);
            }
        }
    }
}

impl<K: Hash + Eq + fmt::Debug> fmt::Debug for SharePermit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharePermit").field(&self.client).finish()
    }
}
