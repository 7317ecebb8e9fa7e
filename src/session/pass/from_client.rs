//! Frames of the client on their way to the upstream: within the route's limits, with fresh masks.

use std::rc::Rc;
use std::task::Context;

use super::relay::Relay;
use crate::limits::Verdict;
use crate::protocol::CloseReason;
use crate::session::Session;
use crate::socket::frame::{self, Opcode};
use crate::socket::{DataFrame, ScanFault, Scanned, parse_close};
use crate::telemetry;
use crate::telemetry::messages::{FrameKind, LocalLimit, TooBigFrom};

/// A fragment with less payload than this counts as a frame: fragments with more are bounded by the size of their message.
const SMALL_FRAGMENT: u64 = 64;

impl Relay {
    /// Forwards what the client sent.
    pub(super) fn client_bytes(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) {
        let session = Rc::clone(&self.session);
        let socket = &session.socket;
        if self.fault.is_some() || !(socket.is_open() || socket.awaits_close()) {
            return socket.count_discarded(bytes.len());
        }
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
                    }
                }
                Ok(Scanned::Control { opcode: Opcode::Close, length, payload }) => {
                    self.send_upstream(cx, &bytes[from..before]);
                    let close = &bytes[before..before + length];
                    return self.client_close(cx, close, payload.as_ref());
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
                    return self.from_client.keep(&bytes[at..]);
                }
                Err(fault) => {
                    self.send_upstream(cx, &bytes[from..at]);
                    return self.client_fault(cx, fault, max_message);
                }
            }
            if !socket.is_open() {
                // The frame that exceeded a limit is not forwarded, and what follows is read for a close frame only.
                self.send_upstream(cx, &bytes[from..before.max(from)]);
                from = at;
                if !socket.awaits_close() {
                    return socket.count_discarded(bytes.len() - at);
                }
                socket.count_late_frame();
            }
        }
    }

    /// Sends frames of a client that is not closed.
    fn send_upstream(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        let is_closing = self.session.socket.awaits_close();
        if let Some(upstream) = self.upstream.as_mut().filter(|_| !is_closing) {
            upstream.send(cx, bytes);
        }
    }

    /// The client sent a close frame: its first word, or the answer to the upstream's.
    fn client_close(&mut self, cx: &mut Context<'_>, close: &[u8], payload: &[u8]) {
        let session = Rc::clone(&self.session);
        let parsed = match parse_close(payload) {
            Ok(parsed) => parsed,
            Err(reason) => return self.refuse_client(cx, reason, reason.text()),
        };
        let was_open = session.socket.is_open();
        session.socket.client_closed(parsed);
        if let Some(upstream) = &mut self.upstream {
            upstream.send(cx, close);
            upstream.is_told_to_close = true;
        }
        match was_open {
            true => self.await_answer(),
            false => self.let_upstream_end(),
        }
    }

    fn client_fault(&mut self, cx: &mut Context<'_>, fault: ScanFault, max_message: usize) {
        match fault {
            ScanFault::Protocol => {
                let reason = CloseReason::ProtocolError;
                self.refuse_client(cx, reason, reason.text());
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
                self.refuse_client(cx, CloseReason::MessageTooBig, &text);
            }
        }
    }

    /// Reads nothing more of the client, and closes it once the upstream has answered what came before.
    fn refuse_client(&mut self, cx: &mut Context<'_>, reason: CloseReason, text: &str) {
        let session = Rc::clone(&self.session);
        if !session.socket.is_open() {
            return session.socket.client_closed(None);
        }
        session.socket.set_fault(reason);
        self.fault = Some((reason, text.into()));
        match &mut self.upstream {
            Some(upstream) => {
                upstream.send(cx, &frame::masked_close(reason.code(), text));
                upstream.is_told_to_close = true;
                self.await_answer();
            }
            None => session.socket.close_over(reason, text),
        }
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
