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
mod tests {
    use super::*;
    use crate::redis_link::test_server::RedisServer;

    const WAIT: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_command_waits_and_a_server_that_stalls_is_noticed() {
        let server = RedisServer::start();
        let client = crate::redis_link::client(&server.url()).unwrap();
        let mut connection = BlockingConnection::connect(&client).await.unwrap();
        let mut pop = redis::cmd("BLPOP");
        pop.arg("nothing").arg(WAIT.as_secs());
        let nothing: Option<(String, String)> = connection.query(&pop, WAIT).await.unwrap();
        assert_eq!(nothing, None);
        let refused = connection.query::<()>(redis::cmd("SET").arg("a"), Duration::ZERO).await;
        assert!(matches!(refused, Err(RedisFailure::Refused(_))));
        server.pause();
        let lost = connection.query::<Option<(String, String)>>(&pop, WAIT).await;
        assert!(matches!(lost, Err(RedisFailure::Unavailable)));
        server.resume();
    }
}
