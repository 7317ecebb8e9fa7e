//! Limits in the memory of this process.

use std::time::Duration;

use super::bucket::Gcra;
use super::demand::Demand;
use super::turns::WAITING_LEASE;
use super::window::Window;
use super::{Holder, Turn, Verdict};
use crate::expiring_map::{Expiring, ExpiringMap, Full};
use crate::leases::LEASE;
use crate::redis_link::EngineUnavailable;

/// The most keys of each kind: buckets that are not full, open windows, and groups of leases.
const MAX_KEYS: usize = 1024 * 1024;

/// Buckets, windows and leases by key. Beyond [`MAX_KEYS`], new keys are refused as if the engine were unavailable.
pub(super) struct MemoryLimits {
    buckets: ExpiringMap<Box<str>, Bucket>,
    windows: ExpiringMap<Box<str>, Window>,
    leases: ExpiringMap<Box<str>, Leases>,
    /// Those that wait for a lease of `leases`, in their order.
    queues: ExpiringMap<Box<str>, Leases>,
}

/// The time when a bucket will be full again, in microseconds since the map was created.
#[derive(Default)]
struct Bucket(u64);

/// The holders, and the times when their leases expire.
#[derive(Default)]
struct Leases(Vec<(Holder, Duration)>);

impl Expiring for Bucket {
    fn is_expired(&self, now: Duration) -> bool {
        self.0 <= micros(now)
    }
}

impl Expiring for Window {
    fn is_expired(&self, now: Duration) -> bool {
        !self.is_open(millis(now))
    }
}

impl Expiring for Leases {
    fn is_expired(&self, now: Duration) -> bool {
        self.0.iter().all(|(_, end)| *end <= now)
    }
}

impl From<Full> for EngineUnavailable {
    fn from(_: Full) -> Self {
        Self
    }
}

impl MemoryLimits {
    pub(super) fn new() -> Self {
        Self {
            buckets: ExpiringMap::new(MAX_KEYS),
            windows: ExpiringMap::new(MAX_KEYS),
            leases: ExpiringMap::new(MAX_KEYS),
            queues: ExpiringMap::new(MAX_KEYS),
        }
    }

    pub(super) fn take(
        &self,
        key: &str,
        gcra: Gcra,
        demand: Demand,
    ) -> Result<Verdict, EngineUnavailable> {
        let now = self.buckets.now();
        let mut shard = self.buckets.lock(key);
        let Bucket(full_at) = shard.get_or_default(key, now)?;
        Ok(gcra.take(demand, full_at, micros(now)))
    }

    pub(super) fn hit(
        &self,
        key: &str,
        limit: u32,
        per: Duration,
        demand: Demand,
    ) -> Result<Verdict, EngineUnavailable> {
        let now = self.windows.now();
        let mut shard = self.windows.lock(key);
        Ok(shard.get_or_default(key, now)?.hit(demand, limit, millis(per), millis(now)))
    }

    /// Grants `holder` one of `max` leases, or renews the one that it has. `retry_after` is the time until a lease
    /// expires. acquire.lua does the same.
    pub(super) fn acquire(
        &self,
        key: &str,
        holder: Holder,
        max: u32,
    ) -> Result<Verdict, EngineUnavailable> {
        let now = self.leases.now();
        let mut shard = self.leases.lock(key);
        let Leases(leases) = shard.get_or_default(key, now)?;
        leases.retain(|(id, end)| *end > now && *id != holder);
        if leases.len() < usize::try_from(max).unwrap_or(usize::MAX) {
            leases.push((holder, now + LEASE));
            return Ok(Verdict::Allowed);
        }
        let earliest = leases.iter().map(|(_, end)| *end).min().unwrap_or(now);
        Ok(Verdict::Refused { retry_after: earliest.saturating_sub(now) })
    }

