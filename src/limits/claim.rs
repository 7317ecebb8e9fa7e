//! A lease between its acquisition and the [`super::LeaseSet`] that is going to renew it.

use tokio::runtime::Handle;

use super::{Holder, LeaseKey, SharedLimits};

/// Releases its lease when dropped, unless it was disarmed: a client may disconnect in the middle of its
/// handshake, even while the lease is being acquired.
pub struct Claim {
    limits: SharedLimits,
    key: Box<str>,
    holder: Holder,
    disarmed: bool,
}

impl Claim {
    /// Must be made before [`SharedLimits::acquire`]: releasing a lease that was not granted has no effect, and a caller that
    /// stops waiting for the engine does not know the answer.
    pub fn new(limits: &SharedLimits, key: LeaseKey<'_>, holder: Holder) -> Self {
        let key = limits.lease_key(key).into();
        Self { limits: limits.clone(), key, holder, disarmed: false }
    }

    /// Prevents the release: the lease belongs to a lease set now, or was not granted.
    pub fn disarm(mut self) {
        self.disarmed = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.disarmed {
            return;
        }
        let (limits, key, holder) =
            (self.limits.clone(), std::mem::take(&mut self.key), self.holder);
        // Without a runtime the process is ending; the lease expires by itself.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // What the engine does not learn expires there.
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
