//! A separate connection for commands that block in Redis, which would delay all other commands.

use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue};

use super::open::{self, COMMAND_DEADLINE};
use super::pubsub::classify;
use super::{ConnectionError, Health, MonitoredLink, RedisFailure};

/// A connection that runs one command at a time. After [`RedisFailure::Unavailable`], or after a call was dropped,
/// a late answer may still arrive, so the connection must be closed.
pub struct BlockingConnection {
    link: MonitoredLink,
    health: Health,
}

impl BlockingConnection {
    /// Signs of a demotion of the server are reported to `health`.
    pub async fn connect(client: &Client, health: &Health) -> Result<Self, ConnectionError> {
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let link = open::connect(client, config, health).await?;
        Ok(Self { link, health: health.clone() })
    }

    /// Sends one command that blocks in Redis for up to `wait`. Its answer may take two seconds longer than that.
    pub async fn query<T: FromRedisValue>(
        &mut self,
        command: &Cmd,
        wait: Duration,
    ) -> Result<T, RedisFailure> {
        let answer = command.query_async(&mut self.link.connection);
        let failure = match tokio::time::timeout(wait + COMMAND_DEADLINE, answer).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => classify(error),
            Err(_) => RedisFailure::Unavailable,
        };
        self.link.inspect(&self.health, &failure);
        Err(failure)
    }
}

#[cfg(test)]
mod tests;
