//! Commands to all nodes: what a server requests from one node is done on all of them.
//!
//! This module owns how a command is sent, how its effects are summed and how lists are merged. It leaves
//! what a command does to the worker threads, each of which gets a [`WorkerHandle`], and to the
//! [`CancelHook`]. Invariant: the sender's node receives its command in the same way as every other, so that
//! it is carried out once on each node; and a node that did not answer in full is never counted as one that
//! did.

mod command;
mod debug;
mod link;
mod listing;
mod message;
mod part;
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
pub use listing::{ChannelRow, Channels, ConnectionRow, Connections, Found, Listing, truncate};
pub use part::{Gathering, Part};
pub use threads::{CancelHook, DebugHook, ThreadCommand, Threads, WorkerHandle};

use std::sync::Arc;

use crate::config::RedisUrl;
use crate::protocol::{ChannelName, ReservedChannels};
use crate::shutdown::Shutdown;
use link::Link;

/// How many nodes a command reached, and what it did there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The sum over all threads of all nodes that answered.
    pub affected: u64,
    /// The nodes that have carried it out in full.
    pub answered: u64,
    /// The nodes that the command was sent to: those that the engine knows at the moment. A node that has
    /// lost the engine is not among them.
    pub asked: u64,
}

impl Reached {
    /// Whether every node that got the command has carried it out.
    pub fn is_complete(&self) -> bool {
        self.answered >= self.asked
    }
}

/// A part of a list of all nodes.
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

/// Sends commands, from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Control(Engine);

#[derive(Clone)]
enum Engine {
    Memory(Threads),
    Redis(Arc<Link>, Threads),
}

impl Control {
    /// Commands to this process as the only node.
    pub fn memory(threads: Threads) -> Self {
        Self(Engine::Memory(threads))
    }

    /// Commands to all nodes with the same `key_prefix` on the Redis at `url`. Starts to receive them on the
    /// current runtime. `Err` = the URL is wrong, or the prefix makes no valid channel name.
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

    /// Makes every node carry out `command`, and waits until all have replied, for about two seconds at most.
    /// After an error it may have been carried out in part.
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

    /// Lists the connections of every node; waits as [`Control::send`] does.
    pub async fn connections(
        &self,
        query: Connections,
    ) -> Result<Listed<ConnectionRow>, SendError> {
        match self.list(Listing::Connections(query)).await? {
            (Found::Connections(part), reached) => Ok(Listed { part, reached }),
            (Found::Channels(_), reached) => Ok(Listed { part: Part::default(), reached }),
        }
    }

    /// Lists the channels of the connections of every node; waits as [`Control::send`] does.
    pub async fn channels(&self, query: Channels) -> Result<Listed<ChannelRow>, SendError> {
        match self.list(Listing::Channels(query)).await? {
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
                Ok((done.found.unwrap_or_else(|| listing.empty()), reached))
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

    /// Identifies this node among those that run at the moment.
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

    /// The reserved channel that only this node uses, for its canary; `None` on the memory engine.
    pub fn own_channel(&self) -> Option<ChannelName> {
        match &self.0 {
            Engine::Memory(_) => None,
            Engine::Redis(link, threads) => {
                ChannelName::new(&format!("{}:{}:canary", link.to_all, threads.node())).ok()
            }
        }
    }

    /// The channels that commands and replies are sent on.
    pub fn reserved_channels(&self) -> ReservedChannels {
        match &self.0 {
            Engine::Memory(_) => ReservedChannels::default(),
            Engine::Redis(link, _) => link.reserved_channels(),
        }
    }
}
