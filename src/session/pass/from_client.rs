//! Frames of the client on their way to the upstream: within the route's limits, with fresh masks.

use std::rc::Rc;
use std::task::Context;

use super::relay::{Fault, Relay};
use super::undecided::Held;
use crate::limits::Verdict;
use crate::protocol::CloseReason;
use crate::session::Session;
use crate::socket::frame::Opcode;
use crate::socket::{DataFrame, ScanFault, Scanned, parse_close};
use crate::telemetry;
use crate::telemetry::messages::{FrameKind, LocalLimit, TooBigFrom};

/// A fragment with less payload than this counts as a frame: fragments with more are bounded by the size of their message.
const SMALL_FRAGMENT: u64 = 64;

impl Relay {
    /// Forwards what the client sent, up to a message whose user has to be asked for first.
    pub(super) fn client_bytes(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Option<Held> {
        let session = Rc::clone(&self.session);
        let socket = &session.socket;
        if self.fault.is_some() || !(socket.is_open() || socket.awaits_close()) {
            socket.count_discarded(bytes.len());
            return None;
        }
        let has_user_limit = session.has_user_limit();
        let max_message = session.client.route.borrow().max_message_bytes;
        // What is still to be forwarded, up to what is scanned.
        let (mut from, mut at) = (0, 0);
        loop {
            let before = at;
            match self.from_client.next(&mut bytes[at..], max_message) {
                Ok(Scanned::Data { length, begins }) => {
                    at += length;
                    if let Some(frame) = begins {
                        session.count_frame(&frame);
                        if has_user_limit && frame.is_first && socket.is_open() {
                            self.send_upstream(cx, &bytes[from..before]);
                            return Some(Held { start: before, length });
                        }
                    }
                }
                Ok(Scanned::Control { opcode: Opcode::Close, length, payload }) => {
                    self.send_upstream(cx, &bytes[from..before]);
                    let close = &bytes[before..before + length];
                    self.client_close(cx, close, payload.as_ref());
                    return None;
                }
                Ok(Scanned::Control { opcode, length, payload }) => {
                    at += length;
                    session.take_frame();
                    if opcode == Opcode::Pong && socket.takes_pong(payload.as_ref()) {
                        self.send_upstream(cx, &bytes[from..before]);
                        from = at;
                    }
                }
                Ok(Scanned::Partial) => {
                    self.send_upstream(cx, &bytes[from..at]);
                    self.from_client.keep(&bytes[at..]);
                    return None;
                }
                Err(fault) => {
                    self.send_upstream(cx, &bytes[from..at]);
                    self.client_fault(fault, max_message);
                    return None;
                }
            }
            if !socket.is_open() {
                // The frame that exceeded a limit is not forwarded, and what follows is read for a close frame only.
                self.send_upstream(cx, &bytes[from..before.max(from)]);
                from = at;
                if !socket.awaits_close() {
                    socket.count_discarded(bytes.len() - at);
                    return None;
                }
                socket.count_late_frame();
            }
        }
    }

    /// Sends frames of a client that is not closed.
    pub(super) fn send_upstream(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        let is_closing = self.session.socket.awaits_close();
        if let Some(upstream) = self.upstream.as_mut().filter(|_| !is_closing) {
            upstream.stream.send(cx, bytes);
        }
    }

    /// The client sent a close frame: its first word, or the answer to the upstream's.
    fn client_close(&mut self, cx: &mut Context<'_>, close: &[u8], payload: &[u8]) {
        let session = Rc::clone(&self.session);
        let parsed = match parse_close(payload) {
            Ok(parsed) => parsed,
            Err(reason) => return self.refuse_client(reason, reason.text()),
        };
        let was_open = session.socket.is_open();
        session.socket.client_closed(parsed);
        if let Some(upstream) = &mut self.upstream {
            upstream.stream.send(cx, close);
            upstream.is_told_to_close = true;
        }
        match was_open {
            true => self.await_answer(),
            false => self.let_upstream_end(),
        }
    }

    fn client_fault(&mut self, fault: ScanFault, max_message: usize) {
        match fault {
            ScanFault::Protocol => {
                let reason = CloseReason::ProtocolError;
                self.refuse_client(reason, reason.text());
            }
            ScanFault::TooBig(bytes) => {
                let fields = self.session.log_fields();
                telemetry::messages::message_too_big(
                    fields,
                    TooBigFrom::Client,
                    bytes,
                    max_message,
                );
                let text = format!("{bytes} bytes are over max_message_bytes ({max_message})");
                self.refuse_client(CloseReason::MessageTooBig, &text);
            }
        }
    }

    /// Reads nothing more of the client, and closes it once the upstream has answered what came before.
    fn refuse_client(&mut self, reason: CloseReason, text: &str) {
        let session = Rc::clone(&self.session);
        if !session.socket.is_open() {
            return session.socket.client_closed(None);
        }
        session.socket.set_fault(reason);
        if self.upstream.is_none() {
            return session.socket.close_over(reason, text);
        }
        self.fault = Some(Box::new(Fault::new(reason, text)));
        self.await_quiet();
    }
}

impl Session {
    /// Counts a frame of the client, and closes a client that sends too many.
    fn count_frame(&self, frame: &DataFrame) {
        if !(frame.is_first && frame.is_last) && frame.length < SMALL_FRAGMENT {
            self.take_frame();
        }
        if !frame.is_first || !self.socket.is_open() {
            return;
        }
        let kind = if frame.is_text { FrameKind::Text } else { FrameKind::Binary };
        let bytes = usize::try_from(frame.length).unwrap_or(usize::MAX);
        telemetry::messages::frame_received(self.log_fields(), kind, bytes, None);
        match self.take_message() {
            Verdict::Allowed => self.route_metrics.messages.queued(self.log_fields(), None),
            Verdict::Refused { .. } => self.close_over_limit(LocalLimit::MessagesPerConnection),
        }
    }
}
