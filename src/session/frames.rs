//! The frames that a client sends: parsed, checked against the connection's own limits, and answered where
//! they are refused.

use std::rc::Rc;
use std::time::Instant;

use serde_json::value::RawValue;

use super::{Session, UpstreamMode};
use crate::config::{Binary, Protocol, UpstreamKind};
use crate::generations::Task;
use crate::limits::Verdict;
use crate::protocol::{
    ClientFrame, CloseReason, ErrorCode, ErrorEvent, InvalidFrame, NotPortable, check_portable,
    pong,
};
use crate::replies::{CancelOutcome, CheckedMessage};
use crate::socket::Event;
use crate::socket::frame::Opcode;
use crate::telemetry;
use crate::telemetry::messages::{FrameKind, LocalLimit, TooBigFrom};

impl Session {
    pub(super) fn on_event(self: &Rc<Self>, event: Event<'_>) {
        match event {
            Event::Text(text) => match self.client.route.borrow().protocol {
                Protocol::Json => self.on_json(text),
                Protocol::Raw | Protocol::Pass => self.on_raw(Opcode::Text, text.as_bytes()),
            },
            Event::Binary(bytes) => match self.client.route.borrow().binary {
                Binary::Reject => self.socket.close(CloseReason::BinaryRefused),
                Binary::Relay => self.on_raw(Opcode::Binary, bytes),
            },
            Event::Ping => {
                self.take_frame();
                self.on_protocol_ping();
            }
            Event::Pong | Event::SmallFragment => self.take_frame(),
            Event::Fault(reason) => self.on_fault(reason),
        }
    }

    fn on_fault(&self, reason: CloseReason) {
        if reason == CloseReason::MessageTooBig {
            let max = self.client.route.borrow().max_message_bytes;
            let (from, bytes) = (TooBigFrom::Client, self.socket.refused_bytes());
            telemetry::messages::message_too_big(self.log_fields(), from, bytes, max);
        }
        match self.bridge() {
            // What the upstream still answers to earlier messages goes out first.
            Some(bridge) => bridge.finish(reason.code(), reason.text()),
            None => self.socket.close(reason),
        }
    }

