//! Points in time of a session, in few bytes.

use std::time::Duration;

/// How many ticks a second has.
const PER_SECOND: u128 = 64;

/// A point in time, counted from the thread's start. It is exact to 1/64 s, and wraps after two years, so that no longer
/// time can be measured with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tick(u32);

impl Tick {
    /// `now` is the time since the thread's start.
    pub fn at(now: Duration) -> Self {
        Self((now.as_nanos() * PER_SECOND / 1_000_000_000) as u32)
    }

    /// The time since this point, which is not after `now`.
    pub fn elapsed(self, now: Duration) -> Duration {
        let ticks = Self::at(now).0.wrapping_sub(self.0);
        Duration::from_secs(1) * ticks / PER_SECOND as u32
    }
}

#[cfg(test)]
mod tests;
