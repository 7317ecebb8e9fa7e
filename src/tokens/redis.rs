//! Connection tokens in Redis, shared by all nodes and open to backends that issue them themselves.

use std::time::Duration;

use redis::Script;

use super::TokenRecord;
use super::record::Unusable;
use super::token::log_id;
use crate::clock;
use crate::config::TokenFormat;
use crate::protocol::{UserId, random_hex};
use crate::redis_link::{Commands, Needs, RedisFailure, Step};

const COUNT: &str = include_str!("count.lua");
const TAKE: &str = include_str!("take.lua");

/// What a record may be bound to without being unusual.
#[derive(Debug, Clone, Copy)]
pub struct TokenUse<'a> {
    /// The channel that the token's user joins; `None` = the route has none.
    pub channel: Option<&'a str>,
    /// The `Origin` of the handshake; `None` = it had none.
    pub origin: Option<&'a str>,
}

/// Records as strings under `{prefix}{token}` with a time to live. It needs Redis 6.2 (`GETDEL`).
/// The tokens of a user whose number is bounded are a sorted set under `{prefix}user:{user}`, by their log ids.
pub(super) struct RedisTokens {
    commands: Commands,
    prefix: Box<str>,
    ttl_ms: u64,
    format: TokenFormat,
    count: Script,
}

impl RedisTokens {
    pub(super) fn new(
        commands: Commands,
        prefix: &str,
        ttl: Duration,
        format: TokenFormat,
    ) -> Self {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { commands, prefix: prefix.into(), ttl_ms, format, count: Script::new(COUNT) }
    }

    /// Writes the record in the configured format; `None` beyond [`TokenRecord::MAX_BYTES`].
    pub(super) fn write(&self, record: &TokenRecord) -> Option<Vec<u8>> {
        match self.format {
            TokenFormat::Json => record.to_json().map(String::into_bytes),
            TokenFormat::Django => record.to_pickle(),
        }
    }

    pub(super) fn read(&self, record: &[u8]) -> Result<TokenRecord, Unusable> {
        match self.format {
            TokenFormat::Json => TokenRecord::read(record),
            TokenFormat::Django => TokenRecord::read_django(record),
        }
    }

    pub(super) async fn put(&self, token: &str, record: &[u8]) -> Result<(), RedisFailure> {
        let mut set = redis::cmd("SET");
        set.arg(self.key(token)).arg(record).arg("PX").arg(self.ttl_ms);
        self.commands.query(&set).await
    }

    /// The same, unless `max` tokens of `user` wait to be used: then returns the time until one of them expires. The
    /// count is checked and taken in one step, and given back if the token cannot be stored.
    pub(super) async fn put_of(
        &self,
        user: &str,
        max: u32,
        token: &str,
        record: &[u8],
    ) -> Result<Option<Duration>, RedisFailure> {
        let id = log_id(token);
        let mut call = self.count.prepare_invoke();
        call.key(self.user_key(user)).arg(&id).arg(self.ttl_ms).arg(max);
        let wait_ms: u64 = self.commands.invoke(&call).await?;
        if wait_ms > 0 {
            return Ok(Some(Duration::from_millis(wait_ms)));
        }
        let stored = self.put(token, record).await;
        if stored.is_err() {
            // What fails expires.
            let _ = self.uncount(user, &id).await;
        }
        stored.map(|()| None)
    }

    /// A token of `user` was used. `id` is its log id.
    pub(super) async fn uncount(&self, user: &str, id: &str) -> Result<(), RedisFailure> {
        self.commands.query(redis::cmd("ZREM").arg(self.user_key(user)).arg(id)).await
    }

    /// One command reads and deletes, so that of simultaneous uses exactly one has an answer.
    pub(super) async fn take(&self, token: &str) -> Result<Option<Vec<u8>>, RedisFailure> {
        self.commands.query(redis::cmd("GETDEL").arg(self.key(token))).await
    }

    /// The same as a step, which answers with the record and, if it is a plain one, its user. `None` for records that
    /// only the gateway can read.
    pub(super) fn take_step(&self, token: &str, purpose: TokenUse<'_>) -> Option<Step> {
        if self.format != TokenFormat::Json {
            return None;
        }
        let step = Step::new(TAKE, "answer and answer[2], answer and answer[2]");
        let step = step.key(self.key(token)).arg(purpose.channel.unwrap_or_default());
        let step = step.arg(purpose.origin.unwrap_or_default()).arg(clock::unix_seconds());
        Some(step.arg(TokenRecord::MAX_BYTES).arg(UserId::ANONYMOUS))
    }

    pub(super) fn commands(&self) -> &Commands {
        &self.commands
    }

    /// Declares what issuing, consuming and counting tokens, where the gateway does so, sends to Redis.
    pub(super) fn declare_needs(&self, issues: bool, consumes: bool, counts: bool) {
        let mut needs = Needs::default();
        if issues {
            let own_key = self.key(&format!("probe:{}", random_hex(8)));
            needs = needs.command("SET", &own_key).own_key(own_key);
        }
        if counts {
            needs =
                needs.script(COUNT, &self.user_key("0"), "").command("ZREM", &self.user_key("0"));
        }
        if consumes {
            needs = needs.command("GETDEL", &self.key("0"));
        }
        self.commands.declare("tokens", needs);
    }

    fn user_key(&self, user: &str) -> String {
        format!("{}user:{user}", self.prefix)
    }

    fn key(&self, token: &str) -> String {
        format!("{}{token}", self.prefix)
    }
}

#[cfg(test)]
mod tests;
