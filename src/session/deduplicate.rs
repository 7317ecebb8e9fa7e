//! Whether a message is to be relayed at all: one with an id of the client's is relayed once, and its
//! repeats get the first one's answer.

use std::rc::Rc;

use super::Session;
use super::messages::Queued;
use crate::generations::{Claim, DedupError, DedupOutcome, MessageKey, Sender};
use crate::protocol::{ErrorCode, ErrorEvent, task_queued_before};

/// The client has its answer, or nobody to give it to is left.
pub(super) struct Answered;

impl Session {
    /// `Ok` = relay it, then [`Session::settle`] the claim. Messages without an id have none.
    pub(super) async fn turn(
        &self,
        message: &Queued,
        upstream: &str,
    ) -> Result<Option<Claim>, Answered> {
        let ttl = self.client.route.borrow().generations.dedup_ttl;
        let Some(id) = message.id.as_deref().filter(|_| !ttl.is_zero()) else { return Ok(None) };
        let sender = match &self.client.user_id {
            Some(user) => Sender::User(user),
            None => Sender::Connection(self.client.connection_id),
        };
        let key = MessageKey::new(self.client.route.borrow().path.as_str(), sender, id);
        let terms = self.services.terms();
        let longest = terms.upstreams.relay_timeout(upstream);
        let wanted = || self.socket.is_open();
        match self.services.generations.dedup.turn(key, longest, ttl, wanted).await {
            Ok(DedupOutcome::First(claim)) => return Ok(Some(claim)),
            Ok(DedupOutcome::Repeat { task_id }) => {
                self.route_facts.duplicate_caught(self.about(), id, &task_id);
                let event = terms.upstreams.queued_event(upstream, &self.client.channel);
                self.say(&task_queued_before(event, &task_id, id));
            }
            Err(DedupError::EngineUnavailable) => {
                let text = "whether this message was sent before cannot be checked at the moment; try again";
                let event = ErrorEvent::new(ErrorCode::EngineUnavailable, text);
                self.refuse(&event.retry_after(1).id(Some(id)));
            }
            Err(DedupError::StillRelaying) => {
                let text = "this message is still on its way from where it was sent first";
                self.refuse(&ErrorEvent::new(ErrorCode::Busy, text).retry_after(1).id(Some(id)));
            }
            Err(DedupError::Unwanted) => {}
        }
        Err(Answered)
    }

    /// Tells the engine how the relay of a claimed message went; `None` = it may be sent again. The
    /// next message of the client does not wait for it.
    pub(super) fn settle(self: &Rc<Self>, claim: Claim, task_id: Option<String>) {
        let tracked = self.services.shutdown.track();
        tokio::task::spawn_local(async move {
            match task_id {
                Some(task_id) => claim.relayed(&task_id).await,
                None => claim.failed().await,
            }
            drop(tracked);
        });
    }
}
