//! Subscribe and publish. Owns which channels this node hears from the engine, and the order of
//! SUBSCRIBE and UNSUBSCRIBE.
//!
//! Three parts: a [`Broker`] on each worker thread, which joins sockets to the thread's part of the
//! hub; the [`Core`] on the engine thread, which knows the threads of each channel and hands
//! publications to them; and [`Publisher`]s anywhere. Invariant: a socket is in the hub before its
//! channel's subscription is asked for, and is told `connected` only after the engine confirmed it, so
//! no publication can fall between.

mod core;
mod redis;
#[cfg(test)]
mod tests;
mod thread;

pub use core::{Core, Intake};
pub use thread::{Broker, Seat, Subscription};

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::protocol::ChannelName;
use crate::redis_link::Commands;

/// How long a memory-engine publish waits for room in the intake.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a publication was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishError {
    /// Over `max_publication_bytes`.
    TooLarge,
    /// The engine cannot be reached, or is not keeping up.
    EngineDown,
}

/// One message on its way from the engine to the sockets: encoded once, shared by all.
#[derive(Debug, Clone)]
pub struct Publication {
    pub channel: ChannelName,
    /// A whole text frame.
    pub frame: Bytes,
    /// When this node had it.
    pub received: Instant,
}

/// Publishes from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    engine: PublisherEngine,
    max_bytes: usize,
}

#[derive(Clone)]
enum PublisherEngine {
    Memory(Intake),
    Redis(Commands),
}

impl Publisher {
    /// The memory engine: straight into this node's intake.
    pub fn memory(intake: Intake, max_bytes: usize) -> Self {
        Self { engine: PublisherEngine::Memory(intake), max_bytes }
    }

    /// `PUBLISH`; it comes back by the subscription.
    pub fn redis(commands: Commands, max_bytes: usize) -> Self {
        Self { engine: PublisherEngine::Redis(commands), max_bytes }
    }

    /// Hands `json` to the engine, to be delivered as it is to every subscriber of `channel` on every
    /// node. Two calls awaited one after the other arrive in that order.
    pub async fn publish(&self, channel: &ChannelName, json: Bytes) -> Result<(), PublishError> {
        if json.len() > self.max_bytes {
            return Err(PublishError::TooLarge);
        }
        match &self.engine {
            PublisherEngine::Memory(intake) => {
                let put = intake.put(channel, &json);
                tokio::time::timeout(PUBLISH_TIMEOUT, put)
                    .await
                    .unwrap_or(Err(PublishError::EngineDown))
            }
            PublisherEngine::Redis(commands) => {
                let mut publish = ::redis::cmd("PUBLISH");
                publish.arg(channel.as_str()).arg(&json[..]);
                commands
                    .query::<i64>(&publish)
                    .await
                    .map(|_receivers| ())
                    .map_err(|_| PublishError::EngineDown)
            }
        }
    }
}