    /// Renews a lease, even if it has expired, since its holder still exists.
    pub(super) fn renew(&self, key: &str, holder: Holder) -> Result<(), EngineUnavailable> {
        let now = self.leases.now();
        let expires = now + LEASE;
        let mut shard = self.leases.lock(key);
        let Leases(leases) = shard.get_or_default(key, now)?;
        match leases.iter_mut().find(|(id, _)| *id == holder) {
            Some((_, end)) => *end = expires,
            None => leases.push((holder, expires)),
        }
        Ok(())
    }

    pub(super) fn release(&self, key: &str, holder: Holder) {
        let mut shard = self.leases.lock(key);
        if let Some(Leases(leases)) = shard.get_mut(key) {
            leases.retain(|(id, _)| *id != holder);
            if leases.is_empty() {
                shard.remove(key);
            }
        }
    }

    /// Gives a channel's turn to one holder at a time, in the order of the queue for it, which has at most
    /// `max_waiting`, and at most `share` of one client. take_turn.lua does the same.
    pub(super) fn take_turn(
        &self,
        key: &str,
        holder: Holder,
        max_waiting: usize,
        share: usize,
    ) -> Result<Turn, EngineUnavailable> {
        let now = self.queues.now();
        // The lock of the queue is taken first everywhere.
        let mut shard = self.queues.lock(key);
        let Leases(queue) = shard.get_or_default(key, now)?;
        queue.retain(|(_, end)| *end > now);
        let is_next = queue.first().is_none_or(|(first, _)| *first == holder);
        if is_next && self.acquire(key, holder, 1)? == Verdict::Allowed {
            queue.retain(|(id, _)| *id != holder);
            if queue.is_empty() {
                shard.remove(key);
            }
            return Ok(Turn::Taken);
        }
        let end = now + WAITING_LEASE;
        let own = queue.iter().filter(|(id, _)| id.is_of_client_of(holder)).count();
        if let Some((_, lease)) = queue.iter_mut().find(|(id, _)| *id == holder) {
            *lease = end;
        } else if queue.len() < max_waiting && own < share {
            queue.push((holder, end));
        } else {
            if queue.is_empty() {
                shard.remove(key);
            }
            return Ok(Turn::Full);
        }
        Ok(Turn::Waiting)
    }

    pub(super) fn leave_turn(&self, key: &str, holder: Holder) {
        let mut shard = self.queues.lock(key);
        if let Some(Leases(queue)) = shard.get_mut(key) {
            queue.retain(|(id, _)| *id != holder);
            if queue.is_empty() {
                shard.remove(key);
            }
        }
        self.release(key, holder);
    }

    /// The microseconds until the bucket is full.
    pub(super) fn bucket_status(&self, key: &str) -> u64 {
        let now = micros(self.buckets.now());
        let shard = self.buckets.lock(key);
        shard.get(key).map_or(0, |Bucket(full_at)| full_at.saturating_sub(now))
    }

    /// The count, and the time until the window ends.
    pub(super) fn window_status(&self, key: &str) -> (u64, Duration) {
        let now = millis(self.windows.now());
        let shard = self.windows.lock(key);
        shard.get(key).map_or_else(Default::default, |window| window.status(now))
    }

    /// How many leases live, and the times until the first and until the last of them expires.
    pub(super) fn leases_status(&self, key: &str) -> (u64, Duration, Duration) {
        let now = self.leases.now();
        let shard = self.leases.lock(key);
        let leases = shard.get(key).map(|Leases(leases)| leases.as_slice()).unwrap_or_default();
        let live = || leases.iter().map(|(_, end)| *end).filter(|end| *end > now);
        let left = |end: Option<Duration>| end.map_or(Duration::ZERO, |end| end - now);
        (live().count() as u64, left(live().min()), left(live().max()))
    }

    /// Removes the bucket, window or leases of `key`. Returns whether there were any.
    pub(super) fn reset(&self, key: &str) -> bool {
        let bucket = self.buckets.lock(key).remove(key).is_some();
        let window = self.windows.lock(key).remove(key).is_some();
        let leases = self.leases.lock(key).remove(key).is_some();
        bucket || window || leases
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
