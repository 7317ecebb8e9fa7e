//! The store in which connection tokens wait for their one use.

use std::sync::Arc;
use std::time::Duration;

use super::TokenRecord;
use super::memory::MemoryTokens;
use super::record::Unusable;
use super::redis::RedisTokens;
use super::token::{generate, is_well_formed, log_id};
use crate::config::TokenFormat;
use crate::redis_link::{Commands, EngineUnavailable, RedisFailure};
use crate::telemetry;
use crate::telemetry::credentials::Consumption;

/// The connection tokens of all nodes. Cheap to clone, shared by all threads.
#[derive(Clone)]
pub struct TokenStore(Arc<Engine>);

enum Engine {
    Memory(MemoryTokens),
    Redis(RedisTokens),
}

impl TokenStore {
    pub fn memory(ttl: Duration) -> Self {
        Self(Arc::new(Engine::Memory(MemoryTokens::new(ttl))))
    }

    pub fn redis(commands: Commands, key_prefix: &str, ttl: Duration, format: TokenFormat) -> Self {
        Self(Arc::new(Engine::Redis(RedisTokens::new(commands, key_prefix, ttl, format))))
    }

    /// Declares whether the gateway issues and consumes tokens.
    pub fn declare_needs(&self, issues: bool, consumes: bool) {
        if let Engine::Redis(redis) = &*self.0 {
            redis.declare_needs(issues, consumes);
        }
    }

    /// Stores `record` under a new token for `ttl` and returns the token: 43 URL-safe characters.
    /// A record longer than [`TokenRecord::MAX_BYTES`] is not stored either.
    pub async fn issue(&self, record: &TokenRecord) -> Result<String, EngineUnavailable> {
        let outcome = match generate() {
            None => Err("no random bytes".to_owned()),
            Some(token) => self.put(&token, record).await.map(|()| token),
        };
        match outcome {
            Ok(token) => {
                telemetry::credentials::token_issued(&log_id(&token), &record.user_id);
                Ok(token)
            }
            Err(reason) => {
                telemetry::credentials::token_not_issued(&reason);
                Err(EngineUnavailable)
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

    async fn put(&self, token: &str, record: &TokenRecord) -> Result<(), String> {
        let too_long = || format!("the record has over {} bytes", TokenRecord::MAX_BYTES);
        match &*self.0 {
            Engine::Memory(tokens) => tokens
                .put(token, record.to_json().ok_or_else(too_long)?, tokens.now())
                .map_err(|_| "too many tokens wait to be used".to_owned()),
            Engine::Redis(tokens) => {
                let written = tokens.write(record).ok_or_else(too_long)?;
                tokens.put(token, &written).await.map_err(|failure| failure.to_string())
            }
        }
    }

    async fn take(&self, token: &str) -> Result<TokenRecord, Unusable> {
        match &*self.0 {
            Engine::Memory(tokens) => {
                let json = tokens.take(token, tokens.now());
                TokenRecord::read(json.ok_or(Consumption::UnknownOrReplayed)?.as_bytes())
            }
            Engine::Redis(tokens) => {
                let taken = tokens.take(token).await.map_err(|failure| match failure {
                    RedisFailure::Refused(error) if error.code() == Some("WRONGTYPE") => {
                        Consumption::MalformedRecord
                    }
                    _ => Consumption::EngineDown,
                });
                tokens.read(&taken?.ok_or(Consumption::UnknownOrReplayed)?)
            }
        }
    }
}

#[cfg(test)]
mod tests;
