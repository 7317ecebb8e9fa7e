//! Claims and answers in this process.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::Held;
use crate::redis_link::EngineUnavailable;

/// Parts that are locked and swept on their own, so that neither takes long.
const SHARDS: usize = 64;
/// Messages that one shard keeps; a quarter of a million in all, some 40 MB at worst.
const MAX_PER_SHARD: usize = 4 * 1024;
/// A shard with fewer is not worth sweeping.
const SWEEP_FROM: usize = 256;

/// Messages by their key. Bounded: what expired is swept; beyond the bound the answers that would
/// expire soonest are forgotten, so that nobody who sends many ids keeps others from sending theirs.
/// Claims are never forgotten: only messages on their way have one.
pub(super) struct MemoryOnce {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

/// Of a fixed size, however long a user's id is.
type Key = [u8; 16];

#[derive(Default)]
struct Shard {
    entries: HashMap<Key, Entry>,
    sweep_at: usize,
}

struct Entry {
    state: State,
    until: Instant,
}

enum State {
    /// By the token of whoever is relaying it.
    Claimed(Box<str>),
    /// As this task.
    Relayed(Box<str>),
}

impl MemoryOnce {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// claim.lua does the same.
    pub(super) fn claim(
        &self,
        message: &str,
        token: &str,
        lease: Duration,
    ) -> Result<Held, EngineUnavailable> {
        let now = Instant::now();
        let (key, mut shard) = self.shard(message);
        match shard.entries.get(&key).filter(|entry| entry.until > now) {
            Some(Entry { state: State::Claimed(_), .. }) => return Ok(Held::Claimed),
            Some(Entry { state: State::Relayed(task_id), .. }) => {
                return Ok(Held::Relayed(task_id.to_string()));
            }
            None => {}
        }
        if !shard.make_room(now) {
            return Err(EngineUnavailable);
        }
        shard.put(key, State::Claimed(token.into()), now, lease);
        Ok(Held::Free)
    }

    /// settle.lua does the same.
    pub(super) fn settle(&self, message: &str, token: &str, answer: Option<(&str, Duration)>) {
        let now = Instant::now();
        let (key, mut shard) = self.shard(message);
        let of_another = shard.entries.get(&key).is_some_and(|entry| {
            let ours = matches!(&entry.state, State::Claimed(by) if **by == *token);
            entry.until > now && !ours
        });
        if of_another {
            return;
        }
        match answer {
            Some((task_id, ttl)) => shard.put(key, State::Relayed(task_id.into()), now, ttl),
            None => {
                shard.entries.remove(&key);
            }
        }
    }

    fn shard(&self, message: &str) -> (Key, MutexGuard<'_, Shard>) {
        let mut key = Key::default();
        key.copy_from_slice(&Sha256::digest(message)[..16]);
        let index = self.hasher.hash_one(key) as usize % self.shards.len();
        (key, self.shards[index].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shard {
    fn put(&mut self, key: Key, state: State, now: Instant, time: Duration) {
        // Settings are at most a year, which every clock can name.
        let until = now.checked_add(time).unwrap_or(now);
        self.entries.insert(key, Entry { state, until });
    }

    /// Makes room for one more where that is due; false if there is none to be made.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.entries.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.entries.retain(|_, entry| entry.until > now);
            if self.entries.len() >= MAX_PER_SHARD {
                self.forget_half();
            }
            self.sweep_at = (2 * self.entries.len()).min(MAX_PER_SHARD);
        }
        self.entries.len() < MAX_PER_SHARD
    }

    /// The half of the answers that would expire first.
    fn forget_half(&mut self) {
        let answer = |entry: &Entry| matches!(entry.state, State::Relayed(_));
        let mut ends: Vec<_> =
            self.entries.values().filter(|entry| answer(entry)).map(|entry| entry.until).collect();
        if ends.is_empty() {
            return;
        }
        let middle = ends.len() / 2;
        let median = *ends.select_nth_unstable(middle).1;
        self.entries.retain(|_, entry| !answer(entry) || entry.until > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    impl MemoryOnce {
        fn small() -> Self {
            Self { shards: Box::new([Mutex::default()]), ..Self::new() }
        }

        fn len(&self) -> usize {
            self.shards.iter().map(|shard| shard.lock().unwrap().entries.len()).sum()
        }

        fn relayed(&self, message: &str, ttl: Duration) {
            assert!(matches!(self.claim(message, "t", HOUR), Ok(Held::Free)), "{message}");
            self.settle(message, "t", Some((message, ttl)));
        }
    }

    #[test]
    fn what_expired_is_swept() {
        let dedup = MemoryOnce::new();
        for n in 0..100_000 {
            dedup.relayed(&n.to_string(), Duration::ZERO);
        }
        assert!(dedup.len() <= 2 * SHARDS * SWEEP_FROM, "{}", dedup.len());
    }

    #[test]
    fn beyond_the_bound_the_answers_that_expire_soonest_are_forgotten() {
        let dedup = MemoryOnce::small();
        assert!(matches!(dedup.claim("on its way", "t", Duration::from_secs(60)), Ok(Held::Free)));
        for n in 0..2 * MAX_PER_SHARD {
            dedup.relayed(&n.to_string(), HOUR);
        }
        assert!(dedup.len() <= MAX_PER_SHARD, "{}", dedup.len());
        assert!(matches!(dedup.claim("on its way", "u", HOUR), Ok(Held::Claimed)));
        let newest = (2 * MAX_PER_SHARD - 1).to_string();
        assert!(
            matches!(dedup.claim(&newest, "u", HOUR), Ok(Held::Relayed(task)) if task == newest)
        );
        assert!(matches!(dedup.claim("0", "u", HOUR), Ok(Held::Free)));
    }

    #[test]
    fn claims_make_no_room_for_more() {
        let dedup = MemoryOnce::small();
        for n in 0..MAX_PER_SHARD {
            assert!(matches!(dedup.claim(&n.to_string(), "t", HOUR), Ok(Held::Free)));
        }
        assert!(matches!(dedup.claim("one too many", "t", HOUR), Err(EngineUnavailable)));
        dedup.settle("0", "t", None);
        assert!(matches!(dedup.claim("one too many", "t", HOUR), Ok(Held::Free)));
    }
}
