//! Commands to all nodes: a command that an application server sends to one node is executed on every node.
//!
//! This module owns how a command is sent, how its results are summed and how lists are merged. The worker
//! threads, each of which gets a [`WorkerHandle`], and the [`CancelHook`] decide what a command does. Invariants:
//! the sender's node receives its command in the same way as every other node, so that it is executed once on each
//! node; and a node that did not answer in full is never counted as one that did.

mod command;
mod debug;
mod explain;
mod link;
mod listing;
mod message;
mod nodes;
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
pub use explain::{
    Concerning, ConnectionDetails, Details, ErrorRow, GenerationRow, InboxStatus, LocalLimitStatus,
    QueueStatus,
};
pub use listing::{ChannelRow, Channels, ConnectionRow, Connections, ListPart, Listing, truncate};
pub use part::{Gathering, Part};
pub use threads::{CancelHook, DebugHook, GenerationsHook, ThreadCommand, Threads, WorkerHandle};

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::ChannelName;
use crate::redis_link::{Commands, Needs, Primary};
use crate::shutdown::Shutdown;
use link::{Link, Sent};
use listing::ListRow;

/// How long a node that stops tries to tell the others.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many nodes executed a command, and its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The sum over all threads of all nodes that answered.
    pub affected: u64,
    /// The number of nodes that have executed it in full.
    pub answered: u64,
    /// The number of nodes that should execute it: those that received it, but at least those that were alive within
    /// the last minute and have not stopped.
    pub asked: u64,
}

impl Reached {
    /// Whether every node has executed the command in full.
    pub fn is_complete(&self) -> bool {
        self.answered >= self.asked
    }
}

/// A part of a list over all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<R> {
    pub part: Part<R>,
    /// `affected` is the number of all matching rows of [`Details`], 0 otherwise.
    pub reached: Reached,
    /// The nodes whose rows are missing, as far as they are known.
    pub missing: Vec<String>,
    /// Whether only this node was asked, because the engine is unavailable.
    pub is_local: bool,
}

