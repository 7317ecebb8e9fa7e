//! The calls that are recognised when they are repeated, for histories in memory.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::{PublishOnce, Published};
use crate::protocol::ChannelName;

/// The most [`PublishOnce`] keys that are remembered. Beyond this the oldest are removed.
const MAX_REMEMBERED: usize = 100_000;

/// The longest time that a key is remembered.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

type Key = (ChannelName, String);

/// Bounded by count and time.
#[derive(Default)]
pub(super) struct RememberedCalls {
    calls: HashMap<Key, Remembered>,
    /// The keys of `calls` in the order in which they were added.
    order: VecDeque<Key>,
}

struct Remembered {
    number: u64,
    published: Published,
    expires_at: Instant,
}

impl RememberedCalls {
    /// Whether something was published under this key lately.
    pub fn contains(&self, channel: &ChannelName, key: &str, now: Instant) -> bool {
        let remembered = self.calls.get(&(channel.clone(), key.to_owned()));
        remembered.is_some_and(|remembered| remembered.expires_at > now)
    }

    /// The outcome of the call that this one repeats.
    pub fn find_repeat(
        &self,
        channel: &ChannelName,
        once: &PublishOnce,
        now: Instant,
    ) -> Option<Published> {
        let remembered = self.calls.get(&(channel.clone(), once.key.clone()))?;
        let is_repeat = remembered.expires_at > now && remembered.number >= once.number;
        is_repeat.then_some(remembered.published)
    }

    pub fn remember(
        &mut self,
        channel: &ChannelName,
        once: &PublishOnce,
        published: Published,
        now: Instant,
    ) {
        let key = (channel.clone(), once.key.clone());
        let expires_at = now + once.ttl.min(MAX_TTL);
        let remembered = Remembered { number: once.number, published, expires_at };
        if self.calls.insert(key.clone(), remembered).is_none() {
            self.order.push_back(key);
        }
        while let Some(oldest) = self.order.front() {
            let is_valid = self.calls.get(oldest).is_some_and(|found| found.expires_at > now);
            if is_valid && self.order.len() <= MAX_REMEMBERED {
                return;
            }
            self.calls.remove(oldest);
            self.order.pop_front();
        }
    }

    /// `key` is not made if there is nothing to forget.
    pub fn forget(&mut self, channel: &ChannelName, key: impl FnOnce() -> String) {
        if !self.calls.is_empty() {
            self.calls.remove(&(channel.clone(), key()));
        }
    }
}
