//! Connection tokens in this process.

use std::time::Duration;

use crate::expiring_map::{Expiring, ExpiringMap, Full, SHARDS};

/// The most tokens that may wait to be used.
const MAX_TOKENS: usize = 1_000_000;
/// The most bytes of their records.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// Records by token, for `ttl`. Beyond the bounds, no more are accepted until tokens are used or expire.
pub(super) struct MemoryTokens {
    ttl: Duration,
    records: ExpiringMap<Box<str>, Record>,
}

struct Record {
    json: Box<str>,
    expires: Duration,
}

impl Expiring for Record {
    fn is_expired(&self, now: Duration) -> bool {
        self.expires <= now
    }

    fn bytes(&self) -> usize {
        self.json.len()
    }
}

impl MemoryTokens {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, records: ExpiringMap::with_bounds(SHARDS, MAX_TOKENS, MAX_BYTES) }
    }

    /// The time that [`MemoryTokens::put`] and [`MemoryTokens::take`] take.
    pub(super) fn now(&self) -> Duration {
        self.records.now()
    }

    pub(super) fn put(&self, token: &str, json: String, now: Duration) -> Result<(), Full> {
        let record = Record { json: json.into(), expires: now.saturating_add(self.ttl) };
        self.records.lock(token).insert(token.into(), record, now)
    }

    pub(super) fn take(&self, token: &str, now: Duration) -> Option<Box<str>> {
        let record = self.records.lock(token).remove(token)?;
        (!record.is_expired(now)).then_some(record.json)
    }
}

#[cfg(test)]
mod tests;
