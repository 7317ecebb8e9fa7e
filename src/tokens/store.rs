//! The store in which connection tokens wait for their one use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::FromRedisValue as _;

use super::TokenRecord;
use super::memory::MemoryTokens;
use super::record::Unusable;
use super::redis::{RedisTokens, TokenUse};
use super::token::{generate, is_well_formed, log_id};
use crate::config::TokenFormat;
use crate::redis_link::{Commands, EngineUnavailable, RedisFailure, Step, StepAnswer};
use crate::telemetry;
use crate::telemetry::credentials::Consumption;

/// The connection tokens of all nodes. Cheap to clone, shared by all threads.
#[derive(Clone)]
pub struct TokenStore(Arc<Store>);

struct Store {
    engine: Engine,
    /// Whether tokens are counted for their users in Redis, so that used ones must be uncounted.
    counts: AtomicBool,
}

/// Why no token was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotIssued {
    /// As many tokens of the user as may be wait to be used; one of them expires after this time.
    TooManyOfUser { retry_after: Duration },
    /// The store in memory is full.
    StoreFull,
    /// The text says what failed.
    Failed(String),
}

enum Engine {
    Memory(MemoryTokens),
    Redis(RedisTokens),
}

impl TokenStore {
    pub fn memory(ttl: Duration) -> Self {
        Self::new(Engine::Memory(MemoryTokens::new(ttl)))
    }

    pub fn redis(commands: Commands, key_prefix: &str, ttl: Duration, format: TokenFormat) -> Self {
        Self::new(Engine::Redis(RedisTokens::new(commands, key_prefix, ttl, format)))
    }

    fn new(engine: Engine) -> Self {
        Self(Arc::new(Store { engine, counts: AtomicBool::new(false) }))
    }

    /// Declares whether the gateway issues and consumes tokens, and whether it counts those that it issues.
    pub fn declare_needs(&self, issues: bool, consumes: bool, counts: bool) {
        self.0.counts.store(counts, Ordering::Relaxed);
        if let Engine::Redis(redis) = &self.0.engine {
            redis.declare_needs(issues, consumes, counts);
        }
    }

    /// Stores `record` under a new token for `ttl` and returns the token: 43 URL-safe characters.
    /// A record longer than [`TokenRecord::MAX_BYTES`] is not stored either.
    pub async fn issue(&self, record: &TokenRecord) -> Result<String, EngineUnavailable> {
        self.issue_with(record, None).await.map_err(|_| EngineUnavailable)
    }

    /// The same, unless `max` tokens of the record's user that this function has issued wait to be used; `None` = no
    /// limit. Its user can have a token issued as often as it likes.
    pub async fn issue_to_user(
        &self,
        record: &TokenRecord,
        max: Option<u32>,
    ) -> Result<String, NotIssued> {
        self.issue_with(record, max).await
    }

    async fn issue_with(
        &self,
        record: &TokenRecord,
        max: Option<u32>,
    ) -> Result<String, NotIssued> {
        let outcome = match generate() {
            None => Err(NotIssued::Failed("no random bytes".to_owned())),
            Some(token) => self.put(&token, record, max).await.map(|()| token),
        };
        match outcome {
            Ok(token) => {
                telemetry::credentials::token_issued(&log_id(&token), &record.user_id);
                Ok(token)
            }
            Err(reason) => {
                match &reason {
                    NotIssued::TooManyOfUser { .. } => {
                        telemetry::credentials::user_has_too_many_tokens(&record.user_id);
                    }
                    NotIssued::StoreFull => telemetry::credentials::token_store_full(),
                    NotIssued::Failed(reason) => {
                        telemetry::credentials::token_not_issued(reason);
                    }
                }
                Err(reason)
            }
        }
    }

    /// Removes and returns the record, so that no second call finds it. `None`: the token is unknown, expired,
    /// used, malformed or already consumed. What it is bound to (channels, origin, connection id) is not
    /// compared here.
    pub async fn consume(&self, token: &str) -> Result<Option<TokenRecord>, EngineUnavailable> {
        if !is_well_formed(token) {
            telemetry::credentials::token_consumed("", None, Consumption::MalformedToken, None);
            return Ok(None);
        }
        let read = self.take(token).await;
        Self::finish(token, read)
    }

    /// [`TokenStore::consume`] as the first step of a chain on [`TokenStore::commands`], for which the steps after it run if
    /// the record is a plain one. `None` = this is not possible.
    pub fn consume_step(&self, token: &str, purpose: TokenUse<'_>) -> Option<Step> {
        match &self.0.engine {
            Engine::Redis(tokens) if is_well_formed(token) => tokens.take_step(token, purpose),
            _ => None,
        }
    }

