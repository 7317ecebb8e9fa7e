//! What channels keep for clients that were away: append with the publishing, read when a client comes
//! back or the node missed something.
//!
//! Each publication of a channel with a history gets the next offset of the channel's epoch, in one step
//! with being published, so that history and live stream agree. Which channels keep one is said by the
//! routes' channel templates ([`SharedConfig`]); a publisher elsewhere (publish.lua) says it itself.

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

/// Epoch and count of a channel outlive its publications by this time, so that a client that missed
/// nothing is told so.
const EPOCH_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The life of an epoch on a channel that keeps nothing here, though a worker may keep it.
const UNKNOWN_TTL: Duration = Duration::from_secs(60);

/// A generation that nobody ended counts as running for this long.
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
    /// From the begin of the oldest generation that is running; without any, from now.
    Running,
    /// What follows this position.
    After(Position),
}

/// A part of a history.
#[derive(Debug)]
pub struct Page {
    /// Where the channel stood when this was read.
    pub now: Position,
    /// The publications follow this offset without a gap. `None` = the history does not reach back to
    /// what was asked for, or goes on elsewhere.
    pub after: Option<u64>,
    pub publications: Vec<Delivery>,
    /// Nothing was left out between the last of them and `now`.
    pub complete: bool,
}

/// How far a history reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where the channel stands.
    pub now: Position,
    /// Of the oldest publication that is kept.
    pub oldest: Option<u64>,
    pub kept: u64,
}

/// Makes a publication happen once, however often it is tried.
#[derive(Debug, Clone)]
pub struct PublishOnce {
    /// Names whoever publishes, within the channel.
    pub key: String,
    /// Grows with each publication under this key.
    pub number: u64,
    /// For how long a repeat is recognised.
    pub remembered: Duration,
}

/// What publishing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Of the last publication of the call; `None` on a channel without history.
    pub position: Option<Position>,
    /// It had been published before.
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

    /// What `channel` keeps; `None` = nothing.
    pub(super) fn rule(&self, channel: &ChannelName) -> Option<config::History> {
        self.config.load().history_of(channel)
    }

    /// Where it is in Redis.
    pub(super) fn in_redis(&self) -> Option<&RedisHistory> {
        match &self.engine {
            Engine::Memory(_) => None,
            Engine::Redis(redis) => Some(redis),
        }
    }

    /// Reads a page. Begins the epoch of a channel that has none, so that its first client can resume;
    /// one that only clients have looked at lives no longer than a publication would.
    pub async fn read(
        &self,
        channel: &ChannelName,
        from: ReadFrom,
    ) -> Result<Page, EngineUnavailable> {
        let lives =
            self.config.load().history_of(channel).map_or(UNKNOWN_TTL, |history| history.ttl);
        match &self.engine {
            Engine::Memory(memory) => Ok(memory.read(channel, from, lives)),
            Engine::Redis(redis) => redis.read(channel, from, lives).await,
        }
    }

    /// How far the history reaches; `None` = the channel has none at the moment. Begins nothing.
    pub async fn extent(&self, channel: &ChannelName) -> Result<Option<Extent>, EngineUnavailable> {
        match &self.engine {
            Engine::Memory(memory) => Ok(memory.extent(channel)),
            Engine::Redis(redis) => redis.extent(channel).await,
        }
    }

    /// Where each of `channels` stands; `None` = it has no history at the moment.
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

    /// Clients that come from now on see the channel from here, until the generation has ended. Nothing
    /// happens if it has begun before.
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

    /// Takes one publication out, so that nobody gets it from the history.
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

    /// The history turned out to end before `seen`, which was heard of it: the engine lost its end. It
    /// goes on under a new epoch, so that nobody takes what follows for what was lost.
    pub(super) async fn rotate_epoch(
        &self,
        channel: &ChannelName,
        seen: Position,
    ) -> Result<(), EngineUnavailable> {
        match &self.engine {
            Engine::Memory(_) => Ok(()),
            Engine::Redis(redis) => redis.rotate_epoch(channel, seen).await,
        }
    }
}

/// A publication's frame: with its place written into it where it has one. Text must be UTF-8: one
/// publication of other bytes would make every client of its channel fail its connection (RFC 6455
/// section 8.1). Such bytes travel in a binary frame, live only or by their place, and show none.
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
pub fn joined(publications: &[Delivery]) -> Bytes {
    let frames: Vec<&[u8]> = publications.iter().map(|one| &one.frame[..]).collect();
    frames.concat().into()
}

/// Microseconds since the Unix epoch: never what an earlier epoch of the channel was.
fn new_epoch() -> Epoch {
    let micros = clock::since_unix_epoch().as_micros() as u64;
    Epoch::new(micros.max(1)).expect("not 0")
}
