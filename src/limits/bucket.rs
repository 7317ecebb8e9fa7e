//! The token bucket, implemented by the generic cell rate algorithm (ITU-T I.371, annex A): the only state is the
//! instant at which the bucket will be full again.

use std::time::Duration;

use super::demand::Demand;
use super::{LimitStatus, Verdict};
use crate::config::Rate;

/// The upper bound of all durations, about 31 years. It keeps sums exact in Lua's numbers as well.
const LONGEST_US: u64 = 1_000_000_000_000_000;

/// A [`Rate`] in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gcra {
    /// The time until one token is refilled, in microseconds.
    pub(super) interval: u64,
    /// The time until an empty bucket is full, in microseconds.
    pub(super) tolerance: u64,
}

impl From<Rate> for Gcra {
    /// A count of 0 counts as 1, and more than one token in a microsecond counts as one.
    fn from(rate: Rate) -> Self {
        let per = u64::try_from(rate.per.as_micros()).unwrap_or(u64::MAX);
        let interval = (per / u64::from(rate.count.max(1))).clamp(1, LONGEST_US);
        let tolerance = interval.saturating_mul(u64::from(rate.burst.max(1))).min(LONGEST_US);
        Self { interval, tolerance }
    }
}

impl Gcra {
    /// Takes tokens at `now` from a bucket that is full again at `full_at`, and updates `full_at`. take.lua does the
    /// same. If the clock jumped back or the rate was changed, the bucket counts as empty, or as owing all that it may,
    /// so that a client is refused for no longer than the bucket takes to fill.
    pub(super) fn take(self, demand: Demand, full_at: &mut u64, now: u64) -> Verdict {
        let last = now.saturating_add(self.longest_reset(demand.has_debt));
        let start = (*full_at).clamp(now, last);
        let needed = start.saturating_add(self.interval.saturating_mul(demand.needed));
        let wait = needed.saturating_sub(now).saturating_sub(self.tolerance);
        if wait > 0 && demand.needed > 0 {
            // The clamped value is stored: if it moved along with `now`, every later take would be refused too.
            *full_at = start;
            return Verdict::Refused { retry_after: Duration::from_micros(wait) };
        }
        *full_at = start.saturating_add(self.interval.saturating_mul(demand.taken)).min(last);
        Verdict::Allowed
    }

    /// The longest time until a bucket is full, in microseconds.
    fn longest_reset(self, has_debt: bool) -> u64 {
        self.tolerance.saturating_mul(if has_debt { 2 } else { 1 })
    }

    /// The status of a bucket that is full again in `reset_after` microseconds. What it owes counts as used.
    pub(super) fn status(self, reset_after: u64, has_debt: bool) -> LimitStatus {
        let reset_after = reset_after.min(self.longest_reset(has_debt));
        let left = self.tolerance.saturating_sub(reset_after) / self.interval;
        let owed = reset_after.saturating_sub(self.tolerance).div_ceil(self.interval);
        let max = self.tolerance / self.interval;
        let wait = (reset_after + self.interval).saturating_sub(self.tolerance);
        LimitStatus {
            max,
            used: max - left + owed,
            retry_after: Duration::from_micros(wait),
            reset_after: Duration::from_micros(reset_after),
        }
    }
}

/// A token bucket of one connection: 8 bytes, without a clock of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalBucket {
    /// When the bucket is full again, in microseconds on the clock that the caller passes to `take`.
    full_at: u64,
}

impl LocalBucket {
    /// Takes one token at `now`, the time since any fixed instant of this process.
    pub fn take(&mut self, rate: Rate, now: Duration) -> Verdict {
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        Gcra::from(rate).take(Demand::ACTION, &mut self.full_at, now)
    }

    /// The status of the bucket at `now`, which does not change it.
    pub fn status(&self, rate: Rate, now: Duration) -> LimitStatus {
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        Gcra::from(rate).status(self.full_at.saturating_sub(now), false)
    }

    /// Whether the bucket is full at `now`, so that nothing would change if it was new.
    pub fn is_full(&self, now: Duration) -> bool {
        Duration::from_micros(self.full_at) <= now
    }
}

#[cfg(test)]
mod tests;