    fn on_json(self: &Rc<Self>, text: &str) {
        #[cfg(any(test, feature = "internals"))]
        super::panics::panic_on_request(text.strip_prefix("{\"type\"").unwrap_or_default());
        let frame = ClientFrame::parse(text).and_then(|frame| match frame {
            ClientFrame::Message { text: None, .. } if self.needs_text() => {
                Err(InvalidFrame::EmptyMessage)
            }
            frame => Ok(frame),
        });
        let (kind, id) = match &frame {
            Ok(ClientFrame::Ping) => (FrameKind::Ping, None),
            Ok(ClientFrame::Cancel { .. }) => (FrameKind::Cancel, None),
            Ok(ClientFrame::Resume(_)) => (FrameKind::Resume, None),
            Ok(ClientFrame::Refresh(_)) => (FrameKind::Refresh, None),
            Ok(ClientFrame::Message { id, .. }) => (FrameKind::Message, id.as_deref()),
            Err(_) => (FrameKind::Invalid, None),
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
                let message = message.unwrap_or_default();
                if !self.check_message(&message, data, id.as_deref()) {
                    return;
                }
                if self.client.upstream == UpstreamMode::Relay {
                    let (data, received_at) = (data.to_owned(), Instant::now());
                    self.enqueue(CheckedMessage { text: message, id, data, received_at });
                } else {
                    self.send_to_bridge(Opcode::Text, text.as_bytes());
                }
            }
            Err(invalid) => self.refuse(&ErrorEvent::new(invalid.code(), invalid.text())),
        }
    }

    /// A frame of a route with `protocol = "raw"`, where nothing can be answered.
    fn on_raw(&self, opcode: Opcode, payload: &[u8]) {
        let kind = match opcode {
            Opcode::Text => FrameKind::Text,
            _ => FrameKind::Binary,
        };
        telemetry::messages::frame_received(self.log_fields(), kind, payload.len(), None);
        if self.client.upstream == UpstreamMode::None {
            return self.count_refusal();
        }
        match self.take_message() {
            Verdict::Allowed => self.send_to_bridge(opcode, payload),
            Verdict::Refused { .. } => self.close_over_limit(LocalLimit::MessagesPerConnection),
        }
    }

    /// Makes the checks that need nothing but this connection, and answers a message that fails one.
    /// Returns whether the message passed.
    fn check_message(&self, message: &str, data: &RawValue, id: Option<&str>) -> bool {
        let limit = self.client.route.borrow().max_message_chars;
        if self.client.upstream == UpstreamMode::None {
            let text = "this route takes no messages";
            self.refuse(&ErrorEvent::new(ErrorCode::Forbidden, text).id(id));
        } else if message.len() > limit && message.chars().count() > limit {
            let text = format!("\"message\" is longer than {limit} characters");
            self.refuse(&ErrorEvent::new(ErrorCode::MessageTooLong, &text).id(id));
        } else if let Err(why) = self.check_object(data) {
            let invalid = InvalidFrame::from(why);
            self.refuse(&ErrorEvent::new(invalid.code(), invalid.text()).id(id));
        } else if let Verdict::Refused { retry_after } = self.take_message() {
            self.refuse_rate(retry_after, id);
        } else {
            return true;
        }
        false
    }

    /// Whether the text of a message is a part of what the upstream gets, so that there must be one.
    fn needs_text(&self) -> bool {
        let (route, config) = (self.client.route.borrow(), self.services.config());
        match route.upstream.as_deref().and_then(|name| config.upstreams.kind(name)) {
            Some(UpstreamKind::Http(http)) => http.request.needs_text,
            _ => true,
        }
    }

    /// Checks that the upstream can read the client's object. A Celery task and a body that is made of a template have
    /// only some of its fields, which are checked when they are filled in.
    fn check_object(&self, data: &RawValue) -> Result<(), NotPortable> {
        let passes_whole_object = || {
            let (route, config) = (self.client.route.borrow(), self.services.config());
            let kind = route.upstream.as_deref().and_then(|name| config.upstreams.kind(name));
            match kind {
                Some(UpstreamKind::Celery(_)) => false,
                Some(UpstreamKind::Http(http)) => http.request.sends_whole_object(),
                _ => true,
            }
        };
        if passes_whole_object() { check_portable(data.get()) } else { Ok(()) }
    }

    /// Counts a frame that is not a message and costs as much as one. Returns whether it is within the
    /// limit; if not, it has been answered.
    fn check_action(&self) -> bool {
        match self.take_message() {
            Verdict::Allowed => true,
            Verdict::Refused { retry_after } => {
                self.refuse_rate(retry_after, None);
                false
            }
        }
    }

    fn on_application_ping(&self) {
        match self.take_ping() {
            Verdict::Allowed => self.send_event(pong()),
            Verdict::Refused { retry_after } => self.refuse_rate(retry_after, None),
        }
    }

    /// A WebSocket ping, which the socket has answered. Here it is only counted.
    fn on_protocol_ping(&self) {
        if let Verdict::Refused { .. } = self.take_ping() {
            self.count_refusal();
        }
    }

    /// Any client of its channel may cancel a reply; the terminal event is the answer, to everybody. Bounded
    /// like pings, so that a client which has used up its messages can still cancel.
    fn on_cancel(self: &Rc<Self>, task_id: &str) {
        let Some(channel) = self.client.channel.clone() else { return };
        if let Verdict::Refused { retry_after } = self.take_ping() {
            return self.refuse_rate(retry_after, None);
        }
        let task = Task { channel, id: task_id.into() };
        match self.services.replies.cancel_here(&task) {
            Some(outcome) => self.answer_cancel(outcome, task_id),
            None => {
                let session = Rc::clone(self);
                self.spawn(async move {
                    let ttl = session.client.route.borrow().generations.max_duration;
                    let id = task.id.clone();
                    let outcome = session.services.replies.cancel_elsewhere(task, ttl).await;
                    session.answer_cancel(outcome, &id);
                });
            }
        }
    }

    fn answer_cancel(&self, outcome: CancelOutcome, task_id: &str) {
        let event = match outcome {
            CancelOutcome::Requested => return,
            CancelOutcome::UnknownTask => {
                let text = "no such task is running on this channel";
                ErrorEvent::new(ErrorCode::UnknownTask, text)
            }
            CancelOutcome::EngineUnavailable => {
                let text = "other nodes cannot be asked at the moment; try again";
                ErrorEvent::new(ErrorCode::EngineUnavailable, text).retry_after(1)
            }
        };
        self.refuse(&event.task_id(task_id));
    }
}
