//! The histories of channels: publications are appended as they are published, and read when a client resumes or
//! this node missed some.
//!
//! A publication gets the next offset of its channel's epoch in the same atomic step that publishes it, so that
//! history and live stream agree. Which channels keep a history is configured
//! by the routes' channel templates ([`SharedConfig`]); an external publisher (publish.lua) decides for itself.

mod cancelled;
mod compact;
mod encoding;
mod layered;
mod memory;
mod redis;
mod remembered;
#[cfg(test)]
mod tests;

pub use compact::compact;
pub(super) use encoding::{encode, encode_received};
pub(super) use layered::{
    Heartbeat, Import, ImportOutcome, Imported, ListenerState, MessageNumber, Registered,
    Registration,
};
pub use memory::MemoryHistory;
pub(super) use redis::{PublicationGroup, RedisHistory};

use std::time::Duration;

use bytes::Bytes;

use crate::clock;
use crate::config::{self, SharedConfig};
use crate::protocol::{ChannelName, Epoch, EventNames, Position};
use crate::redis_link::{Commands, EngineUnavailable, Step};
use crate::socket::Delivery;

/// A page ends at this many publications, or once it has this many bytes.
const PAGE_LENGTH: usize = 1000;
const PAGE_BYTES: usize = 256 * 1024;

/// How long the epoch and offset of a channel outlive its publications, so that a client that missed nothing can
/// still resume.
const EPOCH_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The lifetime of an epoch on a channel that keeps no history by this node's configuration. A worker may keep
/// one all the same.
const UNKNOWN_TTL: Duration = Duration::from_secs(60);

/// How long a generation counts as running if its end is not recorded.
const GENERATION_TTL: Duration = Duration::from_secs(30 * 60);

/// The histories of all channels. Cheap to clone, from any thread.
#[derive(Clone)]
pub struct History {
    config: SharedConfig,
    engine: Engine,
}

#[derive(Clone)]
enum Engine {
    Memory(MemoryHistory),
    Redis(RedisHistory),
}

/// The position from which to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// The start of the oldest running generation, or the current end of the history if none is running.
    Running,
    /// The publications after this position.
    After(Position),
}

/// A part of a history.
#[derive(Debug)]
pub struct Page {
    /// The position of the channel when this was read.
    pub now: Position,
    /// The offset that the publications follow without a gap. `None` if the history does not reach back to the
    /// requested position, or has another epoch.
    pub after: Option<u64>,
    pub publications: Vec<Delivery>,
    /// Whether the page reaches up to `now`.
    pub complete: bool,
    /// Whether the start of a running generation is not stored any more, for [`ReadFrom::Running`].
    pub is_cut: bool,
    /// Tasks of the channel that were cancelled lately, for a node that did not see it. Empty on the memory engine,
    /// which has one node.
    pub cancelled: Vec<Box<str>>,
}

/// What a history knows about a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenerationState {
    pub epoch: Epoch,
    /// The offset after which the generation began; `None` if that is not recorded.
    pub start: Option<u64>,
    /// Whether its terminal event was delivered by a node.
    pub has_ended: bool,
    /// The number of other generations of the channel that were running at some time since then, as far as it is known.
    pub others: u64,
}

/// The extent of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The current position of the channel.
    pub now: Position,
    /// The offset of the oldest stored publication.
    pub oldest: Option<u64>,
    /// The number of stored publications.
    pub kept: u64,
}

/// Makes a publication happen at most once, no matter how often it is attempted.
#[derive(Debug, Clone)]
pub struct PublishOnce {
    /// Identifies the publisher within the channel.
    pub key: String,
    /// Grows with each publication under this key.
    pub number: u64,
    /// How long a repetition is recognised.
    pub ttl: Duration,
    /// Another key. Once something was published under it, this publication is refused.
    pub unless: Option<String>,
}

/// The event with which the gateway ends a task.
#[derive(Debug, Clone)]
pub struct TerminalEvent {
    pub task_id: Box<str>,
    pub json: Bytes,
    pub once: PublishOnce,
    /// Given if the task was cancelled: then every later event of it is refused.
    pub cancellation: Option<Cancellation>,
}

