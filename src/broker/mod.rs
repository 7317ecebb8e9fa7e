//! Subscribe and publish. Owns which channels this node receives from the engine, and the order of SUBSCRIBE
//! and UNSUBSCRIBE.
//!
//! There are three parts: a [`Broker`] on each worker thread, which attaches sockets to the thread's part of the
//! hub; the [`Core`] on the engine thread, which knows the threads of each channel and delivers
//! publications to them; and [`Publisher`]s on any thread. A [`ThreadPublisher`] reaches the sockets of its own thread without
//! the engine thread. Invariant: a socket is in the hub before its channel's
//! subscription is requested, and `connected` is sent only after the engine has confirmed the subscription, so
//! that no publication is missed in between.

mod canary;
mod catch_up;
mod channels;
mod core;
mod history;
mod layer;
mod layer_reads;
mod publisher;
mod redis;
mod tails;
#[cfg(test)]
mod tests;
mod thread;
mod thread_publisher;

pub use canary::{Canary, ShardCanaries};
pub use core::Core;
pub use history::{
    Cancellation, Extent, GenerationState, History, MemoryHistory, Page, PublishOnce, Published,
    ReadFrom, TerminalEvent, compact, end_key,
};
pub use publisher::Publisher;
pub use tails::{Tail, TailEnd, TailEvent, Tails, TooManyTails};
pub use thread::{Broker, ChannelPin, Subscription, WorkerHandle};
pub use thread_publisher::{ReplyEvent, ThreadPublisher};

use std::time::Instant;

use crate::protocol::ChannelName;
use crate::redis_link::EngineUnavailable;
use crate::socket::Delivery;

/// Why a publication was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishError {
    /// The publication is larger than `max_publication_bytes`.
    TooLarge,
    /// The engine cannot be reached, or is not keeping up.
    EngineUnavailable,
}

impl From<EngineUnavailable> for PublishError {
    fn from(_: EngineUnavailable) -> Self {
        Self::EngineUnavailable
    }
}

/// A message from the engine to the sockets of a channel. It is encoded once and shared by all of them.
#[derive(Debug, Clone)]
pub struct Publication {
    pub channel: ChannelName,
    pub delivery: Delivery,
    /// When the publication reached this node.
    pub received: Instant,
}
