//! A pub/sub connection. It uses RESP3, so that subscriptions, publications and PINGs share one connection.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::{AsyncConnectionConfig, Client, ConnectionAddr, PushInfo, PushKind, Value};
use redis::{FromRedisValue, ScriptInvocation};

use super::open::{self, COMMAND_DEADLINE};
use super::primary::Primary;
use super::push_stream::{OnShardEnd, PushStream};
use super::{CLOSED, ConnectionError, Health, MonitoredLink, RedisFailure};
use crate::protocol::ChannelName;

/// The same by sharded pub/sub. The channel is a key, so that the node is one that has it.
const SPUBLISH: &str = r"
local subscribers = redis.call('PUBSUB', 'SHARDNUMSUB', KEYS[1])[2]
redis.call('SPUBLISH', KEYS[1], ARGV[1])
return subscribers";

/// Counts the subscribers of a channel and publishes to it atomically.
const PUBLISH: &str = r"
local subscribers = redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2]
redis.call('PUBLISH', ARGV[1], ARGV[2])
return subscribers";

/// A pub/sub connection. Dropping it closes it, once its [`PubSubSender`]s are dropped as well.
pub struct PubSub {
    link: MonitoredLink,
    health: Health,
    /// `Some` if it is one of sharded pub/sub.
    ending: Option<Ending>,
}

/// The channels of sharded pub/sub whose subscriptions are about to end by a command of this connection.
type Ending = Arc<Mutex<HashSet<Box<[u8]>>>>;

/// Gets the channels whose subscription a node has ended by itself.
type OnMoved = Box<dyn Fn(&[u8]) + Send + Sync>;

/// What an answer to a batch of commands ends with. If it does not, an answer is missing or there is one too many.
const LAST: &str = "tidegate";

/// Publishes over the connection that also receives, from any thread. If one direction works, so does the other.
#[derive(Clone)]
pub struct PubSubSender {
    link: MonitoredLink,
    health: Health,
    is_sharded: bool,
}

impl PubSubSender {
    /// Publishes `payload` to `channel`. Returns the number of clients that are subscribed to the channel by its
    /// name; pattern subscriptions are not counted.
    pub async fn publish(&self, channel: &ChannelName, payload: &str) -> Result<u64, RedisFailure> {
        if self.is_sharded {
            let script = redis::Script::new(SPUBLISH);
            let mut invocation = script.key(channel.as_str());
            invocation.arg(payload);
            return self.invoke(&invocation).await;
        }
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
    async fn connect(
        client: &Client,
        health: &Health,
        on_message: impl Fn(&[u8], &[u8]) + Send + Sync + 'static,
    ) -> Result<Self, ConnectionError> {
        Self::connect_either(client, health, Arc::new(on_message), None).await
    }

    /// Opens a connection to a primary. In a cluster it is one for sharded pub/sub, and it is given up when the slot moves.
    pub async fn connect_to(
        primary: &Primary,
        health: &Health,
        on_message: impl Fn(&[u8], &[u8]) + Send + Sync + 'static,
    ) -> Result<Self, ConnectionError> {
        let client = primary.client().await?;
        match primary {
            Primary::Server(_) | Primary::Sentinels(_) => {
                Self::connect(&client, health, on_message).await
            }
            Primary::OwnerOf { .. } => {
                let on_moved = health.clone();
                Self::connect_sharded(&client, health, on_message, move |_| on_moved.give_up(MOVED))
                    .await
            }
        }
    }

    /// Opens a connection to a node of a cluster, for sharded pub/sub. `on_moved` gets each channel whose subscription the
    /// node has ended because it does not have the slot any more.
    pub async fn connect_sharded(
        client: &Client,
        health: &Health,
        on_message: impl Fn(&[u8], &[u8]) + Send + Sync + 'static,
        on_moved: impl Fn(&[u8]) + Send + Sync + 'static,
    ) -> Result<Self, ConnectionError> {
        Self::connect_either(client, health, Arc::new(on_message), Some(Box::new(on_moved))).await
    }

    async fn connect_either(
        client: &Client,
        health: &Health,
        on_message: Arc<impl Fn(&[u8], &[u8]) + Send + Sync + 'static>,
        on_moved: Option<OnMoved>,
    ) -> Result<Self, ConnectionError> {
        let ending = on_moved.is_some().then(Ending::default);
        let (on_end, on_push) = (health.clone(), Arc::clone(&on_message));
        let is_in_clear = matches!(client.get_connection_info().addr(), ConnectionAddr::Tcp(..));
        let of_library = ending.clone().filter(|_| !is_in_clear);
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(COMMAND_DEADLINE))
            .set_push_sender(move |push: PushInfo| -> Result<(), std::convert::Infallible> {
                if push.kind == PushKind::Disconnection {
                    on_end.give_up(CLOSED);
                } else if let Some((channel, payload)) = message(&push) {
                    on_push(channel, payload);
                } else if let (
                    PushKind::SUnsubscribe,
                    Some(ending),
                    [Value::BulkString(channel), ..],
                ) = (&push.kind, &of_library, &push.data[..])
                    && !lock(ending).remove(&channel[..])
                {
                    // The library has taken it for the answer to a command, so that no answer can be trusted.
                    on_end.give_up(MOVED);
                }
                Ok(())
            });
        let on_shard_end = ending.clone().zip(on_moved).map(|(ending, on_moved)| -> OnShardEnd {
            Box::new(move |channel| {
                let is_moved = !lock(&ending).remove(channel);
                if is_moved {
                    on_moved(channel);
                }
                is_moved
            })
        });
        let wrap = move |stream| {
            PushStream::new(stream, on_shard_end, move |channel: &[u8], payload: &[u8]| {
                on_message(channel, payload);
            })
        };
        // Over TLS or a Unix socket, which the library opens itself, the messages come as its values.
        let link = match open::connect_wrapped(client, config.clone(), health, wrap).await {
            Some(opened) => opened?,
            None => open::connect(client, config, health).await?,
        };
        Ok(Self { link, health: health.clone(), ending })
    }