/// What is refused after a task was cancelled, besides the events with its id.
#[derive(Debug, Clone)]
pub struct Cancellation {
    /// The names of the events without a task id that belong to this task if nothing else runs on the channel. `None`
    /// if none do.
    pub unnamed: Option<EventNames>,
}

/// The key of [`PublishOnce`] under which the terminal event of a task is published.
pub fn end_key(task_id: &str) -> String {
    [END_PREFIX, task_id].concat()
}

const END_PREFIX: &str = "end:";

/// The outcome of publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The position of the last publication of the call; `None` if the channel keeps no history.
    pub position: Option<Position>,
    /// Whether the call was a repetition of an earlier one and published nothing.
    pub duplicate: bool,
    /// Whether nothing was published, because all of it belongs to a task that has ended.
    pub refused: bool,
}

impl History {
    pub fn memory(config: SharedConfig, memory: MemoryHistory) -> Self {
        Self { config, engine: Engine::Memory(memory) }
    }

    pub(super) fn redis(config: SharedConfig, redis: RedisHistory) -> Self {
        Self { config, engine: Engine::Redis(redis) }
    }

    /// The connection to the histories; `None` on the memory engine.
    pub(super) fn commands(&self) -> Option<&Commands> {
        match &self.engine {
            Engine::Memory(_) => None,
            Engine::Redis(redis) => Some(redis.commands()),
        }
    }

    /// Whether `channel` keeps a history.
    pub fn keeps(&self, channel: &ChannelName) -> bool {
        self.config.load().history_of(channel).is_some()
    }

    /// The history settings of `channel`; `None` if it keeps no history.
    pub(super) fn rule(&self, channel: &ChannelName) -> Option<config::History> {
        self.config.load().history_of(channel)
    }

    /// The histories in Redis; `None` on the memory engine.
    /// The bytes of all histories in this process.
    pub fn memory_bytes(&self) -> usize {
        match &self.engine {
            Engine::Memory(memory) => memory.bytes(),
            Engine::Redis(_) => 0,
        }
    }

    pub(super) fn in_redis(&self) -> Option<&RedisHistory> {
        match &self.engine {
            Engine::Memory(_) => None,
            Engine::Redis(redis) => Some(redis),
        }
    }

    /// Reads a page. Starts an epoch if the channel has none, so that its first client can resume. Such an epoch
    /// lives no longer than a publication would.
    pub async fn read(
        &self,
        channel: &ChannelName,
        from: ReadFrom,
    ) -> Result<Page, EngineUnavailable> {
        let epoch_ttl =
            self.config.load().history_of(channel).map_or(UNKNOWN_TTL, |history| history.ttl);
        match &self.engine {
            Engine::Memory(memory) => Ok(memory.read(channel, from, epoch_ttl)),
            Engine::Redis(redis) => redis.read(channel, from, epoch_ttl).await,
        }
    }

    /// The extent of the history; `None` if the channel has none at the moment. Does not start an epoch.
    pub async fn extent(&self, channel: &ChannelName) -> Result<Option<Extent>, EngineUnavailable> {
        match &self.engine {
            Engine::Memory(memory) => Ok(memory.extent(channel)),
            Engine::Redis(redis) => redis.extent(channel).await,
        }
    }

    /// The position of each of `channels`; `None` for a channel that has no history at the moment.
    pub async fn positions(
        &self,
        channels: &[ChannelName],
    ) -> Result<Vec<Option<Position>>, EngineUnavailable> {
        match &self.engine {
            Engine::Memory(memory) => {
                let position = |channel| memory.extent(channel).map(|extent| extent.now);
                Ok(channels.iter().map(position).collect())
            }
            Engine::Redis(redis) => redis.positions(channels).await,
        }
    }

    /// Whether the starts and ends of generations are recorded for `channel`.
    pub fn records_generations(&self, channel: &ChannelName) -> bool {
        match &self.engine {
            // The tracker of the only node knows what runs.
            Engine::Memory(_) => self.keeps(channel),
            Engine::Redis(_) => true,
        }
    }

