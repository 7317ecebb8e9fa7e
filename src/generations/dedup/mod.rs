//! A message with an id is relayed once, however often its client sends it.
//!
//! Whoever is about to relay a message claims its id for a bounded time. Once the upstream has accepted the
//! message, the claim becomes the answer that every repeat gets. A claim whose relay failed is removed, so that
//! the message may be sent again, and one whose node died expires.

mod memory;
mod redis;
mod step;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::protocol::{Bits128, ConnectionId, SenderKey, UserId};
use crate::redis_link::{Commands, EngineUnavailable};
use crate::retry::retry;
use crate::telemetry;
use memory::MemoryDedup;
use redis::RedisDedup;
pub use step::ClaimRequest;

/// How often a repeat checks whether the first has been relayed.
const POLL: Duration = Duration::from_millis(100);

/// How often the outcome of a relay is written to an engine that is unavailable, and the pause between two
/// attempts. All together take longer than a Redis needs to restart.
const FINISH_ATTEMPTS: usize = 20;
const FINISH_PAUSE: Duration = Duration::from_millis(500);

/// How much longer than the relay itself a claim lasts: limits are checked in between.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
/// The longest time for which a node that died blocks an id.
const LONGEST_LEASE: Duration = Duration::from_secs(10 * 60);

/// The messages that have been relayed, in either engine. Shared by all threads, cheap to clone.
#[derive(Clone)]
pub struct Deduplicator(Arc<Engine>);

enum Engine {
    Memory(MemoryDedup),
    Redis(RedisDedup),
}

/// Within what the message ids that clients choose are unique.
#[derive(Debug, Clone, Copy)]
pub enum IdScope<'a> {
    /// All connections of one user.
    User(&'a UserId),
    /// One connection of an anonymous client.
    Connection(ConnectionId),
}

/// How many bytes of the hash of a message are in its key.
const HASH_BYTES: usize = 16;

/// One message of one sender on one route. At most a few hundred bytes beyond the user's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageKey {
    text: Box<str>,
    /// A hash of the client whose share of the memory it takes.
    client: u64,
    /// The length of the route at the beginning of `text`. The sender is between it and the hash of the message.
    route_length: usize,
}

impl MessageKey {
    /// `route` is the route's path pattern, `id` the message id that the client chose. Two messages have the same
    /// key only if all three are the same, whatever characters they contain.
    pub fn new(route: &str, scope: IdScope<'_>, id: &str) -> Self {
        let (kind, sender) = match scope {
            IdScope::User(user) => ("user", user.to_string()),
            IdScope::Connection(connection) => ("connection", connection.to_string()),
        };
        let mut hash = Sha256::new();
        for part in [kind, route, &sender, id] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut key = format!("{route}:{sender}:");
        for byte in &hash.finalize()[..HASH_BYTES] {
            // Writing to a string cannot fail.
            let _ = write!(key, "{byte:02x}");
        }
        Self { text: key.into(), client: 0, route_length: route.len() }
    }

    /// The sender, as it is in `text`.
    fn sender(&self) -> &str {
        let hash = 1 + 2 * HASH_BYTES;
        self.text.get(self.route_length + 1..self.text.len() - hash).unwrap_or_default()
    }

    /// The same message, remembered in the place of others of this client.
    pub fn of_client(self, client: &SenderKey) -> Self {
        let mut hasher = DefaultHasher::new();
        client.hash(&mut hasher);
        Self { client: hasher.finish(), ..self }
    }
}

/// What is to be done with a message.
#[derive(Debug)]
pub enum DedupOutcome {
    /// Relay it, then report the outcome to the claim.
    First(Claim),
    /// It has been relayed already, with this answer.
    Repeat { task_id: String },
}

/// Why it is not known whether a message was relayed. It must not be relayed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DedupError {
    /// The engine is unavailable or full, so it is not known whether the message was relayed.
    EngineUnavailable,
    /// It has been relayed elsewhere for as long as a claim lasts, without an outcome.
    StillRelaying,
    /// The sender does not wait any more.
    Unwanted,
}

/// What the engine knows about a message.
enum Held {
    /// Nothing so far: it is claimed now.
    Free,
    /// It is being relayed.
    Claimed,
    /// It was relayed, as this task.
    Relayed(String),
}

impl Deduplicator {
    pub fn memory() -> Self {
        Self(Arc::new(Engine::Memory(MemoryDedup::new())))
    }

    /// `key_prefix` is `[engine.redis] key_prefix`.
    pub fn redis(commands: Commands, key_prefix: &str) -> Self {
        Self(Arc::new(Engine::Redis(RedisDedup::new(commands, key_prefix))))
    }

