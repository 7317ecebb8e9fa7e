//! State that is split into parts by a key, each behind a lock of its own.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Parts that are locked on their own, so that threads rarely wait for each other.
pub struct Shards<T> {
    hasher: RandomState,
    shards: Box<[Mutex<T>]>,
}

impl<T> Shards<T> {
    /// `count` parts, each made by `make`; at least one.
    pub fn new(count: usize, make: impl Fn() -> T) -> Self {
        let shards = (0..count.max(1)).map(|_| Mutex::new(make())).collect();
        Self { hasher: RandomState::new(), shards }
    }

    /// Locks the part that `key` belongs to.
    pub fn lock(&self, key: &(impl Hash + ?Sized)) -> MutexGuard<'_, T> {
        let index = self.hasher.hash_one(key) as usize % self.shards.len();
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks one part after the other.
    #[cfg(test)]
    pub fn lock_each(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
