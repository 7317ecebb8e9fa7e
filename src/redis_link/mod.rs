//! Supervised connections to Redis: connecting, checks with a deadline, back-off with jitter, and health.
//!
//! This module owns how a connection is opened, monitored and opened again, and whether Redis accepts what its users
//! need. The users own keys, scripts and the meaning of answers. Invariants: commands fail at once while there is no
//! connection, so that nothing queues up while Redis is unreachable; and a connection leads to a primary: as soon as
//! one connection finds that a server has become a replica, all connections to that server are opened again.
//! A Redis Cluster is one such connection to each of its masters (`cluster`).

mod backoff;
mod batches;
mod chain;
mod check;
mod cluster;
mod commands;
mod health;
mod key_watch;
mod label;
mod link;
mod open;
mod peer;
mod primary;
mod probe;
mod pubsub;
mod push_stream;
mod reason;
mod sentinel;
mod server;
mod slots;
mod supervisor;
#[cfg(test)]
pub mod test_server;
mod thread_links;

use backoff::Backoff;
pub use batches::Answers;
pub use chain::{ANSWERED, Step, StepAnswer};
pub use check::check;
pub use cluster::{Shard, Topology};
pub use commands::Commands;
pub use health::Health;
pub use key_watch::KeyWatch;
pub use link::MonitoredLink;
#[cfg(test)]
pub use open::client;
pub use primary::Primary;
pub use probe::Needs;
pub use pubsub::{PubSub, PubSubSender};
pub use supervisor::{ConnectionError, ConnectionEvent, Supervised, supervise};

use std::fmt;

/// Why a command has no answer.
#[derive(Debug)]
pub enum RedisFailure {
    /// There is no connection, or no answer within the deadline. The command may have run.
    Unavailable,
    /// Redis answered with an error, for example out of memory, read-only, not permitted or wrong type.
    Refused(redis::RedisError),
}

impl fmt::Display for RedisFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable => f.write_str("Redis cannot be reached"),
            Self::Refused(error) => write!(f, "Redis answered: {}", reason::describe(error)),
        }
    }
}

impl std::error::Error for RedisFailure {}

/// The engine (Redis, or the stores in this process) cannot be reached, is full, or refuses the call.
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

/// The reason for a loss that the connection itself reports.
const CLOSED: &str = "connection closed";
