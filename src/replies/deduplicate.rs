//! A message with an id is relayed once; when it is sent again, it gets the same answer.

use super::{CheckedMessage, Refusal, RelayOutcome, Replies, Sender};
use crate::generations::{Claim, DedupError, DedupOutcome, IdScope, MessageKey};

impl Replies {
    /// `Ok` if the message is to be relayed; its claim, if it has one, must then be settled by
    /// [`Replies::settle_claim`]. Waits while the same message is being relayed, and the sender is there.
    pub(super) async fn deduplicate(
        &self,
        sender: &Sender,
        message: &CheckedMessage,
    ) -> Result<Option<Claim>, RelayOutcome> {
        let ttl = sender.route.generations.dedup_ttl;
        let Some(key) = message_key(sender, message) else { return Ok(None) };
        let relay_timeout = self.config().upstreams.relay_timeout(sender.upstream());
        let is_wanted = || sender.socket.is_open();
        let dedup = &self.services.generations.dedup;
        Err(match dedup.claim_or_wait(key, relay_timeout, ttl, is_wanted).await {
            Ok(DedupOutcome::First(claim)) => return Ok(Some(claim)),
            Ok(DedupOutcome::Repeat { task_id }) => repeated(sender, message, task_id),
            Err(DedupError::EngineUnavailable) => RelayOutcome::Refused(Refusal::DedupUnavailable),
            Err(DedupError::StillRelaying) => RelayOutcome::Refused(Refusal::StillRelaying),
            Err(DedupError::Unwanted) => RelayOutcome::SenderLeft,
        })
    }

    /// Stores which task a claimed message became. `None` releases the claim, so that the message can be sent
    /// again. A call of the engine is a task of its own, so that the client's next message does not wait for it.
    pub(super) fn settle_claim(&self, claim: Claim, task_id: Option<&str>) {
        let Err(claim) = claim.settle_at_once(task_id) else { return };
        let task_id = task_id.map(str::to_owned);
        let tracked = self.services.shutdown.track();
        tokio::task::spawn_local(async move {
            match task_id {
                Some(task_id) => claim.complete(&task_id).await,
                None => claim.release().await,
            }
            drop(tracked);
        });
    }
}

/// Whether the message is recognised when it is sent again.
pub(super) fn is_deduplicated(sender: &Sender, message: &CheckedMessage) -> bool {
    message.id.is_some() && !sender.route.generations.dedup_ttl.is_zero()
}

/// The key by which a message is known; `None` if it is not deduplicated.
pub(super) fn message_key(sender: &Sender, message: &CheckedMessage) -> Option<MessageKey> {
    let id = message.id.as_deref().filter(|_| is_deduplicated(sender, message))?;
    let scope = match &sender.user_id {
        Some(user) => IdScope::User(user),
        None => IdScope::Connection(sender.connection_id),
    };
    Some(MessageKey::new(sender.route.path.as_str(), scope, id).of_client(&sender.key))
}

/// The message was relayed before, as `task_id`.
pub(super) fn repeated(sender: &Sender, message: &CheckedMessage, task_id: String) -> RelayOutcome {
    let id = message.id.as_deref().unwrap_or_default();
    sender.route_metrics.messages.duplicate(sender.log_fields(), id, &task_id);
    RelayOutcome::Duplicate { task_id }
}
