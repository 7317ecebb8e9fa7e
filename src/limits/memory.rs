//! Limits in this process.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bucket::Gcra;
use super::window::Window;
use super::{Holder, Verdict};
use crate::leases::LEASE;
use crate::redis_link::EngineUnavailable;

/// Parts that are locked and swept on their own, so that neither takes long.
const SHARDS: usize = 64;
/// Buckets that are not full, and users with leases of one kind, that one shard keeps; a million in all.
const MAX_PER_SHARD: usize = 16 * 1024;
/// A shard with fewer is not worth sweeping.
const SWEEP_FROM: usize = 256;

/// Buckets, windows and leases by key. Bounded: a bucket that is full again, a window that ended and a lease that expired are swept;
/// beyond the bound a new key is refused as if the engine were down.
pub(super) struct MemoryLimits {
    began: Instant,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Default)]
struct Shard {
    /// When each will be full again, in microseconds since `began`.
    buckets: Swept<u64>,
    /// In milliseconds since `began`.
    windows: Swept<Window>,
    /// Holders and when their leases expire, in milliseconds since `began`.
    leases: Swept<Vec<(Holder, u64)>>,
}

impl MemoryLimits {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    pub(super) fn take(&self, key: &str, gcra: Gcra) -> Result<Verdict, EngineUnavailable> {
        let now = whole(self.began.elapsed().as_micros());
        let mut shard = self.shard(key);
        let full_at = shard.buckets.get(key, |full_at| *full_at > now)?;
        Ok(gcra.take(full_at, now))
    }

    pub(super) fn hit(
        &self,
        key: &str,
        limit: u32,
        per: Duration,
    ) -> Result<Verdict, EngineUnavailable> {
        let now = self.now_ms();
        let mut shard = self.shard(key);
        let window = shard.windows.get(key, |window| window.lives(now))?;
        Ok(window.hit(limit, whole(per.as_millis()), now))
    }

    /// A holder that has a lease already gets it anew. `retry_after` is the time until a lease
    /// expires. acquire.lua does the same.
    pub(super) fn acquire(
        &self,
        key: &str,
        holder: Holder,
        max: u32,
    ) -> Result<Verdict, EngineUnavailable> {
        let now = self.now_ms();
        let mut shard = self.shard(key);
        let leases = shard.leases.get(key, |leases| leases.iter().any(|(_, end)| *end > now))?;
        leases.retain(|(id, end)| *end > now && *id != holder);
        if leases.len() < usize::try_from(max).unwrap_or(usize::MAX) {
            leases.push((holder, now + whole(LEASE.as_millis())));
            return Ok(Verdict::Allowed);
        }
        let soonest = leases.iter().map(|(_, end)| *end).min().unwrap_or(now);
        Ok(Verdict::Refused { retry_after: Duration::from_millis(soonest.saturating_sub(now)) })
    }

    /// Also takes back a lease that expired: the holder is there, whatever the engine believed.
    pub(super) fn renew(&self, key: &str, holder: Holder) -> Result<(), EngineUnavailable> {
        let now = self.now_ms();
        let expires = now + whole(LEASE.as_millis());
        let mut shard = self.shard(key);
        let leases = shard.leases.get(key, |leases| leases.iter().any(|(_, end)| *end > now))?;
        match leases.iter_mut().find(|(id, _)| *id == holder) {
            Some((_, end)) => *end = expires,
            None => leases.push((holder, expires)),
        }
        Ok(())
    }

    pub(super) fn release(&self, key: &str, holder: Holder) {
        let mut shard = self.shard(key);
        if let Some(leases) = shard.leases.entries.get_mut(key) {
            leases.retain(|(id, _)| *id != holder);
            if leases.is_empty() {
                shard.leases.entries.remove(key);
            }
        }
    }

    /// Until the bucket is full, in microseconds.
    pub(super) fn look_at_bucket(&self, key: &str) -> u64 {
        let now = whole(self.began.elapsed().as_micros());
        self.shard(key).buckets.entries.get(key).map_or(0, |full_at| full_at.saturating_sub(now))
    }

    /// The count, and until the window ends.
    pub(super) fn look_at_window(&self, key: &str) -> (u64, Duration) {
        let now = self.now_ms();
        let shard = self.shard(key);
        shard.windows.entries.get(key).map_or_else(Default::default, |window| window.look(now))
    }

