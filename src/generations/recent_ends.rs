//! The replies that have ended lately, so that none ends twice.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::protocol::Position;

/// The most ends that are remembered, about 4 MB. Beyond it the oldest are forgotten.
const MAX_ENDS: usize = 64 * 1024;

/// Ends by a key that stands for what has ended. Bounded by count and time.
pub(super) struct RecentEnds {
    /// How long an end is remembered.
    ttl: Duration,
    /// When it ended, and the position of its terminal event: the same publication seen again is no second end.
    ends: HashMap<u64, (Instant, Option<Position>)>,
    /// The oldest first. Also holds keys that were forgotten or recorded again since.
    order: VecDeque<(Instant, u64)>,
}

impl RecentEnds {
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, ends: HashMap::new(), order: VecDeque::new() }
    }

    /// Whether a terminal event at `position` is a second one, not the same publication again.
    pub fn is_repeat(&self, key: u64, position: Option<Position>, now: Instant) -> bool {
        self.ends.get(&key).is_some_and(|(at, recorded)| {
            now.duration_since(*at) < self.ttl && (position.is_none() || *recorded != position)
        })
    }

    pub fn contains(&self, key: u64, now: Instant) -> bool {
        self.is_repeat(key, None, now)
    }

    pub fn record(&mut self, key: u64, position: Option<Position>, now: Instant) {
        self.sweep(now);
        self.ends.insert(key, (now, position));
        self.order.push_back((now, key));
    }

    /// Forgets ends that are too old, and the oldest if there is no room for one more.
    pub fn sweep(&mut self, now: Instant) {
        while let Some((at, oldest)) = self.order.front().copied()
            && (self.order.len() >= MAX_ENDS || now.duration_since(at) >= self.ttl)
        {
            self.order.pop_front();
            if self.ends.get(&oldest).is_some_and(|(end, _)| *end == at) {
                self.ends.remove(&oldest);
            }
        }
    }

    /// Forgets an end whose task or channel has begun a new reply.
    pub fn forget(&mut self, key: u64) {
        self.ends.remove(&key);
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

#[cfg(test)]
mod tests;
