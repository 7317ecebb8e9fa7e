//! The limits of one user on all nodes together: replies in progress, messages per time, and tokens of AI models.

use std::time::Duration;

use super::{Refusal, Replies, Sender};
use crate::config::Route;
use crate::limits::{Claim, Holder, Lease, LeaseKey, LeaseKind, LimitName, Verdict};
use crate::protocol::{Params, SenderKey, UserId};

/// How long the answer to a client waits for an unused lease to be released in the engine.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

impl Replies {
    /// Counts one more reply of the sender's user, until the lease is dropped. `None` if the route has no
    /// such limit or the sender is anonymous.
    pub(super) async fn acquire_reply_lease(
        &self,
        sender: &Sender,
    ) -> Result<Option<Lease>, Refusal> {
        let Some(max) = sender.route.limits.generations_per_user else { return Ok(None) };
        let Some(user) = &sender.user_id else { return Ok(None) };
        let user = user.to_string();
        let key = LeaseKey {
            kind: LeaseKind::Generation,
            route: sender.route.path.as_str(),
            user: &user,
        };
        let holder = Holder::random();
        let limits = &self.services.limits;
        let claim = Claim::new(limits, key, holder);
        match limits.acquire(key, holder, max).await {
            Ok(Verdict::Allowed) => {
                let lease = self.services.leases.hold(key, holder);
                claim.transfer();
                Ok(Some(lease))
            }
            Ok(Verdict::Refused { .. }) => {
                claim.transfer();
                Err(Refusal::TooManyReplies)
            }
            // What the engine did not answer may have been granted: the dropped claim gives it back.
            Err(_) => Err(Refusal::LimitsUnavailable),
        }
    }

    /// Checks that the replies to the sender have not taken all tokens that they may.
    pub(super) async fn check_usage(&self, sender: &Sender) -> Result<(), Refusal> {
        let Some(rate) = &sender.route.limits.usage_per_user else { return Ok(()) };
        let (path, user) = (sender.route.path.as_str(), usage_key(&sender.key));
        let limits = &self.services.limits;
        match limits.check_usage(path, &sender.params, &user, rate).await {
            Ok(Verdict::Allowed) => Ok(()),
            Ok(Verdict::Refused { retry_after }) => Err(Refusal::UsageExceeded { retry_after }),
            Err(_) => Err(Refusal::LimitsUnavailable),
        }
    }

    /// Gives leases back before the client is answered, so that its next message is not refused for them.
    pub(super) async fn release(&self, leases: [Option<Lease>; 2]) {
        if leases.iter().any(Option::is_some) {
            drop(leases);
            // In a box, because most messages hold none. What is not released in time is released later.
            let flush = tokio::time::timeout(RELEASE_TIMEOUT, self.services.leases.flush());
            let _ = Box::pin(flush).await;
        }
    }

    /// Counts one message against the rate of its user. Anonymous senders have only the rate of their connection.
    pub async fn take_user_rate(
        &self,
        route: &Route,
        params: &Params,
        user: Option<&UserId>,
    ) -> Result<(), Refusal> {
        let Some(rate) = &route.limits.messages_per_user else { return Ok(()) };
        let Some(user) = user else { return Ok(()) };
        let limits = &self.services.limits;
        let path = route.path.as_str();
        match limits.take(LimitName::Messages, path, params, &user.to_string(), rate).await {
            Ok(Verdict::Allowed) => Ok(()),
            Ok(Verdict::Refused { retry_after }) => Err(Refusal::RateLimited { retry_after }),
            Err(_) => Err(Refusal::LimitsUnavailable),
        }
    }
}

/// Returns the key under which tokens are counted: a user's id, as in the server API, or an anonymous client's address.
pub(super) fn usage_key(sender: &SenderKey) -> String {
    match sender {
        SenderKey::User(user) => user.to_string(),
        SenderKey::Network(_) | SenderKey::Connection(_) => sender.to_string(),
    }
}
