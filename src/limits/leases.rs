//! The leases of one thread's open connections: renewed while they are open, released when they
//! close.

use std::rc::Rc;

use super::SharedLimits;
use crate::leases::{EngineAway, HeldLeases, Lessor};
use crate::protocol::ConnectionId;
use crate::telemetry::limits as facts;

/// The leases of one thread. Not `Send`: its connections live on that thread, too. [`LeaseSet::run`]
/// does the work, so that closing a connection waits for nothing.
pub struct LeaseSet(HeldLeases<SharedLimits>);

/// Releases its connection's lease when dropped.
pub struct Lease {
    set: Rc<LeaseSet>,
    connection: ConnectionId,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.set.remove(self.connection);
    }
}

impl LeaseSet {
    pub fn new(limits: SharedLimits) -> Rc<Self> {
        Rc::new(Self(HeldLeases::new(limits)))
    }

    /// Keeps the lease that [`SharedLimits::acquire`] gave until the guard is dropped.
    pub fn hold(self: &Rc<Self>, route: &str, user: &str, connection: ConnectionId) -> Lease {
        self.add(route, user, connection);
        Lease { set: self.clone(), connection }
    }

    /// Keeps the lease that [`SharedLimits::acquire`] gave until [`LeaseSet::remove`].
    pub fn add(&self, route: &str, user: &str, connection: ConnectionId) {
        self.0.keep(connection, self.0.lessor().lease_key(route, user).into());
    }

    /// Lets the engine know soon; nothing happens for a connection that holds no lease.
    pub fn remove(&self, connection: ConnectionId) {
        self.0.give_back(connection);
    }

    /// Renews and releases, for as long as the thread lives.
    pub async fn run(self: Rc<Self>) {
        self.0.run().await;
    }

    /// Tells the engine of all releases so far; false if it cannot be told now.
    pub async fn flush(&self) -> bool {
        self.0.flush().await
    }
}

/// A lease is known by its key.
impl Lessor for SharedLimits {
    type Lease = Box<str>;

    async fn renew(&self, leases: &[(ConnectionId, Box<str>)]) -> Result<(), EngineAway> {
        let holders: Vec<_> = leases.iter().map(|(id, key)| (&**key, *id)).collect();
        self.renew_all(&holders).await.map_err(|_| EngineAway)
    }

    async fn release(&self, leases: &[(ConnectionId, Box<str>)]) -> Result<(), EngineAway> {
        let holders: Vec<_> = leases.iter().map(|(id, key)| (&**key, *id)).collect();
        self.release_all(&holders).await.map_err(|_| EngineAway)
    }

    fn not_renewed(&self, count: usize) {
        facts::leases_not_renewed(count);
    }

    fn forgotten(&self, count: usize) {
        facts::releases_forgotten(count);
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
