//! What a client's frames come to before anything is relayed: checks, the connection's own limits, and
//! an answer to everything that is refused.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::{Session, Upstream, own};
use crate::config::Rate;
use crate::limits::{LimitName, LocalBucket, Verdict};
use crate::protocol::{ClientFrame, CloseReason, ErrorCode, ErrorEvent, pong};
use crate::telemetry;
use crate::upstream::SocketMessage;

/// Messages of one client that wait for the one before them.
const INBOX_LENGTH: usize = 16;

/// Pings a client may send; clients ping every 20 to 30 seconds.
pub(super) const PINGS: Rate = Rate { count: 5, per: Duration::from_secs(1), burst: 20 };

/// Refusals a client is answered before it counts as flooding.
const REFUSALS: Rate = Rate { count: 1, per: Duration::from_secs(1), burst: 30 };

/// A checked message.
pub(super) struct Queued {
    pub text: String,
    pub id: Option<String>,
    pub data: Box<RawValue>,
    /// When it came.
    pub received_at: Instant,
}

/// Messages of one client in the order they came, while the first is being relayed. At most
/// [`INBOX_LENGTH`]; the next is answered with `busy`.
#[derive(Default)]
pub(super) struct Inbox {
    waiting: VecDeque<Queued>,
    /// A task works through it.
    relaying: bool,
}

impl Inbox {
    pub fn is_busy(&self) -> bool {
        self.relaying
    }

    /// The next message for the relaying task; `None` ends its work.
    pub fn next(&mut self) -> Option<Queued> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            *self = Self::default();
        }
        next
    }
}

impl Session {
    pub(super) fn on_json(self: &Rc<Self>, text: &str) {
        let frame = ClientFrame::parse(text);
        let (kind, id) = match &frame {
            Ok(ClientFrame::Ping) => ("ping", None),
            Ok(ClientFrame::Cancel { .. }) => ("cancel", None),
            Ok(ClientFrame::Resume(_)) => ("resume", None),
            Ok(ClientFrame::Refresh(_)) => ("refresh", None),
            Ok(ClientFrame::Message { id, .. }) => ("message", id.as_deref()),
            Err(_) => ("invalid", None),
        };
        telemetry::messages::frame_received(self.log_fields(), kind, text.len(), id);
        match frame {
            Ok(ClientFrame::Ping) => self.on_application_ping(),
            Ok(ClientFrame::Cancel { task_id }) => self.on_cancel(&task_id),
            Ok(ClientFrame::Resume(point)) => {
                if self.check_action() {
                    self.on_resume(point);
                }
            }
            Ok(ClientFrame::Refresh(renewal)) => {
                if self.check_action() {
                    self.on_refresh(renewal);
                }
            }
            Ok(ClientFrame::Message { text: message, id, data }) => {
                if self.check_message(&message, id.as_deref()) {
                    match self.client.upstream {
                        Upstream::Relay => {
                            let (data, received_at) = (data.to_owned(), Instant::now());
                            self.enqueue(Queued { text: message, id, data, received_at });
                        }
                        _ => self.to_bridge(SocketMessage::Text(own(text))),
                    }
                }
            }
            Err(invalid) => self.refuse(&ErrorEvent::new(invalid.code(), invalid.text())),
        }
    }

    pub(super) fn on_raw_text(self: &Rc<Self>, text: &str) {
        self.on_raw(SocketMessage::Text(own(text)));
    }

    pub(super) fn on_raw_binary(self: &Rc<Self>, bytes: &[u8]) {
        self.on_raw(SocketMessage::Binary(bytes::Bytes::copy_from_slice(bytes)));
    }

    fn on_raw(self: &Rc<Self>, message: SocketMessage) {
        let (kind, bytes) = match &message {
            SocketMessage::Text(text) => ("text", text.len()),
            SocketMessage::Binary(bytes) => ("binary", bytes.len()),
        };
        telemetry::messages::frame_received(self.log_fields(), kind, bytes, None);
        if self.client.upstream == Upstream::None {
            return self.refuse_silently();
        }
        match self.take_message_token() {
            Verdict::Allowed => self.to_bridge(message),
            Verdict::Refused { .. } => {
                telemetry::messages::local_limit_refused(LimitName::MessagesPerConnection.label());
                self.socket.close(CloseReason::Flooding);
            }
        }
    }

