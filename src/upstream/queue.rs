//! Relays messages as entries of a Redis stream or list, from which workers take them.

use std::borrow::Cow;
use std::time::Duration;

use redis::{Pipeline, Script};
use tokio::time::Instant;

use super::message::user_in_template;
use super::outgoing::{NotQueued, Outgoing, Run, Sending, Written, all_failed};
use super::{Message, QueueState, RelayError, payload};
use crate::config::{self, EngineKind};
use crate::protocol::TemplateContext;
use crate::redis_link::{Commands, Needs, RedisFailure};
use crate::shutdown::Shutdown;

/// The field of a stream entry that contains the JSON.
const FIELD: &str = "message";

/// Adds messages to a list until it is full, in order, and returns how many. The check and the push are one script, so that
/// several gateways keep to one limit.
const PUSH: &str = "\
local max, count = tonumber(ARGV[1]), #ARGV - 1
if max > 0 then count = math.min(count, max - redis.call('LLEN', KEYS[1])) end
if count <= 0 then return 0 end
redis.call('LPUSH', KEYS[1], unpack(ARGV, 2, count + 1))
return count";

/// What a queue is in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueKind {
    Stream,
    List,
}

/// Writes messages into lists or streams of one Redis. Shared by all threads.
pub(super) struct QueueWriter {
    commands: Commands,
    shutdown: Shutdown,
    push: Script,
    kind: QueueKind,
    /// See [`config::RedisQueue::max_len`].
    max_len: u64,
}

impl QueueWriter {
    pub fn new(commands: Commands, kind: QueueKind, max_len: u64, shutdown: &Shutdown) -> Self {
        Self { commands, shutdown: shutdown.clone(), push: Script::new(PUSH), kind, max_len }
    }

    /// Keeps a connection for the messages of the current thread, until this is dropped.
    pub fn serve_thread(&self) -> impl Future<Output = ()> + use<> {
        let Self { commands, shutdown, .. } = self;
        shutdown.essential("redis connection", commands.serve_thread(shutdown))
    }

    /// What writing to keys like `key` needs.
    pub fn needs(kind: QueueKind, needs: Needs, key: &str) -> Needs {
        match kind {
            QueueKind::Stream => needs.command("XADD", key),
            QueueKind::List => needs.script(PUSH, key, ""),
        }
    }

    /// Writes all runs in one round trip, and returns what became of each message, in order.
    pub async fn write(&self, runs: &[Run]) -> Vec<Written> {
        match self.kind {
            QueueKind::Stream => self.add_to_streams(runs).await,
            QueueKind::List => self.push_to_lists(runs).await,
        }
    }

    /// Adds to streams with `XADD key MAXLEN ~ n * message <json>`, which drops the oldest entries.
    async fn add_to_streams(&self, runs: &[Run]) -> Vec<Written> {
        let mut pipeline = redis::pipe();
        for run in runs {
            for json in run.messages() {
                let add = pipeline.cmd("XADD").arg(&run.key);
                if self.max_len > 0 {
                    add.arg("MAXLEN").arg("~").arg(self.max_len);
                }
                add.arg("*").arg(FIELD).arg(json);
            }
        }
        match self.commands.query_each::<String>(pipeline).await {
            Ok(answers) => {
                answers.into_iter().map(|answer| answer.map(drop).map_err(failed)).collect()
            }
            Err(failure) => all_failed(runs, failed(failure)),
        }
    }

    /// Adds to lists with `LPUSH`, for workers that use `BRPOP`. A full list takes no more.
    async fn push_to_lists(&self, runs: &[Run]) -> Vec<Written> {
        let mut calls = Pipeline::with_capacity(runs.len());
        for run in runs {
            let call = calls.cmd("EVALSHA").arg(self.push.get_hash()).arg(1);
            call.arg(&run.key).arg(self.max_len);
            run.messages().for_each(|json| {
                call.arg(json);
            });
        }
        let answers = match self.commands.evaluate_all::<usize>(&self.push, calls).await {
            Ok(answers) => answers,
            Err(failure) => return all_failed(runs, failed(failure)),
        };
        let mut written = Vec::new();
        for (run, answer) in runs.iter().zip(answers) {
            let answer = answer.map_err(failed);
            written.extend((0..run.messages().len()).map(|number| match &answer {
                Ok(count) if number < *count => Ok(()),
                Ok(_) => Err((RelayError::Busy, "the list is full".to_owned())),
                Err(failure) => Err(failure.clone()),
            }));
        }
        written
    }
}

/// The connection of one upstream's queues, shared by all threads.
pub(super) struct Queue {
    writer: QueueWriter,
    /// The key, if it is the same for all messages.
    fixed_key: Option<Box<str>>,
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
        let mut needs = QueueWriter::needs(kind, Needs::default(), &key);
        if let Some(cancels) = &cancels {
            needs = needs.command("SET", &format!("{cancels}:0")).command("PUBLISH", cancels);
        }
        commands.declare("queue", needs);
        let is_fixed = queue.key.names().next().is_none();
        let fixed_key = is_fixed.then(|| queue.key.as_str().into());
        Ok(Self {
            writer: QueueWriter::new(commands, kind, queue.max_len, shutdown),
            fixed_key,
            cancels,
        })
    }

    /// Whether the Redis of the queue can be reached and accepts messages; `Err` says why not.
    pub fn check(&self) -> Result<(), String> {
        self.writer.commands.check()
    }

    /// Adds a message, together with others of the thread. A full list is `Busy`.
    pub fn add<'a>(
        &'a self,
        outgoing: &'a Outgoing,
        config: &config::RedisQueue,
        message: &Message,
        deadline: Instant,
    ) -> Sending<'a> {
        let key = match &self.fixed_key {
            Some(key) => Cow::Borrowed(&**key),
            None => Cow::Owned(key(config, message)),
        };
        outgoing.send(&self.writer, key, deadline, |json| payload::write_json(json, message))
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
        let waiting = self.writer.commands.query(length.arg(&queue)).await.ok()?;
        let consumers = match is_stream {
            true => {
                let mut groups = redis::cmd("XINFO");
                let groups = self
                    .writer
                    .commands
                    .query::<Vec<redis::Value>>(groups.arg("GROUPS").arg(&queue));
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
        self.writer.commands.pipeline(&pipeline).await.is_ok()
    }

    /// What writes the messages.
    pub fn writer(&self) -> &QueueWriter {
        &self.writer
    }

    #[cfg(test)]
    pub fn commands(&self) -> &Commands {
        &self.writer.commands
    }
}

fn key(config: &config::RedisQueue, message: &Message) -> String {
    let Message { params, user_id, channel, .. } = message;
    let user_id = user_in_template(user_id.as_ref());
    config.key.fill(TemplateContext { params, user_id, channel: Some(channel.as_str()) })
}

/// What a failure of Redis means for the message. A key that holds something else is the fault of the names in it, which
/// a client may have chosen.
fn failed(failure: RedisFailure) -> NotQueued {
    let error = match &failure {
        RedisFailure::Refused(error) if error.code() == Some("WRONGTYPE") => RelayError::Failed,
        RedisFailure::Refused(_) => RelayError::Unavailable,
        RedisFailure::Unavailable => RelayError::Unreachable,
    };
    (error, failure.to_string())
}
