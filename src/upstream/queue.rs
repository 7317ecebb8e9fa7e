//! A message as an entry of a Redis stream or list, from which workers take it.

use std::time::Duration;

use redis::Script;

use super::{Message, RelayError, payload};
use crate::config::{self, EngineKind, RedisUrl};
use crate::protocol::TemplateContext;
use crate::redis_link::{Commands, RedisFailure};
use crate::shutdown::Shutdown;

/// The field of a stream's entry that holds the JSON.
const FIELD: &str = "message";

/// Refuses with 0 where the list is full. One script, so that many gateways keep one bound.
pub(super) const PUSH: &str = "\
local max = tonumber(ARGV[2])
if max > 0 and redis.call('LLEN', KEYS[1]) >= max then return 0 end
return redis.call('LPUSH', KEYS[1], ARGV[1])";

/// The queues of one upstream; the connection is shared by all threads.
pub(super) struct Queue {
    commands: Commands,
    push: Script,
    /// Where its workers learn of cancelled tasks, if that is not the engine's Redis: `<prefix>cancel`.
    cancels: Option<String>,
}

impl Queue {
    /// `Err` says what is wrong with the URL. Starts the connection on the current runtime.
    pub fn start(
        url: &RedisUrl,
        upstream: &str,
        engine: &config::Engine,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        let is_the_engines = match &engine.kind {
            EngineKind::Memory => false,
            EngineKind::Redis(redis) => redis.pubsub_url == *url,
        };
        let cancels = (!is_the_engines).then(|| format!("{}cancel", engine.key_prefix()));
        let commands = Commands::start(url, &format!("upstream.{upstream}"), shutdown)?;
        Ok(Self { commands, push: Script::new(PUSH), cancels })
    }

    /// Whether its Redis can be reached.
    pub fn is_up(&self) -> bool {
        self.commands.is_up()
    }

    /// `XADD key MAXLEN ~ n * message <json>`, which removes the oldest entries beyond the bound.
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

    /// `LPUSH`, for workers that `BRPOP`. A list that is as long as it may be is busy.
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

    /// Does what the ledger does for workers of the engine's Redis: sets a key that they can check, and
    /// publishes the task to those who listen.
    pub async fn tell_cancelled(&self, task_id: &str, ttl: Duration) -> bool {
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
    let user_id = super::user_in_template(user_id.as_ref());
    config.key.fill(TemplateContext { params, user_id, channel: Some(channel.as_str()) })
}

fn failed(failure: RedisFailure) -> (RelayError, String) {
    unavailable(failure.to_string())
}

fn unavailable(reason: String) -> (RelayError, String) {
    (RelayError::Unavailable, reason)
}
