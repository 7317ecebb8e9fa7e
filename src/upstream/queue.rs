//! Relays messages as entries of a Redis stream or list, from which workers take them.

use std::time::Duration;

use redis::Script;

use super::message::user_in_template;
use super::{Message, QueueState, RelayError, payload};
use crate::config::{self, EngineKind};
use crate::protocol::TemplateContext;
use crate::redis_link::{Commands, Needs, RedisFailure};
use crate::shutdown::Shutdown;

/// The field of a stream entry that contains the JSON.
const FIELD: &str = "message";

/// Returns 0 if the list is full. The check and the push are one script, so that several gateways keep to
/// one limit.
pub(super) const PUSH: &str = "\
local max = tonumber(ARGV[2])
if max > 0 and redis.call('LLEN', KEYS[1]) >= max then return 0 end
return redis.call('LPUSH', KEYS[1], ARGV[1])";

/// What a queue is in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueKind {
    Stream,
    List,
}

/// The connection of one upstream's queues, shared by all threads.
pub(super) struct Queue {
    commands: Commands,
    push: Script,
    /// The key prefix and channel of cancelled tasks, `<prefix>cancel`; `None` = the queue is in the engine's
    /// Redis, where the engine publishes them.
    cancels: Option<String>,
}

impl Queue {
    /// Starts the connection on the current runtime. `Err` says what is wrong with the URL.
    pub fn start(
        queue: &config::RedisQueue,
        kind: QueueKind,
        upstream: &str,
        engine: &config::Engine,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        let url = &queue.redis_url;
        let is_engine = match &engine.kind {
            EngineKind::Memory => false,
            EngineKind::Redis(redis) => redis.pubsub_url == *url,
        };
        let cancels = (!is_engine).then(|| format!("{}cancel", engine.key_prefix()));
        let commands = Commands::start(url, &format!("upstream.{upstream}"), shutdown)?;
        let key = queue.key.example();
        let mut needs = match kind {
            QueueKind::Stream => Needs::default().command("XADD", &key),
            QueueKind::List => Needs::default().script(PUSH, &key, ""),
        };
        if let Some(cancels) = &cancels {
            needs = needs.command("SET", &format!("{cancels}:0")).command("PUBLISH", cancels);
        }
        commands.declare("queue", needs);
        Ok(Self { commands, push: Script::new(PUSH), cancels })
    }

    /// Whether the Redis of the queue can be reached and accepts messages; `Err` says why not.
    pub fn check(&self) -> Result<(), String> {
        self.commands.check()
    }

    /// Adds to a stream with `XADD key MAXLEN ~ n * message <json>`, which drops the oldest entries.
    pub async fn add_to_stream(
        &self,
        config: &config::RedisQueue,
        message: &Message,
    ) -> Result<(), (RelayError, String)> {
        let json = payload::json(message).map_err(unavailable)?;
        let mut add = redis::cmd("XADD");
        add.arg(key(config, message));
        if config.max_len > 0 {
            add.arg("MAXLEN").arg("~").arg(config.max_len);
        }
        add.arg("*").arg(FIELD).arg(json);
        self.commands.query::<String>(&add).await.map_err(failed)?;
        Ok(())
    }

    /// Adds to a list with `LPUSH`, for workers that use `BRPOP`. A full list is `Busy`.
    pub async fn push_to_list(
        &self,
        config: &config::RedisQueue,
        message: &Message,
    ) -> Result<(), (RelayError, String)> {
        let json = payload::json(message).map_err(unavailable)?;
        let mut push = self.push.prepare_invoke();
        push.key(key(config, message)).arg(json).arg(config.max_len);
        match self.commands.invoke::<u64>(&push).await.map_err(failed)? {
            0 => Err((RelayError::Busy, "the list is full".to_owned())),
            _ => Ok(()),
        }
    }

    /// Returns the length of a list, or of a stream and the number of its consumer groups.
    pub async fn state(
        &self,
        config: &config::RedisQueue,
        is_stream: bool,
        context: TemplateContext<'_>,
    ) -> Option<QueueState> {
        let queue = config.key.fill(context);
        let mut length = redis::cmd(if is_stream { "XLEN" } else { "LLEN" });
        let waiting = self.commands.query(length.arg(&queue)).await.ok()?;
        let consumers = match is_stream {
            true => {
                let mut groups = redis::cmd("XINFO");
                let groups =
                    self.commands.query::<Vec<redis::Value>>(groups.arg("GROUPS").arg(&queue));
                groups.await.ok().map(|groups| groups.len() as u64)
            }
            false => None,
        };
        Some(QueueState { queue, waiting, consumers })
    }

    /// Marks a task as cancelled as the engine does in its own Redis: with a key that workers can read, and
    /// a message to those that subscribe. False = it could not be written.
    pub async fn publish_cancellation(&self, task_id: &str, ttl: Duration) -> bool {
        let Some(cancels) = &self.cancels else { return true };
        let mut pipeline = redis::Pipeline::with_capacity(2);
        pipeline.cmd("SET").arg(format!("{cancels}:{task_id}")).arg(1);
        pipeline.arg("EX").arg(ttl.as_secs().max(1)).ignore();
        pipeline.cmd("PUBLISH").arg(cancels).arg(task_id).ignore();
        self.commands.pipeline::<()>(&pipeline).await.is_ok()
    }

    #[cfg(test)]
    pub fn commands(&self) -> &Commands {
        &self.commands
    }
}

fn key(config: &config::RedisQueue, message: &Message) -> String {
    let Message { params, user_id, channel, .. } = message;
    let user_id = user_in_template(user_id.as_ref());
    config.key.fill(TemplateContext { params, user_id, channel: Some(channel.as_str()) })
}

/// What a failure of Redis means for the message. A key that holds something else is the fault of the names in it, which
/// a client may have chosen.
pub(super) fn failed(failure: RedisFailure) -> (RelayError, String) {
    let error = match &failure {
        RedisFailure::Refused(error) if error.code() == Some("WRONGTYPE") => RelayError::Failed,
        RedisFailure::Refused(_) => RelayError::Unavailable,
        RedisFailure::Unavailable => RelayError::Unreachable,
    };
    (error, failure.to_string())
}

fn unavailable(reason: String) -> (RelayError, String) {
    (RelayError::Unavailable, reason)
}
