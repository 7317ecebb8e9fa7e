//! A lease between its acquisition and the [`super::LeaseSet`] that is going to renew it.

use tokio::runtime::Handle;

use super::{Holder, LeaseKey, SharedLimits};

/// Releases its lease when dropped, unless it was handed on: a client may disconnect in the middle of its
/// handshake, even while the lease is being acquired.
pub struct Claim {
    limits: SharedLimits,
    key: Box<str>,
    holder: Holder,
    handed_on: bool,
}

impl Claim {
    /// To be made before [`SharedLimits::acquire`]: releasing what was never leased does no harm, and whoever
    /// stops waiting for the engine's answer cannot know it.
    pub fn new(limits: &SharedLimits, key: LeaseKey<'_>, holder: Holder) -> Self {
        let key = limits.lease_key(key).into();
        Self { limits: limits.clone(), key, holder, handed_on: false }
    }

    /// Leaves the release to somebody else. To be called as well where no lease was given.
    pub fn hand_on(mut self) {
        self.handed_on = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.handed_on {
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
