//! A connection that learns from Redis when keys change, without a command that blocks.

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, PushInfo, PushKind, ScriptInvocation, Value,
};

use super::open::{self, COMMAND_DEADLINE};
use super::pubsub::classify;
use super::{CLOSED, ConnectionError, Health, RedisFailure};

/// A connection on which Redis reports changes of keys by `CLIENT TRACKING` in broadcast mode (Redis 6).
pub struct KeyWatch {
    connection: MultiplexedConnection,
    is_tracking: bool,
}

impl KeyWatch {
    /// Opens a connection. `on_change` is called after each change of a key that begins with `prefix`; it runs on the
    /// connection's task and must not block. The end of the connection is reported to `health`.
    pub async fn connect(
        client: &Client,
        health: &Health,
        prefix: &str,
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, ConnectionError> {
        let health = health.clone();
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(COMMAND_DEADLINE))
            .set_push_sender(move |push: PushInfo| -> Result<(), std::convert::Infallible> {
                match push.kind {
                    PushKind::Disconnection => health.give_up(CLOSED),
                    PushKind::Invalidate => on_change(),
                    _ => {}
                }
                Ok(())
            });
        let mut connection = open::connect(client, config).await?;
        let mut track = redis::cmd("CLIENT");
        track.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(prefix).arg("NOLOOP");
        let answer = track.query_async::<Value>(&mut connection).await.map_err(classify);
        let is_tracking = match answer {
            Ok(_) => true,
            Err(RedisFailure::Refused(_)) => false,
            Err(failure @ RedisFailure::Unavailable) => return Err(failure.into()),
        };
        Ok(Self { connection, is_tracking })
    }

    /// Whether the server reports changes. A server older than Redis 6, or an ACL without `client|tracking`, does not.
    pub fn is_tracking(&self) -> bool {
        self.is_tracking
    }

    /// Calls a script, and waits at most two seconds for its answer.
    pub async fn invoke<T: FromRedisValue>(
        &mut self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RedisFailure> {
        script.invoke_async(&mut self.connection).await.map_err(classify)
    }

    /// A clone for [`super::Supervised::links_to_ping`].
    pub fn link(&self) -> MultiplexedConnection {
        self.connection.clone()
    }
}

#[cfg(test)]
mod tests;
