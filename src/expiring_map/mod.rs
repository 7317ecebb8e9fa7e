//! A map whose entries expire and whose size is bounded, for stores in this process.
//!
//! The map is split into [`Shards`], which are locked and swept on their own, so that neither takes long.
//! Expired entries stay until a sweep removes them: whoever reads an entry decides whether it still counts.
//! What happens when the map is full is up to the store.

mod shards;

pub use shards::Shards;

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

/// Into how many parts a map is split.
pub const SHARDS: usize = 64;
/// A shard with fewer entries is not worth sweeping.
pub const SWEEP_FROM: usize = 256;

/// An entry of an [`ExpiringMap`].
pub trait Expiring {
    /// Whether the entry may be removed. `now` is [`ExpiringMap::now`].
    fn is_expired(&self, now: Duration) -> bool;

    /// How many of the map's bytes the entry takes. It must not change while the entry is in the map.
    fn bytes(&self) -> usize {
        0
    }
}

/// There are as many entries, or bytes, as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// A sharded map whose entries expire, bounded in count and bytes.
pub struct ExpiringMap<K, V> {
    began: Instant,
    shards: Shards<Shard<K, V>>,
}

/// One part of the map, which its lock gives access to.
pub struct Shard<K, V> {
    /// At most `max_entries`, and `max_bytes` in all.
    entries: HashMap<K, V>,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
    /// The number of entries at which expired ones are removed.
    sweep_at: usize,
}

impl<K: Hash + Eq, V: Expiring> ExpiringMap<K, V> {
    /// A map of at most `max_entries`, evenly spread over its shards.
    pub fn new(max_entries: usize) -> Self {
        Self::with_bounds(SHARDS, max_entries, usize::MAX)
    }

    /// A map of at most `max_entries` and `max_bytes`, evenly spread over `shards` shards.
    pub fn with_bounds(shards: usize, max_entries: usize, max_bytes: usize) -> Self {
        let (max_entries, max_bytes) = (max_entries.div_ceil(shards), max_bytes.div_ceil(shards));
        let shard = || Shard {
            entries: HashMap::new(),
            bytes: 0,
            max_entries,
            max_bytes,
            sweep_at: SWEEP_FROM.min(max_entries),
        };
        Self { began: Instant::now(), shards: Shards::new(shards, shard) }
    }

    /// The time since the map was made, which its entries expire by.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Locks the shard that `key` belongs to. Other keys must not be used on it.
    pub fn lock<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> MutexGuard<'_, Shard<K, V>>
    where
        K: Borrow<Q>,
    {
        self.shards.lock(key)
    }

    /// How many entries there are, with those that have expired.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.shards.lock_each().map(|shard| shard.entries.len()).sum()
    }

    /// The bytes of all entries, with those that have expired.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.shards.lock_each().map(|shard| shard.bytes).sum()
    }
}

impl<K: Hash + Eq, V: Expiring> Shard<K, V> {
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key)
    }

    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key)
    }

    /// Puts an entry in the place of an earlier one, or where there is room for it.
    pub fn insert(&mut self, key: K, value: V, now: Duration) -> Result<(), Full> {
        self.remove(&key);
        if !self.make_room(value.bytes(), now) {
            return Err(Full);
        }
        self.bytes += value.bytes();
        self.entries.insert(key, value);
        Ok(())
    }

    /// The entry of `key`; a default one is made where there is none and room for it.
    pub fn get_or_default<Q: Hash + Eq + ?Sized>(
        &mut self,
        key: &Q,
        now: Duration,
    ) -> Result<&mut V, Full>
    where
        K: Borrow<Q> + for<'a> From<&'a Q>,
        V: Default,
    {
        if !self.entries.contains_key(key) && !self.make_room(V::default().bytes(), now) {
            return Err(Full);
        }
        Ok(self.entries.entry(key.into()).or_default())
    }

    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let value = self.entries.remove(key)?;
        self.bytes -= value.bytes();
        Some(value)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values()
    }

    /// Removes all entries that do not fulfil `keep`.
    pub fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.entries.retain(|_, value| keep(value));
        self.bytes = self.entries.values().map(V::bytes).sum();
    }

    /// Removes expired entries where the shard has doubled since the last time or is full. Returns whether
    /// there is room for one more entry of `bytes`.
    pub fn make_room(&mut self, bytes: usize, now: Duration) -> bool {
        if self.entries.len() >= self.sweep_at || !self.has_room(bytes) {
            self.retain(|value| !value.is_expired(now));
            let least = SWEEP_FROM.min(self.max_entries);
            self.sweep_at = (2 * self.entries.len()).clamp(least, self.max_entries);
        }
        self.has_room(bytes)
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.entries.len() < self.max_entries && self.bytes.saturating_add(bytes) <= self.max_bytes
    }
}

#[cfg(test)]
mod tests;
