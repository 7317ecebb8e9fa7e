//! The calls that are recognised when they are repeated, for histories in memory.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, Instant};

use super::{END_PREFIX, PublishOnce, Published};
use crate::protocol::ChannelName;

/// The most [`PublishOnce`] keys that are remembered. Beyond this the oldest are removed.
const MAX_REMEMBERED: usize = 100_000;

/// The longest time that a key is remembered.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Bounded by count and time.
#[derive(Default)]
pub(super) struct RememberedCalls {
    hasher: RandomState,
    calls: HashMap<CallKey, Remembered>,
    /// The keys of `calls` in the order in which they were added.
    order: VecDeque<CallKey>,
}

/// Stands for a channel and a key of it: their hash, whose secret nobody knows who could choose keys with the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CallKey(u64);

struct Remembered {
    number: u64,
    published: Published,
    expires_at: Instant,
}

impl RememberedCalls {
    pub fn key(&self, channel: &ChannelName, key: &str) -> CallKey {
        self.hash(channel, &[key])
    }

    /// The key of the end of a task, see [`end_key`](super::end_key).
    pub fn end_key(&self, channel: &ChannelName, task_id: &str) -> CallKey {
        self.hash(channel, &[END_PREFIX, task_id])
    }

    fn hash(&self, channel: &ChannelName, parts: &[&str]) -> CallKey {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(channel.as_str().as_bytes());
        // Never a byte of UTF-8.
        hasher.write_u8(0xff);
        parts.iter().for_each(|part| hasher.write(part.as_bytes()));
        CallKey(hasher.finish())
    }

    /// Whether something was published under this key lately.
    pub fn contains(&self, key: CallKey, now: Instant) -> bool {
        self.calls.get(&key).is_some_and(|remembered| remembered.expires_at > now)
    }

    /// The outcome of the call that this one, with its `number`, repeats.
    pub fn find_repeat(&self, key: CallKey, number: u64, now: Instant) -> Option<Published> {
        let remembered = self.calls.get(&key)?;
        let is_repeat = remembered.expires_at > now && remembered.number >= number;
        is_repeat.then_some(remembered.published)
    }

    pub fn remember(
        &mut self,
        key: CallKey,
        once: &PublishOnce,
        published: Published,
        now: Instant,
    ) {
        let expires_at = now + once.ttl.min(MAX_TTL);
        let remembered = Remembered { number: once.number, published, expires_at };
        if self.calls.insert(key, remembered).is_none() {
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

    pub fn forget(&mut self, key: CallKey) {
        self.calls.remove(&key);
    }
}
