//! Channel histories in Redis. Each channel has a stream, a hash with epoch and offset, and a hash of running
//! generations. The channel's name in braces puts all three into one cluster slot, in which sharded pub/sub has the
//! channel as well.

mod publish;

use std::time::Duration;

pub use publish::PublicationGroup;
use redis::{Script, Value};

use super::{
    Extent, GENERATION_TTL, GenerationState, PAGE_BYTES, PAGE_LENGTH, Page, Published, ReadFrom,
    TerminalEvent, encode, end_key,
};
use crate::config;
use crate::protocol::{
    ANY_NAME_MEMORY, CANCELLED_MEMORY, ChannelName, EventNames, Position, random_hex,
};
use crate::redis_link::{Commands, EngineUnavailable, Needs, Step};
use std::sync::Arc;

/// The most channels whose positions are read in one write.
const POSITIONS_PER_WRITE: usize = 500;

const PUBLISH: &str = include_str!("../../../clients/redis/publish.lua");
const END_GENERATION: &str = concat!(
    include_str!("settle.lua"),
    "local function record_end(KEYS, ARGV)\n",
    include_str!("record_generation_end.lua"),
    "end\n",
    include_str!("end_generation.lua"),
);
const READ: &str = include_str!("read.lua");
const EXTENT: &str = include_str!("extent.lua");
const RECORD_GENERATION_START: &str = include_str!("record_generation_start.lua");
const SETTLE_GENERATION: &str =
    concat!(include_str!("settle.lua"), include_str!("settle_generation.lua"));
const RECORD_GENERATION_END: &str = include_str!("record_generation_end.lua");
const GENERATION_STATE: &str = include_str!("generation_state.lua");
const ROTATE_EPOCH: &str = include_str!("rotate_epoch.lua");
const IMPORT: &str =
    concat!(include_str!("settle.lua"), include_str!("cancelled.lua"), include_str!("import.lua"));
const REGISTER_LISTENER: &str = include_str!("register_listener.lua");
const NODE_HEARTBEAT: &str = include_str!("node_heartbeat.lua");

/// The scripts, and the connection that they run on. Cheap to clone.
#[derive(Clone)]
pub struct RedisHistory(Arc<Inner>);

struct Inner {
    commands: Commands,
    prefix: Box<str>,
    scripts: Scripts,
}

pub(super) struct Scripts {
    publish: Script,
    end_generation: Script,
    read: Script,
    extent: Script,
    record_generation_start: Script,
    record_generation_end: Script,
    generation_state: Script,
    settle_generation: Script,
    rotate_epoch: Script,
    pub import: Script,
    pub register_listener: Script,
    pub node_heartbeat: Script,
}

impl RedisHistory {
    /// `prefix` is `[engine.redis] key_prefix`.
    pub fn new(commands: Commands, prefix: &str) -> Self {
        let script = |source| Script::new(commands.script_source(source));
        let scripts = Scripts {
            publish: script(PUBLISH),
            end_generation: script(END_GENERATION),
            read: script(READ),
            extent: script(EXTENT),
            record_generation_start: script(RECORD_GENERATION_START),
            settle_generation: script(SETTLE_GENERATION),
            record_generation_end: script(RECORD_GENERATION_END),
            generation_state: script(GENERATION_STATE),
            rotate_epoch: script(ROTATE_EPOCH),
            import: script(IMPORT),
            register_listener: script(REGISTER_LISTENER),
            node_heartbeat: script(NODE_HEARTBEAT),
        };
        Self(Arc::new(Inner { commands, prefix: prefix.into(), scripts }))
    }

    /// The same histories over another connection.
    pub fn with_commands(&self, commands: Commands) -> Self {
        Self::new(commands, &self.0.prefix)
    }

    /// Declares what publishing to channels such as `channels`, and reading histories if any are kept, sends to Redis.
    /// `has_layer` adds what a node with a channel layer sends.
    pub fn declare_needs(&self, channels: &[String], keeps_history: bool, has_layer: bool) {
        let commands = &self.0.commands;
        let control = format!("{}control", self.0.prefix);
        let publish = commands.publish_command();
        let subscribe = if commands.is_cluster() { "SSUBSCRIBE" } else { "SUBSCRIBE" };
        let mut needs = Needs::default()
            .command(publish, &control)
            .own_key(self.own_key(&format!("probe:{}", random_hex(8))));
        let example = channels.first().map_or("0", String::as_str);
        let key = |part: &str| commands.channel_key(&self.0.prefix, example, part);
        for channel in channels {
            needs = needs.command(publish, channel).command(subscribe, channel);
        }
        // Repeated calls are recognised, and tasks are cancelled, without a history as well.
        for command in ["GET", "SET", "EVALSHA"] {
            needs = needs.command(command, &key("once:0"));
        }
        for command in ["HMGET", "HSET", "HGETALL", "PTTL", "PEXPIRE"] {
            needs = needs.command(command, &key("meta"));
        }
        needs = needs.command("SCRIPT", "").command("TIME", "");
        let script = |needs: Needs, source, part: &str| {
            needs.script(commands.script_source(source), &key(part), &control)
        };
        if keeps_history {
            for source in [
                PUBLISH,
                END_GENERATION,
                READ,
                EXTENT,
                RECORD_GENERATION_START,
                SETTLE_GENERATION,
                RECORD_GENERATION_END,
                GENERATION_STATE,
                ROTATE_EPOCH,
            ] {
                needs = script(needs, source, "stream");
            }
            needs = needs.command("XDEL", &key("stream"));
        }
        if has_layer {
            for source in [IMPORT, REGISTER_LISTENER] {
                needs = script(needs, source, "nodes");
            }
            let nodes = self.own_key("layer:nodes");
            needs = needs.script(NODE_HEARTBEAT, &nodes, &control);
            for command in ["ZREM", "DEL", "SADD", "SREM", "SMEMBERS", "SET", "PEXPIRE"] {
                needs = needs.command(command, &nodes);
            }
        }
        if commands.is_cluster() {
            needs = needs.command("CLUSTER", "");
        }
        commands.declare("history", needs);
    }

