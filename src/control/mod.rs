//! Orders that reach every node: what a server asks of one node is done on all of them.
//!
//! This module owns how an order travels and how its effects are summed; it leaves what an order does
//! to the worker threads, which each take a [`Seat`], and to the [`CancelHook`]. Invariant: the
//! sender's node carries an order out by the same way as every other, so that it is done once a node,
//! and a node that did not answer in full is never counted as one that did.

mod link;
mod message;
mod order;
mod redis;
#[cfg(test)]
mod tests;
mod threads;

pub use order::{Disconnect, DisconnectFields, InvalidDisconnect, Order, Target};
pub use threads::{CancelHook, Seat, Threads};

use std::sync::Arc;

use crate::config::RedisUrl;
use crate::protocol::{ChannelName, ReservedChannels};
use crate::redis_link::pubsub_client;
use crate::shutdown::Shutdown;
use link::Link;

/// What came of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Over all threads of all nodes that answered.
    pub affected: u64,
    /// Nodes that have carried it out in full.
    pub answered: u64,
    /// Nodes that the order was sent to: those that the engine knows at the moment. A node that has
    /// lost the engine is not among them.
    pub asked: u64,
}

impl Reached {
    /// Whether every node that was asked has done it.
    pub fn is_complete(&self) -> bool {
        self.answered >= self.asked
    }
}

/// Why an order was not sent, or its effects cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The engine cannot be reached, or is not keeping up.
    EngineDown,
    /// The order's texts are longer than any user id or task id may be: 16 KiB in all.
    TooLarge,
}

/// Gives orders, from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Control(Engine);

#[derive(Clone)]
enum Engine {
    Memory(Threads),
    Redis(Arc<Link>),
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
        let client = pubsub_client(url)?;
        let link = Arc::new(Link::new(key_prefix)?);
        let supervision = redis::supervise(client, Arc::clone(&link), threads);
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = supervision => {}
                () = shutdown.killed() => {}
            }
        });
        Ok(Self(Engine::Redis(link)))
    }

    /// Has every node carry out `order`, and waits for their word: about two seconds at the most, and
    /// no longer than there are nodes to answer. After an error it may have been carried out in part.
    pub async fn send(&self, order: Order) -> Result<Reached, SendError> {
        match &self.0 {
            Engine::Memory(threads) => {
                let done = threads.execute(order).await;
                let answered = u64::from(done.complete);
                Ok(Reached { affected: done.affected, answered, asked: 1 })
            }
            Engine::Redis(link) => link.send(order).await,
        }
    }

    /// Whether orders reach this node.
    pub fn is_live(&self) -> bool {
        match &self.0 {
            Engine::Memory(_) => true,
            Engine::Redis(link) => link.is_live(),
        }
    }

    /// Among the reserved ones, a channel of this node alone, to hear itself by; `None` where there is no
    /// other node.
    pub fn own_channel(&self) -> Option<ChannelName> {
        match &self.0 {
            Engine::Memory(_) => None,
            Engine::Redis(link) => {
                ChannelName::new(&format!("{}:{}:canary", link.to_all, link.node)).ok()
            }
        }
    }

    /// The channels that orders and replies travel by.
    pub fn reserved_channels(&self) -> ReservedChannels {
        match &self.0 {
            Engine::Memory(_) => ReservedChannels::default(),
            Engine::Redis(link) => link.reserved_channels(),
        }
    }
}
