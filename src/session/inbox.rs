//! Messages of one client: relayed one at a time, in the order they came, and answered.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::Session;
use crate::protocol::{ErrorCode, ErrorEvent, task_queued, task_queued_before};
use crate::replies::{CheckedMessage, RelayOutcome, Sender, relay_error_event};

/// How many messages of one client may wait for the one before them.
const INBOX_LENGTH: usize = 16;

/// At most [`INBOX_LENGTH`] messages wait; the next is answered with `busy`.
#[derive(Default)]
pub(super) struct Inbox {
    waiting: VecDeque<CheckedMessage>,
    /// The bytes of the messages that wait, and twice those of the one that is being relayed.
    bytes: usize,
    /// A task relays the messages.
    is_relaying: bool,
}

/// The task that relays a client's messages. When it ends, the inbox is empty and takes the next task.
struct RelayTask {
    session: Rc<Session>,
}

impl Drop for RelayTask {
    fn drop(&mut self) {
        self.session.work().inbox.take();
    }
}

impl RelayTask {
    async fn run(self) {
        let _tracked = self.session.services.shutdown.track();
        loop {
            let next = self.session.work().inbox.borrow_mut().waiting.pop_front();
            let Some(message) = next else { return };
            // What the upstream is sent is made of the message, and held along with it.
            let bytes = size(&message);
            self.session.work().inbox.borrow_mut().bytes += bytes;
            self.session.relay(message).await;
            self.session.work().inbox.borrow_mut().bytes -= 2 * bytes;
        }
    }
}

fn size(message: &CheckedMessage) -> usize {
    message.text.len() + message.data.get().len()
}

impl Session {
    /// The bytes of this client's messages that wait or are on their way to the upstream.
    pub(super) fn bytes_in_progress(&self) -> usize {
        let Some(work) = self.work.get() else { return 0 };
        let bridged = work.bridge.borrow().as_ref().map_or(0, |bridge| bridge.queued_bytes());
        work.inbox.borrow().bytes + bridged + work.waiting_bytes.get()
    }

    /// How many messages wait for the one before them.
    pub(super) fn waiting_messages(&self) -> usize {
        self.work.get().map_or(0, |work| work.inbox.borrow().waiting.len())
    }

    /// Drops the messages that wait. The one that is on its way to the upstream goes on.
    pub(super) fn drop_waiting(&self) {
        let Some(work) = self.work.get() else { return };
        let mut inbox = work.inbox.borrow_mut();
        let dropped: usize = inbox.waiting.drain(..).map(|message| size(&message)).sum();
        inbox.bytes -= dropped;
    }

    /// Whether a message of this client is on its way to the upstream.
    pub(super) fn is_relaying(&self) -> bool {
        self.work.get().is_some_and(|work| work.inbox.borrow().is_relaying)
    }

    pub(super) fn enqueue(self: &Rc<Self>, message: CheckedMessage) {
        let mut inbox = self.work().inbox.borrow_mut();
        if inbox.waiting.len() >= INBOX_LENGTH {
            drop(inbox);
            let text = "too many messages waiting to be relayed";
            let id = message.id.as_deref();
            return self.refuse(&ErrorEvent::new(ErrorCode::Busy, text).id(id).retry_after(1));
        }
        inbox.bytes += size(&message);
        inbox.waiting.push_back(message);
        if !std::mem::replace(&mut inbox.is_relaying, true) {
            self.spawn(RelayTask { session: Rc::clone(self) }.run());
        }
    }

    async fn relay(&self, message: CheckedMessage) {
        #[cfg(any(test, feature = "internals"))]
        super::panics::panic_on_request(&message.text);
        let Some(sender) = self.sender() else { return };
        let id = message.id.clone();
        let outcome = self.services.replies.relay(&sender, message).await;
        self.answer(&sender, id.as_deref(), outcome);
    }

    /// Answers a message. Publications that were held back for it follow the answer.
    fn answer(&self, sender: &Sender, id: Option<&str>, outcome: RelayOutcome) {
        match outcome {
            RelayOutcome::Queued { task_id, is_streamed, hold } => {
                let json = self.queued(sender, |event| task_queued(event, &task_id, id));
                // The first events of a streamed reply are often there already.
                match is_streamed {
                    true => self.send_event_with_next(&json),
                    false => self.send_event(&json),
                }
                drop(hold);
            }
            RelayOutcome::Duplicate { task_id } => {
                let id = id.unwrap_or_default();
                self.send_event(
                    &self.queued(sender, |event| task_queued_before(event, &task_id, id)),
                );
            }
            RelayOutcome::Refused(refusal) => self.refuse(&refusal.event().id(id)),
            RelayOutcome::Failed { error, hold } => {
                self.send_error(&relay_error_event(&error).id(id));
                drop(hold);
            }
            RelayOutcome::SenderLeft => {}
        }
    }

    /// The upstream decides what the event is called.
    fn queued(&self, sender: &Sender, json: impl FnOnce(&str) -> String) -> String {
        let config = self.services.config();
        let upstream = sender.route.upstream.as_deref().unwrap_or_default();
        json(config.upstreams.queued_event(upstream, &sender.channel))
    }

    /// This client as the sender of a message. `None` if it has no channel, to which a reply could go.
    pub(super) fn sender(&self) -> Option<Sender> {
        let client = &self.client;
        Some(Sender {
            socket: Rc::clone(&self.socket),
            route: client.route(),
            route_metrics: Arc::clone(&self.route_metrics),
            channel: client.channel.clone()?,
            params: client.params.clone(),
            user_id: client.user_id().cloned(),
            key: client.sender(),
            username: client.username(),
            connection_id: client.connection_id,
            request_id: client.request_id.clone(),
            trace: client.trace(),
            forwarded: client.forwarded().cloned(),
        })
    }
}
