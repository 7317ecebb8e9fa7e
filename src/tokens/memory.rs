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
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    fn bounded(max_tokens: usize, max_bytes: usize) -> MemoryTokens {
        MemoryTokens { ttl: TTL, records: ExpiringMap::with_bounds(1, max_tokens, max_bytes) }
    }

    #[test]
    fn expired_tokens_are_removed_and_make_room() {
        let store = bounded(2, 1000);
        let start = store.now();
        store.put("a", "1".into(), start).unwrap();
        store.put("b", "2".into(), start).unwrap();
        assert_eq!(store.put("c", "3".into(), start), Err(Full));
        assert_eq!(store.take("a", start + TTL), None);
        store.put("c", "3".into(), start + TTL).unwrap();
        store.put("d", "4".into(), start + TTL).unwrap();
        assert_eq!(store.take("b", start), None);
        assert_eq!(store.take("c", start + TTL).as_deref(), Some("3"));
        assert_eq!(store.take("d", start + TTL).as_deref(), Some("4"));
        assert_eq!((store.records.len(), store.records.bytes()), (0, 0));
    }

    #[test]
    fn used_tokens_make_room_at_once() {
        let store = bounded(1, 4);
        let now = store.now();
        for round in 0..5000 {
            let token = round.to_string();
            store.put(&token, "1234".into(), now).unwrap();
            assert!(store.take(&token, now).is_some());
        }
        assert_eq!(store.put("long", "12345".into(), now), Err(Full));
        assert_eq!(store.records.len(), 0);
    }

    #[test]
    fn used_tokens_between_waiting_ones_leave_nothing_behind() {
        let store = MemoryTokens::new(TTL);
        let now = store.now();
        store.put("first", "1".into(), now).unwrap();
        for round in 0..5000 {
            let token = round.to_string();
            store.put(&token, "1".into(), now).unwrap();
            assert!(store.take(&token, now).is_some());
        }
        assert_eq!(store.records.len(), 1);
        assert!(store.take("first", now).is_some());
    }
}