    /// How many leases live, until the first and until the last of them expires.
    pub(super) fn look_at_leases(&self, key: &str) -> (u64, Duration, Duration) {
        let now = self.now_ms();
        let shard = self.shard(key);
        let leases = shard.leases.entries.get(key).map(Vec::as_slice).unwrap_or_default();
        let live = || leases.iter().map(|(_, end)| *end).filter(|end| *end > now);
        let left = |end: Option<u64>| Duration::from_millis(end.map_or(0, |end| end - now));
        (live().count() as u64, left(live().min()), left(live().max()))
    }

    /// Forgets all of `key`; whether there was anything.
    pub(super) fn reset(&self, key: &str) -> bool {
        let mut shard = self.shard(key);
        let bucket = shard.buckets.entries.remove(key).is_some();
        let window = shard.windows.entries.remove(key).is_some();
        let leases = shard.leases.entries.remove(key).is_some();
        bucket || window || leases
    }

    fn now_ms(&self) -> u64 {
        whole(self.began.elapsed().as_millis())
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        let index = self.hasher.hash_one(key) as usize % self.shards.len();
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn whole(time: u128) -> u64 {
    u64::try_from(time).unwrap_or(u64::MAX)
}

/// A map whose dead entries are removed when it has doubled since the last time.
struct Swept<V> {
    entries: HashMap<Box<str>, V>,
    sweep_at: usize,
}

impl<V> Default for Swept<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), sweep_at: SWEEP_FROM }
    }
}

impl<V: Default> Swept<V> {
    /// The entry of `key`, made if there is none and room for it.
    fn get(&mut self, key: &str, lives: impl Fn(&V) -> bool) -> Result<&mut V, EngineUnavailable> {
        if !self.entries.contains_key(key) {
            if self.entries.len() >= self.sweep_at {
                self.entries.retain(|_, value| lives(value));
                self.sweep_at = (2 * self.entries.len()).clamp(SWEEP_FROM, MAX_PER_SHARD);
            }
            if self.entries.len() >= MAX_PER_SHARD {
                return Err(EngineUnavailable);
            }
        }
        Ok(self.entries.entry(key.into()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rate;

    impl MemoryLimits {
        fn keys(&self) -> usize {
            let count = |shard: &Mutex<Shard>| {
                let shard = shard.lock().unwrap();
                shard.buckets.entries.len()
                    + shard.windows.entries.len()
                    + shard.leases.entries.len()
            };
            self.shards.iter().map(count).sum()
        }
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let limits = MemoryLimits::new();
        let fast = Gcra::from(Rate { count: 1000, per: Duration::from_millis(1), burst: 1 });
        for user in 0..200_000 {
            assert_eq!(limits.take(&user.to_string(), fast), Ok(Verdict::Allowed));
        }
        assert!(limits.keys() < 2 * SHARDS * SWEEP_FROM, "{}", limits.keys());
    }

    #[test]
    fn windows_that_ended_are_forgotten() {
        let limits = MemoryLimits::new();
        for user in 0..200_000 {
            let verdict = limits.hit(&user.to_string(), 1, Duration::from_millis(1));
            assert_eq!(verdict, Ok(Verdict::Allowed));
        }
        assert!(limits.keys() < 2 * SHARDS * SWEEP_FROM, "{}", limits.keys());
    }

    #[test]
    fn beyond_the_bound_new_users_are_refused_and_known_ones_are_not() {
        let limits = MemoryLimits { shards: Box::new([Mutex::default()]), ..MemoryLimits::new() };
        let slow = Gcra::from(Rate { count: 2, per: Duration::from_secs(3600), burst: 2 });
        for user in 0..MAX_PER_SHARD {
            assert!(limits.take(&user.to_string(), slow).is_ok());
        }
        assert_eq!(limits.take("one too many", slow), Err(EngineUnavailable));
        assert_eq!(limits.take("0", slow), Ok(Verdict::Allowed));
    }

    #[test]
    fn released_places_leave_nothing_behind() {
        let limits = MemoryLimits::new();
        let holder = Holder::random();
        limits.acquire("k", holder, 1).unwrap();
        limits.release("k", holder);
        limits.release("k", holder);
        assert_eq!(limits.keys(), 0);
    }
}
