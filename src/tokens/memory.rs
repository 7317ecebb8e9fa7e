//! Connection tokens in this process.

use std::time::Duration;

use super::store::NotIssued;
use crate::expiring_map::{Expiring, ExpiringMap, Full, SHARDS};

/// The most tokens that may wait to be used.
const MAX_TOKENS: usize = 1_000_000;
/// The most bytes of their records.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// Records by token, for `ttl`. Beyond the bounds, no more are accepted until tokens are used or expire.
pub(super) struct MemoryTokens {
    ttl: Duration,
    records: ExpiringMap<Box<str>, Record>,
    /// The tokens of each user whose number is bounded. Its lock is taken before that of `records`.
    by_user: ExpiringMap<Box<str>, UserTokens>,
}

struct Record {
    json: Box<str>,
    expires: Duration,
    /// The user, if the token is counted for it.
    user: Option<Box<str>>,
}

/// The tokens of one user that wait to be used, and when they expire. The first expires first.
#[derive(Default)]
struct UserTokens(Vec<(Box<str>, Duration)>);

impl Expiring for Record {
    fn is_expired(&self, now: Duration) -> bool {
        self.expires <= now
    }

    fn bytes(&self) -> usize {
        self.json.len()
    }
}

impl Expiring for UserTokens {
    fn is_expired(&self, now: Duration) -> bool {
        self.0.iter().all(|(_, expires)| *expires <= now)
    }
}

impl From<Full> for NotIssued {
    fn from(_: Full) -> Self {
        Self::StoreFull
    }
}

impl MemoryTokens {
    pub(super) fn new(ttl: Duration) -> Self {
        Self::with_bounds(ttl, SHARDS, MAX_TOKENS, MAX_BYTES)
    }

    fn with_bounds(ttl: Duration, shards: usize, max_tokens: usize, max_bytes: usize) -> Self {
        Self {
            ttl,
            records: ExpiringMap::with_bounds(shards, max_tokens, max_bytes),
            by_user: ExpiringMap::with_bounds(shards, max_tokens, usize::MAX),
        }
    }

    /// The time that [`MemoryTokens::put`] and [`MemoryTokens::take`] take.
    pub(super) fn now(&self) -> Duration {
        self.records.now()
    }

    pub(super) fn put(&self, token: &str, json: String, now: Duration) -> Result<(), NotIssued> {
        self.insert(token, json, None, now)
    }

    /// The same, unless `max` tokens of `user` wait to be used. count.lua does the same.
    pub(super) fn put_of(
        &self,
        user: &str,
        max: u32,
        token: &str,
        json: String,
        now: Duration,
    ) -> Result<(), NotIssued> {
        let mut shard = self.by_user.lock(user);
        let UserTokens(tokens) = shard.get_or_default(user, now)?;
        tokens.retain(|(_, expires)| *expires > now);
        if tokens.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
            let first = tokens.first().map_or(now, |(_, expires)| *expires);
            return Err(NotIssued::TooManyOfUser { retry_after: first.saturating_sub(now) });
        }
        self.insert(token, json, Some(user.into()), now)?;
        tokens.push((token.into(), now.saturating_add(self.ttl)));
        Ok(())
    }

    fn insert(
        &self,
        token: &str,
        json: String,
        user: Option<Box<str>>,
        now: Duration,
    ) -> Result<(), NotIssued> {
        let record = Record { json: json.into(), expires: now.saturating_add(self.ttl), user };
        Ok(self.records.lock(token).insert(token.into(), record, now)?)
    }

    pub(super) fn take(&self, token: &str, now: Duration) -> Option<Box<str>> {
        let record = self.records.lock(token).remove(token)?;
        if let Some(user) = &record.user {
            let mut shard = self.by_user.lock(user);
            if let Some(UserTokens(tokens)) = shard.get_mut(user) {
                tokens.retain(|(other, _)| **other != *token);
                if tokens.is_empty() {
                    shard.remove(user);
                }
            }
        }
        (!record.is_expired(now)).then_some(record.json)
    }
}

#[cfg(test)]
mod tests;
