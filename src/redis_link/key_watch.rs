//! A connection that learns from Redis when keys change, without a command that blocks.

use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, PushInfo, PushKind, ScriptInvocation, Value,
};

use super::open::{self, COMMAND_DEADLINE};
use super::pubsub::classify;
use super::{CLOSED, ConnectionError, Health, MonitoredLink, RedisFailure};

/// A connection on which Redis reports changes of keys by `CLIENT TRACKING` in broadcast mode (Redis 6).
pub struct KeyWatch {
    link: MonitoredLink,
    health: Health,
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
        let on_end = health.clone();
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(COMMAND_DEADLINE))
            .set_push_sender(move |push: PushInfo| -> Result<(), std::convert::Infallible> {
                match push.kind {
                    PushKind::Disconnection => on_end.give_up(CLOSED),
                    PushKind::Invalidate => on_change(),
                    _ => {}
                }
                Ok(())
            });
        let mut link = open::connect(client, config, health).await?;
        let mut track = redis::cmd("CLIENT");
        track.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(prefix).arg("NOLOOP");
        let answer = track.query_async::<Value>(&mut link.connection).await.map_err(classify);
        let is_tracking = match answer {
            Ok(_) => true,
            Err(RedisFailure::Refused(_)) => false,
            Err(failure @ RedisFailure::Unavailable) => return Err(failure.into()),
        };
        Ok(Self { link, health: health.clone(), is_tracking })
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
        let answer = script.invoke_async(&mut self.link.connection).await.map_err(classify);
        answer.inspect_err(|failure| self.link.inspect(&self.health, failure))
    }

    /// A clone for [`super::Supervised::links_to_check`].
    pub fn link(&self) -> MonitoredLink {
        self.link.clone()
    }
}

#[cfg(test)]
mod tests;