    pub fn sender(&self) -> PubSubSender {
        PubSubSender {
            link: self.link.clone(),
            health: self.health.clone(),
            is_sharded: self.ending.is_some(),
        }
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    /// A clone for [`super::Supervised::links_to_check`].
    pub fn link(&self) -> MonitoredLink {
        self.link.clone()
    }

    pub async fn subscribe(&mut self, channels: &[impl Borrow<str>]) -> Result<(), RedisFailure> {
        if self.ending.is_some() {
            return self.subscribe_each(channels).await?.into_iter().collect();
        }
        let names: Vec<&str> = channels.iter().map(Borrow::borrow).collect();
        self.link.connection.subscribe(names).await.map_err(classify)
    }

    pub async fn unsubscribe(&mut self, channels: &[impl Borrow<str>]) -> Result<(), RedisFailure> {
        let names: Vec<&str> = channels.iter().map(Borrow::borrow).collect();
        let Some(ending) = &self.ending else {
            return self.link.connection.unsubscribe(names).await.map_err(classify);
        };
        lock(ending).extend(names.iter().map(|name| name.as_bytes().into()));
        let answers = self.each("SUNSUBSCRIBE", channels).await?;
        for (name, answer) in names.iter().zip(answers) {
            // The slot has left the node, and with it the subscription.
            if answer.is_err()
                && let Some(ending) = &self.ending
            {
                lock(ending).remove(name.as_bytes());
            }
        }
        Ok(())
    }

    /// Subscribes channels of sharded pub/sub, and returns the outcome of each. `Err` if the connection is of no use any
    /// more.
    pub async fn subscribe_each(
        &mut self,
        channels: &[impl Borrow<str>],
    ) -> Result<Vec<Result<(), RedisFailure>>, RedisFailure> {
        self.each("SSUBSCRIBE", channels).await
    }

    /// Sends a command for each channel, in one write: a node refuses one with channels of several slots.
    async fn each(
        &mut self,
        command: &str,
        channels: &[impl Borrow<str>],
    ) -> Result<Vec<Result<(), RedisFailure>>, RedisFailure> {
        let mut commands = redis::Pipeline::with_capacity(channels.len() + 1);
        for channel in channels {
            commands.cmd(command).arg(channel.borrow());
        }
        commands.cmd("PING").arg(LAST);
        let answers = commands.ignore_errors().query_async(&mut self.link.connection).await;
        let mut answers: Vec<redis::RedisResult<Value>> = answers.map_err(classify)?;
        let last = answers.pop().and_then(Result::ok).map(String::from_redis_value);
        if !matches!(last, Some(Ok(last)) if last == LAST) {
            self.health.give_up(MOVED);
            return Err(RedisFailure::Unavailable);
        }
        Ok(answers.into_iter().map(|answer| answer.map(drop).map_err(classify)).collect())
    }
}

/// Why a connection of sharded pub/sub is given up whose answers do not fit its commands.
const MOVED: &str = "a slot has left the node";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            if matches!(push.kind, PushKind::Message | PushKind::SMessage) =>
        {
            Some((channel, payload))
        }
        _ => None,
    }
}
