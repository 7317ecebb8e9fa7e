//! A lease between its acquisition and the [`super::LeaseSet`] that will keep it.

use tokio::runtime::Handle;

use super::SharedLimits;
use crate::protocol::ConnectionId;

/// Gives its lease back when dropped, unless it was handed on: a client may be gone in the middle of
/// its handshake, even while the engine is being asked.
pub struct Claim {
    limits: SharedLimits,
    key: Box<str>,
    connection: ConnectionId,
    handed_on: bool,
}

impl Claim {
    /// To be made before [`SharedLimits::acquire`]: giving back what was never leased does no harm,
    /// and whoever stops waiting for the engine's answer cannot know it.
    pub fn new(limits: &SharedLimits, route: &str, user: &str, connection: ConnectionId) -> Self {
        let key = limits.lease_key(route, user).into();
        Self { limits: limits.clone(), key, connection, handed_on: false }
    }

    /// Somebody else releases the lease, or there is none.
    pub fn hand_on(mut self) {
        self.handed_on = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.handed_on {
            return;
        }
        let (limits, key, connection) =
            (self.limits.clone(), std::mem::take(&mut self.key), self.connection);
        // Without a runtime the process is ending; the lease expires by itself.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let _or_it_expires = limits.release_all(&[(&key, connection)]).await;
            });
        }
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("connection", &self.connection).finish_non_exhaustive()
    }
}
