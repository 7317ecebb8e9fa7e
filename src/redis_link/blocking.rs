//! A separate connection for commands that block in Redis, which would delay all other commands.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue};

use super::open::{self, COMMAND_DEADLINE};
use super::pubsub::classify;
use super::{ConnectionError, RedisFailure};

/// A connection that runs one command at a time. After [`RedisFailure::Unavailable`], or after a call was dropped,
/// a late answer may still arrive, so the connection must be closed.
pub struct BlockingConnection {
    connection: MultiplexedConnection,
}

impl BlockingConnection {
    pub async fn connect(client: &Client) -> Result<Self, ConnectionError> {
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        Ok(Self { connection: open::connect(client, config).await? })
    }

    /// Sends one command that blocks in Redis for up to `wait`. Its answer may take two seconds longer than that.
    pub async fn query<T: FromRedisValue>(
        &mut self,
        command: &Cmd,
        wait: Duration,
    ) -> Result<T, RedisFailure> {
        let answer = command.query_async(&mut self.connection);
        match tokio::time::timeout(wait + COMMAND_DEADLINE, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(classify(error)),
            Err(_) => Err(RedisFailure::Unavailable),
        }
    }
}

#[cfg(test)]
mod tests;
