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
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Entry {
        expires: Duration,
        bytes: usize,
    }

    impl Expiring for Entry {
        fn is_expired(&self, now: Duration) -> bool {
            self.expires <= now
        }

        fn bytes(&self) -> usize {
            self.bytes
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn entry(expires: Duration, bytes: usize) -> Entry {
        Entry { expires, bytes }
    }

    fn insert(map: &ExpiringMap<Box<str>, Entry>, key: &str, entry: Entry) -> Result<(), Full> {
        map.lock(key).insert(key.into(), entry, SECOND)
    }

    #[test]
    fn expired_entries_are_swept() {
        let map = ExpiringMap::new(1_000_000);
        for n in 0..100_000 {
            insert(&map, &n.to_string(), entry(SECOND, 0)).unwrap();
        }
        assert!(map.len() <= 2 * SHARDS * SWEEP_FROM, "{}", map.len());
    }

    #[test]
    fn entries_that_live_are_kept_up_to_the_bound() {
        let map = ExpiringMap::with_bounds(1, 1000, usize::MAX);
        for n in 0..1000 {
            insert(&map, &n.to_string(), entry(2 * SECOND, 0)).unwrap();
        }
        assert_eq!(insert(&map, "one more", entry(2 * SECOND, 0)), Err(Full));
        assert_eq!(insert(&map, "7", entry(SECOND, 0)), Ok(()), "it takes its own place");
        assert_eq!(insert(&map, "one more", entry(2 * SECOND, 0)), Ok(()), "7 has expired");
        assert_eq!(map.lock("7").get("7"), None);
    }

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let map = ExpiringMap::with_bounds(1, 1000, 10);
        insert(&map, "a", entry(2 * SECOND, 6)).unwrap();
        assert_eq!(insert(&map, "b", entry(2 * SECOND, 6)), Err(Full));
        assert_eq!(insert(&map, "a", entry(2 * SECOND, 10)), Ok(()));
        assert_eq!(map.lock("a").remove("a"), Some(entry(2 * SECOND, 10)));
        insert(&map, "b", entry(SECOND, 10)).unwrap();
        assert_eq!(insert(&map, "c", entry(SECOND, 10)), Ok(()), "b has expired");
        assert_eq!(insert(&map, "too large", entry(SECOND, 11)), Err(Full));
    }

    #[test]
    fn a_default_entry_is_made_where_there_is_room() {
        let map = ExpiringMap::<Box<str>, Entry>::with_bounds(1, 1, usize::MAX);
        map.lock("a").get_or_default("a", SECOND).unwrap().expires = 2 * SECOND;
        assert_eq!(map.lock("a").get_or_default("a", SECOND).unwrap().expires, 2 * SECOND);
        assert_eq!(map.lock("b").get_or_default("b", SECOND), Err(Full));
    }
}