/// Why a command was not sent, or its result is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The engine cannot be reached, or is not keeping up.
    EngineUnavailable,
    /// The command is longer than 16 KiB, which no valid user id or task id can cause.
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
    /// Sends commands to this process as the only node.
    pub fn memory(threads: Threads) -> Self {
        Self(Engine::Memory(threads))
    }

    /// Sends commands to all nodes with the same `key_prefix` on the Redis of `commands`, and starts to receive them on
    /// the current runtime.
    ///
    /// # Errors
    /// A channel name with the prefix is not valid.
    pub fn redis(
        commands: &Commands,
        key_prefix: &str,
        threads: Threads,
        shutdown: &Shutdown,
    ) -> Result<Self, String> {
        let link = Arc::new(Link::new(key_prefix, threads.node(), commands.is_cluster())?);
        let primary = Primary::of(commands, link.commands_channel.as_str());
        let supervised =
            redis::supervise(primary, Arc::clone(&link), threads.clone(), shutdown.clone());
        tokio::spawn(shutdown.essential("control", supervised));
        Ok(Self(Engine::Redis(link, threads)))
    }

    /// Makes every node execute `command`, and waits for all replies, for about two seconds at most. After an error
    /// the command may have been executed in part.
    pub async fn send(&self, command: NodeCommand) -> Result<Reached, SendError> {
        match &self.0 {
            Engine::Memory(threads) => {
                let result = threads.execute(command).await;
                let answered = u64::from(result.complete);
                Ok(Reached { affected: result.affected, answered, asked: 1 })
            }
            Engine::Redis(link, _) => link.send(command).await.map(|sent| sent.reached),
        }
    }

    /// Lists the connections of every node. Waits as long as [`Control::send`].
    pub async fn connections(
        &self,
        query: Connections,
    ) -> Result<Listed<ConnectionRow>, SendError> {
        self.rows(Listing::Connections(query)).await
    }

    /// Lists the channels that have connections on any node. Waits as long as [`Control::send`].
    pub async fn channels(&self, query: Channels) -> Result<Listed<ChannelRow>, SendError> {
        self.rows(Listing::Channels(query)).await
    }

    /// Describes the target's connections on every node. Waits as long as [`Control::send`]. If the engine is
    /// unavailable, those of this node are described.
    pub async fn details(&self, query: Details) -> Result<Listed<ConnectionDetails>, SendError> {
        self.rows_or_own(Listing::Details(query)).await
    }

    /// Lists the replies in progress on every node, or this one, as [`Control::details`].
    pub async fn generations(&self, query: Concerning) -> Result<Listed<GenerationRow>, SendError> {
        self.rows_or_own(Listing::Generations(query)).await
    }

    /// Lists the recent errors of every node, or this one, as [`Control::details`].
    pub async fn errors(&self, query: Concerning) -> Result<Listed<ErrorRow>, SendError> {
        self.rows_or_own(Listing::Errors(query)).await
    }

    async fn rows_or_own<R: ListRow>(&self, listing: Listing) -> Result<Listed<R>, SendError> {
        match (self.rows(listing.clone()).await, &self.0) {
            (Err(SendError::EngineUnavailable), Engine::Redis(link, threads)) => {
                let (part, mut reached) = own_rows(threads, listing).await;
                let missing = link.known_without(std::slice::from_ref(&link.node));
                reached.asked += missing.len() as u64;
                Ok(Listed { part, reached, missing, is_local: true })
            }
            (listed, _) => listed,
        }
    }

    async fn rows<R: ListRow>(&self, listing: Listing) -> Result<Listed<R>, SendError> {
        match &self.0 {
            Engine::Memory(threads) => {
                let (part, reached) = own_rows(threads, listing).await;
                Ok(Listed { part, reached, missing: Vec::new(), is_local: false })
            }
            Engine::Redis(link, _) => {
                let Sent { mut reached, lists, missing } =
                    link.send(NodeCommand::List(listing.clone())).await?;
                let count = lists.len();
                let parts: Vec<_> = lists.iter().filter_map(|data| listing.read(data)).collect();
                reached.answered = reached.answered.saturating_sub((count - parts.len()) as u64);
                let part = R::part(listing.merge(parts.into_iter())).unwrap_or_default();
                Ok(Listed { part, reached, missing, is_local: false })
            }
        }
    }

    /// What commands and the list of nodes send to Redis, on a user of the same permissions.
    pub fn needs(&self) -> Needs {
        match &self.0 {
            Engine::Memory(_) => Needs::default(),
            Engine::Redis(link, _) => {
                let channel = link.commands_channel.as_str();
                let commands = match link.is_cluster {
                    false => ["PUBSUB", "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE"],
                    true => ["PUBSUB", "SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE"],
                };
                commands
                    .into_iter()
                    .fold(link.nodes.needs(), |needs, command| needs.command(command, channel))
            }
        }
    }

    /// Tells the other nodes that this one stops, for at most a second. Otherwise they wait for it to be forgotten.
    pub async fn leave(&self) {
        let Engine::Redis(link, _) = &self.0 else { return };
        link.nodes.leave();
        if let Some(sender) = link.sender.load_full() {
            // If this fails, this node is forgotten after a minute.
            let _ = tokio::time::timeout(LEAVE_TIMEOUT, link.nodes.renew(&sender)).await;
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

    /// The reserved channel of this node's canary; `None` on the memory engine, and in a cluster, whose shards have one
    /// each.
    pub fn canary_channel(&self) -> Option<ChannelName> {
        match &self.0 {
            Engine::Memory(_) => None,
            Engine::Redis(link, _) if link.is_cluster => None,
            Engine::Redis(link, threads) => {
                ChannelName::new(&format!("{}:{}:canary", link.commands_channel, threads.node()))
                    .ok()
            }
        }
    }
}

/// The rows of this node alone.
async fn own_rows<R: ListRow>(threads: &Threads, listing: Listing) -> (Part<R>, Reached) {
    let result = threads.execute(NodeCommand::List(listing)).await;
    let answered = u64::from(result.complete);
    let reached = Reached { affected: result.affected, answered, asked: 1 };
    (result.list.and_then(R::part).unwrap_or_default(), reached)
}