    /// The connection on which these steps run; `None` on the memory engine.
    pub fn commands(&self) -> Option<&Commands> {
        match &self.0.engine {
            Engine::Memory(_) => None,
            Engine::Redis(tokens) => Some(tokens.commands()),
        }
    }

    /// Returns what [`TokenStore::consume`] would have returned, from the answer to its step.
    pub fn read_consumed(
        &self,
        token: &str,
        answer: Result<StepAnswer, RedisFailure>,
    ) -> Result<Option<TokenRecord>, EngineUnavailable> {
        let Engine::Redis(tokens) = &self.0.engine else { return Err(EngineUnavailable) };
        let taken = answer.map(|answer| {
            let answer = answer.and_then(|answer| Option::from_redis_value(answer).ok());
            answer.flatten().map(|(record, _): (Vec<u8>, Option<String>)| record)
        });
        Self::finish(token, self.read_taken(tokens, token, taken))
    }

    /// Records what became of a token.
    fn finish(
        token: &str,
        read: Result<TokenRecord, Unusable>,
    ) -> Result<Option<TokenRecord>, EngineUnavailable> {
        let unusable = read.as_ref().err();
        let outcome = unusable.map_or(Consumption::Consumed, |unusable| unusable.outcome);
        let reason = unusable.and_then(|unusable| unusable.reason.as_deref());
        let user = read.as_ref().ok().map(|record| &record.user_id);
        telemetry::credentials::token_consumed(&log_id(token), user, outcome, reason);
        match outcome {
            Consumption::EngineDown => Err(EngineUnavailable),
            _ => Ok(read.ok()),
        }
    }

    async fn put(
        &self,
        token: &str,
        record: &TokenRecord,
        max: Option<u32>,
    ) -> Result<(), NotIssued> {
        let too_long =
            || NotIssued::Failed(format!("the record has over {} bytes", TokenRecord::MAX_BYTES));
        let user = record.user_id.to_string();
        match &self.0.engine {
            Engine::Memory(tokens) => {
                let json = record.to_json().ok_or_else(too_long)?;
                match max {
                    Some(max) => tokens.put_of(&user, max, token, json, tokens.now()),
                    None => tokens.put(token, json, tokens.now()),
                }
            }
            Engine::Redis(tokens) => {
                let written = tokens.write(record).ok_or_else(too_long)?;
                let put = match max {
                    Some(max) => tokens.put_of(&user, max, token, &written).await,
                    None => tokens.put(token, &written).await.map(|()| None),
                };
                match put.map_err(|failure| NotIssued::Failed(failure.to_string()))? {
                    Some(retry_after) => Err(NotIssued::TooManyOfUser { retry_after }),
                    None => Ok(()),
                }
            }
        }
    }

    /// Uncounts a used token of `user`, without delay for the client that has used it. What fails expires.
    fn uncount(&self, user: String, token: &str) {
        if !self.0.counts.load(Ordering::Relaxed) {
            return;
        }
        let (store, id) = (Arc::clone(&self.0), log_id(token));
        tokio::spawn(async move {
            if let Engine::Redis(tokens) = &store.engine {
                let _ = tokens.uncount(&user, &id).await;
            }
        });
    }

    async fn take(&self, token: &str) -> Result<TokenRecord, Unusable> {
        match &self.0.engine {
            Engine::Memory(tokens) => {
                let json = tokens.take(token, tokens.now());
                TokenRecord::read(json.ok_or(Consumption::UnknownOrReplayed)?.as_bytes())
            }
            Engine::Redis(tokens) => self.read_taken(tokens, token, tokens.take(token).await),
        }
    }

    /// Reads what Redis had for a token that is used up now.
    fn read_taken(
        &self,
        tokens: &RedisTokens,
        token: &str,
        taken: Result<Option<Vec<u8>>, RedisFailure>,
    ) -> Result<TokenRecord, Unusable> {
        let taken = taken.map_err(|failure| match failure {
            RedisFailure::Refused(error) if error.code() == Some("WRONGTYPE") => {
                Consumption::MalformedRecord
            }
            _ => Consumption::EngineDown,
        });
        let record = tokens.read(&taken?.ok_or(Consumption::UnknownOrReplayed)?)?;
        self.uncount(record.user_id.to_string(), token);
        Ok(record)
    }
}

#[cfg(test)]
mod tests;
