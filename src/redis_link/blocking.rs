//! A connection for commands that wait in Redis, which would hold up everybody else's.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue};

use super::open::{COMMAND_DEADLINE, CONNECT_DEADLINE};
use super::pubsub::judge;
use super::{RedisFailure, open};
use crate::config::RedisUrl;

/// One command at a time. After [`RedisFailure::Unavailable`] an answer may be on its way that nobody
/// would get: give the connection up. The same holds for a call that was dropped.
pub struct Blocking {
    link: MultiplexedConnection,
}

/// Checks `url`; does not connect.
pub fn blocking_client(url: &RedisUrl) -> Result<Client, String> {
    open::client(url)
}

impl Blocking {
    pub async fn connect(client: &Client) -> Result<Self, RedisFailure> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_DEADLINE))
            .set_response_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(CONNECT_DEADLINE, connecting).await {
            Ok(Ok(link)) => Ok(Self { link }),
            Ok(Err(error)) => Err(judge(error)),
            Err(_) => Err(RedisFailure::Unavailable),
        }
    }

    /// One answer, within two seconds more than the command `waits`.
    pub async fn query<T: FromRedisValue>(
        &mut self,
        command: &Cmd,
        waits: Duration,
    ) -> Result<T, RedisFailure> {
        let answer = command.query_async(&mut self.link);
        match tokio::time::timeout(waits + COMMAND_DEADLINE, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(judge(error)),
            Err(_) => Err(RedisFailure::Unavailable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis_link::test_server::RedisServer;

    const WAITS: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_command_waits_and_a_server_that_stalls_is_noticed() {
        let server = RedisServer::start();
        let client = blocking_client(&server.url()).unwrap();
        let mut link = Blocking::connect(&client).await.unwrap();
        let mut pop = redis::cmd("BLPOP");
        pop.arg("nothing").arg(WAITS.as_secs());
        let nothing: Option<(String, String)> = link.query(&pop, WAITS).await.unwrap();
        assert_eq!(nothing, None);
        let refused = link.query::<()>(redis::cmd("SET").arg("a"), Duration::ZERO).await;
        assert!(matches!(refused, Err(RedisFailure::Refused(_))));
        server.pause();
        let lost = link.query::<Option<(String, String)>>(&pop, WAITS).await;
        assert!(matches!(lost, Err(RedisFailure::Unavailable)));
        server.resume();
    }
}
