//! The leases of one thread's open connections and running generations: renewed while these last, released
//! when they end.

use std::rc::Rc;

use super::{Holder, LeaseKey, SharedLimits};
use crate::leases::{HeldLeases, Lessor};
use crate::redis_link::EngineUnavailable;
use crate::telemetry;

/// The leases of one thread, whose holders live on that thread as well. [`LeaseSet::run`] does the work, so
/// that the end of a holder waits for nothing.
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

    /// Stops renewing the lease without releasing it: another node continues it.
    pub fn hand_over(self) {
        self.set.0.forget(&self.holder);
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

    /// Ends the lease of `holder`, if it has one; the engine learns it soon.
    pub fn remove(&self, holder: Holder) {
        self.0.give_back(&holder);
    }

    /// Renews and releases, for as long as the thread lives.
    pub async fn run(self: Rc<Self>) {
        self.0.run().await;
    }

    /// Tells the engine about all releases so far. Returns false if it is unavailable.
    pub async fn flush(&self) -> bool {
        self.0.flush().await
    }
}

/// A lease is identified by its key.
impl Lessor for SharedLimits {
    type Holder = Holder;
    type Lease = Box<str>;
    type Release = Box<str>;

    async fn renew(&self, leases: &[(Holder, Box<str>)]) -> Result<Vec<Holder>, EngineUnavailable> {
        let leases: Vec<_> = leases.iter().map(|(holder, key)| (&**key, *holder)).collect();
        self.renew_all(&leases).await?;
        Ok(Vec::new())
    }

    async fn release(&self, leases: &[(Holder, Box<str>)]) -> Result<(), EngineUnavailable> {
        let leases: Vec<_> = leases.iter().map(|(holder, key)| (&**key, *holder)).collect();
        self.release_all(&leases).await
    }

    fn record_not_renewed(&self, count: usize) {
        telemetry::messages::leases_not_renewed(count);
    }

    fn record_dropped(&self, count: usize) {
        telemetry::messages::releases_forgotten(count);
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
