//! The leases of one thread's open connections and running generations: renewed while they last,
//! released when they end.

use std::rc::Rc;

use super::{Holder, LeaseKey, SharedLimits};
use crate::leases::{HeldLeases, Lessor};
use crate::redis_link::EngineUnavailable;
use crate::telemetry;

/// The leases of one thread. Not `Send`: its holders live on that thread, too. [`LeaseSet::run`] does
/// the work, so that the end of a holder waits for nothing.
pub struct LeaseSet(HeldLeases<SharedLimits>);

/// Releases its holder's lease when dropped.
pub struct Lease {
    set: Rc<LeaseSet>,
    holder: Holder,
}

impl Lease {
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// Somebody else renews and releases it from now on.
    pub fn leave(self) {
        self.set.0.leave(self.holder);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.set.remove(self.holder);
    }
}

impl LeaseSet {
    pub fn new(limits: SharedLimits) -> Rc<Self> {
        Rc::new(Self(HeldLeases::new(limits)))
    }

    /// Keeps the lease that [`SharedLimits::acquire`] gave until the guard is dropped.
    pub fn hold(self: &Rc<Self>, key: LeaseKey<'_>, holder: Holder) -> Lease {
        self.add(key, holder);
        Lease { set: self.clone(), holder }
    }

    /// Keeps the lease that [`SharedLimits::acquire`] gave until [`LeaseSet::remove`].
    pub fn add(&self, key: LeaseKey<'_>, holder: Holder) {
        self.0.keep(holder, self.0.lessor().lease_key(key).into());
    }

    /// Lets the engine know soon; nothing happens for one that holds no lease.
    pub fn remove(&self, holder: Holder) {
        self.0.give_back(holder);
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
    type Holder = Holder;
    type Lease = Box<str>;

    async fn renew(&self, leases: &[(Holder, Box<str>)]) -> Result<(), EngineUnavailable> {
        let leases: Vec<_> = leases.iter().map(|(holder, key)| (&**key, *holder)).collect();
        self.renew_all(&leases).await
    }

    async fn release(&self, leases: &[(Holder, Box<str>)]) -> Result<(), EngineUnavailable> {
        let leases: Vec<_> = leases.iter().map(|(holder, key)| (&**key, *holder)).collect();
        self.release_all(&leases).await
    }

    fn not_renewed(&self, count: usize) {
        telemetry::messages::leases_not_renewed(count);
    }

    fn forgotten(&self, count: usize) {
        telemetry::messages::releases_forgotten(count);
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