    pub(super) fn key(&self, channel: &ChannelName, part: &str) -> String {
        self.0.commands.channel_key(&self.0.prefix, channel.as_str(), part)
    }

    /// A key that belongs to no channel.
    pub(super) fn own_key(&self, name: &str) -> String {
        format!("{}{name}", self.0.prefix)
    }

    pub fn commands(&self) -> &Commands {
        &self.0.commands
    }

    pub(super) fn scripts(&self) -> &Scripts {
        &self.0.scripts
    }

    /// Publishes a task's terminal event once, and records its end in the same step.
    pub async fn end_generation(
        &self,
        channel: &ChannelName,
        history: Option<&config::History>,
        terminal: &TerminalEvent,
    ) -> Result<Published, EngineUnavailable> {
        let TerminalEvent { task_id, json, once, cancellation } = terminal;
        let refused_for = cancellation.as_ref().map_or(Duration::ZERO, |_| CANCELLED_MEMORY);
        let unnamed = cancellation.as_ref().and_then(|cancellation| cancellation.unnamed.as_ref());
        let mut call = self.0.scripts.end_generation.prepare_invoke();
        call.key(self.key(channel, "stream")).key(self.key(channel, "meta"));
        call.key(self.once_key(channel, &once.key)).key(self.key(channel, "running"));
        call.arg(channel.as_str());
        call.arg(history.map_or(0, |history| history.size));
        call.arg(history.map_or(0, |history| milliseconds(history.ttl)));
        call.arg(milliseconds(once.ttl)).arg(&json[..]).arg(&**task_id);
        call.arg(milliseconds(refused_for));
        call.arg(unnamed.map(EventNames::to_json).unwrap_or_default());
        call.arg(milliseconds(ANY_NAME_MEMORY));
        Ok(published(self.0.commands.invoke(&call).await?))
    }

    fn once_key(&self, channel: &ChannelName, key: &str) -> String {
        self.key(channel, &format!("once:{key}"))
    }

    /// `epoch_ttl` is the lifetime of an epoch that this call starts.
    pub async fn read(
        &self,
        channel: &ChannelName,
        from: ReadFrom,
        epoch_ttl: Duration,
    ) -> Result<Page, EngineUnavailable> {
        let mut call = self.0.scripts.read.prepare_invoke();
        for part in ["stream", "meta", "running"] {
            call.key(self.key(channel, part));
        }
        match from {
            ReadFrom::Running => call.arg("").arg(0),
            ReadFrom::After(Position { epoch, offset }) => call.arg(epoch.to_string()).arg(offset),
        };
        call.arg(PAGE_LENGTH).arg(PAGE_BYTES).arg(milliseconds(epoch_ttl));
        let answer: Vec<Value> = self.0.commands.invoke(&call).await?;
        page(answer).ok_or(EngineUnavailable)
    }

    pub async fn extent(&self, channel: &ChannelName) -> Result<Option<Extent>, EngineUnavailable> {
        let mut call = self.0.scripts.extent.prepare_invoke();
        call.key(self.key(channel, "stream")).key(self.key(channel, "meta"));
        let answer: (String, u64, i64, u64) = self.0.commands.invoke(&call).await?;
        let (epoch, offset, oldest, kept) = answer;
        Ok(epoch.parse().ok().map(|epoch| Extent {
            now: Position { epoch, offset },
            oldest: u64::try_from(oldest).ok(),
            kept,
        }))
    }

    pub async fn positions(
        &self,
        channels: &[ChannelName],
    ) -> Result<Vec<Option<Position>>, EngineUnavailable> {
        let mut positions = Vec::with_capacity(channels.len());
        for chunk in channels.chunks(POSITIONS_PER_WRITE) {
            let mut pipeline = redis::pipe();
            for channel in chunk {
                pipeline.cmd("HMGET").arg(self.key(channel, "meta")).arg("epoch").arg("offset");
            }
            for answer in
                self.0.commands.query_each::<(Option<String>, Option<u64>)>(pipeline).await?
            {
                // A value of another type was not written by this gateway and is ignored.
                let (epoch, offset) = answer.unwrap_or_default();
                let epoch = epoch.and_then(|epoch| epoch.parse().ok());
                let offset = offset.unwrap_or(0);
                positions.push(epoch.map(|epoch| Position { epoch, offset }));
            }
        }
        Ok(positions)
    }

