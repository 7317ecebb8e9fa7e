//! A pub/sub connection. It uses RESP3, so that subscriptions, publications and PINGs share one connection.

use std::borrow::Borrow;
use std::sync::Arc;

use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, Value};
use redis::{FromRedisValue, ScriptInvocation};

use super::open::{self, COMMAND_DEADLINE};
use super::push_stream::PushStream;
use super::{CLOSED, ConnectionError, Health, MonitoredLink, RedisFailure};
use crate::protocol::ChannelName;

/// Counts the subscribers of a channel and publishes to it atomically.
const PUBLISH: &str = r"
local subscribers = redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2]
redis.call('PUBLISH', ARGV[1], ARGV[2])
return subscribers";

/// A pub/sub connection. Dropping it closes it, once its [`PubSubSender`]s are dropped as well.
pub struct PubSub {
    link: MonitoredLink,
    health: Health,
}

/// Publishes over the connection that also receives, from any thread. If one direction works, so does the other.
#[derive(Clone)]
pub struct PubSubSender {
    link: MonitoredLink,
    health: Health,
}

impl PubSubSender {
    /// Publishes `payload` to `channel`. Returns the number of clients that are subscribed to the channel by its
    /// name; pattern subscriptions are not counted.
    pub async fn publish(&self, channel: &ChannelName, payload: &str) -> Result<u64, RedisFailure> {
        // MULTI cannot be used: the message to this connection would arrive in the middle of its own answer.
        let script = redis::Script::new(PUBLISH);
        let mut invocation = script.prepare_invoke();
        invocation.arg(channel.as_str()).arg(payload);
        self.invoke(&invocation).await
    }

    /// Calls a script over this connection, for at most two seconds.
    pub async fn invoke<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RedisFailure> {
        let mut connection = self.link.connection.clone();
        let answer = script.invoke_async(&mut connection);
        let failure = match tokio::time::timeout(COMMAND_DEADLINE, answer).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => classify(error),
            Err(_) => RedisFailure::Unavailable,
        };
        self.link.inspect(&self.health, &failure);
        Err(failure)
    }
}

impl PubSubSender {
    /// Publishes `payload` to the Redis channel with this name.
    pub async fn publish_text(&self, channel: &str, payload: &str) -> Result<(), RedisFailure> {
        let mut connection = self.link.connection.clone();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(payload);
        let answer = publish.query_async::<i64>(&mut connection);
        match tokio::time::timeout(COMMAND_DEADLINE, answer).await {
            Ok(answer) => answer.map(|_| ()).map_err(classify),
            Err(_) => Err(RedisFailure::Unavailable),
        }
    }
}

impl PubSub {
    /// Opens a connection. `on_message` gets the channel and the payload of each message; it is called on the
    /// connection's task and must not block. The end of the connection is reported to `health`.
    pub async fn connect(
        client: &Client,
        health: &Health,
        on_message: impl Fn(&[u8], &[u8]) + Send + Sync + 'static,
    ) -> Result<Self, ConnectionError> {
        let on_message = Arc::new(on_message);
        let (on_end, on_push) = (health.clone(), Arc::clone(&on_message));
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(COMMAND_DEADLINE))
            .set_push_sender(move |push: PushInfo| -> Result<(), std::convert::Infallible> {
                if push.kind == PushKind::Disconnection {
                    on_end.give_up(CLOSED);
                } else if let Some((channel, payload)) = message(&push) {
                    on_push(channel, payload);
                }
                Ok(())
            });
        let wrap = move |stream| {
            PushStream::new(stream, move |channel: &[u8], payload: &[u8]| {
                on_message(channel, payload);
            })
        };
        // Over TLS or a Unix socket, which the library opens itself, the messages come as its values.
        let link = match open::connect_wrapped(client, config.clone(), health, wrap).await {
            Some(opened) => opened?,
            None => open::connect(client, config, health).await?,
        };
        Ok(Self { link, health: health.clone() })
    }

    pub fn sender(&self) -> PubSubSender {
        PubSubSender { link: self.link.clone(), health: self.health.clone() }
    }

    /// A clone for [`super::Supervised::links_to_check`].
    pub fn link(&self) -> MonitoredLink {
        self.link.clone()
    }

    pub async fn subscribe(&mut self, channels: &[impl Borrow<str>]) -> Result<(), RedisFailure> {
        let names: Vec<&str> = channels.iter().map(Borrow::borrow).collect();
        self.link.connection.subscribe(names).await.map_err(classify)
    }

    pub async fn unsubscribe(&mut self, channels: &[impl Borrow<str>]) -> Result<(), RedisFailure> {
        let names: Vec<&str> = channels.iter().map(Borrow::borrow).collect();
        self.link.connection.unsubscribe(names).await.map_err(classify)
    }
}

/// Distinguishes error answers from missing answers.
pub(super) fn classify(error: redis::RedisError) -> RedisFailure {
    if error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error() {
        RedisFailure::Unavailable
    } else {
        RedisFailure::Refused(error)
    }
}

/// The channel and the payload of a push; `None` if it is not a message.
fn message(push: &PushInfo) -> Option<(&[u8], &[u8])> {
    match &push.data[..] {
        [Value::BulkString(channel), Value::BulkString(payload), ..]
            if push.kind == PushKind::Message =>
        {
            Some((channel, payload))
        }
        _ => None,
    }
}
