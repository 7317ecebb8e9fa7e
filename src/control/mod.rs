//! Commands that reach every node: what a server asks of one node is done on all of them.
//!
//! This module owns how a command travels, how its effects are summed and what was found is put together;
//! it leaves what a command does
//! to the worker threads, which each take a [`WorkerHandle`], and to the [`CancelHook`]. Invariant: the
//! sender's node carries a command out by the same way as every other, so that it is done once a node,
//! and a node that did not answer in full is never counted as one that did.

mod command;
mod debug;
mod link;
mod listing;
mod message;
mod redis;
#[cfg(test)]
mod tests;
mod threads;

#[cfg(test)]
pub use command::MAX_REASON_BYTES;
pub use command::{
    Disconnect, DisconnectFields, InvalidDisconnect, InvalidTarget, NodeCommand, Target,
};
#[cfg(test)]
pub use debug::MAX_DEBUG_SECONDS;
pub use debug::{DebugCommand, DebugFields, InvalidDebug};
pub use listing::{
    ChannelRow, Channels, ConnectionRow, Connections, Found, Gathering, Listing, Part, short,
};
pub use threads::{CancelHook, DebugHook, ThreadCommand, Threads, WorkerHandle};

use std::sync::Arc;

use crate::config::RedisUrl;
use crate::protocol::{ChannelName, ReservedChannels};
use crate::shutdown::Shutdown;
use link::Link;

/// What came of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Over all threads of all nodes that answered.
    pub affected: u64,
    /// Nodes that have carried it out in full.
    pub answered: u64,
    /// Nodes that the command was sent to: those that the engine knows at the moment. A node that has
    /// lost the engine is not among them.
    pub asked: u64,
}

impl Reached {
    /// Whether every node that was asked has done it.
    pub fn is_complete(&self) -> bool {
        self.answered >= self.asked
    }
}

/// What came of a command that only asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<R> {
    pub part: Part<R>,
    /// `affected` is 0.
    pub reached: Reached,
}

/// Why a command was not sent, or its effects cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The engine cannot be reached, or is not keeping up.
    EngineUnavailable,
    /// The command's texts are longer than any user id or task id may be: 16 KiB in all.
    TooLarge,
}

/// Gives commands, from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Control(Engine);

#[derive(Clone)]
enum Engine {
    Memory(Threads),
    Redis(Arc<Link>, Threads),
}

impl Control {
    /// This process is the only node.
    pub fn memory(threads: Threads) -> Self {
        Self(Engine::Memory(threads))
    }

    /// All nodes with the same `key_prefix` on the Redis at `url`. Starts this node's part on the current
    /// runtime. `Err` = the URL is wrong, or the prefix makes no channel name.
    pub fn redis(
        url: &RedisUrl,
        key_prefix: &str,
        threads: Threads,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        let client = crate::redis_link::client(url)?;
        let link = Arc::new(Link::new(key_prefix, threads.node())?);
        tokio::spawn(redis::supervise(
            client,
            Arc::clone(&link),
            threads.clone(),
            shutdown.clone(),
        ));
        Ok(Self(Engine::Redis(link, threads)))
    }

    /// Has every node carry out `command`, and waits for their word: about two seconds at the most, and
    /// no longer than there are nodes to answer. After an error it may have been carried out in part.
    pub async fn send(&self, command: NodeCommand) -> Result<Reached, SendError> {
        match &self.0 {
            Engine::Memory(threads) => {
                let done = threads.execute(command).await;
                let answered = u64::from(done.complete);
                Ok(Reached { affected: done.affected, answered, asked: 1 })
            }
            Engine::Redis(link, _) => link.send(command).await.map(|(reached, _)| reached),
        }
    }

    /// Asks every node for its connections, as [`Control::send`] does.
    pub async fn connections(
        &self,
        asked: Connections,
    ) -> Result<Listed<ConnectionRow>, SendError> {
        match self.list(Listing::Connections(asked)).await? {
            (Found::Connections(part), reached) => Ok(Listed { part, reached }),
            (Found::Channels(_), reached) => Ok(Listed { part: Part::default(), reached }),
        }
    }

    /// Asks every node for the channels of its connections, as [`Control::send`] does.
    pub async fn channels(&self, asked: Channels) -> Result<Listed<ChannelRow>, SendError> {
        match self.list(Listing::Channels(asked)).await? {
            (Found::Channels(part), reached) => Ok(Listed { part, reached }),
            (Found::Connections(_), reached) => Ok(Listed { part: Part::default(), reached }),
        }
    }

    async fn list(&self, listing: Listing) -> Result<(Found, Reached), SendError> {
        match &self.0 {
            Engine::Memory(threads) => {
                let done = threads.execute(NodeCommand::List(listing.clone())).await;
                let answered = u64::from(done.complete);
                let reached = Reached { affected: done.affected, answered, asked: 1 };
                Ok((done.found.unwrap_or_else(|| listing.nothing()), reached))
            }
            Engine::Redis(link, _) => {
                let (mut reached, found) = link.send(NodeCommand::List(listing.clone())).await?;
                let count = found.len();
                let found: Vec<_> = found.iter().filter_map(|data| listing.read(data)).collect();
                reached.answered = reached.answered.saturating_sub((count - found.len()) as u64);
                Ok((listing.merge(found.into_iter()), reached))
            }
        }
    }

    /// This node's name among those that run at the moment.
    pub fn node(&self) -> &str {
        match &self.0 {
            Engine::Memory(threads) | Engine::Redis(_, threads) => threads.node(),
        }
    }

    /// Whether commands reach this node.
    pub fn is_live(&self) -> bool {
        match &self.0 {
            Engine::Memory(_) => true,
            Engine::Redis(link, _) => link.is_live(),
        }
    }

    /// Among the reserved ones, a channel of this node alone, to hear itself by; `None` where there is no
    /// other node.
    pub fn own_channel(&self) -> Option<ChannelName> {
        match &self.0 {
            Engine::Memory(_) => None,
            Engine::Redis(link, threads) => {
                ChannelName::new(&format!("{}:{}:canary", link.to_all, threads.node())).ok()
            }
        }
    }

    /// The channels that commands and replies travel by.
    pub fn reserved_channels(&self) -> ReservedChannels {
        match &self.0 {
            Engine::Memory(_) => ReservedChannels::default(),
            Engine::Redis(link, _) => link.reserved_channels(),
        }
    }
}
