//! Connection tokens in Redis, shared by all nodes and open to backends that issue them themselves.

use std::time::Duration;

use crate::redis_link::{Commands, RedisFailure};

/// Records as strings under `{prefix}{token}` with a time to live. Needs Redis 6.2 (`GETDEL`).
pub(super) struct RedisTokens {
    commands: Commands,
    prefix: Box<str>,
    ttl_ms: u64,
}

impl RedisTokens {
    pub(super) fn new(commands: Commands, prefix: &str, ttl: Duration) -> Self {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { commands, prefix: prefix.into(), ttl_ms }
    }

    pub(super) async fn put(&self, token: &str, json: &str) -> Result<(), RedisFailure> {
        let mut set = redis::cmd("SET");
        set.arg(self.key(token)).arg(json).arg("PX").arg(self.ttl_ms);
        self.commands.query(&set).await
    }

    /// One command reads and deletes, so that of simultaneous uses exactly one has an answer.
    pub(super) async fn take(&self, token: &str) -> Result<Option<Vec<u8>>, RedisFailure> {
        self.commands.query(redis::cmd("GETDEL").arg(self.key(token))).await
    }

    fn key(&self, token: &str) -> String {
        format!("{}{token}", self.prefix)
    }
}
