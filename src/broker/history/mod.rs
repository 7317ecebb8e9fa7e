//! What channels keep for clients that were away: publications are appended as they are published, and read
//! when a client returns or the node missed something.
//!
//! Each publication of a channel with a history gets the next offset of the channel's epoch, in one step
//! with being published, so that history and live stream agree. Which channels keep a history is configured
//! by the routes' channel templates ([`SharedConfig`]); a publisher elsewhere (publish.lua) decides itself.

mod compact;
mod layered;
mod memory;
mod redis;
#[cfg(test)]
mod tests;

pub use compact::compact;
pub(super) use layered::{Import, Imported, ListenerState, Registered};
pub use memory::MemoryHistory;
pub(super) use redis::RedisHistory;

use std::time::Duration;

use bytes::Bytes;

use crate::clock;
use crate::config::{self, SharedConfig};
use crate::protocol::{ChannelName, Epoch, Position};
use crate::redis_link::EngineUnavailable;
use crate::socket::{Delivery, frame};

/// A page ends at this many publications, or once it has this many bytes.
const PAGE_LENGTH: usize = 1000;
const PAGE_BYTES: usize = 256 * 1024;

/// By how long epoch and offset of a channel outlive its publications, so that a client that missed nothing
/// can be told so.
const EPOCH_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an epoch lives on a channel without a history here, which a worker may keep all the same.
const UNKNOWN_TTL: Duration = Duration::from_secs(60);

/// How long a generation that nobody has ended counts as running.
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

/// From where to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// From the beginning of the oldest generation that is running; from now where none is.
    Running,
    /// The publications after this position.
    After(Position),
}

/// A part of a history.
#[derive(Debug)]
pub struct Page {
    /// The position of the channel when this was read.
    pub now: Position,
    /// The offset that the publications follow without a gap. `None` = the history does not reach back to the
    /// position that was given, or has another epoch.
    pub after: Option<u64>,
    pub publications: Vec<Delivery>,
    /// Whether the page reaches up to `now`.
    pub complete: bool,
}

/// How far a history reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The position of the channel.
    pub now: Position,
    /// The offset of the oldest publication that is kept.
    pub oldest: Option<u64>,
    /// How many publications are kept.
    pub kept: u64,
}

/// Makes a publication happen at most once, however often it is tried.
#[derive(Debug, Clone)]
pub struct PublishOnce {
    /// Identifies the publisher within the channel.
    pub key: String,
    /// Grows with each publication under this key.
    pub number: u64,
    /// How long a repeat is recognised.
    pub remembered: Duration,
}

/// The outcome of publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The position of the last publication of the call; `None` on a channel without a history.
    pub position: Option<Position>,
    /// Whether it had been published before.
    pub duplicate: bool,
}

impl History {
    pub fn memory(config: SharedConfig, memory: MemoryHistory) -> Self {
        Self { config, engine: Engine::Memory(memory) }
    }

    pub(super) fn redis(config: SharedConfig, redis: RedisHistory) -> Self {
        Self { config, engine: Engine::Redis(redis) }
    }

    /// Whether `channel` keeps a history.
    pub fn keeps(&self, channel: &ChannelName) -> bool {
        self.config.load().history_of(channel).is_some()
    }

    /// How `channel` keeps a history; `None` = it keeps none.
    pub(super) fn rule(&self, channel: &ChannelName) -> Option<config::History> {
        self.config.load().history_of(channel)
    }

    /// The histories in Redis; `None` on the memory engine.
    pub(super) fn in_redis(&self) -> Option<&RedisHistory> {
        match &self.engine {
            Engine::Memory(_) => None,
            Engine::Redis(redis) => Some(redis),
        }
    }

    /// Reads a page. Begins the epoch of a channel that has none, so that its first client can resume. Such an
    /// epoch lives no longer than a publication would.
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

    /// How far the history reaches; `None` = the channel has none at the moment. It begins no epoch.
    pub async fn extent(&self, channel: &ChannelName) -> Result<Option<Extent>, EngineUnavailable> {
        match &self.engine {
            Engine::Memory(memory) => Ok(memory.extent(channel)),
            Engine::Redis(redis) => redis.extent(channel).await,
        }
    }

    /// The position of each of `channels`; `None` = it has no history at the moment.
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

    /// Records the beginning of a generation: clients that connect until it has ended get the channel from here.
    /// Nothing happens if it was recorded before.
    pub async fn generation_begins(
        &self,
        channel: &ChannelName,
        task_id: &str,
    ) -> Result<(), EngineUnavailable> {
        match &self.engine {
            _ if !self.keeps(channel) => Ok(()),
            Engine::Memory(memory) => {
                memory.generation_begins(channel, task_id);
                Ok(())
            }
            Engine::Redis(redis) => redis.generation_begins(channel, task_id).await,
        }
    }

    /// Records the end of a generation.
    pub async fn generation_ended(
        &self,
        channel: &ChannelName,
        task_id: &str,
    ) -> Result<(), EngineUnavailable> {
        match &self.engine {
            _ if !self.keeps(channel) => Ok(()),
            Engine::Memory(memory) => {
                memory.generation_ended(channel, task_id);
                Ok(())
            }
            Engine::Redis(redis) => redis.generation_ended(channel, task_id).await,
        }
    }

    /// Removes a publication, so that nobody gets it from the history.
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

    /// Continues a history under a new epoch if it ends before `received`, the position of a publication that
    /// was received: the engine has lost the end, and nobody may take what follows for it.
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

/// A publication's frame, with its position written into it where it has one. Text must be UTF-8: one
/// publication of other bytes would make every client of its channel fail its connection (RFC 6455
/// section 8.1). Such bytes are sent in a binary frame, which shows no position.
pub(super) fn encode(json: &[u8], position: Option<Position>) -> Delivery {
    let is_text = simdutf8::basic::from_utf8(json).is_ok();
    let frame = match (is_text, position) {
        (false, _) => frame::encode(frame::Opcode::Binary, json),
        (true, None) => frame::encode(frame::Opcode::Text, json),
        (true, Some(position)) => {
            let (head, tail) = crate::protocol::with_position(json, position);
            frame::encode_parts(frame::Opcode::Text, &[&head, &tail])
        }
    };
    Delivery { frame, position }
}

/// The frames of a page as one buffer.
pub fn concat(publications: &[Delivery]) -> Bytes {
    let frames: Vec<&[u8]> = publications.iter().map(|one| &one.frame[..]).collect();
    frames.concat().into()
}

/// Microseconds since the Unix epoch: never what an earlier epoch of the channel was.
fn new_epoch() -> Epoch {
    let micros = clock::since_unix_epoch().as_micros() as u64;
    Epoch::new(micros.max(1)).expect("not 0")
}