    pub async fn record_generation_start(
        &self,
        channel: &ChannelName,
        task_id: &str,
        replaced: Option<&str>,
    ) -> Result<(), EngineUnavailable> {
        let step = self.generation_start_step(channel, task_id, replaced);
        let script = &self.0.scripts.record_generation_start;
        Ok(self.0.commands.invoke_step(script, &step).await?)
    }

    /// A call of record_generation_start.lua.
    pub fn generation_start_step(
        &self,
        channel: &ChannelName,
        task_id: &str,
        replaced: Option<&str>,
    ) -> Step {
        let source = self.0.commands.script_source(RECORD_GENERATION_START);
        let step = Step::new(source, "true");
        let step = step.key(self.key(channel, "running")).key(self.key(channel, "meta"));
        let step = step.key(self.once_key(channel, &end_key(task_id)));
        let step = step.arg(task_id).arg(GENERATION_TTL.as_secs());
        step.arg(channel.as_str()).arg(replaced.unwrap_or_default())
    }

    pub async fn generation_state(
        &self,
        channel: &ChannelName,
        task_id: &str,
    ) -> Result<Option<GenerationState>, EngineUnavailable> {
        let mut call = self.0.scripts.generation_state.prepare_invoke();
        call.key(self.key(channel, "running")).key(self.key(channel, "meta")).arg(task_id);
        let (epoch, start, has_ended, others): (String, i64, bool, u64) =
            self.0.commands.invoke(&call).await?;
        let start = u64::try_from(start).ok();
        let state = |epoch| GenerationState { epoch, start, has_ended, others };
        Ok(epoch.parse().ok().map(state))
    }

    pub async fn settle_generation(
        &self,
        channel: &ChannelName,
        task_id: Option<&str>,
        offset: u64,
    ) -> Result<(), EngineUnavailable> {
        let mut call = self.0.scripts.settle_generation.prepare_invoke();
        call.key(self.key(channel, "running")).arg(task_id.unwrap_or_default()).arg(offset);
        Ok(self.0.commands.invoke(&call).await?)
    }

    pub async fn record_generation_end(
        &self,
        channel: &ChannelName,
        task_id: &str,
    ) -> Result<(), EngineUnavailable> {
        let mut call = self.0.scripts.record_generation_end.prepare_invoke();
        call.key(self.key(channel, "running")).arg(task_id);
        Ok(self.0.commands.invoke(&call).await?)
    }

    pub async fn remove(
        &self,
        channel: &ChannelName,
        position: Position,
    ) -> Result<(), EngineUnavailable> {
        let mut delete = redis::cmd("XDEL");
        delete.arg(self.key(channel, "stream")).arg(format!("{}-0", position.offset));
        Ok(self.0.commands.query(&delete).await?)
    }

    pub async fn rotate_epoch(
        &self,
        channel: &ChannelName,
        received: Position,
    ) -> Result<(), EngineUnavailable> {
        let mut call = self.0.scripts.rotate_epoch.prepare_invoke();
        for part in ["stream", "meta", "running"] {
            call.key(self.key(channel, part));
        }
        call.arg(received.epoch.to_string()).arg(received.offset);
        Ok(self.0.commands.invoke(&call).await?)
    }
}

/// Parses the answer of read.lua.
fn page(answer: Vec<Value>) -> Option<Page> {
    let mut fields = answer.into_iter();
    let text = |value: Value| match value {
        Value::BulkString(text) => String::from_utf8(text).ok(),
        _ => None,
    };
    let number = |value: Value| match value {
        Value::Int(number) => Some(number),
        _ => None,
    };
    let epoch = text(fields.next()?)?.parse().ok()?;
    let now = Position { epoch, offset: number(fields.next()?)?.try_into().ok()? };
    let after = u64::try_from(number(fields.next()?)?).ok();
    let complete = number(fields.next()?)? == 1;
    let is_cut = number(fields.next()?)? == 1;
    let Value::Array(cancelled) = fields.next()? else { return None };
    let cancelled = cancelled.into_iter().filter_map(text).map(String::into_boxed_str).collect();
    let mut publications = Vec::with_capacity(fields.len() / 2);
    while let (Some(offset), Some(Value::BulkString(json))) = (fields.next(), fields.next()) {
        let position = Position { epoch, offset: number(offset)?.try_into().ok()? };
        publications.push(encode(&json, Some(position)));
    }
    Some(Page { now, after, publications, complete, is_cut, cancelled })
}

/// Reads the answer of publish.lua or end_generation.lua.
fn published((epoch, offset, outcome): (String, u64, u8)) -> Published {
    let position = epoch.parse().ok().map(|epoch| Position { epoch, offset });
    Published { position, duplicate: outcome == 1, refused: outcome == 2 }
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
