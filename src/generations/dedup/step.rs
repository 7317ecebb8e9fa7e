//! The claim of a message as a step of a chain.

use std::time::Duration;

use redis::FromRedisValue;

use super::redis::RedisDedup;
use super::{Claim, DedupOutcome, Deduplicator, Engine, Held, MessageKey, lease_of};
use crate::protocol::Bits128;
use crate::redis_link::{Commands, EngineUnavailable, Step, StepAnswer};

/// A claim that is asked for.
pub struct ClaimRequest(Claim);

impl Deduplicator {
    /// The connection on which these steps run; `None` on the memory engine.
    pub fn commands(&self) -> Option<&Commands> {
        match &*self.0 {
            Engine::Memory(_) => None,
            Engine::Redis(redis) => Some(redis.commands()),
        }
    }

    /// The step that claims a message, as [`Deduplicator::claim_or_wait`] does. `None` on the memory engine.
    pub fn claim_step(
        &self,
        message: MessageKey,
        relay_timeout: Duration,
        ttl: Duration,
    ) -> Option<(Step, ClaimRequest)> {
        let Engine::Redis(redis) = &*self.0 else { return None };
        let (token, lease) = (Bits128::random().to_string(), lease_of(relay_timeout));
        let step = redis.claim_step(&message, &token, lease);
        let claim = Claim { dedup: self.clone(), message, token, ttl, lease };
        Some((step, ClaimRequest(claim)))
    }
}

impl ClaimRequest {
    /// Reads the answer to the step. `None` = the message is being relayed; [`Deduplicator::claim_or_wait`] waits for the
    /// result.
    pub fn read(self, answer: StepAnswer) -> Result<Option<DedupOutcome>, EngineUnavailable> {
        let answer = answer.and_then(|answer| Option::from_redis_value(answer).ok());
        Ok(match RedisDedup::held(answer.ok_or(EngineUnavailable)?) {
            Held::Free => Some(DedupOutcome::First(self.0)),
            Held::Relayed(task_id) => Some(DedupOutcome::Repeat { task_id }),
            Held::Claimed => None,
        })
    }
}
