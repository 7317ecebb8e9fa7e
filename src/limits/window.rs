//! A counter in a fixed window, as caches implement it: the window starts with the first hit, and the counter is
//! reset when it ends.

use std::time::Duration;

use super::Verdict;
use super::demand::Demand;

/// One counter, on a clock of milliseconds since any fixed instant.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window {
    count: u64,
    ends_at: u64,
}

impl Window {
    /// Whether the window has not ended at `now`.
    pub(super) fn is_open(&self, now: u64) -> bool {
        self.ends_at > now
    }

    /// The count at `now`, and the time until the window ends.
    pub(super) fn status(&self, now: u64) -> (u64, Duration) {
        if self.is_open(now) {
            (self.count, Duration::from_millis(self.ends_at - now))
        } else {
            (0, Duration::ZERO)
        }
    }

    /// Counts in a window of `length` milliseconds with at most `limit` hits. A refused hit is not counted. hit.lua does
    /// the same.
    pub(super) fn hit(&mut self, demand: Demand, limit: u32, length: u64, now: u64) -> Verdict {
        if !self.is_open(now) {
            // What takes nothing begins no window.
            let length = if demand.taken == 0 { 0 } else { length };
            *self = Self { count: 0, ends_at: now.saturating_add(length) };
        }
        if demand.needed > 0 && self.count.saturating_add(demand.needed) > limit.into() {
            return Verdict::Refused { retry_after: Duration::from_millis(self.ends_at - now) };
        }
        self.count = self.count.saturating_add(demand.taken);
        Verdict::Allowed
    }
}

#[cfg(test)]
mod tests;