    /// Checks that need nothing but this connection.
    fn check_message(&self, message: &str, id: Option<&str>) -> bool {
        let limit = self.client.route.borrow().max_message_chars;
        if self.client.upstream == Upstream::None {
            let text = "this route takes no messages";
            self.refuse(&ErrorEvent::new(ErrorCode::Forbidden, text).id(id));
        } else if message.len() > limit && message.chars().count() > limit {
            let text = format!("\"message\" is longer than {limit} characters");
            self.refuse(&ErrorEvent::new(ErrorCode::MessageTooLong, &text).id(id));
        } else if let Verdict::Refused { retry_after } = self.take_message_token() {
            telemetry::messages::local_limit_refused(LimitName::MessagesPerConnection.label());
            self.refuse_rate(retry_after, id);
        } else {
            return true;
        }
        false
    }

    /// For frames that are no messages and cost as much as one.
    fn check_action(&self) -> bool {
        match self.take_message_token() {
            Verdict::Allowed => true,
            Verdict::Refused { retry_after } => {
                telemetry::messages::local_limit_refused(LimitName::MessagesPerConnection.label());
                self.refuse_rate(retry_after, None);
                false
            }
        }
    }

    fn take_message_token(&self) -> Verdict {
        match self.client.route.borrow().limits.messages_per_connection {
            None => Verdict::Allowed,
            Some(rate) => self.take(&self.message_bucket, rate),
        }
    }

    pub(super) fn take(&self, bucket: &std::cell::Cell<LocalBucket>, rate: Rate) -> Verdict {
        let mut taken = bucket.get();
        let verdict = taken.take(rate, self.services.now());
        bucket.set(taken);
        verdict
    }

    fn on_application_ping(&self) {
        match self.take(&self.ping_bucket, PINGS) {
            Verdict::Allowed => self.say(pong()),
            Verdict::Refused { retry_after } => {
                telemetry::messages::local_limit_refused(LimitName::PingsPerConnection.label());
                self.refuse_rate(retry_after, None);
            }
        }
    }

    /// The socket has answered it; here it only counts.
    pub(super) fn on_protocol_ping(&self) {
        if let Verdict::Refused { .. } = self.take(&self.ping_bucket, PINGS) {
            telemetry::messages::local_limit_refused(LimitName::PingsPerConnection.label());
            self.refuse_silently();
        }
    }

    fn enqueue(self: &Rc<Self>, message: Queued) {
        let mut inbox = self.inbox.borrow_mut();
        if inbox.waiting.len() >= INBOX_LENGTH {
            drop(inbox);
            let text = "too many of your messages are still on their way";
            let id = message.id.as_deref();
            return self.refuse(&ErrorEvent::new(ErrorCode::Busy, text).id(id).retry_after(1));
        }
        inbox.waiting.push_back(message);
        if !std::mem::replace(&mut inbox.relaying, true) {
            tokio::task::spawn_local(Rc::clone(self).relay_all());
        }
    }

    /// Answers with an error that says when to try again.
    pub(super) fn refuse_rate(&self, retry_after: Duration, id: Option<&str>) {
        let seconds = retry_after.as_millis().div_ceil(1000).max(1) as u64;
        let event = ErrorEvent::new(ErrorCode::RateLimited, "too many messages");
        self.refuse(&event.retry_after(seconds).id(id));
    }

    /// Answers with an error; a client that goes on all the same is closed.
    pub(super) fn refuse(&self, event: &ErrorEvent<'_>) {
        self.route_metrics.messages.refused(self.log_fields(), event.code(), event.message_id());
        self.say(&event.to_json());
        self.refuse_silently();
    }

    fn refuse_silently(&self) {
        if let Verdict::Refused { .. } = self.take(&self.refusal_bucket, REFUSALS) {
            self.socket.close(CloseReason::Flooding);
        }
    }
}
