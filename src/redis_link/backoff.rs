//! The wait before the next attempt to connect.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const CAP: Duration = Duration::from_secs(1);

/// Exponential back-off with jitter. Waits double from 50 ms to 1 s; each is drawn from the upper half of its
/// range, so that nodes which lost the same Redis at the same time do not reconnect at the same time.
#[derive(Debug, Clone)]
pub struct Backoff {
    ceiling: Duration,
}

impl Backoff {
    pub fn new() -> Self {
        Self { ceiling: FIRST }
    }

    /// Returns the next wait: between half of the current ceiling and all of it.
    pub fn next(&mut self) -> Duration {
        let half = self.ceiling / 2;
        self.ceiling = (self.ceiling * 2).min(CAP);
        half + half.mul_f64(random_fraction())
    }

    /// Starts over with the shortest wait. Must be called once a connection has been up for a while.
    pub fn reset(&mut self) {
        self.ceiling = FIRST;
    }
}

/// A random number in `0.0..1.0`. If the system provides no random bytes, it is constant and the waits have no jitter.
fn random_fraction() -> f64 {
    getrandom::u32().map_or(0.5, |bits| f64::from(bits) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests;
