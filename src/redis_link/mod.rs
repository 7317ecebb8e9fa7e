//! Connections to Redis that the gateway supervises itself: connect, PING with a deadline, jittered
//! back-off, health.
//!
//! This module owns how a connection is opened, watched and opened again. It leaves keys, scripts and
//! the meaning of answers to its users. Invariant: commands fail at once while there is no connection, so
//! nothing queues up behind a Redis that is away.

mod backoff;
mod batches;
mod blocking;
mod commands;
mod label;
mod open;
mod pubsub;
mod supervisor;
#[cfg(test)]
pub mod test_server;

use backoff::Backoff;
pub use batches::Answers;
pub use blocking::Blocking;
pub use commands::Commands;
pub use open::client;
pub use pubsub::{PubSub, PubSubSender};
pub use supervisor::{ConnectionError, ConnectionEvent, Health, Supervised, supervise};

use std::fmt;

/// Why a command has no answer.
#[derive(Debug)]
pub enum RedisFailure {
    /// No connection, or no answer within the deadline. Whether the command ran is not known.
    Unavailable,
    /// Redis answered with an error: out of memory, read-only, not permitted, wrong type, …
    Refused(redis::RedisError),
}

impl fmt::Display for RedisFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable => f.write_str("Redis cannot be reached"),
            Self::Refused(error) => write!(f, "Redis answered: {error}"),
        }
    }
}

impl std::error::Error for RedisFailure {}

/// The engine (Redis, or the stores in this process) cannot be reached, is full, or refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineUnavailable;

impl fmt::Display for EngineUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the engine is not available")
    }
}

impl std::error::Error for EngineUnavailable {}

impl From<RedisFailure> for EngineUnavailable {
    fn from(_: RedisFailure) -> Self {
        Self
    }
}

/// Why a connection is lost that reports its own end.
const CLOSED: &str = "connection closed";
