//! The leases of one thread's open connections and running generations, and the turns that these hold. They are renewed while these exist and
//! released when they end.

use std::rc::Rc;

use super::{Holder, LeaseKey, SharedLimits};
use crate::leases::{HeldLeases, Lessor, Renewal};
use crate::protocol::ChannelName;
use crate::redis_link::EngineUnavailable;
use crate::telemetry;

/// The leases of the holders on one thread. [`LeaseSet::run`] renews and releases them, so that the end of a holder
/// does not wait for the engine.
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

    /// Stops renewing the lease and does not release it, because another thread or node has taken it over.
    pub fn forget(self) {
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

    /// Holds a lease that [`SharedLimits::acquire`] has granted until the guard is dropped.
    pub fn hold(self: &Rc<Self>, key: LeaseKey<'_>, holder: Holder) -> Lease {
        self.add(key, holder);
        Lease { set: self.clone(), holder }
    }

    /// Holds the turn of a channel until the guard is dropped.
    pub fn hold_turn(self: &Rc<Self>, channel: &ChannelName, holder: Holder) -> Lease {
        self.0.keep(holder, self.0.lessor().turn_key(channel).into());
        Lease { set: self.clone(), holder }
    }

    /// Holds a lease that [`SharedLimits::acquire`] has granted until [`LeaseSet::remove`].
    pub fn add(&self, key: LeaseKey<'_>, holder: Holder) {
        self.0.keep(holder, self.0.lessor().lease_key(key).into());
    }

    /// Ends the lease of `holder`, if it has one, and releases it in the engine soon.
    pub fn remove(&self, holder: Holder) {
        self.0.give_back(&holder);
    }

    /// Renews and releases leases, for as long as it is polled.
    pub async fn run(self: Rc<Self>) {
        self.0.run().await;
    }

    /// Releases all leases that have ended so far. Returns false if the engine is unavailable.
    pub async fn flush(&self) -> bool {
        self.0.flush().await
    }
}

/// A lease is identified by its key and its holder.
impl Lessor for SharedLimits {
    type Holder = Holder;
    type Lease = Box<str>;
    type Release = Box<str>;

    async fn renew(
        &self,
        leases: &[(Holder, Box<str>)],
    ) -> Result<Renewal<Holder>, EngineUnavailable> {
        let held: Vec<_> = leases.iter().map(|(holder, key)| (&**key, *holder)).collect();
        let failed = self.renew_all(&held).await?;
        Ok(Renewal { lost: Vec::new(), failed })
    }

    async fn release(
        &self,
        leases: &[(Holder, Box<str>)],
    ) -> Result<Vec<Holder>, EngineUnavailable> {
        let held: Vec<_> = leases.iter().map(|(holder, key)| (&**key, *holder)).collect();
        self.release_all(&held).await
    }

    fn record_not_renewed(&self, count: usize) {
        telemetry::messages::leases_not_renewed(count);
    }

    fn record_dropped(&self, count: usize) {
        telemetry::messages::releases_forgotten(count);
    }
}

#[cfg(test)]
mod tests;