    /// Records the start of a generation: clients that connect before it ends get the channel's publications from
    /// this point on. Does nothing if the start is recorded already. Events without a task id no longer belong to a
    /// cancelled task; the task itself may have ended or have been cancelled before. `replaced` is the id under which
    /// the same generation was recorded until now: it keeps its start.
    pub async fn record_generation_start(
        &self,
        channel: &ChannelName,
        task_id: &str,
        replaced: Option<&str>,
    ) -> Result<(), EngineUnavailable> {
        match &self.engine {
            Engine::Memory(memory) => {
                memory.start_task(channel, task_id);
                if self.keeps(channel) {
                    memory.record_generation_start(channel, task_id, replaced);
                }
                Ok(())
            }
            // In a box, so that it takes no room in a message on the memory engine.
            Engine::Redis(redis) => {
                Box::pin(redis.record_generation_start(channel, task_id, replaced)).await
            }
        }
    }

    /// [`History::record_generation_start`] as a step of a chain, and the connection on which it runs. `None` on the memory
    /// engine.
    pub fn generation_start_step(
        &self,
        channel: &ChannelName,
        task_id: &str,
    ) -> Option<(Step, &Commands)> {
        let redis = self.in_redis()?;
        Some((redis.generation_start_step(channel, task_id, None), redis.commands()))
    }

    /// What the history knows about a generation; `None` if there is none. Only another node can have left something
    /// to know, so on the memory engine there is nothing.
    pub async fn generation_state(
        &self,
        channel: &ChannelName,
        task_id: &str,
    ) -> Result<Option<GenerationState>, EngineUnavailable> {
        match &self.engine {
            Engine::Redis(redis) if self.keeps(channel) => {
                redis.generation_state(channel, task_id).await
            }
            Engine::Redis(_) | Engine::Memory(_) => Ok(None),
        }
    }

    /// Records that the terminal event at `offset` has ended a generation: that of `task_id` or, if it names none, the
    /// one that is running alone. Its node may be dead, and clients that connect must not get it as a running one. On
    /// the memory engine the node itself records the end.
    pub async fn settle_generation(
        &self,
        channel: &ChannelName,
        task_id: Option<&str>,
        offset: u64,
    ) -> Result<(), EngineUnavailable> {
        match &self.engine {
            Engine::Redis(redis) if self.keeps(channel) => {
                redis.settle_generation(channel, task_id, offset).await
            }
            Engine::Redis(_) | Engine::Memory(_) => Ok(()),
        }
    }

    /// Records the end of a generation.
    pub async fn record_generation_end(
        &self,
        channel: &ChannelName,
        task_id: &str,
    ) -> Result<(), EngineUnavailable> {
        match &self.engine {
            _ if !self.records_generations(channel) => Ok(()),
            Engine::Memory(memory) => {
                memory.record_generation_end(channel, task_id);
                Ok(())
            }
            Engine::Redis(redis) => Box::pin(redis.record_generation_end(channel, task_id)).await,
        }
    }

    /// Removes a publication from the history, so that no client gets it from there.
    pub async fn remove(
        &self,
        channel: &ChannelName,
        position: Position,
    ) -> Result<(), EngineUnavailable> {
        match &self.engine {
            Engine::Memory(memory) => {
                memory.remove(channel, position);
                Ok(())
            }
            Engine::Redis(redis) => redis.remove(channel, position).await,
        }
    }

    /// Makes a history continue under a new epoch if it ends before `received`, the position of a publication that
    /// was received. The engine has lost the end of the history, so new offsets would repeat old ones.
    pub(super) async fn rotate_epoch(
        &self,
        channel: &ChannelName,
        received: Position,
    ) -> Result<(), EngineUnavailable> {
        match &self.engine {
            Engine::Memory(_) => Ok(()),
            Engine::Redis(redis) => redis.rotate_epoch(channel, received).await,
        }
    }
}

/// The microseconds since the Unix epoch, so that it differs from every earlier epoch of the channel.
fn new_epoch() -> Epoch {
    let micros = clock::since_unix_epoch().as_micros() as u64;
    Epoch::new(micros.max(1)).expect("not 0")
}
