//! Claims and answers in this process.

use std::collections::HashMap;
use std::sync::MutexGuard;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::{Held, MessageKey};
use crate::expiring_map::{Expiring, ExpiringMap, Full, Shard};
use crate::redis_link::EngineUnavailable;

/// The most messages, which take some 40 MB at worst.
const MAX_MESSAGES: usize = 256 * 1024;

/// A client has many answers if it has one of this many in its shard.
const MANY: usize = 64;

/// Messages by their key. Beyond the bound, answers of the client that has the most are removed, those that would expire
/// soonest, so that nobody who sends many ids keeps others from sending theirs or makes their answers forgotten. Claims
/// are never removed: only messages that are being relayed have one.
pub(super) struct MemoryDedup {
    messages: ExpiringMap<Key, Entry>,
}

/// A hash of a message's key, so that its size does not depend on a user's id.
type Key = [u8; 16];

struct Entry {
    state: State,
    /// See [`MessageKey`].
    client: u64,
    expires: Duration,
}

enum State {
    /// The message is being relayed under this token.
    Claimed(Box<str>),
    /// The message has become the task with this id.
    Relayed(Box<str>),
}

impl Expiring for Entry {
    fn is_expired(&self, now: Duration) -> bool {
        self.expires <= now
    }
}

impl MemoryDedup {
    pub(super) fn new() -> Self {
        Self { messages: ExpiringMap::new(MAX_MESSAGES) }
    }

    /// Claims a message that is not known, or renews its claim. claim.lua does the same.
    pub(super) fn claim(
        &self,
        message: &MessageKey,
        token: &str,
        lease: Duration,
    ) -> Result<Held, EngineUnavailable> {
        let now = self.messages.now();
        let (key, mut shard) = self.shard(&message.text);
        match shard.get(&key).filter(|entry| !entry.is_expired(now)) {
            Some(Entry { state: State::Claimed(by), .. }) if **by != *token => {
                return Ok(Held::Claimed);
            }
            Some(Entry { state: State::Relayed(task_id), .. }) => {
                return Ok(Held::Relayed(task_id.to_string()));
            }
            _ => {}
        }
        let (state, expires) = (State::Claimed(token.into()), now.saturating_add(lease));
        let entry = Entry { state, client: message.client, expires };
        put(&mut shard, key, entry, now).map_err(|Full| EngineUnavailable)?;
        Ok(Held::Free)
    }

    /// Puts an answer in the place of a claim, or removes the claim. finish.lua does the same.
    pub(super) fn finish(
        &self,
        message: &MessageKey,
        token: &str,
        answer: Option<(&str, Duration)>,
    ) {
        let now = self.messages.now();
        let (key, mut shard) = self.shard(&message.text);
        let is_of_another = shard.get(&key).is_some_and(|entry| {
            let is_ours = matches!(&entry.state, State::Claimed(by) if **by == *token);
            !entry.is_expired(now) && !is_ours
        });
        if is_of_another {
            return;
        }
        match answer {
            Some((task_id, ttl)) => {
                let entry = Entry {
                    state: State::Relayed(task_id.into()),
                    client: message.client,
                    expires: now.saturating_add(ttl),
                };
                // Without room for the answer a repeat is relayed again, as after a lost engine.
                let _ = put(&mut shard, key, entry, now);
            }
            None => {
                shard.remove(&key);
            }
        }
    }

    fn shard(&self, message: &str) -> (Key, MutexGuard<'_, Shard<Key, Entry>>) {
        let mut key = Key::default();
        key.copy_from_slice(&Sha256::digest(message)[..16]);
        (key, self.messages.lock(&key))
    }
}

fn put(shard: &mut Shard<Key, Entry>, key: Key, entry: Entry, now: Duration) -> Result<(), Full> {
    if shard.get(&key).is_none() && !shard.make_room(0, now) {
        forget_answers(shard);
    }
    shard.insert(key, entry, now)
}

/// Removes half of the answers of the client that has the most: those that would expire first. If no client has many,
/// removes half of all, so that there is room for some time.
fn forget_answers(shard: &mut Shard<Key, Entry>) {
    let is_answer = |entry: &Entry| matches!(entry.state, State::Relayed(_));
    let mut counts: HashMap<u64, usize> = HashMap::new();
    for entry in shard.values().filter(|entry| is_answer(entry)) {
        *counts.entry(entry.client).or_default() += 1;
    }
    let all: usize = counts.values().sum();
    let heaviest = counts.into_iter().max_by_key(|(_, count)| *count);
    let heaviest = heaviest.filter(|(_, count)| count * MANY >= all).map(|(client, _)| client);
    let is_concerned =
        |entry: &Entry| is_answer(entry) && heaviest.is_none_or(|client| entry.client == client);
    let mut ends: Vec<_> =
        shard.values().filter(|entry| is_concerned(entry)).map(|entry| entry.expires).collect();
    if ends.is_empty() {
        return;
    }
    let middle = ends.len() / 2;
    let median = *ends.select_nth_unstable(middle).1;
    shard.retain(|entry| !is_concerned(entry) || entry.expires > median);
}

#[cfg(test)]
mod tests;
