//! How fast a client must take a response or send a request body.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::MinPace;

/// The pace of one side. Only the time that is spent waiting for it counts, so that a peer which has nothing to do is
/// never too slow.
#[derive(Debug)]
pub struct Pace {
    required: MinPace,
    waiting_since: Option<Instant>,
    /// Completed waits of the current period, which lasts for `timeout` of waiting.
    waited: Duration,
    /// The bytes of the current period.
    bytes: u64,
}

impl Pace {
    pub fn new(required: MinPace) -> Self {
        Self { required, waiting_since: None, waited: Duration::ZERO, bytes: 0 }
    }

    /// The side has to move. Returns when the pace is to be checked again; `None` = it is too slow.
    pub fn wait(&mut self, now: Instant) -> Option<Instant> {
        let since = *self.waiting_since.get_or_insert(now);
        let left = self.required.timeout.saturating_sub(self.waited);
        if now.saturating_duration_since(since) < left {
            return Some(since + left);
        }
        if self.bytes < self.min_bytes() {
            return None;
        }
        self.begin_period(Some(now));
        Some(now + self.required.timeout)
    }

    /// The side has moved `bytes`.
    pub fn moved(&mut self, now: Instant, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += now.saturating_duration_since(since);
        } else if self.waited.is_zero() {
            // No period has begun.
            return;
        }
        self.bytes += bytes as u64;
        // A side that is fast enough at the end of a period begins the next one.
        if self.waited >= self.required.timeout && self.bytes >= self.min_bytes() {
            self.begin_period(None);
        }
    }

    fn begin_period(&mut self, waiting_since: Option<Instant>) {
        (self.waiting_since, self.waited, self.bytes) = (waiting_since, Duration::ZERO, 0);
    }

    fn min_bytes(&self) -> u64 {
        let bytes = self.required.timeout.as_secs_f64() * self.required.min_rate as f64;
        (bytes as u64).max(1)
    }
}

#[cfg(test)]
mod tests;
