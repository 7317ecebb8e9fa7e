//! A lease that was acquired but is not in the [`super::LeaseSet`] that will renew it yet.

use tokio::runtime::Handle;

use super::{Holder, LeaseKey, SharedLimits};

/// Releases its lease when dropped, unless it was transferred. A client may disconnect during its handshake, even
/// while the lease is being acquired.
pub struct Claim {
    limits: SharedLimits,
    key: Box<str>,
    holder: Holder,
    is_transferred: bool,
}

impl Claim {
    /// Must be created before [`SharedLimits::acquire`]: a caller that stops waiting for the engine does not know
    /// whether it got the lease, and releasing a lease that was never granted is harmless.
    pub fn new(limits: &SharedLimits, key: LeaseKey<'_>, holder: Holder) -> Self {
        let key = limits.lease_key(key).into();
        Self { limits: limits.clone(), key, holder, is_transferred: false }
    }

    /// Gives up the responsibility for the release. Must also be called if no lease was granted.
    pub fn transfer(mut self) {
        self.is_transferred = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_transferred {
            return;
        }
        let (limits, key, holder) =
            (self.limits.clone(), std::mem::take(&mut self.key), self.holder);
        // Without a runtime the process is ending; the lease expires by itself.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // If this fails, the lease expires by itself.
                let _ = limits.release_all(&[(&key, holder)]).await;
            });
        }
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("holder", &self.holder).finish_non_exhaustive()
    }
}