    /// Claims a message. If it is being relayed already, waits for the result, for at most as long as a claim
    /// lasts and while `is_wanted`. `relay_timeout` is the longest that a relay takes, all attempts together;
    /// `ttl` is how long the answer will be kept.
    pub async fn claim_or_wait(
        &self,
        message: MessageKey,
        relay_timeout: Duration,
        ttl: Duration,
        is_wanted: impl Fn() -> bool,
    ) -> Result<DedupOutcome, DedupError> {
        self.claim_within(lease_of(relay_timeout), message, ttl, is_wanted).await
    }

    async fn claim_within(
        &self,
        lease: Duration,
        message: MessageKey,
        ttl: Duration,
        is_wanted: impl Fn() -> bool,
    ) -> Result<DedupOutcome, DedupError> {
        let token = Bits128::random().to_string();
        let until = Instant::now() + lease;
        loop {
            match self.claim(&message, &token, lease).await {
                Ok(Held::Free) => {
                    let dedup = self.clone();
                    return Ok(DedupOutcome::First(Claim { dedup, message, token, ttl, lease }));
                }
                Ok(Held::Relayed(task_id)) => return Ok(DedupOutcome::Repeat { task_id }),
                Ok(Held::Claimed) if Instant::now() >= until => {
                    return Err(DedupError::StillRelaying);
                }
                Ok(Held::Claimed) => tokio::time::sleep(POLL).await,
                Err(EngineUnavailable) => return Err(DedupError::EngineUnavailable),
            }
            if !is_wanted() {
                return Err(DedupError::Unwanted);
            }
        }
    }

    async fn claim(
        &self,
        message: &MessageKey,
        token: &str,
        lease: Duration,
    ) -> Result<Held, EngineUnavailable> {
        match &*self.0 {
            Engine::Memory(dedup) => dedup.claim(message, token, lease),
            Engine::Redis(dedup) => Box::pin(dedup.claim(message, token, lease)).await,
        }
    }

    /// Ends a claim. `answer` is the task and how long to keep it; `None` removes the claim.
    async fn finish(
        &self,
        message: &MessageKey,
        token: &str,
        answer: Option<(&str, Duration)>,
    ) -> Result<(), EngineUnavailable> {
        match &*self.0 {
            Engine::Memory(dedup) => {
                dedup.finish(message, token, answer);
                Ok(())
            }
            Engine::Redis(dedup) => dedup.finish(message, token, answer).await,
        }
    }
}

/// How long a claim lasts whose relay takes at most `relay_timeout`.
fn lease_of(relay_timeout: Duration) -> Duration {
    relay_timeout.saturating_add(LEASE_MARGIN).min(LONGEST_LEASE)
}

/// The right to relay a message. Its holder reports the outcome; a claim that is dropped instead expires.
#[must_use]
pub struct Claim {
    dedup: Deduplicator,
    message: MessageKey,
    token: String,
    ttl: Duration,
    /// How long the claim lives without renewal.
    lease: Duration,
}

impl Claim {
    /// Keeps the claim while its message waits to be relayed. Must be called within [`Claim::lease`] each time. If the
    /// engine is unavailable, a repeat of the message may be relayed too.
    pub async fn renew(&self) {
        let _ = self.dedup.claim(&self.message, &self.token, self.lease).await;
    }

    /// How long the claim lives without renewal.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Reports the outcome where no call of the engine is needed: the task that the message became, if the upstream has
    /// accepted it. `Err` returns the claim.
    pub fn settle_at_once(self, task_id: Option<&str>) -> Result<(), Self> {
        match &*self.dedup.0 {
            Engine::Memory(dedup) => {
                let answer = task_id.map(|task_id| (task_id, self.ttl));
                dedup.finish(&self.message, &self.token, answer);
                Ok(())
            }
            Engine::Redis(_) => Err(self),
        }
    }

    /// Reports that the upstream has accepted the message as `task_id`, which repeats get as answer.
    pub async fn complete(self, task_id: &str) {
        if !self.finish(Some((task_id, self.ttl))).await {
            telemetry::replies::answer_not_stored(task_id);
        }
    }

    /// Reports that the upstream has not accepted the message, as far as is known: it may be sent again. If
    /// the engine is unavailable, it may be once the claim has expired.
    pub async fn release(self) {
        let _ = self.finish(None).await;
    }

    async fn finish(&self, answer: Option<(&str, Duration)>) -> bool {
        let finish = || self.dedup.finish(&self.message, &self.token, answer);
        retry(FINISH_ATTEMPTS, FINISH_PAUSE, |EngineUnavailable| true, finish).await.is_ok()
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("message", &self.message).finish_non_exhaustive()
    }
}
