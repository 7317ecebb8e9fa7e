//! One pub/sub connection: RESP3, so that subscriptions, publications and PING share it.

use std::borrow::Borrow;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, Value};

use super::{RedisFailure, open};
use crate::config::RedisUrl;
use crate::protocol::ChannelName;

/// To connect, to answer a PING, and to confirm a SUBSCRIBE or a PUBLISH.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Publishes, and counts who hears it, in one step.
const PUBLISH: &str = r"
local subscribers = redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2]
redis.call('PUBLISH', ARGV[1], ARGV[2])
return subscribers";

/// What the connection hears by itself.
pub enum Heard {
    Message { channel: Vec<u8>, payload: Vec<u8> },
    Disconnected,
}

/// Checks `url`; does not connect.
pub fn pubsub_client(url: &RedisUrl) -> Result<Client, String> {
    open::client(url)
}

/// The connection. Dropping it closes it, once its [`PubSubSender`]s are gone as well.
pub struct PubSub {
    connection: MultiplexedConnection,
}

/// Publishes over the connection that hears, from any thread: where one works, so does the other.
#[derive(Clone)]
pub struct PubSubSender {
    connection: MultiplexedConnection,
}

impl PubSubSender {
    /// How many are subscribed to `channel` by its name, and so heard it. Those who listen by a pattern
    /// are not counted.
    pub async fn publish(&self, channel: &ChannelName, payload: &str) -> Result<u64, RedisFailure> {
        // No MULTI: the connection's own copy would come in the middle of its answer.
        let script = redis::Script::new(PUBLISH);
        let mut invocation = script.prepare_invoke();
        invocation.arg(channel.as_str()).arg(payload);
        let mut connection = self.connection.clone();
        let answer = invocation.invoke_async::<u64>(&mut connection);
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(subscribers)) => Ok(subscribers),
            Ok(Err(error)) => Err(judge(error)),
            Err(_) => Err(RedisFailure::Unavailable),
        }
    }
}

impl PubSub {
    /// `on_heard` is called on the connection's task and must not wait.
    pub async fn connect(
        client: &Client,
        on_heard: impl Fn(Heard) + Send + Sync + 'static,
    ) -> Result<Self, RedisFailure> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            .set_push_sender(move |push: PushInfo| -> Result<(), std::convert::Infallible> {
                if let Some(heard) = read(push) {
                    on_heard(heard);
                }
                Ok(())
            });
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(2 * ANSWER_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(Self { connection }),
            Ok(Err(error)) => Err(judge(error)),
            Err(_) => Err(RedisFailure::Unavailable),
        }
    }

    pub fn sender(&self) -> PubSubSender {
        PubSubSender { connection: self.connection.clone() }
    }

    pub async fn subscribe(&mut self, channels: &[impl Borrow<str>]) -> Result<(), RedisFailure> {
        let names: Vec<&str> = channels.iter().map(Borrow::borrow).collect();
        self.connection.subscribe(names).await.map_err(judge)
    }

    pub async fn unsubscribe(&mut self, channels: &[impl Borrow<str>]) -> Result<(), RedisFailure> {
        let names: Vec<&str> = channels.iter().map(Borrow::borrow).collect();
        self.connection.unsubscribe(names).await.map_err(judge)
    }

    pub async fn ping(&mut self) -> Result<(), RedisFailure> {
        redis::cmd("PING").exec_async(&mut self.connection).await.map_err(judge)
    }
}

/// Why a connection was given up, for the log.
pub struct Lost(pub &'static str);

impl From<RedisFailure> for Lost {
    fn from(failure: RedisFailure) -> Self {
        match failure {
            RedisFailure::Unavailable => Self("no answer"),
            RedisFailure::Refused(_) => Self("an error as answer"),
        }
    }
}

pub(super) fn judge(error: redis::RedisError) -> RedisFailure {
    if error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error() {
        RedisFailure::Unavailable
    } else {
        RedisFailure::Refused(error)
    }
}

fn read(push: PushInfo) -> Option<Heard> {
    match push.kind {
        PushKind::Message => {
            let mut data = push.data.into_iter();
            match (data.next(), data.next()) {
                (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) => {
                    Some(Heard::Message { channel, payload })
                }
                _ => None,
            }
        }
        PushKind::Disconnection => Some(Heard::Disconnected),
        _ => None,
    }
}
