//! Rates and counts: token buckets and connection leases, shared by all nodes where the engine is
//! Redis, and local buckets for one connection.

mod connections;
pub use connections::*;
use std::time::Duration;

use crate::config::Rate;
use crate::protocol::ConnectionId;
use crate::redis_link::Commands;

/// The answer of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// Not now; `retry_after` says when one more would be allowed.
    Refused {
        retry_after: Duration,
    },
}

/// The engine that keeps the limits cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineDown;

/// Which shared bucket; part of its key and the value of a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitName {
    MessagesPerUser,
    ConnectsPerUser,
    ConnectionsPerUser,
    /// Local to a connection; here for the metric label.
    MessagesPerConnection,
    PingsPerConnection,
    ConnectionsPerIp,
    ConnectionsTotal,
}

/// Shared limits. Cheap to clone, from any thread.
#[derive(Clone)]
pub enum SharedLimits {
    Memory,
    Redis,
}

impl SharedLimits {
    pub fn memory() -> Self {
        todo!()
    }

    /// `key_prefix` is `[engine.redis] key_prefix`.
    pub fn redis(commands: Commands, key_prefix: &str) -> Self {
        let _ = (commands, key_prefix);
        todo!()
    }

    /// Takes one from the bucket `limit` of `user` on the route whose path pattern is `route`.
    pub async fn take(
        &self,
        limit: LimitName,
        route: &str,
        user: &str,
        rate: Rate,
    ) -> Result<Verdict, EngineDown> {
        let _ = (limit, route, user, rate);
        todo!()
    }

    /// Leases one of `max` open connections of `user` on `route` to `connection`. Whoever got
    /// `Allowed` keeps a [`LeaseSet`] of its thread renewing it, and releases it.
    pub async fn acquire(
        &self,
        route: &str,
        user: &str,
        connection: ConnectionId,
        max: u32,
    ) -> Result<Verdict, EngineDown> {
        let _ = (route, user, connection, max);
        todo!()
    }
}

/// A lease lives this long without renewal.
pub const LEASE: Duration = Duration::from_secs(60);

/// A token bucket of one connection (GCRA): 16 bytes, no clock of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalBucket {}

impl LocalBucket {
    /// Takes one at `now`, the time since any fixed instant of this process.
    pub fn take(&mut self, rate: Rate, now: Duration) -> Verdict {
        let _ = (rate, now);
        todo!()
    }
}

pub struct LeaseSet {}
impl LeaseSet {
    pub fn new(l: SharedLimits) -> std::rc::Rc<Self> {
        todo!()
    }
    pub fn add(&self, route: &str, user: &str, c: ConnectionId) {}
    pub fn remove(&self, route: &str, user: &str, c: ConnectionId) {}
    pub async fn run(self: std::rc::Rc<Self>) {}
}
