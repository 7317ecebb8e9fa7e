//! The decisions of an authorize URL, remembered for a short time if the route says so.
//!
//! A decision is remembered for the whole question except the id of the connection: URL, channel, parameters, user and
//! origin. It is never used for another user, and those of anonymous clients, who may be different people, are not
//! remembered. A missing decision is not one.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::AuthorizeQuestion;
use crate::config::AuthorizeUrl;
use crate::expiring_map::{Expiring, ExpiringMap};

/// The most decisions that are remembered, about 5 MB. Beyond this further ones are not, until others expire.
const MAX_DECISIONS: usize = 64 * 1024;

/// Shared by all threads.
pub(super) struct Decisions(ExpiringMap<QuestionDigest, Decision>);

/// The SHA-256 of a question.
pub(super) type QuestionDigest = [u8; 32];

struct Decision {
    is_allowed: bool,
    expires: Duration,
}

impl Expiring for Decision {
    fn is_expired(&self, now: Duration) -> bool {
        self.expires <= now
    }
}

impl Default for Decisions {
    fn default() -> Self {
        Self(ExpiringMap::new(MAX_DECISIONS))
    }
}

impl Decisions {
    /// Identifies the question. `None` if its decision is not remembered.
    pub fn key(config: &AuthorizeUrl, question: &AuthorizeQuestion<'_>) -> Option<QuestionDigest> {
        if config.cache.is_zero() {
            return None;
        }
        let user = question.identity.user_id.as_ref()?;
        let name = question.identity.username.as_deref();
        // As JSON, so that no two questions have the same text.
        let parts =
            (config.url.as_str(), question.channel, question.params, user, name, question.origin);
        let json = serde_json::to_vec(&parts).ok()?;
        Some(Sha256::digest(&json).into())
    }

    /// Whether the client is allowed, if that is remembered.
    pub fn get(&self, key: &QuestionDigest) -> Option<bool> {
        let now = self.0.now();
        let shard = self.0.lock(key);
        let decision = shard.get(key).filter(|decision| !decision.is_expired(now))?;
        Some(decision.is_allowed)
    }

    pub fn remember(&self, key: QuestionDigest, is_allowed: bool, ttl: Duration) {
        let now = self.0.now();
        let decision = Decision { is_allowed, expires: now.saturating_add(ttl) };
        // Without room the backend is asked again.
        let _ = self.0.lock(&key).insert(key, decision, now);
    }
}
