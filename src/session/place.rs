//! A place among the replies that may run for one user at once, on all nodes.

use std::time::Duration;

use super::Session;
use super::deduplicate::Answered;
use crate::limits::{Claim, Holder, Lease, LeaseKey, Leased, Verdict};
use crate::protocol::{ErrorCode, ErrorEvent};

/// A place is free when a reply ends, and nobody knows when that is; clients look again after this
/// many seconds.
const RETRY_AFTER: u64 = 2;

/// To tell the engine of a place that was not needed.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_secs(1);

impl Session {
    /// A place, until it is dropped; none where the route has no limit, or for anonymous clients.
    pub(super) async fn place(&self, id: Option<&str>) -> Result<Option<Lease>, Answered> {
        let route = self.client.route();
        let Some(max) = route.limits.generations_per_user else { return Ok(None) };
        let Some(user) = &self.client.user_id else { return Ok(None) };
        let user = user.to_string();
        let key = LeaseKey { of: Leased::Generation, route: route.path.as_str(), user: &user };
        let holder = Holder::random();
        let claim = Claim::new(&self.services.limits, key, holder);
        match self.services.limits.acquire(key, holder, max).await {
            Ok(Verdict::Allowed) => {
                let lease = self.services.leases.hold(key, holder);
                claim.hand_on();
                return Ok(Some(lease));
            }
            Ok(Verdict::Refused { .. }) => {
                claim.hand_on();
                let text =
                    "as many replies to you are running as may; try again when one has ended";
                let event = ErrorEvent::new(ErrorCode::Busy, text).retry_after(RETRY_AFTER);
                self.refuse(&event.id(id));
            }
            Err(_) => self.refuse_unchecked(id),
        }
        Err(Answered)
    }

    /// Before the client is told, so that its next message finds the place free.
    pub(super) async fn give_back(&self, place: Option<Lease>) {
        if place.is_some() {
            drop(place);
            let told = self.services.leases.flush();
            let _or_a_little_later = tokio::time::timeout(GIVE_BACK_TIMEOUT, told).await;
        }
    }
}
