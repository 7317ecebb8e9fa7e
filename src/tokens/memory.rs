//! Connection tokens in this process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tokens that may wait at once.
const MAX_TOKENS: usize = 1_000_000;
/// Bytes of their records.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// Full of tokens that have not expired.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Records by token, for `ttl`. Bounded by count and bytes: beyond either, nothing more is taken in
/// until tokens are used or expire.
pub(super) struct MemoryTokens {
    ttl: Duration,
    max_tokens: usize,
    max_bytes: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    records: HashMap<Arc<str>, Entry>,
    /// Sum of the lengths of the records.
    bytes: usize,
    /// In the order of expiry, since all live equally long. Consumed tokens stay in it until they
    /// reach the front or outnumber the others.
    order: VecDeque<(Instant, Arc<str>)>,
}

struct Entry {
    json: Box<str>,
    expires: Instant,
}

impl MemoryTokens {
    pub(super) fn new(ttl: Duration) -> Self {
        Self::bounded(ttl, MAX_TOKENS, MAX_BYTES)
    }

    fn bounded(ttl: Duration, max_tokens: usize, max_bytes: usize) -> Self {
        Self { ttl, max_tokens, max_bytes, waiting: Mutex::default() }
    }

    pub(super) fn put(&self, token: &str, json: String, now: Instant) -> Result<(), Full> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.sweep(now);
        if waiting.records.len() >= self.max_tokens || waiting.bytes + json.len() > self.max_bytes {
            return Err(Full);
        }
        // A lifetime beyond what the clock can count is as good as none.
        let expires = now.checked_add(self.ttl).ok_or(Full)?;
        let token: Arc<str> = token.into();
        waiting.bytes += json.len();
        waiting.order.push_back((expires, token.clone()));
        waiting.records.insert(token, Entry { json: json.into(), expires });
        Ok(())
    }

    pub(super) fn take(&self, token: &str, now: Instant) -> Option<Box<str>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = waiting.records.remove(token)?;
        waiting.bytes -= entry.json.len();
        (entry.expires > now).then_some(entry.json)
    }
}

impl Waiting {
    /// Constant time for each token ever put in.
    fn sweep(&mut self, now: Instant) {
        while let Some((expires, token)) = self.order.front() {
            if *expires > now && self.records.contains_key(token) {
                break;
            }
            if let Some(entry) = self.records.remove(token) {
                self.bytes -= entry.json.len();
            }
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.records.len() + 1024 {
            self.order.retain(|(_, token)| self.records.contains_key(token));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    #[test]
    fn expired_tokens_are_gone_and_make_room() {
        let store = MemoryTokens::bounded(TTL, 2, 1000);
        let start = Instant::now();
        store.put("a", "1".into(), start).unwrap();
        store.put("b", "2".into(), start).unwrap();
        assert_eq!(store.put("c", "3".into(), start), Err(Full));
        assert_eq!(store.take("a", start + TTL), None);
        store.put("c", "3".into(), start + TTL).unwrap();
        assert_eq!(store.take("b", start), None);
        assert_eq!(store.take("c", start + TTL).as_deref(), Some("3"));
        assert_eq!(store.waiting.lock().unwrap().bytes, 0);
    }

    #[test]
    fn used_tokens_make_room_at_once() {
        let store = MemoryTokens::bounded(TTL, 1, 4);
        let now = Instant::now();
        for round in 0..5000 {
            let token = round.to_string();
            store.put(&token, "1234".into(), now).unwrap();
            assert!(store.take(&token, now).is_some());
        }
        assert_eq!(store.put("long", "12345".into(), now), Err(Full));
        assert!(store.waiting.lock().unwrap().order.len() < 2000);
    }

    #[test]
    fn used_tokens_between_waiting_ones_are_forgotten() {
        let store = MemoryTokens::new(TTL);
        let now = Instant::now();
        store.put("first", "1".into(), now).unwrap();
        for round in 0..5000 {
            let token = round.to_string();
            store.put(&token, "1".into(), now).unwrap();
            assert!(store.take(&token, now).is_some());
        }
        assert!(store.waiting.lock().unwrap().order.len() < 2000);
        assert!(store.take("first", now).is_some());
    }
}
